"""CloudWatch alarms on the rehearsal's clock: evaluated every minute, with missing data as AWS treats it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge
from rehearsal.clock import Due
from rehearsal.executors.metrics import MathError, evaluate_queries

if TYPE_CHECKING:
    from collections.abc import Callable

    from rehearsal.runtime import Runtime

__all__ = ["AlarmClock", "Verdict", "alarm_action", "judge"]

#: What carries out an action of an alarm, by the service of the action's ARN.
_ACTIONS: dict[str, Callable[[Runtime, str, Mapping[str, Any], float | None, datetime], None]] = {}


def alarm_action(service: str) -> Callable[[Any], Any]:
    """Carry out alarm actions whose ARN is of a service: ``function(runtime, arn, alarm, value, at)``.

    It is called each minute that the alarm stands in the state of the action, as CloudWatch does with
    scaling policies; ``value`` is the newest data point, None without one.
    """

    def register(function: Any) -> Any:
        _ACTIONS[service] = function
        return function

    return register


_EVERY = timedelta(minutes=1)
_COMPARES: Mapping[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": lambda value, threshold: value >= threshold,
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
    "LessThanThreshold": lambda value, threshold: value < threshold,
    "LessThanOrEqualToThreshold": lambda value, threshold: value <= threshold,
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What an evaluation says: the state and why."""

    state: str
    reason: str


def judge(  # noqa: PLR0911 - one return per rule
    points: Sequence[float | None],
    *,
    comparison: str,
    threshold: float,
    to_alarm: int,
    missing: str,
    state: str,
) -> Verdict:
    """The state that the data points of the evaluation periods mean, oldest first; None is a missing one.

    :param missing: TreatMissingData: missing, notBreaching, breaching or ignore
    :param state: the state before
    """
    if comparison not in _COMPARES:
        return Verdict(state=state, reason=f"Unchecked: {comparison} is not evaluated in the rehearsal")
    compare = _COMPARES[comparison]
    present = [point for point in points if point is not None]
    breaching = sum(compare(point, threshold) for point in present)
    gaps = len(points) - len(present)
    shown = ", ".join(f"{point:g}" for point in present)
    if not present:
        if missing == "breaching" and gaps >= to_alarm:
            return Verdict(state="ALARM", reason="no datapoints were received and missing data is breaching")
        if missing == "notBreaching":
            return Verdict(state="OK", reason="no datapoints were received and missing data is not breaching")
        if missing == "ignore":
            return Verdict(state=state, reason="no datapoints were received, the state is kept")
        return Verdict(state="INSUFFICIENT_DATA", reason=f"Insufficient Data: {gaps} datapoints were unknown")
    if missing == "breaching":
        breaching += gaps
    crossed = f"{breaching} out of the last {len(points)} datapoints [{shown}] crossed the threshold"
    detail = f"Threshold Crossed: {crossed} {comparison} ({threshold:g}), {to_alarm} needed"
    if breaching >= to_alarm:
        return Verdict(state="ALARM", reason=detail)
    if missing in ("missing", "ignore") and breaching + gaps >= to_alarm and breaching:
        # What is missing could still make it an alarm: the state is kept until the data decides.
        return Verdict(state=state, reason=f"{detail}, {gaps} unknown")
    return Verdict(state="OK", reason=detail)


class AlarmClock:
    """Due work of the clock: every alarm at every full minute, while an evaluation can change anything."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._settled: dict[str, tuple[int, str]] = {}
        self._quiet_until: datetime | None = None

    def next_due(self, after: datetime) -> Sequence[Due]:
        """The next full minute at which an alarm's state may change."""
        alarms = bridge.metric_alarms()
        if not alarms:
            return ()
        now = self._runtime.clock.now()
        if not any(self._may_change(alarm, now.timestamp()) for _, _, alarm in alarms):
            # Nothing new can be seen; the next datapoint makes it worth looking again, from now on.
            self._quiet_until = now
            return ()
        since = after if self._quiet_until is None else max(after, self._quiet_until)
        when = since.replace(second=0, microsecond=0) + _EVERY
        return [Due(when=when, title="evaluate alarms", run=lambda: self.evaluate(when))]

    def _may_change(self, alarm: Mapping[str, Any], now: float) -> bool:
        reach = _period(alarm) * (int(alarm["EvaluationPeriods"]) + 1) + 60
        quiet = bridge.newest_metric_time() < now - reach
        return not quiet or self._settled.get(alarm["AlarmArn"]) != _mark(alarm)

    def evaluate(self, at: datetime) -> int:
        """Evaluate every metric alarm as of `at`; the number that changed."""
        changed = 0
        for account, region, alarm in bridge.metric_alarms():
            acts = any(_service_of(arn) in _ACTIONS for arn in _actions(alarm))
            if not acts and not self._may_change(alarm, at.timestamp()):
                continue
            before = str(alarm["StateValue"])
            points = self._points(account, region, alarm, at.timestamp())
            verdict = _verdict(alarm, points)
            if verdict.state != before:
                self._move(account, region, alarm, verdict, at)
                changed += 1
            self._settled[alarm["AlarmArn"]] = _mark(alarm)
            act(self._runtime, alarm, None if isinstance(points, str) else points[-1], at)
        return changed

    def _points(
        self, account: str, region: str, alarm: Mapping[str, Any], now: float
    ) -> list[float | None] | str:
        """The data points of the evaluation periods, the oldest first; a text says why there are none."""
        period = _period(alarm)
        count = int(alarm["EvaluationPeriods"])
        # An alarm looks every minute at the periods that end now, the newest last.
        end = now // 60 * 60
        periods = [end - period * n for n in range(count, 0, -1)]

        def fetch(stat: Mapping[str, Any]) -> Mapping[float, float]:
            metric = stat["Metric"]
            return bridge.metric_statistics(
                account=account,
                region=region,
                namespace=metric["Namespace"],
                name=metric["MetricName"],
                dimensions={d["Name"]: d["Value"] for d in metric.get("Dimensions") or ()},
                statistic=stat["Stat"],
                period=int(stat["Period"]),
                start=periods[0],
                end=end,
            )

        try:
            series = evaluate_queries(_queries(alarm), fetch, periods)
        except MathError as error:
            self._runtime.ledger.recorded("alarm", alarm["AlarmName"], f"not evaluated: {error}")
            return str(error)
        return [series.get(start) for start in periods]

    def _move(self, account: str, region: str, alarm: dict[str, Any], verdict: Verdict, at: datetime) -> None:
        before = {
            "value": alarm["StateValue"],
            "reason": alarm.get("StateReason", ""),
            "timestamp": _stamp(alarm.get("StateUpdatedTimestamp", at.timestamp())),
        }
        composites = bridge.composite_states(account=account, region=region)
        data = json.dumps({"version": "1.0", "queryDate": _stamp(at.timestamp())})
        bridge.set_alarm_state(
            alarm,
            account=account,
            region=region,
            state=verdict.state,
            reason=verdict.reason,
            reason_data=data,
        )
        self._runtime.ledger.ran(
            "alarm", alarm["AlarmName"], before=before["value"], state=verdict.state, reason=verdict.reason
        )
        tell(self._runtime, region, alarm, before, at)
        for name, state in bridge.composite_states(account=account, region=region).items():
            if composites.get(name) != state:
                self._tell_composite(region, account, name, composites.get(name, ""), state, at)
        _note_actions(self._runtime, alarm)

    def _tell_composite(  # noqa: PLR0917
        self, region: str, account: str, name: str, before: str, state: str, at: datetime
    ) -> None:
        arn = f"arn:aws:cloudwatch:{region}:{account}:alarm:{name}"
        alarm = {"AlarmName": name, "AlarmArn": arn, "StateValue": state, "StateReason": "a child changed"}
        tell(self._runtime, region, alarm, {"value": before}, at)


def _verdict(alarm: Mapping[str, Any], points: list[float | None] | str) -> Verdict:
    if isinstance(points, str):
        return Verdict(state=str(alarm["StateValue"]), reason=f"Unchecked: {points}")
    return judge(
        points,
        comparison=alarm["ComparisonOperator"],
        threshold=float(alarm["Threshold"]),
        to_alarm=int(alarm.get("DatapointsToAlarm") or int(alarm["EvaluationPeriods"])),
        missing=alarm.get("TreatMissingData", "missing"),
        state=str(alarm["StateValue"]),
    )


def act(runtime: Runtime, alarm: Mapping[str, Any], value: float | None, at: datetime) -> None:
    """Carry out the actions of the state that an alarm is in, as far as somebody here carries them out."""
    for arn in _actions(alarm):
        action = _ACTIONS.get(_service_of(arn))
        if action is not None:
            action(runtime, arn, alarm, value, at)


def _service_of(arn: str) -> str:
    return (arn.split(":") + [""] * 3)[2]


def _actions(alarm: Mapping[str, Any]) -> list[str]:
    key = {"ALARM": "AlarmActions", "OK": "OKActions"}.get(
        str(alarm["StateValue"]), "InsufficientDataActions"
    )
    return list(alarm.get(key) or ()) if alarm.get("ActionsEnabled", True) else []


def _mark(alarm: Mapping[str, Any]) -> tuple[int, str]:
    return int(alarm.get("AlarmConfigurationUpdatedTimestamp", 0)), str(alarm["StateValue"])


def tell(
    runtime: Runtime, region: str, alarm: Mapping[str, Any], before: Mapping[str, Any], at: datetime
) -> None:
    """Raise "CloudWatch Alarm State Change"."""
    state = {
        "value": alarm["StateValue"],
        "reason": alarm.get("StateReason", ""),
        "timestamp": _stamp(at.timestamp()),
    }
    if "StateReasonData" in alarm:
        state["reasonData"] = alarm["StateReasonData"]
    runtime.emit(
        "aws.cloudwatch",
        "CloudWatch Alarm State Change",
        {
            "alarmName": alarm["AlarmName"],
            "state": state,
            "previousState": dict(before),
            "configuration": {
                "description": alarm.get("AlarmDescription", ""),
                "metrics": _shown_queries(alarm),
            },
        },
        [alarm["AlarmArn"]],
        region=region,
        time=at,
    )


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")


def _period(alarm: Mapping[str, Any]) -> int:
    if "Metrics" not in alarm:
        return int(alarm["Period"])
    return max(
        (int(query["MetricStat"]["Period"]) for query in alarm["Metrics"] if "MetricStat" in query),
        default=60,
    )


def _queries(alarm: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "Metrics" in alarm:
        return list(alarm["Metrics"])
    stat = {
        "Metric": {
            "Namespace": alarm["Namespace"],
            "MetricName": alarm["MetricName"],
            "Dimensions": alarm.get("Dimensions") or [],
        },
        "Period": alarm["Period"],
        "Stat": alarm.get("ExtendedStatistic") or alarm.get("Statistic"),
    }
    return [{"Id": "m1", "MetricStat": stat, "ReturnData": True}]


def _shown_queries(alarm: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The queries as the event spells them."""
    if "Metrics" not in alarm and "MetricName" not in alarm:
        return []
    shown = []
    for query in _queries(alarm):
        entry: dict[str, Any] = {"id": query["Id"], "returnData": query.get("ReturnData", True)}
        if "Expression" in query:
            entry["expression"] = query["Expression"]
        if "MetricStat" in query:
            stat, metric = query["MetricStat"], query["MetricStat"]["Metric"]
            entry["metricStat"] = {
                "metric": {
                    "namespace": metric["Namespace"],
                    "name": metric["MetricName"],
                    "dimensions": {d["Name"]: d["Value"] for d in metric.get("Dimensions") or ()},
                },
                "period": int(stat["Period"]),
                "stat": stat["Stat"],
            }
        shown.append(entry)
    return shown


def _note_actions(runtime: Runtime, alarm: Mapping[str, Any]) -> None:
    """Say which actions of the new state were not carried out; SNS topics are."""
    for action in _actions(alarm):
        if ":sns:" not in action and _service_of(action) not in _ACTIONS:
            runtime.ledger.recorded("alarm-action", alarm["AlarmName"], f"{action} was not carried out")


def install(runtime: Runtime) -> None:
    """Put CloudWatch on the rehearsal's clock and evaluate its alarms there."""
    bridge.use_clock(runtime.clock.timestamp)
    bridge.use_own_alarms()

    def watch(_account: str, region: str, alarm: dict[str, Any], before: str) -> None:
        tell(runtime, region, alarm, {"value": before}, runtime.clock.now())
        act(runtime, alarm, None, runtime.clock.now())

    bridge.watch_alarm_states(watch)
    runtime.clock.add_source(AlarmClock(runtime))
