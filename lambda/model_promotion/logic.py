"""Which model the serving stack is to run.

Two events arrive, twice, late and in any order: a package was approved; an update of the serving stack was
rolled back. The state is kept where people look for it: in the approval parameter (its description holds the
time of the approval that it came from), in the package's approval status, and in the stack.

* An approval older than the one that the parameter came from is stale and does nothing.
* While the stack is busy nothing is written; the message waits in the queue.
* Writing the parameter and updating the stack are repeatable, so a crash between them is healed by the retry.
* A rolled-back model is first rejected in the registry, then the parameter goes back to what the stack still
  runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from model_promotion.errors import BadMessageError, MisconfiguredError, TransientError
from model_promotion.settings import Acceptance, Settings

__all__ = ["Cloud", "Event", "Outcome", "Package", "ParameterVersion", "Stack", "handle"]

APPROVAL = "SageMaker Model Package State Change"
ROLLBACK = "CloudFormation Stack Status Change"

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
ROLLED_BACK = "UPDATE_ROLLBACK_COMPLETE"
EARLIEST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Package:
    """A model package as it is now."""

    arn: str
    approval_status: str
    evaluation_uri: str | None


@dataclass(frozen=True, kw_only=True)
class ParameterVersion:
    """One version of the approval parameter."""

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


class Cloud(Protocol):
    """The part of AWS that this function needs."""

    def package(self, arn: str) -> Package | None:
        """The package, or ``None`` when it no longer exists."""

    def reject(self, arn: str, reason: str) -> None:
        """Set the package's approval status to Rejected and say why."""

    def evaluation(self, uri: str) -> object | None:
        """The evaluation report as parsed JSON, or ``None`` when there is no such object or no JSON in it."""

    def history(self, parameter_name: str) -> Sequence[ParameterVersion]:
        """Versions of the parameter, oldest first; never empty."""

    def put(self, parameter_name: str, value: str, description: str) -> None:
        """Write a new version of the parameter."""

    def stack(self, name: str, parameter_name: str) -> Stack:
        """The stack and which value of the approval parameter it runs."""

    def update(self, stack_name: str, parameters: Sequence[str]) -> bool:
        """Update the stack with its previous template and values; ``False``: nothing to update."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """An EventBridge event."""

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
    """What was done with an event: promoted, refused, restored, rejected or ignored; and why."""

    action: str
    why: str
    package: str | None = None
    fields: Mapping[str, object] = field(default_factory=dict)


def handle(event: Event, cloud: Cloud, settings: Settings) -> Outcome:
    """Do what the event calls for.

    Raises:
        BadMessageError: neither an approval nor a stack event.
        TransientError: the stack is busy; try again later.
        MisconfiguredError: the stack is in a state that no retry heals.
    """
    if event.kind == APPROVAL:
        return _approved(event, cloud, settings)
    if event.kind == ROLLBACK:
        return _rolled_back(event, cloud, settings)
    raise BadMessageError(f"cannot read detail-type {event.kind!r}; known are {APPROVAL!r} and {ROLLBACK!r}")


def _approved(event: Event, cloud: Cloud, settings: Settings) -> Outcome:
    group, arn = event.detail.get("ModelPackageGroupName"), event.detail.get("ModelPackageArn")
    if not isinstance(group, str) or not isinstance(arn, str):
        raise BadMessageError("the approval has no detail.ModelPackageGroupName or detail.ModelPackageArn")
    if group != settings.group_name:
        why = f"the package belongs to group {group}, not to {settings.group_name}"
        return Outcome(action="ignored", why=why, package=arn)
    package = cloud.package(arn)
    parameter = cloud.history(settings.parameter_name)[-1]
    outdated = _outdated(event, package, parameter)
    if package is None or outdated is not None:
        return Outcome(action="ignored", why=outdated or "the package no longer exists", package=arn)

    stack = cloud.stack(settings.stack_name, settings.parameter_name)
    _require_updatable(stack, settings)
    if _was_rolled_back(parameter, stack):
        # The rollback's own event has not been handled yet.
        restored = _restore(parameter, stack, cloud, settings)
        if parameter.value == arn:
            return restored
        parameter = cloud.history(settings.parameter_name)[-1]
    if parameter.value == arn and stack.serves == arn:
        return Outcome(action="ignored", why="it is in service already", package=arn)

    objection = _objection(package, cloud, settings.acceptance)
    if objection is not None:
        cloud.reject(arn, f"Not promoted: {objection}")
        return Outcome(action="refused", why=objection, package=arn)
    if parameter.value != arn:
        when = f"approved_at={event.time.isoformat()}"
        cloud.put(settings.parameter_name, arn, f"{when} by event {event.id or 'unknown'}")
    changed = cloud.update(settings.stack_name, stack.parameters)
    why = f"stack {settings.stack_name} is being updated" if changed else "the stack runs it already"
    return Outcome(action="promoted", why=why, package=arn, fields={"replaces": parameter.value})


def _outdated(event: Event, package: Package | None, parameter: ParameterVersion) -> str | None:
    """Return why the approval no longer counts, or ``None`` when it does."""
    if event.detail.get("ModelApprovalStatus") != "Approved":
        return f"the event says {event.detail.get('ModelApprovalStatus')}, not Approved"
    if package is not None and package.approval_status != "Approved":
        return f"the package is {package.approval_status} by now"
    if event.time < parameter.approved_at:
        return f"a later approval, of {parameter.approved_at.isoformat()}, has been acted on"
    return None


def _rolled_back(event: Event, cloud: Cloud, settings: Settings) -> Outcome:
    stack_id, details = event.detail.get("stack-id"), event.detail.get("status-details")
    if not isinstance(stack_id, str) or not isinstance(details, Mapping):
        raise BadMessageError("the stack event has no detail.stack-id or detail.status-details")

    def ignored(why: str) -> Outcome:
        return Outcome(action="ignored", why=why)

    # arn:{partition}:cloudformation:{region}:{account}:stack/{name}/{unique id}
    parts = stack_id.split("/")
    if len(parts) < 2 or parts[1] != settings.stack_name:
        return ignored(f"the event is of stack {stack_id}, not of {settings.stack_name}")
    if details.get("status") != ROLLED_BACK:
        return ignored(f"the event says {details.get('status')}, not {ROLLED_BACK}")
    stack = cloud.stack(settings.stack_name, settings.parameter_name)
    if stack.status != ROLLED_BACK:
        return ignored(f"the stack is {stack.status} by now")
    parameter = cloud.history(settings.parameter_name)[-1]
    if parameter.value == stack.serves:
        return ignored("the parameter is what the stack runs; another change was rolled back")
    if not _was_rolled_back(parameter, stack):
        return ignored("the parameter was written after that update; its own update follows")
    return _restore(parameter, stack, cloud, settings)


def _was_rolled_back(parameter: ParameterVersion, stack: Stack) -> bool:
    """Whether the stack's last update came after the parameter was written, and failed."""
    return (
        stack.status == ROLLED_BACK
        and parameter.value != stack.serves
        and stack.updated is not None
        and parameter.modified <= stack.updated
    )


def _restore(parameter: ParameterVersion, stack: Stack, cloud: Cloud, settings: Settings) -> Outcome:
    """Reject what was rolled back and set the parameter to what the stack still runs.

    The rejection comes first: should the second call fail, the retry finds the same difference and does both.
    """
    versions = [v.value for v in cloud.history(settings.parameter_name)]
    if stack.serves not in versions:
        raise MisconfiguredError(
            f"stack {settings.stack_name} runs {stack.serves}, "
            f"which parameter {settings.parameter_name} never was"
        )
    failed = parameter.value
    reason = f"Rolled back by CloudFormation: {stack.status_reason or 'the deployment did not become stable'}"
    if cloud.package(failed) is not None:
        cloud.reject(failed, reason)
    # The approval's time stays: an approval given while this one was being deployed is still newer than it.
    when = "" if parameter.approved_at == EARLIEST else f"approved_at={parameter.approved_at.isoformat()} "
    cloud.put(settings.parameter_name, stack.serves, f"{when}restored after the rollback of {failed}")
    return Outcome(
        action="restored",
        why=reason,
        package=failed,
        fields={"serves": stack.serves, "version": len(versions) - versions[::-1].index(stack.serves)},
    )


def _require_updatable(stack: Stack, settings: Settings) -> None:
    if stack.status.endswith("_IN_PROGRESS"):
        raise TransientError(f"stack {settings.stack_name} is {stack.status}")
    if stack.status not in UPDATABLE:
        raise MisconfiguredError(
            f"stack {settings.stack_name} is {stack.status} and cannot be updated; "
            "repair it, then approve again"
        )


def _objection(package: Package, cloud: Cloud, acceptance: Acceptance) -> str | None:
    """Return why the package's evaluation does not carry a promotion, or ``None`` when it does."""
    if package.evaluation_uri is None:
        return "the package has no model quality statistics (ModelMetrics.ModelQuality.Statistics)"
    report = cloud.evaluation(package.evaluation_uri)
    if report is None:
        return f"there is no evaluation at {package.evaluation_uri}"
    metrics = report.get("metrics") if isinstance(report, Mapping) else None
    metric = metrics.get(acceptance.metric) if isinstance(metrics, Mapping) else None
    value = metric.get("value") if isinstance(metric, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return (
            f"the evaluation at {package.evaluation_uri} has no number at metrics.{acceptance.metric}.value"
        )
    return acceptance.objection(float(value))
