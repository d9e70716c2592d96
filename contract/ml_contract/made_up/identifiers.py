"""New identifiers of the kind that a workload's records have. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ml_contract.compiled import CompiledContract

__all__ = ["NewIdentifiers"]

_TAIL = re.compile(r"(.*?)([0-9]*)", re.DOTALL)


class NewIdentifiers:
    """Identifiers that none of the given records has.

    A number at the end of an identifier is counted on from the highest there is, as wide as it was where
    that is possible; an identifier without one gets one.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]], contract: CompiledContract) -> None:
        column = contract.by_name[contract.identifier]
        self.source = column.source
        self._limit = column.max_length
        self._matches = None if column.pattern is None else re.compile(rf"(?:{column.pattern})\Z").match
        self._maximum = column.maximum
        taken = [str(r.get(self.source, "")) for r in records]
        self._taken = set(taken)
        self._next = 1 + max((int(tail) for text in taken if (tail := _parts(text)[1])), default=0)

    def like(self, identifier: Any) -> Any:
        """The next one, in the form of ``identifier``. Raises ValueError when the field has no room."""
        head, tail = _parts(str(identifier))
        while True:
            text = f"{head}{self._next:0{len(tail)}d}"
            self._next += 1
            if text not in self._taken:
                break
        self._taken.add(text)
        fits = (
            (self._limit is None or len(text) <= self._limit)
            and (self._matches is None or self._matches(text) is not None)
            and (self._maximum is None or isinstance(identifier, str) or int(text) <= self._maximum)
        )
        if not fits:
            raise ValueError(
                f"{self.source}: no further identifier like {identifier!r}: {text!r} does not fit the field"
            )
        return text if isinstance(identifier, str) else int(text)


def _parts(text: str) -> tuple[str, str]:
    """What stands before the digits at the end, and these (ASCII) digits."""
    match = _TAIL.fullmatch(text)
    return (match[1], match[2]) if match is not None else (text, "")
