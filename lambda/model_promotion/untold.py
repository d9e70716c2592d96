"""What an attempt at a message did that ended before it could tell people: read from what it left.

The descriptions of the parameters and of the version say what they came from. A message that is seen again
and finds nothing to do is asked here what it did before. So a notice comes at least once; and again only when
the function died after telling, or when an event came twice and its second message had to wait.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from model_promotion.challenger import ALARM, ENDED
from model_promotion.cloud import NONE, NOT_PROMOTED, Cloud, Event, Outcome, ParameterVersion
from model_promotion.settings import Settings

__all__ = ["left_untold"]

ROLLBACK = "CloudFormation Stack Status Change"


def left_untold(event: Event, cloud: Cloud, settings: Settings) -> Outcome | None:
    """What an earlier attempt at this event has done; ``None`` when it did nothing."""
    champions = cloud.history(settings.parameter_name)
    trials = () if settings.challenger is None else cloud.history(settings.challenger.parameter_name)
    if event.kind == ROLLBACK:
        return _restored(champions, trials, cloud)
    if event.kind in (ENDED, ALARM):
        return _concluded(event, champions, trials)
    latest = champions[-1]
    meant = event.detail.get("ModelPackageArn", latest.value)
    if event.id and f"(event {event.id})" in latest.description and meant == latest.value:
        why = f"stack {settings.stack_name} is being updated"
        return Outcome(action="promoted", package=latest.value, why=why, fields=_replaces(champions))
    return _refused(event, cloud)


def _replaces(champions: Sequence[ParameterVersion]) -> dict[str, object]:
    return {"replaces": champions[-2].value if len(champions) > 1 else NONE}


def _refused(event: Event, cloud: Cloud) -> Outcome | None:
    """A version that was not promoted: its approval description says why."""
    arn = event.detail.get("ModelPackageArn")
    package = cloud.package(arn) if isinstance(arn, str) else None
    if package is None or package.approval_status != "Rejected" or package.modified < event.time:
        return None
    if not package.reason.startswith(NOT_PROMOTED):
        return None
    return Outcome(action="refused", package=package.arn, why=package.reason.removeprefix(NOT_PROMOTED))


def _restored(
    champions: Sequence[ParameterVersion], trials: Sequence[ParameterVersion], cloud: Cloud
) -> Outcome | None:
    """What was rolled back: the parameter that was set back names it, its approval description says why."""
    for version in (*champions[-1:], *trials[-1:]):
        found = re.search(r"(?:restored after|ended by) the rollback of (\S+)$", version.description)
        package = None if found is None else cloud.package(found[1])
        if package is not None and package.approval_status == "Rejected":
            fields = {"serves": champions[-1].value}
            return Outcome(action="restored", package=package.arn, why=package.reason, fields=fields)
    return None


def _concluded(
    event: Event, champions: Sequence[ParameterVersion], trials: Sequence[ParameterVersion]
) -> Outcome | None:
    """How a test ended: the challenger's parameter says it."""
    latest = trials[-1] if trials else None
    found = None if latest is None else re.search(r"(\S+) was (promoted|rejected: .+)$", latest.description)
    if latest is None or found is None:
        return None
    package, end = found[1], found[2]
    if event.kind == ENDED:
        asked = (event.detail.get("ModelPackageArn"), event.detail.get("ApprovedAt"))
        if asked != (package, latest.approved_at.isoformat()):
            return None
    elif (
        end != f"rejected: alarm {event.detail.get('alarmName')} went off" or event.time < latest.approved_at
    ):
        return None
    if end == "promoted":
        why = "its test is over, without an alarm"
        return Outcome(action="promoted", package=package, why=why, fields=_replaces(champions))
    why = end.removeprefix("rejected: ")
    return Outcome(action="rejected", package=package, why=why, fields={"serves": champions[-1].value})
