"""Time: the clock that services read, schedules and rules that have one."""

from __future__ import annotations

import importlib
import time as _real_time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from rehearsal.ministack_bridge._inside import account_scope, substitute


def use_clock(now: Callable[[], float]) -> None:
    """Let CloudWatch, EventBridge and EventBridge Scheduler read another clock than the machine's.

    Their own timers are switched off: who brings the clock fires schedules and evaluates alarms too.
    """
    clock = SimpleNamespace(time=now, sleep=_real_time.sleep)
    services = {n: importlib.import_module(f"ministack.services.{n}") for n in ("eventbridge", "scheduler")}
    substitute(importlib.import_module("ministack.services.cloudwatch"), "time", clock)
    substitute(services["scheduler"], "time", clock)
    # Only the times that EventBridge shows: what it puts into a queue is due by the queue's own clock.
    substitute(services["eventbridge"], "_now_ts", now)
    for module in services.values():
        substitute(module, "start_scheduler", lambda: None)


def schedules() -> list[tuple[str, str, dict[str, Any]]]:
    """Return every schedule of EventBridge Scheduler with its account and region."""
    scheduler = importlib.import_module("ministack.services.scheduler")
    found = list(scheduler._schedules._data.items())
    return [(account, region, schedule) for (account, region, _), schedule in found]


def forget_schedule(schedule: Mapping[str, Any], *, account: str, region: str) -> None:
    """Delete a schedule that has completed and asked for it."""
    scheduler = importlib.import_module("ministack.services.scheduler")
    with account_scope(account, region):
        scheduler._schedules.pop(f"{schedule['GroupName']}/{schedule['Name']}", None)


def scheduled_rules() -> list[tuple[str, str, dict[str, Any], list[dict[str, Any]]]]:
    """Return every enabled EventBridge rule that has a schedule: account, region, rule, targets."""
    eventbridge = importlib.import_module("ministack.services.eventbridge")
    return [
        (account, region, rule, list(eventbridge._targets._data.get((account, region, key), [])))
        for (account, region, key), rule in list(eventbridge._rules._data.items())
        if rule.get("ScheduleExpression") and rule.get("State") == "ENABLED"
    ]


def next_cron(expression: str, after: datetime) -> datetime | None:
    """Return the first moment after ``after`` that a ``cron(...)`` expression names.

    Raises ValueError when it is none that AWS takes.
    """
    eventbridge = importlib.import_module("ministack.services.eventbridge")
    fields = eventbridge._parse_cron_fields(expression)
    if fields is None:
        raise ValueError(f"{expression!r} is not a cron expression of AWS's six fields")
    found = eventbridge._cron_next_fire(fields, after)
    return found if isinstance(found, datetime) else None


def fire_rule(
    rule: Mapping[str, Any],
    targets: Sequence[Mapping[str, Any]],
    *,
    account: str,
    region: str,
    time: datetime,
) -> None:
    """Send the event of a scheduled rule to its targets."""
    eventbridge = importlib.import_module("ministack.services.eventbridge")
    event = {
        "EventId": str(uuid.uuid4()),
        "Source": "aws.events",
        "DetailType": "Scheduled Event",
        "Detail": "{}",
        "EventBusName": rule.get("EventBusName", "default"),
        "Time": int(time.timestamp()),
        "Resources": [rule.get("Arn", "")],
        "Account": account,
        "Region": region,
    }
    with account_scope(account, region):
        view = eventbridge._pattern_event_view(event)
        for target in targets:
            eventbridge._invoke_target(target, event, rule, view)
