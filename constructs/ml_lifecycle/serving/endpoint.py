"""The real-time endpoint of one workload."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker
from ml_contract.load import LoadedWorkload

from constructs import Construct
from ml_lifecycle import instance_types
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.registry.approval import CHALLENGER_NAME
from ml_lifecycle.serving.approved import Approved, challenger_model, endpoint_role, packaged_model
from ml_lifecycle.serving.base import VARIANT_NAME, SageMakerEndpoint, data_capture
from ml_lifecycle.serving.metrics import EndpointMetrics, rollout_alarms
from ml_lifecycle.serving.rollout import deployment, refuse_unwatched
from ml_lifecycle.serving.scaling import Fleet, scale
from ml_lifecycle.training.job_role import JobNetwork

__all__ = ["CHALLENGER_NAME", "ModelEndpoint"]


class ModelEndpoint(SageMakerEndpoint):
    """Define the real-time endpoint that serves the approved model of one workload.

    The approval parameter is a parameter of the stack. While it is ``none`` there is no model, no endpoint
    config and no endpoint, so that a first deploy waits for nothing. When it holds a model package,
    CloudFormation creates them; when it changes, the endpoint moves to the new model as the workload's
    ``serving.rollout`` says and goes back when an alarm
    fires: more than ``max_error_percent`` of a minute's requests answered 5xx, or a p99 of the model's
    latency above ``max_latency_ms``. Models and endpoint configs are immutable; CloudFormation names each
    anew.

    Requests and answers are captured below ``<artifacts>/<slug>/capture/``. The fleet follows its load
    (target tracking on invocations per instance and minute, or steps, and schedules) between the workload's
    two capacities, and a rollout keeps the size it has. The container has no network access of its own
    (network isolation) and runs in the VPC when ``network`` is given.

    With ``rollout.strategy`` ab or shadow a second parameter, ``challenger_parameter_name``, names a model
    that is tried beside the approved one: on ``challenger_percent`` of the traffic, or on a copy of it. Two
    alarms watch the challenger alone (``challenger_alarms``); who approves or rejects it is not decided here.

    Example::

        ModelEndpoint(
            self, "Endpoint",
            workload=workload, endpoint_name="dev-claims-fraud",
            approval_parameter_name=registry.approval_parameter_name,
            artifacts=lake.artifacts, volume_key=keys.data_key, repository=image.repository,
        )

    Raises:
        ContractError: an instance type that SageMaker does not offer for endpoints, with its line.
        ValueError: a rollout that takes longer than the eight hours SageMaker allows, or an Inf1 instance,
            which SageMaker rolls out without looking at alarms; a test of challengers without a parameter.
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
        repository: ecr.IRepository,
        network: JobNetwork | None = None,
        alarm_minutes: int = 1,
        challenger_parameter_name: str | None = None,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            workload=workload,
            endpoint_name=endpoint_name,
            approval_parameter_name=approval_parameter_name,
            artifacts=artifacts,
            alarm_minutes=alarm_minutes,
            style="real_time",
        )
        refuse_unwatched(self._serving)
        strategy = self._serving.rollout.strategy
        tries = strategy in ("ab", "shadow")
        if tries != (challenger_parameter_name is not None):
            raise ValueError(
                f"challenger_parameter_name goes with rollout.strategy ab and shadow, got "
                f"{challenger_parameter_name!r} with {strategy}"
            )
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
        approved = self._approve()
        self.model = packaged_model(self, "Model", approved=approved, role=self.role, network=network)
        self.challenger: Approved | None = None
        self.challenger_parameter_name = challenger_parameter_name
        self.challenger_alarms: tuple[cloudwatch.Alarm, ...] = ()
        variant: dict[str, Any] | None = None
        if challenger_parameter_name is not None:
            self.challenger = challenger_model(self, challenger_parameter_name, approved)
            model = packaged_model(
                self, "ChallengerModel", approved=self.challenger, role=self.role, network=network
            )
            variant = self._challenger_variant(model)
        self.config = self._config(volume_key, variant)
        self._watched()
        if tries:
            self.challenger_alarms = self._watch_challenger()
        self.endpoint = sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_name=self.endpoint_name,
            endpoint_config_name=self.config.attr_endpoint_config_name,
            # A rollout must not shrink a fleet that autoscaling made larger.
            retain_all_variant_properties=True,
            # Shares of traffic are what the configuration says: a test begins and ends with it.
            exclude_retained_variant_properties=[
                sagemaker.CfnEndpoint.VariantPropertyProperty(variant_property_type="DesiredWeight")
            ]
            if tries
            else None,
            deployment_config=deployment(self._serving.rollout, [self.error_alarm, self.latency_alarm]),
        )
        self.scaling_target, scaled = scale(
            self,
            fleet=Fleet(
                namespace="sagemaker",
                dimension="sagemaker:variant:DesiredInstanceCount",
                resource_id=f"endpoint/{self.endpoint_name}/variant/{VARIANT_NAME}",
                load=self.metrics.metric("InvocationsPerInstance", period=None, statistic="Sum"),
                predefined="SageMakerVariantInvocationsPerInstance",
            ),
            scaling=self._serving.scaling,
            after=[self.endpoint],
        )
        self._only_approved(self.config, self.endpoint, *scaled)

    @property
    def outputs(self) -> dict[str, str]:
        """What a caller needs to know, by the name of the stack's output."""
        named = self.challenger_parameter_name
        return super().outputs | ({} if named is None else {"ChallengerModelParameter": named})

    @property
    def alarms(self) -> list[cloudwatch.IAlarm]:
        """Alarms that somebody should hear of."""
        return [self.error_alarm, self.latency_alarm, *self.challenger_alarms]

    @property
    def challenger_metrics(self) -> EndpointMetrics:
        """Metrics of the challenger alone."""
        return EndpointMetrics(
            dimensions={"EndpointName": self.endpoint_name, "VariantName": CHALLENGER_NAME}
        )

    def _watch_challenger(self) -> tuple[cloudwatch.Alarm, ...]:
        metrics = self.challenger_metrics
        return rollout_alarms(
            self,
            who=f"{self.endpoint_name}'s challenger",
            error_rate=metrics.metric("Invocation5XXErrors", period=None, statistic="Average"),
            latency=metrics.metric("ModelLatency", period=None, statistic="p99"),
            latency_per_ms=1_000,
            rollout=self._serving.rollout,
            minutes=self._alarm_minutes,
            prefix="Challenger",
        )

    def _config(self, volume_key: kms.IKey, variant: dict[str, Any] | None) -> sagemaker.CfnEndpointConfig:
        serving = self._serving
        strategy, percent = serving.rollout.strategy, serving.rollout.challenger_percent
        instance_type = serving.instance_type
        champion = sagemaker.CfnEndpointConfig.ProductionVariantProperty(
            model_name=self.model.attr_model_name,
            variant_name=VARIANT_NAME,
            instance_type=instance_type,
            initial_instance_count=serving.initial_instance_count,
            # A variant's share is its weight of all (ab); a shadow gets its weight's part of the champion's.
            initial_variant_weight={"ab": 100 - percent, "shadow": 100}.get(strategy, 1),
        )
        return sagemaker.CfnEndpointConfig(
            self,
            "Config",
            production_variants=[champion, self._if_tried(variant)] if strategy == "ab" else [champion],
            # An empty list where nobody is tried would still ask for shadows.
            shadow_production_variants=self._if_tried([variant]) if strategy == "shadow" else None,
            data_capture_config=data_capture(serving, str(self.capture_uri)),
            kms_key_id=None if instance_types.has_local_disk(instance_type) else volume_key.key_arn,
        )

    def _if_tried(self, value: Any) -> cdk.IResolvable:
        condition = None if self.challenger is None else self.challenger.condition.logical_id
        return cdk.Fn.condition_if(str(condition), value, cdk.Aws.NO_VALUE)

    def _challenger_variant(self, model: sagemaker.CfnModel) -> dict[str, Any]:
        """The challenger's variant as the template has it: the CDK renders no types below a condition."""
        return {
            "ModelName": model.attr_model_name,
            "VariantName": CHALLENGER_NAME,
            "InstanceType": self._serving.instance_type,
            "InitialInstanceCount": self._serving.initial_instance_count,
            "InitialVariantWeight": self._serving.rollout.challenger_percent,
        }
