"""Which versions of a model package group go to the stage ``Archived``.

Never one that serves, served before it (a rollback returns to it), is being tried, or waits for a decision.
Nothing is deleted: an archived version keeps its files, its card and its approval, and can be approved again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

__all__ = ["STAGE", "Rule", "Version", "archived", "serving"]

#: The stage of a version's life (UpdateModelPackage, ModelLifeCycle).
STAGE = "Archived"
WAITING = "PendingManualApproval"
NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of the group. ``stage`` is where it is in its life, None when nobody said."""

    arn: str
    number: int
    created: datetime
    approval_status: str
    stage: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """``keep_versions`` newest stay; of the others those older than ``after`` go, all without it."""

    keep_versions: int
    after: timedelta | None = None


def serving(history: Sequence[str]) -> set[str]:
    """Return what must stay of a parameter's values, oldest first: the last one and the one before it."""
    found: list[str] = []
    for value in reversed(history):
        if value not in (NONE, *found):
            found.append(value)
        if len(found) == 2:
            break
    return set(found)


def archived(
    versions: Iterable[Version], *, kept: Collection[str], rule: Rule, now: datetime
) -> list[Version]:
    """Return the versions that go now, oldest first."""
    newest_first = sorted(versions, key=lambda version: version.number, reverse=True)
    old = newest_first[rule.keep_versions :]
    gone = [
        version
        for version in old
        if version.arn not in kept
        and version.stage != STAGE
        and version.approval_status != WAITING
        and (rule.after is None or now - version.created > rule.after)
    ]
    return gone[::-1]
