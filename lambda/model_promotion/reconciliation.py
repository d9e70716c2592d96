"""What no event has told of: found by looking at the registry, the parameters and the stack themselves.

SageMaker sends its events as best effort, so an approval can get lost before it is in the queue (Amazon
EventBridge Events Reference, "Delivery level for AWS service events"); a message can be given up. A schedule
therefore asks every hour what is open:

* an update that was rolled back and not undone;
* a parameter that the stack does not follow;
* a test whose end, or whose alarm, nobody told of;
* an approved version above every version that was ever meant to serve.

An approved version below one of those is left alone: when it was approved cannot be told from a later change
of its metadata, and bringing an old model back is a person's decision. So is one from before the parameter
was made: of a group that a former stack left behind. What changed within ``GRACE`` is left to its own event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from model_promotion.challenger import resume_or_end
from model_promotion.cloud import NONE, UPDATABLE, Cloud, Event, Outcome, Stack
from model_promotion.rollback import read_stack, restore_if_rolled_back
from model_promotion.settings import Settings

__all__ = ["GRACE", "RECONCILIATION", "reconciled"]

#: Our own schedule, in the form of an event.
RECONCILIATION: Final = "Promotion Reconciliation"
APPROVAL: Final = "SageMaker Model Package State Change"
#: An event that is on its way, and a message that is being handled, are given so long.
GRACE: Final = timedelta(minutes=15)


def reconciled(
    event: Event, cloud: Cloud, settings: Settings, approved: Callable[[Event, Cloud, Settings], Outcome]
) -> Outcome:
    """Do what is open; ``approved`` handles an approval's event."""
    stack = read_stack(cloud, settings)
    if stack.status not in UPDATABLE:
        # The next hour asks again; a message that waits for that would only add to the others.
        return Outcome(action="ignored", why=f"stack {settings.stack_name} is {stack.status}")
    found = restore_if_rolled_back(stack, cloud, settings)
    if found is None and settings.challenger is not None:
        found = resume_or_end(event, stack, cloud, settings, grace=GRACE)
    if found is None:
        open_approval = _half_promoted(event, stack, cloud, settings) or _never_told(event, cloud, settings)
        if open_approval is None:
            return Outcome(action="ignored", why="nothing is open")
        found = approved(open_approval, cloud, settings)
    if found.action == "ignored":
        return found
    return replace(found, why=f"{found.why} (found by the hourly reconciliation; its event was lost)")


def _half_promoted(event: Event, stack: Stack, cloud: Cloud, settings: Settings) -> Event | None:
    """The approval behind a parameter that the stack does not follow."""
    meant = cloud.history(settings.parameter_name)[-1]
    if meant.value in (NONE, stack.serves) or event.time - meant.modified < GRACE:
        return None
    return _approval(event, meant.value, meant.approved_at, settings)


def _never_told(event: Event, cloud: Cloud, settings: Settings) -> Event | None:
    """The newest approval that nothing was done about."""
    names = [settings.parameter_name]
    if settings.challenger is not None:
        names.append(settings.challenger.parameter_name)
    histories = [cloud.history(name) for name in names]
    highest = max(_number(version.value) for history in histories for version in history)
    made = histories[0][0].modified
    for arn in cloud.approved(settings.group_name):
        if _number(arn) <= highest:
            continue
        package = cloud.package(arn)
        if package is not None and made <= package.modified <= event.time - GRACE:
            return _approval(event, arn, package.modified, settings)
    return None


def _number(arn: str) -> int:
    """The number of a version, the end of its ARN; 0 of what is no version."""
    end = arn.rpartition("/")[2]
    return int(end) if end.isdecimal() else 0


def _approval(event: Event, arn: str, time: datetime, settings: Settings) -> Event:
    detail = {
        "ModelPackageGroupName": settings.group_name,
        "ModelPackageArn": arn,
        "ModelApprovalStatus": "Approved",
    }
    return replace(event, kind=APPROVAL, time=time, detail=detail)
