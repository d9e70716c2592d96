"""CloudWatch: alarms and metrics."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rehearsal.ministack_bridge._inside import account_scope, substitute


def use_own_alarms() -> None:
    """Stop ministack's evaluation of alarms and let alarms keep their metric math.

    Its evaluation looks at all dimensions of a metric together and knows neither periods nor missing data.
    """
    cloudwatch = importlib.import_module("ministack.services.cloudwatch")
    provisioners = importlib.import_module("ministack.services.cloudformation.provisioners")
    substitute(cloudwatch, "_evaluate_alarm", lambda _alarm: None)
    record, put = provisioners._cw_metric_alarm_record, cloudwatch._put_metric_alarm

    def keep_metrics(alarm: dict[str, Any], metrics: list[Any]) -> None:
        for key in (
            "MetricName",
            "Namespace",
            "Statistic",
            "ExtendedStatistic",
            "Period",
            "Dimensions",
            "Unit",
        ):
            alarm.pop(key, None)
        alarm["Metrics"] = metrics

    def record_with_metrics(name: str, props: dict[str, Any]) -> dict[str, Any]:
        metrics = props.get("Metrics")
        if not metrics:
            return record(name, props)  # type: ignore[no-any-return]
        plain = {**props, "MetricName": "-", "Namespace": "-"}
        del plain["Metrics"]
        alarm: dict[str, Any] = record(name, plain)
        keep_metrics(alarm, [_typed_metric(metric) for metric in metrics])
        return alarm

    def put_with_metrics(params: Any, data: Any, is_cbor: bool, is_json: bool = False) -> Any:
        answer = put(params, data, is_cbor, is_json)
        metrics = data.get("Metrics") if is_cbor or is_json else None
        if metrics and data.get("AlarmName") in cloudwatch._alarms:
            keep_metrics(cloudwatch._alarms[data["AlarmName"]], list(metrics))
        return answer

    substitute(provisioners, "_cw_metric_alarm_record", record_with_metrics)
    substitute(cloudwatch, "_put_metric_alarm", put_with_metrics)


def _typed_metric(metric: Mapping[str, Any]) -> dict[str, Any]:
    """A template's metric data query; a template may write numbers and booleans as text."""
    out = dict(metric)
    if isinstance(out.get("ReturnData"), str):
        out["ReturnData"] = out["ReturnData"].lower() == "true"
    if "Period" in out:
        out["Period"] = int(out["Period"])
    if "MetricStat" in out:
        out["MetricStat"] = {**out["MetricStat"], "Period": int(out["MetricStat"]["Period"])}
    return out


def metric_alarms() -> list[tuple[str, str, dict[str, Any]]]:
    """Return every metric alarm with its account and region. The dictionaries are the live ones."""
    cloudwatch = importlib.import_module("ministack.services.cloudwatch")
    return [
        (account, region, alarm) for (account, region, _), alarm in list(cloudwatch._alarms._data.items())
    ]


def alarm_state(name: str, *, account: str, region: str) -> str | None:
    """Return the state of a metric or composite alarm, None when there is no such alarm."""
    cloudwatch = importlib.import_module("ministack.services.cloudwatch")
    with account_scope(account, region):
        alarm = cloudwatch._alarms.get(name) or cloudwatch._composite_alarms.get(name)
    return None if alarm is None else str(alarm["StateValue"])


def set_alarm_state(
    alarm: dict[str, Any], *, account: str, region: str, state: str, reason: str, reason_data: str
) -> None:
    """Move an alarm to another state as CloudWatch does: history, actions, composite alarms above it."""
    cloudwatch = importlib.import_module("ministack.services.cloudwatch")
    with account_scope(account, region):
        before, now = alarm["StateValue"], int(cloudwatch.time.time())
        alarm.update(
            StateValue=state,
            StateReason=reason,
            StateReasonData=reason_data,
            StateUpdatedTimestamp=now,
        )
        if state != before:
            alarm["StateTransitionedTimestamp"] = now
        cloudwatch._record_history(alarm["AlarmName"], before, state, reason)
        cloudwatch._dispatch_alarm_actions(alarm, before, state, reason)
        cloudwatch._evaluate_parent_alarms(alarm)


def composite_states(*, account: str, region: str) -> dict[str, str]:
    """Return the states of the composite alarms of a region."""
    cloudwatch = importlib.import_module("ministack.services.cloudwatch")
    with account_scope(account, region):
        return {name: alarm["StateValue"] for name, alarm in cloudwatch._composite_alarms.items()}


def watch_alarm_states(watcher: Callable[[str, str, dict[str, Any], str], None]) -> None:
    """Call ``watcher(account, region, alarm, state before)`` after SetAlarmState changed a state."""
    cloudwatch = importlib.import_module("ministack.services.cloudwatch")
    responses = importlib.import_module("ministack.core.responses")
    original = cloudwatch._set_alarm_state

    def set_state(params: Any, data: Any, is_cbor: bool, is_json: bool = False) -> Any:
        name = data.get("AlarmName", "") if is_cbor or is_json else cloudwatch._p(params, "AlarmName")
        alarm = cloudwatch._alarms.get(name) or cloudwatch._composite_alarms.get(name)
        before = None if alarm is None else alarm["StateValue"]
        answer = original(params, data, is_cbor, is_json)
        if alarm is not None and before is not None and alarm["StateValue"] != before:
            alarm["StateTransitionedTimestamp"] = alarm["StateUpdatedTimestamp"]
            watcher(responses.get_account_id(), responses.get_region(), alarm, before)
        return answer

    substitute(cloudwatch, "_set_alarm_state", set_state)


def put_metric(
    *,
    account: str,
    region: str,
    namespace: str,
    name: str,
    dimensions: Mapping[str, str],
    timestamp: float,
    unit: str,
    values: Sequence[float],
) -> None:
    """Store values of a metric of an AWS service, as the service itself publishes them."""
    cloudwatch = importlib.import_module("ministack.services.cloudwatch")
    with account_scope(account, region):
        cloudwatch._store_datum(
            namespace, name, dict(dimensions), timestamp, unit, None, list(values), None, None
        )


def metric_statistics(
    *,
    account: str,
    region: str,
    namespace: str,
    name: str,
    dimensions: Mapping[str, str],
    statistic: str,
    period: int,
    start: float,
    end: float,
) -> dict[float, float]:
    """Return a statistic of a metric per period in ``[start, end)``; periods without data are absent.

    Only values published under exactly these dimensions count.
    """
    cloudwatch = importlib.import_module("ministack.services.cloudwatch")
    with account_scope(account, region):
        points = list(
            cloudwatch._metrics.get((namespace, name, cloudwatch._dims_key(dict(dimensions)))) or ()
        )
    buckets: dict[float, list[Any]] = {}
    for point in points:
        if start <= point["Timestamp"] < end:
            begin = start + (point["Timestamp"] - start) // period * period
            buckets.setdefault(begin, []).append(point)
    values = {
        begin: cloudwatch._stat_value(cloudwatch._calc_stats(bucket), statistic, bucket)
        for begin, bucket in sorted(buckets.items())
    }
    return {begin: float(value) for begin, value in values.items() if value is not None}


def newest_metric_time() -> float:
    """Return the newest time stamp of any metric, minus infinity without one."""
    cloudwatch = importlib.import_module("ministack.services.cloudwatch")
    newest = [points[-1]["Timestamp"] for points in list(cloudwatch._metrics._data.values()) if points]
    return float(max(newest, default=float("-inf")))
