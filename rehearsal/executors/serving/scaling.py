"""Application Auto Scaling for endpoint variants: target tracking on the rehearsal's clock.

Once a minute the tracked metric of each policy is compared with its target, and the count is scaled in
proportion, as target tracking does: out after three minutes above the target, in after fifteen below it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge
from rehearsal.clock import Due
from rehearsal.executors.serving import endpoints
from rehearsal.services.engine import ApiError, Call, Service, instead

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["ScalingClock", "desired_count", "put_policy", "register"]

_DIMENSION = "sagemaker:variant:DesiredInstanceCount"
# Target tracking's own alarms: 3 data points of a minute above the target, 15 below 90 percent of it.
_OUT_MINUTES, _IN_MINUTES = 3, 15
_IN_SHARE = 0.9
_COOLDOWN_SECONDS = 300


@instead("application-autoscaling", "RegisterScalableTarget")
def register(service: Service, call: Call) -> dict[str, Any]:
    """Register a variant of an endpoint that exists, with sane bounds."""
    params = call.params
    if params["ServiceNamespace"] == "sagemaker":
        name, variant = _resource(params["ResourceId"])
        if params["ScalableDimension"] != _DIMENSION:
            raise ApiError(
                "ValidationException", f"variants scale by {_DIMENSION}, got {params['ScalableDimension']}"
            )
        found = _variants(service, name)
        if variant not in found:
            raise ApiError(
                "ValidationException",
                f"{params['ResourceId']} does not exist; there are {', '.join(found) or 'none'}",
            )
    else:
        service.runtime.ledger.recorded(
            "scalable-target",
            params["ResourceId"],
            f"{params['ServiceNamespace']} is not scaled in the rehearsal",
        )
    known = service.peek(
        "ScalableTarget", f"{params['ServiceNamespace']}/{params['ResourceId']}/{_DIMENSION}"
    )
    bounds = {**({} if known is None else known.data), **params}
    if "MinCapacity" not in bounds or "MaxCapacity" not in bounds:
        raise ApiError(
            "ValidationException", "MinCapacity and MaxCapacity are required for a new scalable target"
        )
    if bounds["MinCapacity"] > bounds["MaxCapacity"]:
        raise ApiError(
            "ValidationException",
            f"MinCapacity {bounds['MinCapacity']} must not exceed MaxCapacity {bounds['MaxCapacity']}",
        )
    return service.generic(call)


def _resource(resource: str) -> tuple[str, str]:
    parts = resource.split("/")
    if len(parts) != 4 or parts[0] != "endpoint" or parts[2] != "variant":
        raise ApiError(
            "ValidationException", f"a variant is named endpoint/NAME/variant/NAME, got {resource}"
        )
    return parts[1], parts[3]


def _variants(service: Service, endpoint: str) -> list[str]:
    sagemaker = service.runtime.service("sagemaker", service.region)
    record = sagemaker.peek("Endpoint", endpoint)
    if record is None:
        return []
    config = sagemaker.get("EndpointConfig", record.data["EndpointConfigName"])
    return [variant["VariantName"] for variant in config.data["ProductionVariants"]]


@instead("application-autoscaling", "PutScalingPolicy")
def put_policy(service: Service, call: Call) -> dict[str, Any]:
    """Keep a policy of a registered target."""
    params = call.params
    target = "/".join(params[key] for key in ("ServiceNamespace", "ResourceId", "ScalableDimension"))
    if service.peek("ScalableTarget", target) is None:
        raise ApiError("ObjectNotFoundException", f"No scalable target registered for {params['ResourceId']}")
    tracking = params.get("TargetTrackingScalingPolicyConfiguration")
    if params.get("PolicyType") == "TargetTrackingScaling" and tracking is None:
        raise ApiError("ValidationException", "TargetTrackingScaling needs its configuration")
    if tracking is not None:
        given = [
            k for k in ("PredefinedMetricSpecification", "CustomizedMetricSpecification") if k in tracking
        ]
        if len(given) != 1:
            raise ApiError("ValidationException", "give exactly one metric specification to track")
        if tracking["TargetValue"] <= 0:
            raise ApiError(
                "ValidationException", f"TargetValue must be positive, got {tracking['TargetValue']}"
            )
    else:
        service.runtime.ledger.recorded(
            "scaling-policy",
            params["PolicyName"],
            f"{params.get('PolicyType', 'StepScaling')} is kept, not acted upon",
        )
    service.generic(call)
    # AWS also makes the two alarms of the policy and names them here; ours is judged without alarms.
    return {"PolicyARN": service.get("ScalingPolicy", f"{target}:{params['PolicyName']}").arn, "Alarms": []}


def desired_count(
    values: Sequence[float | None], *, current: int, target: float, minimum: int, maximum: int
) -> int:
    """The count that target tracking wants, given the metric per minute, oldest first.

    `values` is the metric per instance. None is a minute without data, which counts as no load.
    """
    recent = [0.0 if value is None else value for value in values]
    out, slow = recent[-_OUT_MINUTES:], recent[-_IN_MINUTES:]
    wanted = current
    if len(out) == _OUT_MINUTES and all(value > target for value in out):
        wanted = max(current + 1, math.ceil(current * out[-1] / target))
    elif len(slow) == _IN_MINUTES and all(value < target * _IN_SHARE for value in slow):
        wanted = min(current, max(1, math.ceil(current * max(slow) / target)))
    return max(minimum, min(maximum, wanted))


class ScalingClock:
    """Due work of the clock: every target-tracking policy, every minute while traffic is recent."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._changed: dict[str, float] = {}
        self._quiet_until: datetime | None = None

    def next_due(self, after: datetime) -> Sequence[Due]:
        """The next full minute, while a policy may have something to do."""
        if not self._policies():
            return ()
        now = self._runtime.clock.now()
        if bridge.newest_metric_time() < now.timestamp() - (_IN_MINUTES + 2) * 60 - _COOLDOWN_SECONDS:
            self._quiet_until = now
            return ()
        since = after if self._quiet_until is None else max(after, self._quiet_until)
        when = since.replace(second=0, microsecond=0) + timedelta(minutes=1)
        return [Due(when=when, title="evaluate scaling", run=lambda: self.evaluate(when))]

    def _policies(self) -> list[tuple[Service, Mapping[str, Any]]]:
        return [
            (service, record.data)
            for service in self._runtime.services()
            if service.name == "application-autoscaling"
            for record in list(service.records.get("ScalingPolicy", {}).values())
            if "TargetTrackingScalingPolicyConfiguration" in record.data
            and record.data["ServiceNamespace"] == "sagemaker"
        ]

    def evaluate(self, at: datetime) -> None:
        """Scale what has to be scaled as of `at`."""
        for service, policy in self._policies():
            self._track(service, policy, at)

    def _track(self, service: Service, policy: Mapping[str, Any], at: datetime) -> None:
        name, variant = _resource(policy["ResourceId"])
        sagemaker = self._runtime.service("sagemaker", service.region)
        record = sagemaker.peek("Endpoint", name)
        target = service.peek("ScalableTarget", f"sagemaker/{policy['ResourceId']}/{_DIMENSION}")
        if record is None or record.status != "InService" or target is None:
            return
        tracking = policy["TargetTrackingScalingPolicyConfiguration"]
        metric = tracking.get("PredefinedMetricSpecification", {}).get("PredefinedMetricType")
        if metric != "SageMakerVariantInvocationsPerInstance":
            return
        if at.timestamp() - self._changed.get(policy["ResourceId"], float("-inf")) < _COOLDOWN_SECONDS:
            return
        end = at.timestamp() // 60 * 60
        series = bridge.metric_statistics(
            account=service.account,
            region=service.region,
            namespace="AWS/SageMaker",
            name="InvocationsPerInstance",
            dimensions={"EndpointName": name, "VariantName": variant},
            statistic="Sum",
            period=60,
            start=end - 60 * _IN_MINUTES,
            end=end,
        )
        values = [series.get(end - 60 * n) for n in range(_IN_MINUTES, 0, -1)]
        current = endpoints.desired_instances(sagemaker, name, variant)
        wanted = desired_count(
            values,
            current=current,
            target=float(tracking["TargetValue"]),
            minimum=target.data["MinCapacity"],
            maximum=target.data["MaxCapacity"],
        )
        if wanted < current and tracking.get("DisableScaleIn"):
            return
        if wanted != current:
            endpoints.set_desired_instances(sagemaker, name, variant, wanted)
            self._changed[policy["ResourceId"]] = at.timestamp()
            self._runtime.ledger.ran(
                "scaling", policy["ResourceId"], before=current, after=wanted, policy=policy["PolicyName"]
            )


def install(runtime: Runtime) -> None:
    """Track targets on the rehearsal's clock."""
    runtime.clock.add_source(ScalingClock(runtime))
