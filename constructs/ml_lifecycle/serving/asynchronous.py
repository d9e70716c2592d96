"""An endpoint whose requests are objects in S3 and wait in a queue."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_sns as sns
from ml_contract.load import LoadedWorkload

from constructs import Construct
from ml_lifecycle import instance_types
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.serving.approved import endpoint_role, packaged_model
from ml_lifecycle.serving.base import VARIANT_NAME, SageMakerEndpoint, data_capture
from ml_lifecycle.serving.metrics import EndpointMetrics, Watch
from ml_lifecycle.serving.rollout import deployment, refuse_unwatched
from ml_lifecycle.serving.scaling import Fleet, from_zero, scale
from ml_lifecycle.training.job_role import JobNetwork, grant_output_key

__all__ = ["AsynchronousEndpoint"]


class AsynchronousEndpoint(SageMakerEndpoint):
    """Define an asynchronous endpoint of the approved model.

    A caller puts a request below ``<artifacts>/<slug>/async/in/`` and names it (InvokeEndpointAsync); the
    answer appears below ``async/out/``, a failure below ``async/failed/``, and ``success_topic`` or
    ``error_topic`` tells of it. The fleet follows the queue: ``asynchronous.backlog_per_instance`` waiting
    requests an instance, down to ``scaling.min_capacity``, which may be 0; then the first request that
    waits brings an instance back. Rollout, capture, network and encryption as for ``ModelEndpoint``.

    Example::

        AsynchronousEndpoint(
            self, "Endpoint",
            workload=workload, endpoint_name="dev-claims-fraud",
            approval_parameter_name=registry.approval_parameter_name,
            artifacts=lake.artifacts, volume_key=keys.data_key, message_key=keys.messages,
            repository=image.repository,
        )
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: LoadedWorkload,
        endpoint_name: str,
        approval_parameter_name: str,
        artifacts: Zone,
        volume_key: kms.IKey,
        message_key: kms.IKey,
        repository: ecr.IRepository,
        network: JobNetwork | None = None,
        alarm_minutes: int = 1,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            workload=workload,
            endpoint_name=endpoint_name,
            approval_parameter_name=approval_parameter_name,
            artifacts=artifacts,
            alarm_minutes=alarm_minutes,
            style="asynchronous",
        )
        refuse_unwatched(self._serving)
        self.role = endpoint_role(
            self,
            "Role",
            endpoint_name=endpoint_name,
            artifacts=artifacts,
            read=f"{self._slug}/training/",
            volume_key=volume_key,
            repository=repository,
            network=network,
            captured=f"{self._slug}/capture/",
        )
        self._message_key = message_key
        self.success_topic = self._topic("Success")
        self.error_topic = self._topic("Error")
        self._input, self._output = f"{self._slug}/async/in/", f"{self._slug}/async/out/"
        self._failed = f"{self._slug}/async/failed/"
        artifacts.grant_read(self.role, self._input)
        for prefix in (self._output, self._failed):
            artifacts.grant_write(self.role, prefix)
        grant_output_key(artifacts.key, self.role)
        approved = self._approve()
        self.model = packaged_model(self, "Model", approved=approved, role=self.role, network=network)
        self.config = self._config(volume_key)
        self._watched()
        self.endpoint = sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_name=endpoint_name,
            endpoint_config_name=self.config.attr_endpoint_config_name,
            # A rollout must not shrink a fleet that autoscaling made larger.
            retain_all_variant_properties=True,
            deployment_config=deployment(self._serving.rollout, [self.error_alarm, self.latency_alarm]),
        )
        scaling = self._serving.scaling
        self.scaling_target, scaled = scale(
            self,
            fleet=Fleet(
                namespace="sagemaker",
                dimension="sagemaker:variant:DesiredInstanceCount",
                resource_id=f"endpoint/{endpoint_name}/variant/{VARIANT_NAME}",
                load=self.metric_backlog_per_instance(),
            ),
            scaling=scaling,
            after=[self.endpoint],
            target_value=self._serving.asynchronous.backlog_per_instance,
            policy_name="Backlog",
        )
        if scaling.to_zero:
            scaled += from_zero(
                self,
                self.scaling_target,
                metric=self._queue_metric("HasBacklogWithoutCapacity", None, "Average"),
                description=f"Requests to {endpoint_name} wait and no instance is there",
            )
        self._only_approved(self.config, self.endpoint, *scaled)

    @property
    def outputs(self) -> dict[str, str]:
        """What a caller needs to know, by the name of the stack's output."""
        return super().outputs | {
            "AsyncInputUri": self._artifacts.uri(self._input),
            "AsyncOutputUri": self._artifacts.uri(self._output),
            "AsyncFailureUri": self._artifacts.uri(self._failed),
            "SuccessTopicArn": self.success_topic.topic_arn,
            "ErrorTopicArn": self.error_topic.topic_arn,
        }

    @property
    def watch(self) -> Watch:
        """What a dashboard shows: the queue beside the requests."""
        return Watch(
            requests=self.metric_invocations(),
            errors=self.metric_error_rate(),
            latency=[self.metric_latency(statistic="p50"), self.metric_latency()],
            more=[self.metric_backlog()],
        )

    def grant_invoke(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant putting requests, asking for their answers, and reading those."""
        self._artifacts.grant_write(grantee, self._input)
        for prefix in (self._output, self._failed):
            self._artifacts.grant_read(grantee, prefix)
        return iam.Grant.add_to_principal(
            grantee=grantee, actions=["sagemaker:InvokeEndpointAsync"], resource_arns=[self.endpoint_arn]
        )

    def metric_backlog(
        self, *, period: cdk.Duration | None = None, statistic: str = "Average"
    ) -> cloudwatch.Metric:
        """Requests that wait or are being answered; one minute unless ``period`` says otherwise."""
        return self._queue_metric("ApproximateBacklogSize", period, statistic)

    def metric_backlog_per_instance(
        self, *, period: cdk.Duration | None = None, statistic: str = "Average"
    ) -> cloudwatch.Metric:
        """The same, divided by the instances."""
        return self._queue_metric("ApproximateBacklogSizePerInstance", period, statistic)

    def _queue_metric(self, name: str, period: cdk.Duration | None, statistic: str) -> cloudwatch.Metric:
        # The queue is the endpoint's, not a variant's.
        metrics = EndpointMetrics(dimensions={"EndpointName": self.endpoint_name})
        return metrics.metric(name, period=period, statistic=statistic)

    def _topic(self, kind: str) -> sns.Topic:
        key = kms.Key.from_key_arn(self, f"{kind}Key", self._message_key.key_arn)
        topic = sns.Topic(self, f"{kind}Topic", master_key=key, enforce_ssl=True)
        # SageMaker publishes as the endpoint's role.
        iam.Grant.add_to_principal(
            grantee=self.role, actions=["sns:Publish"], resource_arns=[topic.topic_arn]
        )
        iam.Grant.add_to_principal(
            grantee=self.role,
            actions=["kms:Decrypt", "kms:GenerateDataKey"],
            resource_arns=[self._message_key.key_arn],
        )
        return topic

    def _config(self, volume_key: kms.IKey) -> sagemaker.CfnEndpointConfig:
        part = sagemaker.CfnEndpointConfig
        instance_type = self._serving.instance_type
        return part(
            self,
            "Config",
            production_variants=[
                part.ProductionVariantProperty(
                    model_name=self.model.attr_model_name,
                    variant_name=VARIANT_NAME,
                    instance_type=instance_type,
                    initial_instance_count=self._serving.initial_instance_count,
                    initial_variant_weight=1,
                )
            ],
            async_inference_config=part.AsyncInferenceConfigProperty(
                client_config=part.AsyncInferenceClientConfigProperty(
                    max_concurrent_invocations_per_instance=(
                        self._serving.asynchronous.max_concurrent_per_instance
                    )
                ),
                output_config=part.AsyncInferenceOutputConfigProperty(
                    s3_output_path=self._artifacts.uri(self._output),
                    s3_failure_path=self._artifacts.uri(self._failed),
                    kms_key_id=self._artifacts.key.key_arn,
                    notification_config=part.AsyncInferenceNotificationConfigProperty(
                        success_topic=self.success_topic.topic_arn,
                        error_topic=self.error_topic.topic_arn,
                    ),
                ),
            ),
            data_capture_config=data_capture(self._serving, str(self.capture_uri)),
            kms_key_id=None if instance_types.has_local_disk(instance_type) else volume_key.key_arn,
        )
