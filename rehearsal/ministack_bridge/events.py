"""EventBridge: events of AWS's services, and where rules deliver to."""

from __future__ import annotations

import importlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rehearsal.ministack_bridge._inside import account_scope, substitute
from rehearsal.ministack_bridge.deliveries import delivery_refusal


def emit_event(
    *,
    source: str,
    detail_type: str,
    detail: Mapping[str, Any],
    resources: Sequence[str],
    account: str,
    region: str,
    time: datetime,
) -> None:
    """Put an event on the default bus as an AWS service does (PutEvents refuses sources that begin with
    ``aws.``).
    """
    eventbridge = importlib.import_module("ministack.services.eventbridge")
    record = {
        "EventId": str(uuid.uuid4()),
        "Source": source,
        "DetailType": detail_type,
        "Detail": json.dumps(detail, default=_json_value),
        "EventBusName": "default",
        "Time": int(time.timestamp()),
        "Resources": list(resources),
        "Account": account,
        "Region": region,
    }
    with account_scope(account, region):
        view = eventbridge._pattern_event_view(record)
        eventbridge._events_log_list().append(record)
        eventbridge._dispatch_event(record, view)
        eventbridge._archive_event(record, view)


def _json_value(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be part of an event")


def route_event_target(
    is_ours: Callable[[str], bool],
    deliver: Callable[[dict[str, Any], dict[str, Any], str, str], None],
) -> None:
    """Deliver events to targets that ministack only warns about.

    ``deliver(target, event, account, region)`` gets the events for the targets whose ARN ``is_ours``.
    """
    eventbridge = importlib.import_module("ministack.services.eventbridge")
    responses = importlib.import_module("ministack.core.responses")
    original = eventbridge._invoke_target

    def invoke(target: dict[str, Any], event: Any, rule: Any, view: Any = None) -> None:
        if is_ours(str(target.get("Arn", ""))):
            shown = (view or eventbridge._pattern_event_view(event)).event_with_detail()
            deliver(dict(target), dict(shown), responses.get_account_id(), responses.get_region())
            return
        original(target, event, rule, view)

    substitute(eventbridge, "_invoke_target", invoke)


def guard_event_targets(refused: Callable[[str, str, str], None]) -> None:
    """Drop events for targets that EventBridge may not deliver to, as AWS does.

    ``refused(rule ARN, target ARN, why)`` is told: on AWS only the metric FailedInvocations tells.
    """
    eventbridge = importlib.import_module("ministack.services.eventbridge")
    responses = importlib.import_module("ministack.core.responses")
    original = eventbridge._invoke_target

    def invoke(target: dict[str, Any], event: Any, rule: Any, view: Any = None) -> None:
        arn, source = str(target.get("Arn", "")), str(rule.get("Arn", ""))
        account, region = responses.get_account_id(), responses.get_region()
        why = None
        if arn.startswith("arn:") and not target.get("RoleArn"):
            why = delivery_refusal(
                "events.amazonaws.com", arn, source_arn=source, account=account, region=region
            )
        if why is not None:
            refused(source, arn, why)
            return
        original(target, event, rule, view)

    substitute(eventbridge, "_invoke_target", invoke)


def meet_event_deliveries(
    meet: Callable[[str, str, Mapping[str, Any], Callable[[], None]], None],
) -> None:
    """Let somebody else decide on every delivery of an event to a target of a rule.

    ``meet(rule ARN, target ARN, event, deliver)`` is called in place of the delivery; ``deliver()`` makes it,
    as often as it is called, from any thread.
    """
    eventbridge = importlib.import_module("ministack.services.eventbridge")
    responses = importlib.import_module("ministack.core.responses")
    original = eventbridge._invoke_target

    def invoke(target: dict[str, Any], event: Any, rule: Any, view: Any = None) -> None:
        account, region = responses.get_account_id(), responses.get_region()
        shown = view or eventbridge._pattern_event_view(event)

        def deliver() -> None:
            with account_scope(account, region):
                original(target, event, rule, shown)

        meet(str(rule.get("Arn", "")), str(target.get("Arn", "")), shown.event_with_detail(), deliver)

    substitute(eventbridge, "_invoke_target", invoke)
