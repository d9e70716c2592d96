"""What fires by the clock: EventBridge Scheduler's schedules and EventBridge rules with a schedule.

A schedule calls its target under its own role, as Scheduler does: a templated target, or any API of AWS by a
universal target (`arn:aws:scheduler:::aws-sdk:service:api`). An event whose target is a SageMaker pipeline
starts it.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from rehearsal import ministack_bridge as bridge
from rehearsal.clock import Due, Source
from rehearsal.control import ControlError, control
from rehearsal.executors import containers, pipelines, table_optimizers
from rehearsal.executors.serving import endpoints

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["RuleClock", "ScheduleClock", "next_time", "substitute"]

_RATE = re.compile(r"rate\((\d+)\s+(minute|minutes|hour|hours|day|days)\)")
_AT = re.compile(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)")
_UNITS = {"minute": 60, "hour": 3600, "day": 86400}
_UNIVERSAL = re.compile(r"arn:[^:]+:scheduler:::aws-sdk:([^:]+):([^:]+)")
# Scheduler names services as the SDK for Java does; only some differ from botocore.
_SDK_NAMES = {
    "sfn": "stepfunctions",
    "cloudwatchlogs": "logs",
    "eventbridge": "events",
    "cloudwatch": "cloudwatch",
}
# A retry in the rehearsal comes at once; more would only make a defect take longer to show.
_LARGEST_RETRIES = 2
# What the clock does every minute is not told among what it fired.
_EVERY_MINUTE = frozenset({"evaluate alarms", "evaluate scaling"})
# What a jump never passes over: no schedule of the app, AWS does it of itself.
_NO_SCHEDULES = (*_EVERY_MINUTE, table_optimizers.TITLE)
_TRANSIENT = frozenset(
    {
        "ThrottlingException",
        "TooManyRequestsException",
        "InternalFailure",
        "ServiceUnavailable",
        "ServiceException",
    }
)


class TargetError(Exception):
    """A target that could not be called; `transient` says whether a retry makes sense."""

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


def next_time(expression: str, *, after: datetime, anchor: datetime, zone: str = "UTC") -> datetime | None:
    """The first moment after `after` that a schedule expression means; None when there is none left.

    :param anchor: when a rate begins to count
    :raises ValueError: an expression that AWS does not take
    """
    rate = _RATE.fullmatch(expression.strip())
    if rate is not None:
        interval = int(rate[1]) * _UNITS[rate[2].rstrip("s")]
        if interval <= 0:
            raise ValueError(f"a rate must be positive, got {expression!r}")
        count = max(0, int((after - anchor).total_seconds() // interval)) + 1
        return anchor + timedelta(seconds=count * interval)
    at = _AT.fullmatch(expression.strip())
    if at is not None:
        when = datetime.fromisoformat(at[1]).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
        return when if when > after else None
    found = bridge.next_cron(expression.strip(), after.astimezone(ZoneInfo(zone)))
    return None if found is None else found.astimezone(UTC)


def substitute(value: str, context: Mapping[str, str]) -> str:
    """Replace Scheduler's context attributes such as `<aws.scheduler.execution-id>` in an input."""
    for key, replacement in context.items():
        value = value.replace(f"<aws.scheduler.{key}>", replacement)
    return value


def _moment(value: Any) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        return value
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    found = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


class _Earliest:
    """Collects the due work of the earliest moment."""

    def __init__(self) -> None:
        self.found: list[Due] = []

    def offer(self, due: Due) -> None:
        if not self.found or due.when < self.found[0].when:
            self.found = [due]
        elif due.when == self.found[0].when:
            self.found.append(due)


class ScheduleClock(Source):
    """Due work of EventBridge Scheduler."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._refused: set[tuple[str, str]] = set()

    def next_due(self, after: datetime) -> Sequence[Due]:
        """The schedules that are due first after `after`."""
        earliest = _Earliest()
        for account, region, schedule in bridge.schedules():
            if schedule.get("State") != "ENABLED":
                continue
            when = self._next(schedule, after)
            if when is not None:
                earliest.offer(
                    Due(
                        when=when,
                        title=f"schedule {schedule['Name']}",
                        run=lambda s=schedule, w=when, a=account, r=region: self._fire(s, w, a, r),  # type: ignore[misc]
                    )
                )
        return earliest.found

    def _next(self, schedule: Mapping[str, Any], after: datetime) -> datetime | None:
        start, end = _moment(schedule.get("StartDate")), _moment(schedule.get("EndDate"))
        created = _moment(schedule["CreationDate"])
        expression = schedule["ScheduleExpression"]
        anchor = start if start is not None else created
        if anchor is None:
            raise ValueError(f"schedule {schedule['Name']} has no creation date")
        begin = after if start is None else max(after, start - timedelta(microseconds=1))
        if start is not None and start > after and _RATE.fullmatch(expression):
            when: datetime | None = start
        else:
            try:
                when = next_time(
                    expression,
                    after=begin,
                    anchor=anchor,
                    zone=schedule.get("ScheduleExpressionTimezone") or "UTC",
                )
            except (ValueError, KeyError) as error:
                key = (str(schedule["Name"]), str(expression))
                if key not in self._refused:
                    self._refused.add(key)
                    self._runtime.ledger.failed("schedule", str(schedule["Name"]), str(error))
                return None
        return None if when is None or (end is not None and when > end) else when

    def _fire(self, schedule: Mapping[str, Any], when: datetime, account: str, region: str) -> None:
        endpoints.flush_captures()
        containers.start_work(
            self._runtime, f"schedule {schedule['Name']}", _call_target, self._runtime, schedule, when, region
        )
        if schedule.get("ActionAfterCompletion") == "DELETE" and self._next(schedule, when) is None:
            bridge.forget_schedule(schedule, account=account, region=region)


class RuleClock(Source):
    """Due work of EventBridge rules with a schedule."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def next_due(self, after: datetime) -> Sequence[Due]:
        """The rules that are due first after `after`."""
        earliest = _Earliest()
        for account, region, rule, targets in bridge.scheduled_rules():
            anchor = _moment(rule.get("CreationTime")) or after
            when = next_time(rule["ScheduleExpression"], after=after, anchor=anchor)
            if when is not None:
                earliest.offer(
                    Due(
                        when=when,
                        title=f"rule {rule['Name']}",
                        run=lambda r=rule, t=targets, w=when, a=account, g=region: self._fire(r, t, w, a, g),  # type: ignore[misc]
                    )
                )
        return earliest.found

    def _fire(
        self,
        rule: Mapping[str, Any],
        targets: Sequence[Mapping[str, Any]],
        when: datetime,
        account: str,
        region: str,
    ) -> None:
        endpoints.flush_captures()
        bridge.fire_rule(rule, targets, account=account, region=region, time=when)
        self._runtime.ledger.ran("rule", str(rule["Name"]), targets=[target["Arn"] for target in targets])


# ---------------------------------------------------------------------- targets


def _call_target(runtime: Runtime, schedule: Mapping[str, Any], when: datetime, region: str) -> None:
    target = schedule["Target"]
    retries = min(int(target.get("RetryPolicy", {}).get("MaximumRetryAttempts", 185)), _LARGEST_RETRIES)
    context = {
        "schedule-arn": str(schedule["Arn"]),
        "scheduled-time": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "execution-id": str(uuid.uuid4()),
    }
    attempt = 0
    while True:
        attempt += 1
        given = substitute(str(target.get("Input", "")), {**context, "attempt-number": str(attempt)})
        try:
            answer = _deliver(runtime, target, given, region)
        except TargetError as error:
            if error.transient and attempt <= retries:
                time.sleep(0.2)
                continue
            runtime.ledger.failed("schedule", str(schedule["Name"]), str(error), target=target["Arn"])
            _dead_letter(runtime, schedule, given, error, region)
            return
        runtime.ledger.ran(
            "schedule", str(schedule["Name"]), target=target["Arn"], at=context["scheduled-time"], **answer
        )
        return


def _deliver(runtime: Runtime, target: Mapping[str, Any], given: str, region: str) -> dict[str, Any]:
    """Call a target once as the schedule's role."""
    from botocore.exceptions import BotoCoreError, ClientError

    role, arn = str(target["RoleArn"]), str(target["Arn"])
    if not bridge.trusts(role, "scheduler.amazonaws.com"):
        raise TargetError(f"scheduler.amazonaws.com may not assume {role}; add it to the role's trust policy")
    try:
        universal = _UNIVERSAL.fullmatch(arn)
        if universal is not None:
            return _universal(runtime, role, universal[1], universal[2], given, region)
        return _templated(runtime, target, role, arn, given, region)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        raise TargetError(str(error), transient=code in _TRANSIENT or status >= 500) from error
    except BotoCoreError as error:
        raise TargetError(str(error)) from error
    except json.JSONDecodeError as error:
        raise TargetError(f"the input is not JSON: {error}") from error


def _universal(  # noqa: PLR0917
    runtime: Runtime, role: str, service: str, api: str, given: str, region: str
) -> dict[str, Any]:
    from botocore import xform_name
    from botocore.exceptions import UnknownServiceError

    name = _SDK_NAMES.get(service.lower(), service.lower())
    try:
        client = runtime.client(name, role=role, region=region)
    except UnknownServiceError as error:
        raise TargetError(f"there is no service {service}: {error}") from error
    operation = next((o for o in client.meta.service_model.operation_names if o.lower() == api.lower()), None)
    if operation is None or api[:1].isupper():
        raise TargetError(
            f"{service} has no API {api}; a universal target names it like startPipelineExecution"
        )
    answer = getattr(client, xform_name(operation))(**json.loads(given or "{}"))
    return {"answer": {k: v for k, v in answer.items() if isinstance(v, str)}}


def _templated(  # noqa: PLR0917
    runtime: Runtime, target: Mapping[str, Any], role: str, arn: str, given: str, region: str
) -> dict[str, Any]:
    service = arn.split(":")[2]
    name = "stepfunctions" if service == "states" else service
    if service not in _CALLS:
        raise TargetError(
            f"the rehearsal calls no target {arn}; it knows {', '.join(sorted(_CALLS))} and universal ones"
        )
    _CALLS[service](runtime.client(name, role=role, region=region), target, arn, given)
    return {}


def _queue_url(client: Any, arn: str) -> str:
    # Not asked of the service: the schedule's role needs SendMessage only.
    account, name = arn.split(":")[4:6]
    return f"{client.meta.endpoint_url}/{account}/{name}"


def _call_sqs(client: Any, target: Mapping[str, Any], arn: str, given: str) -> None:
    url = _queue_url(client, arn)
    group = target.get("SqsParameters", {}).get("MessageGroupId")
    client.send_message(
        QueueUrl=url, MessageBody=given, **({} if group is None else {"MessageGroupId": group})
    )


def _call_events(client: Any, target: Mapping[str, Any], arn: str, given: str) -> None:
    parameters = target["EventBridgeParameters"]
    entry = {
        "EventBusName": arn,
        "Source": parameters["Source"],
        "DetailType": parameters["DetailType"],
        "Detail": given,
    }
    answer = client.put_events(Entries=[entry])
    if answer["FailedEntryCount"]:
        raise TargetError(str(answer["Entries"][0]))


def _call_sagemaker(client: Any, target: Mapping[str, Any], arn: str, given: str) -> None:
    del given
    parameters = target.get("SageMakerPipelineParameters", {}).get("PipelineParameterList", [])
    client.start_pipeline_execution(PipelineName=arn, PipelineParameters=parameters)


_CALLS: Mapping[str, Callable[[Any, Mapping[str, Any], str, str], object]] = {
    "lambda": lambda client, target, arn, given: client.invoke(  # noqa: ARG005
        FunctionName=arn, InvocationType="Event", Payload=(given or "{}").encode()
    ),
    "sqs": _call_sqs,
    "sns": lambda client, target, arn, given: client.publish(TopicArn=arn, Message=given),  # noqa: ARG005
    "states": lambda client, target, arn, given: client.start_execution(  # noqa: ARG005
        stateMachineArn=arn, input=given or "{}"
    ),
    "events": _call_events,
    "sagemaker": _call_sagemaker,
}


def _dead_letter(
    runtime: Runtime, schedule: Mapping[str, Any], given: str, error: TargetError, region: str
) -> None:
    """Send what could not be delivered to the schedule's dead-letter queue, under its role."""
    from botocore.exceptions import ClientError

    target = schedule["Target"]
    arn = target.get("DeadLetterConfig", {}).get("Arn")
    if arn is None:
        return
    client = runtime.client("sqs", role=target["RoleArn"], region=region)
    try:
        client.send_message(
            QueueUrl=_queue_url(client, arn),
            MessageBody=given or "{}",
            MessageAttributes={
                "ERROR_MESSAGE": {"DataType": "String", "StringValue": str(error)[:1024]},
                "SCHEDULE_ARN": {"DataType": "String", "StringValue": str(schedule["Arn"])},
                "TARGET_ARN": {"DataType": "String", "StringValue": str(target["Arn"])},
            },
        )
    except ClientError as refused:
        runtime.ledger.failed("schedule", str(schedule["Name"]), f"its dead-letter queue {arn}: {refused}")


# ---------------------------------------------------------------------- the clock from outside


def _duration(body: Mapping[str, Any]) -> float:
    units = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}
    unknown = sorted(set(body) - set(units))
    if unknown or not body:
        raise ControlError(
            f"say how far: one or more of {', '.join(units)}; got {', '.join(unknown) or 'nothing'}"
        )
    try:
        return float(sum(units[key] * float(value) for key, value in body.items()))
    except (TypeError, ValueError):
        raise ControlError(f"the durations must be numbers, got {dict(body)}") from None


@control("POST", "/clock/advance")
def _advance(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Let time pass: {"hours": 1}. Answers when everything that fell due has begun.

    {"days": 3, "skip_schedules": true} passes over schedules, scheduled rules and monitoring schedules; the
    ledger keeps how often each was passed over. Alarms and scaling are evaluated, and tables kept in order,
    all the same.
    """
    given = dict(body)
    skips = given.pop("skip_schedules", False)
    seconds = _duration(given)
    endpoints.flush_captures()
    try:
        fired = runtime.clock.advance(
            seconds, skip=lambda due: bool(skips) and not due.title.startswith(_NO_SCHEDULES)
        )
    except (ValueError, TimeoutError) as error:
        raise ControlError(str(error)) from error
    for title, count in sorted(Counter(item.title for item in fired if item.skipped).items()):
        runtime.ledger.recorded("clock", title, f"passed over {count} times by a jump of {seconds:g} s")
    return {
        "now": runtime.clock.now().isoformat(),
        "skipped": sum(item.skipped for item in fired),
        "fired": [
            {"when": item.when.isoformat(), "title": item.title, "error": item.error}
            for item in fired
            if not item.skipped and (item.title not in _EVERY_MINUTE or item.error is not None)
        ],
    }


@control("GET", "/clock")
def _clock(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """The rehearsal's time."""
    del body
    return {"now": runtime.clock.now().isoformat(), "scale": runtime.clock.scale}


def install(runtime: Runtime) -> None:
    """Fire schedules and scheduled rules by the rehearsal's clock; start pipelines that events ask for."""

    def deliver(target: dict[str, Any], event: dict[str, Any], _account: str, region: str) -> None:
        def run() -> None:
            role = str(target.get("RoleArn", ""))
            if not role or not bridge.trusts(role, "events.amazonaws.com"):
                raise TargetError(
                    f"events.amazonaws.com may not assume {role or 'a role: the target has none'}"
                )
            arn = pipelines.start_by_event(runtime, target=target, event=event, region=region)
            runtime.ledger.ran("event-target", str(target["Arn"]), execution=arn)

        containers.start_work(runtime, f"event to {target['Arn']}", run)

    bridge.route_event_target(lambda arn: ":sagemaker:" in arn and ":pipeline/" in arn, deliver)
    runtime.clock.on_error = lambda title, error: runtime.ledger.failed("clock", title, str(error))
    runtime.clock.add_source(ScheduleClock(runtime))
    runtime.clock.add_source(RuleClock(runtime))
