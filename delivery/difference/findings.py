"""What a difference is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["KINDS", "Difference", "Finding", "StackDifference"]

#: Kind of a finding -> what it says, the gravest first. The order is that of every output.
KINDS: Mapping[str, str] = {
    "data-lost": "data is deleted",
    "data-left": "data stays behind under its old name; what is new begins empty",
    "refused": "CloudFormation will refuse it",
    "access": "somebody may do more than before",
    "network": "something is reached that was not",
    "protection": "something is protected less than before",
    "replaced": "is replaced: made anew, then the old one deleted",
    "perhaps-replaced": "may be replaced, which the registry leaves open",
    "destroyed": "is deleted",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a person should know before they approve."""

    kind: str
    stack: str
    resource: str
    type: str
    why: str


@dataclass(frozen=True, kw_only=True)
class StackDifference:
    """What changes in one stack: logical ids that are added, changed and removed."""

    stack: str
    state: str  # new | changed | gone | same
    added: Sequence[str] = ()
    changed: Sequence[str] = ()
    removed: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The whole of it. ``cost`` and ``cost_text`` are what the cost tool says; None: it was not asked."""

    stacks: Sequence[StackDifference]
    findings: Sequence[Finding]
    cost: Mapping[str, Any] | None = None
    cost_text: str | None = None
    notes: Sequence[str] = field(default_factory=tuple)

    def counts(self) -> Mapping[str, int]:
        """How many findings of each kind there are, the gravest first; kinds without any are left out."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in KINDS if kind in found}

    def of(self, kinds: Sequence[str]) -> tuple[Finding, ...]:
        """The findings of some kinds."""
        return tuple(finding for finding in self.findings if finding.kind in kinds)
