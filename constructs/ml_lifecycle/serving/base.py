"""What every SageMaker endpoint of a workload has, whatever its style."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from ml_contract.load import LoadedWorkload
from ml_contract.spec.serving import Serving

from constructs import Construct
from ml_lifecycle import instance_types
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.pseudo import arn
from ml_lifecycle.serving.approved import Approved, approved_model
from ml_lifecycle.serving.metrics import EndpointMetrics, Watch, rollout_alarms

__all__ = ["VARIANT_NAME", "SageMakerEndpoint", "check_serving", "data_capture"]

#: The production variant that the approved model answers on.
VARIANT_NAME = "AllTraffic"


def check_serving(workload: LoadedWorkload, alarm_minutes: int, style: str) -> None:
    """Refuse instance types that SageMaker does not offer, alarms of no minutes, another style."""
    instance_types.check_workload(workload)
    problems = []
    if not 1 <= alarm_minutes <= 60:
        problems.append(f"alarm_minutes must be between 1 and 60, got {alarm_minutes}")
    if workload.workload.serving.style != style:
        problems.append(
            f"workload must have serving.style {style}, got {workload.workload.serving.style}; "
            "ml_lifecycle.serving.served picks the construct by the style"
        )
    if problems:
        raise ValueError("; ".join(problems))


def data_capture(serving: Serving, uri: str) -> sagemaker.CfnEndpointConfig.DataCaptureConfigProperty:
    """Return how requests and answers are captured below ``uri``."""
    part = sagemaker.CfnEndpointConfig
    return part.DataCaptureConfigProperty(
        enable_capture=True,
        initial_sampling_percentage=serving.capture_percent,
        destination_s3_uri=uri,
        capture_options=[
            part.CaptureOptionProperty(capture_mode="Input"),
            part.CaptureOptionProperty(capture_mode="Output"),
        ],
        capture_content_type_header=part.CaptureContentTypeHeaderProperty(
            csv_content_types=["text/csv"], json_content_types=["application/json"]
        ),
    )


class SageMakerEndpoint(Construct):
    """What the endpoints of all styles share: approval, role, metrics, alarms, events.

    Not to be used by itself: a style's own construct makes model, configuration and endpoint.
    """

    role: iam.Role
    endpoint: sagemaker.CfnEndpoint

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: LoadedWorkload,
        endpoint_name: str,
        approval_parameter_name: str,
        artifacts: Zone,
        alarm_minutes: int,
        style: str,
    ) -> None:
        super().__init__(scope, construct_id)
        check_serving(workload, alarm_minutes, style)
        spec = workload.workload
        self._serving = spec.serving
        self._slug = spec.slug
        self._alarm_minutes = alarm_minutes
        self._parameter_name = approval_parameter_name
        self._artifacts = artifacts
        self.endpoint_name = endpoint_name
        #: Where requests are captured; ``None`` where SageMaker captures none.
        self.capture_uri = artifacts.uri(f"{spec.slug}/capture") if spec.serving.captures else None

    def _approve(self) -> Approved:
        approved = approved_model(self, self._parameter_name)
        self.approved = approved
        self.condition = approved.condition
        return approved

    @property
    def endpoint_arn(self) -> str:
        """ARN of the endpoint."""
        return arn("sagemaker", f"endpoint/{self.endpoint_name}")

    @property
    def outputs(self) -> dict[str, str]:
        """What a caller needs to know, by the name of the stack's output."""
        return {"EndpointName": self.endpoint_name} | (
            {} if self.capture_uri is None else {"CaptureUri": self.capture_uri}
        )

    @property
    def alarms(self) -> list[cloudwatch.IAlarm]:
        """Alarms that somebody should hear of."""
        return [self.error_alarm, self.latency_alarm]

    @property
    def watch(self) -> Watch:
        """What a dashboard shows."""
        return Watch(
            requests=self.metric_invocations(),
            errors=self.metric_error_rate(),
            latency=[self.metric_latency(statistic="p50"), self.metric_latency()],
        )

    @property
    def metrics(self) -> EndpointMetrics:
        """Metrics of who answers."""
        return EndpointMetrics(dimensions={"EndpointName": self.endpoint_name, "VariantName": VARIANT_NAME})

    def grant_invoke(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant asking the endpoint."""
        return iam.Grant.add_to_principal(
            grantee=grantee, actions=["sagemaker:InvokeEndpoint"], resource_arns=[self.endpoint_arn]
        )

    def metric_invocations(
        self, *, period: cdk.Duration | None = None, statistic: str = "Sum"
    ) -> cloudwatch.Metric:
        """Count of requests; one minute unless ``period`` says otherwise."""
        return self.metrics.metric("Invocations", period=period, statistic=statistic)

    def metric_error_rate(
        self, *, period: cdk.Duration | None = None, statistic: str = "Average"
    ) -> cloudwatch.Metric:
        """Share (0 to 1) of requests that the model answered with 5xx; SageMaker sends 1 for each of them and
        else 0.
        """
        return self.metrics.metric("Invocation5XXErrors", period=period, statistic=statistic)

    def metric_latency(
        self, *, period: cdk.Duration | None = None, statistic: str = "p99"
    ) -> cloudwatch.Metric:
        """Time the model took to answer, in microseconds."""
        return self.metrics.metric("ModelLatency", period=period, statistic=statistic)

    def on_state_change(self, rule_id: str, *, target: events.IRuleTarget) -> events.Rule:
        """Send an event to ``target`` whenever the endpoint's status changes."""
        rule = events.Rule(
            self,
            rule_id,
            description=f"Endpoint {self.endpoint_name} changed its status",
            event_pattern=events.EventPattern(
                source=["aws.sagemaker"],
                detail_type=["SageMaker Endpoint State Change"],
                detail={"EndpointName": [self.endpoint_name]},
            ),
        )
        rule.add_target(target)
        return rule

    def _watched(self) -> None:
        self.error_alarm, self.latency_alarm = rollout_alarms(
            self,
            who=self.endpoint_name,
            error_rate=self.metric_error_rate(),
            latency=self.metric_latency(),
            latency_per_ms=1_000,
            rollout=self._serving.rollout,
            minutes=self._alarm_minutes,
        )

    def _only_approved(self, *resources: cdk.CfnResource) -> None:
        for resource in resources:
            resource.cfn_options.condition = self.condition
