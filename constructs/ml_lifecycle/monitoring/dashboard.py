"""One dashboard per workload: does data arrive, is it served, is it judged, is it retrained."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_cloudwatch as cloudwatch

from constructs import Construct
from ml_lifecycle.ingestion import StreamIngestion
from ml_lifecycle.monitoring.job import METRIC_NAMESPACE
from ml_lifecycle.monitoring.monitor import ModelMonitor
from ml_lifecycle.registry import ModelRegistry
from ml_lifecycle.retraining import Retraining
from ml_lifecycle.serving import Watch, traffic_widgets
from ml_lifecycle.training.pipeline import TrainingPipeline

__all__ = ["OperationsDashboard"]


class OperationsDashboard(Construct):
    """Define a dashboard of one workload: alarms, freshness of the data, traffic, latency, what each monitor
    found, trainings, what was given up.

    ``watch`` is what whoever serves shows of its traffic; each of ``monitors`` has a row, ``ingestion`` as
    well. A dashboard holds 500 widgets, a widget 500 metrics (CloudWatch quotas); the drift of more features
    than that is cut off.

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
        monitors: Sequence[ModelMonitor] = (),
        training: TrainingPipeline,
        registry: ModelRegistry,
        retraining: Retraining,
        alarms: Sequence[cloudwatch.IAlarm],
        ingestion: StreamIngestion | None = None,
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
                *([] if ingestion is None else [_data_widgets(ingestion)]),
                traffic_widgets(watch),
                *(_monitor_widgets(monitor) for monitor in monitors),
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


def _data_widgets(ingestion: StreamIngestion) -> list[cloudwatch.IWidget]:
    ages = [ingestion.metric_read_age()]
    # Firehose tells no freshness of Iceberg tables.
    fresh = [] if ingestion.format == "iceberg" else [ingestion.metric_delivery_freshness()]
    return [
        cloudwatch.GraphWidget(
            title="Records: sent, delivered, not converted",
            left=[
                ingestion.metric_incoming_records(),
                ingestion.metric_delivered_records(),
                ingestion.metric_failed_conversions(),
            ],
            width=12,
        ),
        cloudwatch.GraphWidget(
            title="Age of the data: read from the stream (ms), waiting for the raw zone (s)",
            left=ages,
            right=fresh,
            width=12,
        ),
    ]


def _monitor_widgets(monitor: ModelMonitor) -> list[cloudwatch.IWidget]:
    found = cloudwatch.GraphWidget(
        title=f"Violations and what was judged: {monitor.kind}",
        left=[monitor.metric_violations(), monitor.metric_unjudged()],
        right=[monitor.metric_records_judged()],
        width=12 if monitor.kind == "data" else 24,
    )
    if monitor.kind != "data":
        return [found]
    drift = cloudwatch.MathExpression(
        expression=(
            f'SEARCH(\'{{{METRIC_NAMESPACE},Environment,Feature,Workload}} MetricName="FeatureDrift" '
            f'Environment="{monitor.environment_name}" Workload="{monitor.workload_name}"\', '
            "'Maximum', 3600)"
        ),
        using_metrics={},
        label="",
    )
    return [found, cloudwatch.GraphWidget(title="Drift per feature", left=[drift], width=12)]
