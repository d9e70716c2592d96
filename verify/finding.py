"""What a check is and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from verify.context import Context

__all__ = ["Check", "Finding", "Severity"]

#: An error fails the run; a warning is a remark, such as a grant that no code uses.
Severity = Literal["error", "warning"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a check found.

    Args:
        check: id of the check.
        place: stack, logical id and path inside it: ``Dev/Foundation Topic: Tags/0``.
        value: what stands there.
        allowed: what may stand there.
        fix: what to do.
        severity: ``error`` fails the run.
    """

    check: str
    place: str
    value: str
    allowed: str
    fix: str
    severity: Severity = "error"
    #: Environment variables that are set where it was found, where that matters.
    variables: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.place}: {self.value}; allowed: {self.allowed}; fix: {self.fix}"

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {key: value for key, value in asdict(self).items() if key != "variables"}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One cross-check.

    Args:
        id: by which findings and acceptances name it.
        title: what it looks at, in a line.
        proves: what holds when it finds nothing.
        source: where AWS, or our code, says what is allowed.
        run: finds; it is called once for an assembly.
    """

    id: str
    title: str
    proves: str
    source: str
    run: Callable[[Context], Iterator[Finding]]
