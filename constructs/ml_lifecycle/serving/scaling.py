"""How a fleet follows its load: by a target, by steps, by the clock, and down to nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_applicationautoscaling as autoscaling
from aws_cdk import aws_cloudwatch as cloudwatch
from ml_contract.spec.scaling import ServingScaling, Step

from constructs import Construct
from ml_lifecycle.alarms import described

__all__ = ["Fleet", "from_zero", "scale"]

#: A new instance takes minutes to serve; it goes later than it comes.
_OUT_SECONDS, _IN_SECONDS = 120, 600
#: Minutes a load must last before a step is taken: up at once, down when it stays away.
_OUT_MINUTES, _IN_MINUTES = 1, 15


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """What is scaled, in Application Auto Scaling's words.

    ``load`` is the metric of requests a member and minute, with the statistic that says so. ``predefined``
    names the metric type that tracks it; without one ``load`` itself is tracked as a custom metric.
    """

    namespace: str
    dimension: str
    resource_id: str
    load: cloudwatch.Metric
    predefined: str | None = None
    label: str | None = None


def scale(
    scope: Construct,
    *,
    fleet: Fleet,
    scaling: ServingScaling,
    after: Sequence[cdk.CfnResource],
    target_value: float | None = None,
    policy_name: str = "Invocations",
) -> tuple[autoscaling.CfnScalableTarget, list[cdk.CfnResource]]:
    """Define the scalable target of a fleet with its policies, alarms and schedules.

    Args:
        scope: where they belong.
        fleet: what is scaled.
        scaling: the workload's wishes.
        after: what must exist before the fleet can be registered, and go after it.
        target_value: of ``fleet.load``; the default is the workload's target of requests.
        policy_name: what the tracking policy is called.

    Returns:
        The target, and everything that was made, it included, so that a condition can be put on it.
    """
    # The L2 would bring a role; Application Auto Scaling uses a service-linked one.
    target = autoscaling.CfnScalableTarget(
        scope,
        "ScalingTarget",
        service_namespace=fleet.namespace,
        scalable_dimension=fleet.dimension,
        resource_id=fleet.resource_id,
        min_capacity=scaling.min_capacity,
        max_capacity=scaling.max_capacity,
        scheduled_actions=_schedules(scaling) or None,
    )
    # The name is a string, not a reference: what is scaled must exist first and must go last.
    for resource in after:
        target.add_resource_dependency(resource)
    if scaling.kind == "target":
        wanted = scaling.target_invocations_per_instance if target_value is None else target_value
        return target, [target, _tracking(scope, target, fleet, wanted, policy_name)]
    return target, [target, *_steps(scope, target, fleet, scaling.steps)]


def _schedules(scaling: ServingScaling) -> list[autoscaling.CfnScalableTarget.ScheduledActionProperty]:
    return [
        autoscaling.CfnScalableTarget.ScheduledActionProperty(
            scheduled_action_name=name,
            schedule=f"cron({schedule.cron})",
            timezone=schedule.timezone,
            scalable_target_action=autoscaling.CfnScalableTarget.ScalableTargetActionProperty(
                min_capacity=schedule.min_capacity, max_capacity=schedule.max_capacity
            ),
        )
        for name, schedule in sorted(scaling.schedules.items())
    ]


def _tracking(
    scope: Construct,
    target: autoscaling.CfnScalableTarget,
    fleet: Fleet,
    wanted: float,
    policy_name: str,
) -> autoscaling.CfnScalingPolicy:
    part = autoscaling.CfnScalingPolicy
    return part(
        scope,
        "ScalingPolicy",
        policy_name=policy_name,
        policy_type="TargetTrackingScaling",
        scaling_target_id=target.ref,
        target_tracking_scaling_policy_configuration=part.TargetTrackingScalingPolicyConfigurationProperty(
            target_value=wanted,
            predefined_metric_specification=None
            if fleet.predefined is None
            else part.PredefinedMetricSpecificationProperty(
                predefined_metric_type=fleet.predefined, resource_label=fleet.label
            ),
            customized_metric_specification=None if fleet.predefined is not None else _custom(fleet.load),
            scale_out_cooldown=_OUT_SECONDS,
            scale_in_cooldown=_IN_SECONDS,
        ),
    )


def _custom(metric: cloudwatch.Metric) -> autoscaling.CfnScalingPolicy.CustomizedMetricSpecificationProperty:
    part = autoscaling.CfnScalingPolicy
    return part.CustomizedMetricSpecificationProperty(
        namespace=metric.namespace,
        metric_name=metric.metric_name,
        statistic=metric.statistic,
        dimensions=[
            part.MetricDimensionProperty(name=name, value=str(value))
            for name, value in sorted((metric.dimensions or {}).items())
        ],
    )


def _steps(
    scope: Construct, target: autoscaling.CfnScalableTarget, fleet: Fleet, steps: Sequence[Step]
) -> list[cdk.CfnResource]:
    """Define a policy and an alarm for each direction; bounds of steps count from the alarm's threshold."""
    made: list[cdk.CfnResource] = []
    out = sorted((step.above, step.add) for step in steps if step.above is not None)
    back = sorted(((step.below, step.add) for step in steps if step.below is not None), reverse=True)
    directions = (
        ("ScaleOut", out, _OUT_SECONDS, _OUT_MINUTES, "GreaterThanThreshold"),
        ("ScaleIn", back, _IN_SECONDS, _IN_MINUTES, "LessThanThreshold"),
    )
    for construct_id, bounds, cooldown, minutes, comparison in directions:
        threshold = bounds[0][0]
        edges = [bound - threshold for bound, _ in bounds]
        ends: list[float | None] = [*edges[1:], None]
        adjustments = [
            {
                # The bounds stand in the direction of the load: up from the threshold, or down from it.
                "metric_interval_lower_bound": near if construct_id == "ScaleOut" else far,
                "metric_interval_upper_bound": far if construct_id == "ScaleOut" else near,
                "scaling_adjustment": add,
            }
            for near, far, (_, add) in zip(edges, ends, bounds, strict=True)
        ]
        policy = _step_policy(
            scope,
            f"{construct_id}Policy",
            target,
            adjustments=adjustments,
            cooldown=cooldown,
            name=construct_id,
        )
        alarm = _alarm(
            scope,
            f"{construct_id}Alarm",
            metric=fleet.load,
            description=f"{construct_id}: {fleet.resource_id} at {threshold:g} requests a minute and member",
            comparison=comparison,
            threshold=threshold,
            minutes=minutes,
            policy=policy,
            # No request is no load: then the fleet may shrink.
            missing="notBreaching" if construct_id == "ScaleOut" else "breaching",
            # A policy takes a step by the metric's value; where nobody asks there is none, and no step fits.
            filled=construct_id == "ScaleIn",
        )
        made += [policy, alarm]
    return made


def from_zero(
    scope: Construct,
    target: autoscaling.CfnScalableTarget,
    *,
    metric: cloudwatch.Metric,
    description: str,
) -> list[cdk.CfnResource]:
    """Define what brings the first member back when ``metric`` says that somebody waits and nobody is there.

    A target of requests a member says nothing where there is no member (SageMaker Developer Guide,
    "Autoscale an asynchronous endpoint", and "Scale an endpoint to zero instances").
    """
    policy = _step_policy(
        scope,
        "FromZeroPolicy",
        target,
        adjustments=[{"metric_interval_lower_bound": 0, "scaling_adjustment": 1}],
        cooldown=_OUT_SECONDS,
        name="FromZero",
    )
    alarm = _alarm(
        scope,
        "FromZeroAlarm",
        metric=metric,
        description=description,
        comparison="GreaterThanOrEqualToThreshold",
        threshold=1,
        minutes=1,
        policy=policy,
        missing="missing",
    )
    return [policy, alarm]


def _step_policy(
    scope: Construct,
    construct_id: str,
    target: autoscaling.CfnScalableTarget,
    *,
    adjustments: list[dict[str, Any]],
    cooldown: int,
    name: str,
) -> autoscaling.CfnScalingPolicy:
    part = autoscaling.CfnScalingPolicy
    return part(
        scope,
        construct_id,
        policy_name=name,
        policy_type="StepScaling",
        scaling_target_id=target.ref,
        step_scaling_policy_configuration=part.StepScalingPolicyConfigurationProperty(
            adjustment_type="ChangeInCapacity",
            metric_aggregation_type="Average",
            cooldown=cooldown,
            step_adjustments=[part.StepAdjustmentProperty(**each) for each in adjustments],
        ),
    )


def _alarm(
    scope: Construct,
    construct_id: str,
    *,
    metric: cloudwatch.Metric,
    description: str,
    comparison: str,
    threshold: float,
    minutes: int,
    policy: autoscaling.CfnScalingPolicy,
    missing: str,
    filled: bool = False,
) -> cloudwatch.CfnAlarm:
    """Define an alarm whose action is a policy; ``filled`` takes 0 for a minute without a data point."""
    part = cloudwatch.CfnAlarm
    dimensions = [
        part.DimensionProperty(name=name, value=str(value))
        for name, value in sorted((metric.dimensions or {}).items())
    ]
    common: dict[str, Any] = {
        "alarm_description": described(f"{description}: the fleet changes by itself", runbook="scaling"),
        "evaluation_periods": minutes,
        "threshold": threshold,
        "comparison_operator": comparison,
        "treat_missing_data": missing,
        "alarm_actions": [policy.ref],
    }
    if not filled:
        return part(
            scope,
            construct_id,
            namespace=metric.namespace,
            metric_name=metric.metric_name,
            dimensions=dimensions,
            statistic=metric.statistic,
            period=60,
            **common,
        )
    stat = part.MetricStatProperty(
        metric=part.MetricProperty(
            namespace=metric.namespace, metric_name=metric.metric_name, dimensions=dimensions
        ),
        period=60,
        stat=metric.statistic,
    )
    queries = [
        part.MetricDataQueryProperty(id="filled", expression="FILL(load, 0)", return_data=True),
        part.MetricDataQueryProperty(id="load", metric_stat=stat, return_data=False),
    ]
    return part(scope, construct_id, metrics=queries, **common)
