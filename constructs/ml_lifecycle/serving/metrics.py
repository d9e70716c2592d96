"""What SageMaker measures of an endpoint, and the alarms that turn a rollout back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from ml_contract.spec.serving import Rollout

from constructs import Construct
from ml_lifecycle.alarms import described

__all__ = ["EndpointMetrics", "Watch", "rollout_alarms", "traffic_widgets"]


@dataclass(frozen=True, kw_only=True)
class EndpointMetrics:
    """Metrics of who answers: a variant of an endpoint, or an inference component."""

    dimensions: Mapping[str, str]

    def metric(self, name: str, *, period: cdk.Duration | None, statistic: str) -> cloudwatch.Metric:
        """Return a metric in AWS/SageMaker; one minute unless ``period`` says otherwise."""
        return cloudwatch.Metric(
            namespace="AWS/SageMaker",
            metric_name=name,
            dimensions_map=dict(self.dimensions),
            period=cdk.Duration.minutes(1) if period is None else period,
            statistic=statistic,
        )


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What is watched of whoever answers requests, whatever runs it.

    ``requests`` counts; ``errors`` is a share of 0 to 1 where ``error_share`` says so, else a count;
    ``latency`` is in ``unit``; ``latency_limit`` is ``max_latency_ms`` in that unit.
    """

    requests: cloudwatch.IMetric
    errors: cloudwatch.IMetric
    latency: list[cloudwatch.IMetric]
    unit: str = "microseconds"
    more: list[cloudwatch.IMetric] = field(default_factory=list)


def rollout_alarms(
    scope: Construct,
    *,
    who: str,
    error_rate: cloudwatch.IMetric,
    latency: cloudwatch.IMetric,
    latency_per_ms: float,
    rollout: Rollout,
    minutes: int,
    prefix: str = "",
) -> tuple[cloudwatch.Alarm, cloudwatch.Alarm]:
    """Define the two alarms of a rollout: too many errors, too slow.

    Args:
        scope: where they belong.
        who: what the descriptions call it, an endpoint's name.
        error_rate: share of requests answered 5xx, 0 to 1.
        latency: p99 of the time that an answer takes.
        latency_per_ms: what one millisecond is in the unit of ``latency``.
        rollout: the workload's limits.
        minutes: how many bad minutes in a row are one too many.
        prefix: of the construct ids, for a second pair.
    """
    error = cloudwatch.Alarm(
        scope,
        f"{prefix}Errors",
        metric=error_rate,
        alarm_description=described(
            f"More than {rollout.max_error_percent:g} % of requests to {who} answered 5xx; "
            "a rollout under way goes back",
            runbook="endpoint-errors",
        ),
        comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
        threshold=rollout.max_error_percent / 100,
        evaluation_periods=minutes,
        # No request is no error; SageMaker refuses a rollout while one of its alarms is not OK.
        treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
    )
    slow = cloudwatch.Alarm(
        scope,
        f"{prefix}Latency",
        metric=latency,
        alarm_description=described(
            f"p99 of {who} above {rollout.max_latency_ms} ms; a rollout under way goes back",
            runbook="endpoint-latency",
        ),
        comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
        threshold=rollout.max_latency_ms * latency_per_ms,
        evaluation_periods=minutes,
        treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
    )
    return error, slow


def traffic_widgets(watch: Watch) -> list[cloudwatch.IWidget]:
    """Return a row of a dashboard: requests and errors, latency."""
    return [
        cloudwatch.GraphWidget(
            title="Requests and errors", left=[watch.requests, *watch.more], right=[watch.errors], width=12
        ),
        cloudwatch.GraphWidget(title=f"Latency of the model ({watch.unit})", left=watch.latency, width=12),
    ]
