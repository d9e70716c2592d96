"""Scaling as time passes: targets tracked every minute, scheduled actions when due, steps by alarm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge
from rehearsal.clock import Due
from rehearsal.executors.alarms import alarm_action
from rehearsal.executors.metrics import MathError, evaluate_queries
from rehearsal.executors.serving import scaling
from rehearsal.executors.serving.scaling_rules import (
    COOLDOWN_SECONDS,
    IN_MINUTES,
    desired_count,
    stepped,
)
from rehearsal.services.engine import ApiError, Record, Service

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["ScalingClock", "ScheduledClock", "step"]

_MINUTE = timedelta(minutes=1)
#: When a policy last scaled out and in, on the rehearsal's clock, and the count before that.
_LAST: dict[tuple[str, str], tuple[float, int]] = {}


def _services(runtime: Runtime) -> list[Service]:
    return [service for service in runtime.services() if service.name == "application-autoscaling"]


def _ready(service: Service, target: Record, suspended: str) -> int | None:
    """What a target has now; None while it must not or cannot be scaled."""
    if target.data.get("SuspendedState", {}).get(suspended):
        return None
    if target.data["ServiceNamespace"] == "sagemaker":
        name = target.data["ResourceId"].split("/")[1]
        sagemaker = service.runtime.service("sagemaker", service.region)
        noun = "Endpoint" if target.data["ResourceId"].startswith("endpoint/") else "InferenceComponent"
        record = sagemaker.peek(noun, name)
        if record is None or record.status != "InService":
            return None
    under_way = [
        one
        for one in list(service.records.get("ScalingActivity", {}).values())
        if one.data["StatusCode"] == "InProgress"
        and scaling.target_of(one.data) == scaling.target_of(target.data)
    ]
    if under_way:
        return None
    try:
        return scaling.current(service, target.data)
    except ApiError:
        return None


class ScalingClock:
    """Due work of the clock: every target-tracking policy, every minute while metrics are recent."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._quiet_until: datetime | None = None

    def next_due(self, after: datetime) -> Sequence[Due]:
        """The next full minute, while a policy may have something to do."""
        if not self._policies():
            return ()
        now = self._runtime.clock.now()
        if bridge.newest_metric_time() < now.timestamp() - (IN_MINUTES + 2) * 60 - COOLDOWN_SECONDS:
            self._quiet_until = now
            return ()
        since = after if self._quiet_until is None else max(after, self._quiet_until)
        when = since.replace(second=0, microsecond=0) + _MINUTE
        return [Due(when=when, title="evaluate scaling", run=lambda: self.evaluate(when))]

    def _policies(self) -> list[tuple[Service, Mapping[str, Any]]]:
        return [
            (service, record.data)
            for service in _services(self._runtime)
            for record in list(service.records.get("ScalingPolicy", {}).values())
            if "TargetTrackingScalingPolicyConfiguration" in record.data
            and record.data["ServiceNamespace"] in scaling.SCALED
        ]

    def evaluate(self, at: datetime) -> None:
        """Scale what has to be scaled as of `at`.

        Of several policies of a target the one that wants most counts, as in AWS.
        """
        wanted: dict[str, tuple[int, Service, Record, Mapping[str, Any]]] = {}
        for service, policy in self._policies():
            name = scaling.target_of(policy)
            target = service.peek("ScalableTarget", name)
            current = None if target is None else _ready(service, target, "DynamicScalingInSuspended")
            if target is None or current is None:
                continue
            count = self._tracked(service, policy, target, current, at)
            if count is not None and (name not in wanted or count > wanted[name][0]):
                wanted[name] = (count, service, target, policy)
        for name, (count, service, target, policy) in wanted.items():
            current = scaling.current(service, target.data)
            if count == current:
                continue
            _LAST[name, "out" if count > current else "in"] = (at.timestamp(), current)
            cause = f"target tracking policy {policy['PolicyName']}"
            scaling.change(service, target, count, cause=cause, at=at)

    def _tracked(
        self, service: Service, policy: Mapping[str, Any], target: Record, current: int, at: datetime
    ) -> int | None:
        """The count that a policy wants, None when it says nothing."""
        tracking = policy["TargetTrackingScalingPolicyConfiguration"]
        values = self._values(service, policy, tracking, at)
        if values is None:
            return None
        count = desired_count(
            values,
            current=current,
            target=float(tracking["TargetValue"]),
            minimum=target.data["MinCapacity"],
            maximum=target.data["MaxCapacity"],
        )
        name = scaling.target_of(policy)
        cooldown_in = tracking.get("ScaleInCooldown", COOLDOWN_SECONDS)
        if count < current and (
            tracking.get("DisableScaleIn")
            or _cooling(name, "in", cooldown_in, at)
            or _cooling(name, "out", cooldown_in, at)
        ):
            return current
        if count > current and _cooling(name, "out", tracking.get("ScaleOutCooldown", COOLDOWN_SECONDS), at):
            return current
        return count

    def _values(
        self, service: Service, policy: Mapping[str, Any], tracking: Mapping[str, Any], at: datetime
    ) -> list[float | None] | None:
        """The tracked metric by minute, the oldest first."""
        end = at.timestamp() // 60 * 60
        periods = [end - 60 * n for n in range(IN_MINUTES, 0, -1)]

        def fetch(stat: Mapping[str, Any]) -> Mapping[float, float]:
            metric = stat["Metric"]
            return bridge.metric_statistics(
                account=service.account,
                region=service.region,
                namespace=metric["Namespace"],
                name=metric["MetricName"],
                dimensions={d["Name"]: d["Value"] for d in metric.get("Dimensions") or ()},
                statistic=stat["Stat"],
                period=60,
                start=periods[0],
                end=end,
            )

        try:
            series = evaluate_queries(_queries(policy, tracking), fetch, periods)
        except MathError as error:
            self._runtime.ledger.recorded("scaling-policy", policy["PolicyName"], f"not evaluated: {error}")
            return None
        return [series.get(start) for start in periods]


def _cooling(name: str, direction: str, cooldown: float, at: datetime) -> bool:
    last = _LAST.get((name, direction))
    return last is not None and at.timestamp() - last[0] < cooldown


def _queries(policy: Mapping[str, Any], tracking: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The tracked metric as metric data queries."""
    custom = tracking.get("CustomizedMetricSpecification")
    if custom is None:
        predefined = tracking["PredefinedMetricSpecification"]
        if predefined["PredefinedMetricType"] == "ALBRequestCountPerTarget":
            return [_per_target(str(predefined["ResourceLabel"]))]
        if predefined["PredefinedMetricType"] not in scaling.PREDEFINED:
            raise MathError(f"{predefined['PredefinedMetricType']} is not published in the rehearsal")
        name, statistic, dimensions = scaling.PREDEFINED[predefined["PredefinedMetricType"]]
        values = policy["ResourceId"].split("/")[1::2]
        metric = {
            "Namespace": "AWS/SageMaker",
            "MetricName": name,
            "Dimensions": [
                {"Name": key, "Value": value} for key, value in zip(dimensions, values, strict=True)
            ],
        }
        return [{"Id": "m1", "MetricStat": {"Metric": metric, "Stat": statistic}, "ReturnData": True}]
    if "Metrics" in custom:
        return list(custom["Metrics"])
    metric = {key: custom[key] for key in ("Namespace", "MetricName", "Dimensions") if key in custom}
    return [{"Id": "m1", "MetricStat": {"Metric": metric, "Stat": custom["Statistic"]}, "ReturnData": True}]


def _per_target(label: str) -> Mapping[str, Any]:
    """The requests per target of a balancer's group (PredefinedMetricSpecification, ResourceLabel)."""
    balancer, _, group = label.partition("/targetgroup/")
    metric = {
        "Namespace": "AWS/ApplicationELB",
        "MetricName": "RequestCountPerTarget",
        "Dimensions": [
            {"Name": "LoadBalancer", "Value": balancer},
            {"Name": "TargetGroup", "Value": f"targetgroup/{group}"},
        ],
    }
    return {"Id": "m1", "MetricStat": {"Metric": metric, "Stat": "Sum"}, "ReturnData": True}


# ---------------------------------------------------------------------- steps


@alarm_action("autoscaling")
def step(runtime: Runtime, arn: str, alarm: Mapping[str, Any], value: float | None, at: datetime) -> None:
    """Scale by the steps of the policy that an alarm names, each minute that it stands in its state."""
    found = next(
        (
            (service, record)
            for service in _services(runtime)
            for record in list(service.records.get("ScalingPolicy", {}).values())
            if record.arn == arn
        ),
        None,
    )
    if found is None:
        runtime.ledger.recorded("alarm-action", alarm["AlarmName"], f"there is no scaling policy {arn}")
        return
    service, policy = found
    name = scaling.target_of(policy.data)
    target = service.peek("ScalableTarget", name)
    current = None if target is None else _ready(service, target, "DynamicScalingOutSuspended")
    if target is None or current is None or "StepScalingPolicyConfiguration" not in policy.data:
        return
    config = policy.data["StepScalingPolicyConfiguration"]
    cooldown = float(config.get("Cooldown", COOLDOWN_SECONDS))
    breach = 0.0 if value is None else value - float(alarm.get("Threshold", 0))
    cooling = _cooling(name, "out", cooldown, at)
    # What the scale-out before has added counts as part of the next one while it cools down.
    base = _LAST[name, "out"][1] if cooling else current
    bounds = {"minimum": target.data["MinCapacity"], "maximum": target.data["MaxCapacity"]}
    wanted = stepped(config, breach=breach, current=base, **bounds)
    if wanted > current:
        _LAST[name, "out"] = (at.timestamp(), base)
    else:
        wanted = stepped(config, breach=breach, current=current, **bounds)
        if wanted >= current or _cooling(name, "in", cooldown, at) or cooling:
            return
        _LAST[name, "in"] = (at.timestamp(), current)
    cause = f"monitor alarm {alarm['AlarmName']} in state {alarm['StateValue']} triggered policy "
    scaling.change(service, target, wanted, cause=cause + policy.data["PolicyName"], at=at)


# ---------------------------------------------------------------------- schedules


class ScheduledClock:
    """Due work of the clock: scheduled actions."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def next_due(self, after: datetime) -> Sequence[Due]:
        """The scheduled actions at the next moment that any is due."""
        due: list[Due] = []
        for service in _services(self._runtime):
            for record in list(service.records.get("ScheduledAction", {}).values()):
                when = _next(record, after)
                if when is None or record.data["ServiceNamespace"] not in scaling.SCALED:
                    continue
                if due and when > due[0].when:
                    continue
                if due and when < due[0].when:
                    due = []
                due.append(self._due(service, record, when))
        return due

    @staticmethod
    def _due(service: Service, record: Record, when: datetime) -> Due:
        name = record.data["ScheduledActionName"]
        return Due(when=when, title=f"scheduled scaling {name}", run=lambda: fire(service, record, when))


def _next(record: Record, after: datetime) -> datetime | None:
    from rehearsal.executors.scheduler import next_time

    data = record.data
    start = max(after, record.created, data.get("StartTime", after))
    when = next_time(data["Schedule"], after=start, anchor=record.created, zone=data.get("Timezone", "UTC"))
    return None if when is None or when > data.get("EndTime", when) else when


def fire(service: Service, action: Record, at: datetime) -> None:
    """Set the bounds of a target, and bring its count between them."""
    target = service.peek("ScalableTarget", scaling.target_of(action.data))
    if target is None or service.peek("ScheduledAction", action.name) is None:
        return
    current = _ready(service, target, "ScheduledScalingSuspended")
    if target.data.get("SuspendedState", {}).get("ScheduledScalingSuspended"):
        return
    wanted = action.data["ScalableTargetAction"]
    minimum = wanted.get("MinCapacity", target.data["MinCapacity"])
    maximum = max(minimum, wanted.get("MaxCapacity", target.data["MaxCapacity"]))
    service.update(target, MinCapacity=minimum, MaxCapacity=maximum)
    name = action.data["ScheduledActionName"]
    service.runtime.ledger.ran(
        "scheduled-scaling", target.data["ResourceId"], action=name, minimum=minimum, maximum=maximum
    )
    if current is not None and not minimum <= current <= maximum:
        count = max(minimum, min(maximum, current))
        scaling.change(service, target, count, cause=f"scheduled action {name}", at=at)


def install(runtime: Runtime) -> None:
    """Scale on the rehearsal's clock."""
    runtime.clock.add_source(ScalingClock(runtime))
    runtime.clock.add_source(ScheduledClock(runtime))
