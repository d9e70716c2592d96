"""One dashboard per workload: is it served, is it judged, is it retrained."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_cloudwatch as cloudwatch

from constructs import Construct
from ml_lifecycle.monitoring.job import METRIC_NAMESPACE
from ml_lifecycle.monitoring.monitor import ModelMonitor
from ml_lifecycle.registry import ModelRegistry
from ml_lifecycle.retraining import Retraining
from ml_lifecycle.serving import Watch, traffic_widgets
from ml_lifecycle.training.pipeline import TrainingPipeline

__all__ = ["OperationsDashboard"]


class OperationsDashboard(Construct):
    """Define a dashboard of one workload: alarms, traffic, latency, drift, trainings, what was given up.

    ``watch`` is what whoever serves shows of its traffic; without a ``monitor`` there is no row of drift.

    The first three dashboards of an account are free, a further one costs 3 USD a month (CloudWatch pricing).
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        title: str,
        watch: Watch,
        monitor: ModelMonitor | None,
        training: TrainingPipeline,
        registry: ModelRegistry,
        retraining: Retraining,
        alarms: Sequence[cloudwatch.IAlarm],
    ) -> None:
        super().__init__(scope, construct_id)
        self.dashboard = cloudwatch.Dashboard(
            self,
            "Dashboard",
            dashboard_name=name,
            default_interval=None,
            widgets=[
                [
                    cloudwatch.TextWidget(markdown=f"# {title}", width=24, height=1),
                ],
                [cloudwatch.AlarmStatusWidget(title="Alarms", alarms=list(alarms), width=24, height=3)],
                traffic_widgets(watch),
                *([] if monitor is None else [_drift_widgets(monitor)]),
                [
                    cloudwatch.GraphWidget(
                        title="Trainings",
                        left=[training.metric_executions_succeeded(), training.metric_executions_failed()],
                        width=12,
                    ),
                    cloudwatch.GraphWidget(
                        title="Given up: promotions, retraining triggers",
                        left=[registry.metric_dead_letters(), retraining.metric_dead_letters()],
                        width=12,
                    ),
                ],
            ],
        )


def _drift_widgets(monitor: ModelMonitor) -> list[cloudwatch.IWidget]:
    drift = cloudwatch.MathExpression(
        expression=(
            f'SEARCH(\'{{{METRIC_NAMESPACE},Environment,Feature,Workload}} MetricName="FeatureDrift" '
            f'Environment="{monitor.environment_name}" Workload="{monitor.workload_name}"\', '
            "'Maximum', 3600)"
        ),
        using_metrics={},
        label="",
    )
    return [
        cloudwatch.GraphWidget(
            title="Violations and judged records",
            left=[monitor.metric_violations(), monitor.metric_unjudged()],
            right=[monitor.metric_records_judged()],
            width=12,
        ),
        cloudwatch.GraphWidget(title="Drift per feature", left=[drift], width=12),
    ]
