"""One dashboard for all workloads of an environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sns as sns

from constructs import Construct
from ml_lifecycle.alarms import alarm

__all__ = ["PlatformDashboard"]

_HOUR = 3_600


class _Names(NamedTuple):
    """What the environment is called: in names of ours, and in names that CloudFormation makes."""

    environment: str
    stage: str


class _Found(NamedTuple):
    """What a search finds: every series of a metric whose dimension holds ``term``."""

    schema: str
    metric: str
    term: str
    statistic: str
    seconds: int = 300


_ENDPOINTS = "AWS/SageMaker,EndpointName,VariantName"
_PIPELINES = "AWS/Sagemaker/ModelBuildingPipeline,PipelineName"
_ROWS: tuple[tuple[tuple[Any, ...], ...], ...] = (
    (
        ("Requests", _Found(_ENDPOINTS, "Invocations", "EndpointName={environment}", "Sum")),
        ("Answered 5xx", _Found(_ENDPOINTS, "Invocation5XXErrors", "EndpointName={environment}", "Sum")),
        (
            "p99 of the models (microseconds)",
            _Found(_ENDPOINTS, "ModelLatency", "EndpointName={environment}", "p99"),
        ),
    ),
    (
        *(
            (
                title,
                *(
                    _Found(
                        "MLLifecycle,Environment,Workload",
                        f"{kind}{metric}",
                        'Environment="{environment}"',
                        "Maximum",
                        _HOUR,
                    )
                    for kind in ("", "Quality", "Bias", "Attribution")
                ),
            )
            for title, metric in (
                ("Violations that monitors found", "Violations"),
                ("Runs that could not judge", "Unjudged"),
            )
        ),
        (
            "Trainings: failed, ended well",
            _Found(_PIPELINES, "ExecutionFailed", "PipelineName={environment}", "Sum", _HOUR),
            _Found(_PIPELINES, "ExecutionSucceeded", "PipelineName={environment}", "Sum", _HOUR),
        ),
    ),
    (
        (
            "Records sent",
            _Found("AWS/Kinesis,StreamName", "IncomingRecords", "StreamName={environment}", "Sum"),
        ),
        (
            "Age of what waits for the raw zone (s)",
            _Found(
                "AWS/Firehose,DeliveryStreamName",
                "DeliveryToS3.DataFreshness",
                "DeliveryStreamName={environment}",
                "Maximum",
            ),
        ),
        (
            "Waits in queues, dead letters among them",
            _Found("AWS/SQS,QueueName", "ApproximateNumberOfMessagesVisible", "QueueName={stage}", "Maximum"),
        ),
    ),
    (
        (
            "Functions that failed",
            _Found("AWS/Lambda,FunctionName", "Errors", "FunctionName={stage}", "Sum"),
        ),
        (
            "State machines that failed",
            _Found("AWS/States,StateMachineArn", "ExecutionsFailed", "StateMachineArn={environment}", "Sum"),
        ),
    ),
)


class PlatformDashboard(Construct):
    """Define a dashboard of everything in one environment, and an alarm on throttled functions.

    Its graphs search for metrics by the environment's name, so that it needs to know no resource and stays
    as small with a hundred workloads: CloudWatch finds what has reported within two weeks (User Guide, "Use
    search expressions in graphs"). ``workloads`` maps a title to the name of the workload's own dashboard.

    It costs 3 USD a month beyond an account's third dashboard, the alarm 0.10 (CloudWatch pricing).
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        environment_name: str,
        stage: str,
        workloads: Mapping[str, str],
        topic: sns.ITopic | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        self.throttled = alarm(
            self,
            "Throttled",
            what="Lambda refuses to start functions: the account's concurrency is used up",
            runbook="functions-throttled",
            namespace="AWS/Lambda",
            metric="Throttles",
            # Without a dimension it is the sum over all functions of the Region.
            dimensions={},
            topic=topic,
        )
        links = "\n".join(
            f"- [{title}](#dashboards:name={dashboard})" for title, dashboard in sorted(workloads.items())
        )
        rows = [
            [_graph(title, _searches(_Names(environment_name, stage), *of)) for title, *of in row]
            for row in _ROWS
        ]
        # Billing metrics live in one Region whatever the dashboard's own (User Guide, "Create a billing
        # alarm"), and an account has them only after it asked for them.
        charges = cloudwatch.Metric(
            namespace="AWS/Billing",
            metric_name="EstimatedCharges",
            dimensions_map={"Currency": "USD"},
            region="us-east-1",
            statistic="Maximum",
            period=cdk.Duration.hours(6),
        )
        rows[-1].append(_graph("Charges of the account this month (USD)", [charges]))
        self.dashboard = cloudwatch.Dashboard(
            self,
            "Dashboard",
            dashboard_name=name,
            widgets=[
                [
                    cloudwatch.TextWidget(
                        markdown=f"# All workloads of {environment_name}\n{links}",
                        width=24,
                        height=2 + len(workloads) // 2,
                    )
                ],
                *rows,
            ],
        )


def _graph(title: str, metrics: Sequence[cloudwatch.IMetric]) -> cloudwatch.GraphWidget:
    return cloudwatch.GraphWidget(title=title, left=list(metrics), width=8)


def _searches(names: _Names, *found: _Found) -> list[cloudwatch.IMetric]:
    return [
        cloudwatch.MathExpression(
            expression=f'SEARCH(\'{{{each.schema}}} MetricName="{each.metric}" '
            f"{each.term.format(**names._asdict())}', '{each.statistic}', {each.seconds})",
            using_metrics={},
            label="",
            period=cdk.Duration.seconds(each.seconds),
        )
        for each in found
    ]
