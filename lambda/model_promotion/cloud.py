"""What the decisions see of AWS: values, and the calls that they need. No AWS here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from model_promotion.errors import BadMessageError, MisconfiguredError, TransientError

__all__ = [
    "EARLIEST",
    "NONE",
    "NOT_PROMOTED",
    "Cloud",
    "Event",
    "Outcome",
    "Package",
    "ParameterVersion",
    "Stack",
    "described",
    "require_updatable",
]

#: What a parameter holds while no model is meant (ml_lifecycle.registry's first value).
NONE = "none"
#: States from which UpdateStack is possible (CloudFormation, stack status codes).
UPDATABLE = frozenset(
    {
        "CREATE_COMPLETE",
        "UPDATE_COMPLETE",
        "UPDATE_ROLLBACK_COMPLETE",
        "IMPORT_COMPLETE",
        "IMPORT_ROLLBACK_COMPLETE",
    }
)
#: How the approval description of a version begins that was refused.
NOT_PROMOTED = "Not promoted: "
ROLLED_BACK = "UPDATE_ROLLBACK_COMPLETE"
EARLIEST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Package:
    """A model package as it is now."""

    arn: str
    approval_status: str
    evaluation_uri: str | None
    #: Who set its status last, as SageMaker knows it, and what they said.
    approved_by: str = ""
    reason: str = ""
    #: When anything of it was changed last; an approval is such a change.
    modified: datetime = EARLIEST


@dataclass(frozen=True, kw_only=True)
class ParameterVersion:
    """One version of a parameter that holds a model package."""

    value: str
    modified: datetime
    description: str = ""

    @property
    def approved_at(self) -> datetime:
        """Time of the approval that this value came from; the earliest time when it came from a template."""
        found = re.search(r"approved_at=(\S+)", self.description)
        if found is None:
            return EARLIEST
        return datetime.fromisoformat(found.group(1))


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The serving stack as it is now."""

    status: str
    status_reason: str
    updated: datetime | None
    #: Names of the template's parameters.
    parameters: tuple[str, ...]
    #: What the approval parameter was when the stack last reached its present state.
    serves: str
    #: The same of the challenger's parameter; ``none`` too when the template has no challenger.
    challenger: str = NONE


@dataclass(frozen=True, kw_only=True)
class Event:
    """An EventBridge event, or one of our own schedules in the same form."""

    id: str
    kind: str
    time: datetime
    detail: Mapping[str, object]

    @classmethod
    def parse(cls, body: object) -> Event:
        """Read the parsed body of a queue message.

        Raises:
            BadMessageError: it is no EventBridge event.
        """
        if not isinstance(body, Mapping):
            raise BadMessageError(f"the message must be a JSON object, got {type(body).__name__}")
        kind, detail, text = body.get("detail-type"), body.get("detail"), body.get("time")
        if not isinstance(kind, str) or not isinstance(detail, Mapping) or not isinstance(text, str):
            raise BadMessageError("the message has no detail-type, detail or time")
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            raise BadMessageError(f"the event's time must be ISO 8601, got {text!r}") from None
        if time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        return cls(id=str(body.get("id", "")), kind=kind, time=time, detail=detail)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was done with an event: promoted, testing, refused, restored, rejected or ignored; and why."""

    action: str
    why: str
    package: str | None = None
    fields: Mapping[str, object] = field(default_factory=dict)


class Cloud(Protocol):
    """The part of AWS that this function needs."""

    def package(self, arn: str) -> Package | None:
        """The package, or ``None`` when it no longer exists."""

    def approved(self, group_name: str) -> Sequence[str]:
        """ARNs of the group's newest approved versions, newest first."""

    def reject(self, arn: str, reason: str) -> None:
        """Set the package's approval status to Rejected and say why."""

    def evaluation(self, uri: str) -> object | None:
        """The evaluation report as parsed JSON, or ``None`` when there is no such object or no JSON in it."""

    def history(self, parameter_name: str) -> Sequence[ParameterVersion]:
        """Versions of the parameter, oldest first; never empty."""

    def put(self, parameter_name: str, value: str, description: str) -> None:
        """Write a new version of the parameter."""

    def stack(self, name: str, parameter_name: str, challenger_name: str | None = None) -> Stack:
        """The stack and which values of the parameters it runs."""

    def failures(self, stack_name: str, since: datetime | None) -> Sequence[str]:
        """What failed in the stack's last update, the first failure first; ``since`` is when that began."""

    def update(self, stack_name: str, parameters: Sequence[str]) -> bool:
        """Update the stack with its previous template and values; ``False``: nothing to update."""

    def now(self) -> datetime:
        """The time, aware."""

    def schedule(self, name: str, when: datetime, body: Mapping[str, object]) -> None:
        """Have ``body`` sent to this function's queue once; nothing when that is planned already."""

    def alarms(self) -> Mapping[str, bool]:
        """The challenger's alarms by name, and whether each is in ALARM."""

    def requests(self, since: datetime, until: datetime) -> int:
        """How many requests the challenger had."""


def described(event: Event, package: Package) -> str:
    """The description of a parameter's new version: when, who, why."""
    who = package.approved_by or "an unnamed principal"
    why = " ".join(package.reason.split()) or "no reason given"
    return f"approved_at={event.time.isoformat()} by {who}: {why} (event {event.id or 'unknown'})"


def require_updatable(stack: Stack, name: str) -> None:
    """Refuse to go on while the stack cannot be updated.

    Raises:
        TransientError: it is busy.
        MisconfiguredError: no retry heals it.
    """
    if stack.status.endswith("_IN_PROGRESS"):
        raise TransientError(f"stack {name} is {stack.status}")
    if stack.status not in UPDATABLE:
        raise MisconfiguredError(
            f"stack {name} is {stack.status} and cannot be updated; repair it, then approve again"
        )
