"""Which model the serving stack is to run.

Events arrive, twice, late and in any order, and some not at all: a package was approved; an update of the
serving stack was rolled back; the test of a challenger is over, or its alarm rang; an hour has passed, and
what is open is looked for (``reconciliation``). The state is kept where people look for it: in the
parameters (a description says when, by whom and why), in the package's approval status, and in the stack.

* An approval older than the one that the parameter came from is stale and does nothing.
* Of two approvals that are handled at once the later one stays: who wrote over it writes it again.
* While the stack is busy nothing is written; the message waits in the queue.
* Writing a parameter and updating the stack are repeatable, so a crash between them is healed by the retry.
* A rolled-back model is first rejected in the registry, then the parameter goes back to what the stack still
  runs.
* With a champion in service and a rollout that tries challengers, an approval begins a test
  (``challenger``).
"""

from __future__ import annotations

from collections.abc import Mapping

from model_promotion.challenger import ALARM, ENDED, alarm_rang, begin_or_resume, trial_ended
from model_promotion.cloud import (
    NONE,
    NOT_PROMOTED,
    UPDATABLE,
    Cloud,
    Event,
    Outcome,
    Package,
    ParameterVersion,
    Stack,
    described,
    require_updatable,
)
from model_promotion.errors import BadMessageError
from model_promotion.reconciliation import APPROVAL, RECONCILIATION, reconciled
from model_promotion.rollback import read_stack, restore_if_rolled_back, rolled_back
from model_promotion.settings import Settings

__all__ = ["Cloud", "Event", "Outcome", "Package", "ParameterVersion", "Stack", "handle"]

ROLLBACK = "CloudFormation Stack Status Change"


def handle(event: Event, cloud: Cloud, settings: Settings) -> Outcome:
    """Do what the event calls for.

    Raises:
        BadMessageError: an event of another kind.
        TransientError: the stack is busy, or another package is being tried; try again later.
        MisconfiguredError: the stack is in a state that no retry heals.
    """
    if event.kind == APPROVAL:
        return _approved(event, cloud, settings)
    if event.kind == ROLLBACK:
        return rolled_back(event, cloud, settings)
    if event.kind == ENDED:
        return trial_ended(event, cloud, settings)
    if event.kind == ALARM:
        return alarm_rang(event, cloud, settings)
    if event.kind == RECONCILIATION:
        return reconciled(event, cloud, settings, _approved)
    known = ", ".join(map(repr, (APPROVAL, ROLLBACK, ENDED, ALARM, RECONCILIATION)))
    raise BadMessageError(f"cannot read detail-type {event.kind!r}; known are {known}")


def _approved(event: Event, cloud: Cloud, settings: Settings) -> Outcome:
    group, arn = event.detail.get("ModelPackageGroupName"), event.detail.get("ModelPackageArn")
    if not isinstance(group, str) or not isinstance(arn, str):
        raise BadMessageError("the approval has no detail.ModelPackageGroupName or detail.ModelPackageArn")
    package = cloud.package(arn) if group == settings.group_name else None
    outdated = (
        f"the package belongs to group {group}, not to {settings.group_name}"
        if group != settings.group_name
        else _outdated(event, package)
    )
    if package is None or outdated is not None:
        return Outcome(action="ignored", why=outdated or "the package no longer exists", package=arn)
    later = _later(event, cloud, settings)
    if later is not None:
        why = f"a later approval, of {later.approved_at.isoformat()}, has been acted on"
        return _followed(cloud, settings) or Outcome(action="ignored", why=why, package=arn)

    stack = read_stack(cloud, settings)
    require_updatable(stack, settings.stack_name)
    # The rollback's own event has perhaps not been handled yet.
    restored = restore_if_rolled_back(stack, cloud, settings)
    if restored is not None:
        if restored.package == arn:
            return restored
        stack = read_stack(cloud, settings)
        require_updatable(stack, settings.stack_name)
    return _promoted(event, package, stack, cloud, settings)


def _promoted(event: Event, package: Package, stack: Stack, cloud: Cloud, settings: Settings) -> Outcome:
    """Bring an approved package into service, or into a test, unless something speaks against it."""
    arn = package.arn
    champion = cloud.history(settings.parameter_name)[-1].value
    if champion == arn and stack.serves == arn:
        return Outcome(action="ignored", why="it is in service already", package=arn)
    objection = _objection(package, cloud, settings)
    if objection is not None:
        cloud.reject(arn, f"{NOT_PROMOTED}{objection}")
        return Outcome(action="refused", why=objection, package=arn)
    # The first model has nobody to be tried beside; one that is half promoted is not tried again.
    if champion not in (NONE, arn):
        tried = begin_or_resume(event, package, stack, cloud, settings)
        if tried is not None:
            return tried
    if champion != arn:
        cloud.put(settings.parameter_name, arn, described(event, package))
        # Lambda handles two messages at a time at least; the other one may have been faster.
        overwritten = _overwritten(cloud, settings)
        if overwritten is not None:
            cloud.update(settings.stack_name, stack.parameters)
            why = f"{overwritten.value}, approved later, was written at the same time"
            return Outcome(action="ignored", why=why, package=arn)
    changed = cloud.update(settings.stack_name, stack.parameters)
    return Outcome(
        action="promoted",
        why=f"stack {settings.stack_name} is being updated" if changed else "the stack runs it already",
        package=arn,
        fields={"replaces": champion},
    )


def _outdated(event: Event, package: Package | None) -> str | None:
    """Return why the approval no longer counts, or ``None`` when it does."""
    if event.detail.get("ModelApprovalStatus") != "Approved":
        return f"the event says {event.detail.get('ModelApprovalStatus')}, not Approved"
    if package is not None and package.approval_status != "Approved":
        return f"the package is {package.approval_status} by now"
    return None


def _latest(cloud: Cloud, parameter_name: str) -> ParameterVersion:
    """What came from the latest approval: the last version, unless two were written at once."""
    return max(enumerate(cloud.history(parameter_name)), key=lambda item: (item[1].approved_at, item[0]))[1]


def _later(event: Event, cloud: Cloud, settings: Settings) -> ParameterVersion | None:
    """What came from a later approval than this one; ``None`` when nothing did."""
    names = [settings.parameter_name]
    if settings.challenger is not None:
        names.append(settings.challenger.parameter_name)
    latest = max((_latest(cloud, name) for name in names), key=lambda version: version.approved_at)
    return latest if event.time < latest.approved_at else None


def _followed(cloud: Cloud, settings: Settings) -> Outcome | None:
    """Update a stack that does not run what the parameter says; ``None``: it does, or it is busy.

    Whoever wrote the parameter found the stack busy, with an update that had read the value before.
    """
    stack = read_stack(cloud, settings)
    meant = cloud.history(settings.parameter_name)[-1].value
    if stack.status not in UPDATABLE or meant in (NONE, stack.serves):
        return None
    restored = restore_if_rolled_back(stack, cloud, settings)
    if restored is not None:
        return restored
    cloud.update(settings.stack_name, stack.parameters)
    return Outcome(action="promoted", why="the stack follows the parameter", package=meant)


def _overwritten(cloud: Cloud, settings: Settings) -> ParameterVersion | None:
    """Write a later approval again that was written at the same time and came out below; return it."""
    latest, last = _latest(cloud, settings.parameter_name), cloud.history(settings.parameter_name)[-1]
    if latest.value == last.value or latest.approved_at <= last.approved_at:
        return None
    cloud.put(settings.parameter_name, latest.value, latest.description)
    return latest


def _objection(package: Package, cloud: Cloud, settings: Settings) -> str | None:
    """Return why the package is not to be promoted, or ``None`` when it is.

    What the pipeline judged stands in the package's evaluation; it is looked at once more, since a package
    can be registered and approved by hand.
    """
    if settings.require_reason and not package.reason.strip():
        return "the approval gives no reason (ApprovalDescription), which this environment asks for"
    if package.evaluation_uri is None:
        return "the package has no model quality statistics (ModelMetrics.ModelQuality.Statistics)"
    report = cloud.evaluation(package.evaluation_uri)
    if report is None:
        return f"there is no evaluation at {package.evaluation_uri}"
    evaluation = report if isinstance(report, Mapping) else {}
    return _not_good_enough(evaluation, package.evaluation_uri, settings) or _other_verdict(evaluation)


def _not_good_enough(evaluation: Mapping[str, object], uri: str, settings: Settings) -> str | None:
    metrics, name = evaluation.get("metrics"), settings.acceptance.metric
    metric = metrics.get(name) if isinstance(metrics, Mapping) else None
    value = metric.get("value") if isinstance(metric, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"the evaluation at {uri} has no number at metrics.{name}.value"
    return settings.acceptance.objection(float(value))


def _other_verdict(evaluation: Mapping[str, object]) -> str | None:
    """What the evaluation weighed beside the metric: bias, the champion, subgroups."""
    found = evaluation.get("acceptance")
    if not isinstance(found, Mapping) or found.get("verdict", "accepted") == "accepted":
        return None
    return f"its evaluation says {found['verdict']}: {found.get('why', 'no reason given')}"
