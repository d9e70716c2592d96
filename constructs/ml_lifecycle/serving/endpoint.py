"""The real-time endpoint of one workload."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_applicationautoscaling as autoscaling
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker
from ml_contract.load import LoadedWorkload

from constructs import Construct
from ml_lifecycle import instance_types
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.pseudo import arn
from ml_lifecycle.registry.approval import NONE_APPROVED
from ml_lifecycle.training.job_role import JobNetwork, grant_key, grant_pull, job_role

__all__ = ["VARIANT_NAME", "ModelEndpoint"]

#: The one production variant.
VARIANT_NAME = "AllTraffic"
#: UpdateEndpoint, BlueGreenUpdatePolicy.MaximumExecutionTimeoutInSeconds: ten minutes to eight hours.
_SHORTEST_ROLLOUT, _LONGEST_ROLLOUT = 600, 28_800
#: A linear step is 10 to 50 percent of the fleet (UpdateEndpoint, TrafficRoutingConfig.LinearStepSize).
_SMALLEST_LINEAR_PERCENT = 10
#: What provisioning and draining a fleet takes beside the baking; the rest of the time a rollout is given.
_FLEET_SECONDS = 3_600
#: The old fleet answers for this long after the shift, so that a late alarm can still turn back.
_TERMINATION_WAIT_SECONDS = 120


class ModelEndpoint(Construct):
    """Define the real-time endpoint that serves the approved model of one workload.

    The approval parameter is a parameter of the stack. While it is ``none`` there is no model, no endpoint
    config and no endpoint, so that a first deploy waits for nothing. When it holds a model package,
    CloudFormation creates them; when it changes, the endpoint moves to the new model as the workload's
    ``serving.rollout`` says and goes back when an alarm
    fires: more than ``max_error_percent`` of a minute's requests answered 5xx, or a p99 of the model's
    latency above ``max_latency_ms``. Models and endpoint configs are immutable; CloudFormation names each
    anew.

    Requests and answers are captured below ``<artifacts>/<slug>/capture/``. The fleet follows its load
    (target tracking on invocations per instance and minute) between the workload's two capacities, and a
    rollout keeps the size it has. The container has no network access of its own (network isolation) and runs
    in the VPC when ``network`` is given.

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
            which SageMaker rolls out without looking at alarms.
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
    ) -> None:
        super().__init__(scope, construct_id)
        instance_types.check_workload(workload)
        if not 1 <= alarm_minutes <= 60:
            raise ValueError(f"alarm_minutes must be between 1 and 60, got {alarm_minutes}")
        spec = workload.workload
        self._serving = spec.serving
        self._refuse_inf1()
        self._refuse_small_steps()
        self.endpoint_name = endpoint_name
        self.capture_uri = artifacts.uri(f"{spec.slug}/capture")
        self.role = self._role(artifacts, spec.slug, volume_key, repository, network)

        approved = cdk.CfnParameter(
            self,
            "ApprovedModelPackage",
            type="AWS::SSM::Parameter::Value<String>",
            default=approval_parameter_name,
            description="Name of the parameter that holds the approved model package, or none.",
        )
        self.condition = cdk.CfnCondition(
            self,
            "IsApproved",
            expression=cdk.Fn.condition_not(cdk.Fn.condition_equals(approved.value_as_string, NONE_APPROVED)),
        )
        self.model = self._model(approved.value_as_string, network)
        self.config = self._config(volume_key)
        self.error_alarm, self.latency_alarm = self._alarms(alarm_minutes)
        self.endpoint = self._endpoint()
        self.scaling_target, self.scaling_policy = self._scaling()
        for resource in (self.model, self.config, self.endpoint, self.scaling_target, self.scaling_policy):
            resource.cfn_options.condition = self.condition

    @property
    def endpoint_arn(self) -> str:
        """ARN of the endpoint."""
        return arn("sagemaker", f"endpoint/{self.endpoint_name}")

    def grant_invoke(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant asking the endpoint."""
        return iam.Grant.add_to_principal(
            grantee=grantee, actions=["sagemaker:InvokeEndpoint"], resource_arns=[self.endpoint_arn]
        )

    def metric_invocations(
        self, *, period: cdk.Duration | None = None, statistic: str = "Sum"
    ) -> cloudwatch.Metric:
        """Count of requests; one minute unless ``period`` says otherwise."""
        return self._metric("Invocations", period, statistic)

    def metric_error_rate(
        self, *, period: cdk.Duration | None = None, statistic: str = "Average"
    ) -> cloudwatch.Metric:
        """Share (0 to 1) of requests that the model answered with 5xx; SageMaker sends 1 for each of them and
        else 0.
        """
        return self._metric("Invocation5XXErrors", period, statistic)

    def metric_latency(
        self, *, period: cdk.Duration | None = None, statistic: str = "p99"
    ) -> cloudwatch.Metric:
        """Time the model took to answer, in microseconds."""
        return self._metric("ModelLatency", period, statistic)

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

    def _metric(self, name: str, period: cdk.Duration | None, statistic: str) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace="AWS/SageMaker",
            metric_name=name,
            dimensions_map={"EndpointName": self.endpoint_name, "VariantName": VARIANT_NAME},
            period=cdk.Duration.minutes(1) if period is None else period,
            statistic=statistic,
        )

    def _role(
        self,
        artifacts: Zone,
        slug: str,
        volume_key: kms.IKey,
        repository: ecr.IRepository,
        network: JobNetwork | None,
    ) -> iam.Role:
        role = job_role(
            self,
            "Role",
            log_groups=[f"/aws/sagemaker/Endpoints/{self.endpoint_name}"],
            network=network,
            metric_namespaces=["/aws/sagemaker/Endpoints", "AWS/SageMaker"],
            description=f"Endpoint {self.endpoint_name}",
        )
        grant_pull(repository, role)
        grant_key(volume_key, role)
        artifacts.grant_read(role, f"{slug}/training/")
        artifacts.grant_write(role, f"{slug}/capture/")
        return role

    def _model(self, package: str, network: JobNetwork | None) -> sagemaker.CfnModel:
        model = sagemaker.CfnModel(
            self,
            "Model",
            execution_role_arn=self.role.role_arn,
            containers=[
                sagemaker.CfnModel.ContainerDefinitionProperty(
                    model_package_name=package,
                    # The model cannot know its own number; with it every answer says who gave it.
                    environment={"MODEL_PACKAGE": package},
                )
            ],
            enable_network_isolation=True,
            vpc_config=None
            if network is None
            else sagemaker.CfnModel.VpcConfigProperty(
                subnets=network.subnet_ids, security_group_ids=network.security_group_ids
            ),
        )
        # SageMaker reads the model's data as this role when it creates the model.
        model.node.add_dependency(self.role)
        return model

    def _config(self, volume_key: kms.IKey) -> sagemaker.CfnEndpointConfig:
        instance_type = self._serving.instance_type
        return sagemaker.CfnEndpointConfig(
            self,
            "Config",
            production_variants=[
                sagemaker.CfnEndpointConfig.ProductionVariantProperty(
                    model_name=self.model.attr_model_name,
                    variant_name=VARIANT_NAME,
                    instance_type=instance_type,
                    initial_instance_count=self._serving.initial_instance_count,
                    initial_variant_weight=1,
                )
            ],
            data_capture_config=sagemaker.CfnEndpointConfig.DataCaptureConfigProperty(
                enable_capture=True,
                initial_sampling_percentage=self._serving.capture_percent,
                destination_s3_uri=self.capture_uri,
                capture_options=[
                    sagemaker.CfnEndpointConfig.CaptureOptionProperty(capture_mode="Input"),
                    sagemaker.CfnEndpointConfig.CaptureOptionProperty(capture_mode="Output"),
                ],
                capture_content_type_header=sagemaker.CfnEndpointConfig.CaptureContentTypeHeaderProperty(
                    csv_content_types=["text/csv"], json_content_types=["application/json"]
                ),
            ),
            kms_key_id=None if instance_types.has_local_disk(instance_type) else volume_key.key_arn,
        )

    def _alarms(self, minutes: int) -> tuple[cloudwatch.Alarm, cloudwatch.Alarm]:
        rollout = self._serving.rollout
        error = self.metric_error_rate().create_alarm(
            self,
            "Errors",
            alarm_description=(
                f"More than {rollout.max_error_percent:g} % of requests to {self.endpoint_name} answered 5xx"
            ),
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            threshold=rollout.max_error_percent / 100,
            evaluation_periods=minutes,
            # No request is no error; SageMaker refuses a rollout while one of its alarms is not OK.
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        latency = self.metric_latency().create_alarm(
            self,
            "Latency",
            alarm_description=f"p99 of {self.endpoint_name} above {rollout.max_latency_ms} ms",
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            threshold=rollout.max_latency_ms * 1_000,
            evaluation_periods=minutes,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        return error, latency

    def _endpoint(self) -> sagemaker.CfnEndpoint:
        return sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_name=self.endpoint_name,
            endpoint_config_name=self.config.attr_endpoint_config_name,
            # A rollout must not shrink a fleet that autoscaling made larger.
            retain_all_variant_properties=True,
            deployment_config=sagemaker.CfnEndpoint.DeploymentConfigProperty(
                blue_green_update_policy=sagemaker.CfnEndpoint.BlueGreenUpdatePolicyProperty(
                    traffic_routing_configuration=self._routing(),
                    termination_wait_in_seconds=_TERMINATION_WAIT_SECONDS,
                    maximum_execution_timeout_in_seconds=self._timeout(),
                ),
                auto_rollback_configuration=sagemaker.CfnEndpoint.AutoRollbackConfigProperty(
                    alarms=[
                        sagemaker.CfnEndpoint.AlarmProperty(alarm_name=alarm.alarm_name)
                        for alarm in (self.error_alarm, self.latency_alarm)
                    ]
                ),
            ),
        )

    def _refuse_inf1(self) -> None:
        """Refuse a rollout that SageMaker would drop without a word.

        Endpoints on Inf1 have no deployment guardrails: they move all at once, unwatched by any alarm
        (SageMaker Developer Guide, deployment guardrails, "Exclusions").
        """
        if self._serving.instance_type.startswith("ml.inf1."):
            raise ValueError(
                f"serving.instance_type must not be one of Inf1, got {self._serving.instance_type}: "
                "SageMaker rolls such an endpoint out all at once and rolls back on no alarm; "
                "use ml.inf2.xlarge or larger"
            )

    def _refuse_small_steps(self) -> None:
        rollout = self._serving.rollout
        # A canary has no least size; a linear step has (TrafficRoutingConfig, LinearStepSize).
        if rollout.strategy == "linear" and rollout.step_percent < _SMALLEST_LINEAR_PERCENT:
            raise ValueError(
                f"serving.rollout.step_percent must be between {_SMALLEST_LINEAR_PERCENT} and 50 with "
                f"strategy linear, got {rollout.step_percent}; raise it or use strategy canary"
            )

    def _routing(self) -> sagemaker.CfnEndpoint.TrafficRoutingConfigProperty:
        rollout = self._serving.rollout
        size = sagemaker.CfnEndpoint.CapacitySizeProperty(type="CAPACITY_PERCENT", value=rollout.step_percent)
        return sagemaker.CfnEndpoint.TrafficRoutingConfigProperty(
            type=rollout.strategy.upper(),
            wait_interval_in_seconds=rollout.bake_minutes * 60,
            canary_size=size if rollout.strategy == "canary" else None,
            linear_step_size=size if rollout.strategy == "linear" else None,
        )

    def _timeout(self) -> int:
        rollout = self._serving.rollout
        # A canary bakes after its first step and after the rest; linear after each step.
        steps = {"all_at_once": 1, "canary": 2, "linear": -(-100 // rollout.step_percent)}[rollout.strategy]
        seconds = steps * rollout.bake_minutes * 60 + _TERMINATION_WAIT_SECONDS + _FLEET_SECONDS
        if seconds > _LONGEST_ROLLOUT:
            raise ValueError(
                f"serving.rollout must end within {_LONGEST_ROLLOUT // 60} minutes, got {steps} steps of "
                f"{rollout.bake_minutes} minutes and an hour for the fleets ({seconds // 60} minutes); "
                "raise step_percent or lower bake_minutes"
            )
        return max(_SHORTEST_ROLLOUT, seconds)

    def _scaling(self) -> tuple[autoscaling.CfnScalableTarget, autoscaling.CfnScalingPolicy]:
        scaling = self._serving.scaling
        # The L2 would bring a role; Application Auto Scaling uses its service-linked one for endpoints.
        target = autoscaling.CfnScalableTarget(
            self,
            "ScalingTarget",
            service_namespace="sagemaker",
            scalable_dimension="sagemaker:variant:DesiredInstanceCount",
            resource_id=f"endpoint/{self.endpoint_name}/variant/{VARIANT_NAME}",
            min_capacity=scaling.min_capacity,
            max_capacity=scaling.max_capacity,
        )
        # The name is a string, not a reference: the variant must exist first and must go last.
        target.add_resource_dependency(self.endpoint)
        policy = autoscaling.CfnScalingPolicy(
            self,
            "ScalingPolicy",
            policy_name="Invocations",
            policy_type="TargetTrackingScaling",
            scaling_target_id=target.ref,
            target_tracking_scaling_policy_configuration=(
                autoscaling.CfnScalingPolicy.TargetTrackingScalingPolicyConfigurationProperty(
                    target_value=scaling.target_invocations_per_instance,
                    predefined_metric_specification=(
                        autoscaling.CfnScalingPolicy.PredefinedMetricSpecificationProperty(
                            predefined_metric_type="SageMakerVariantInvocationsPerInstance"
                        )
                    ),
                    # A new instance takes minutes to serve; it goes later than it comes.
                    scale_out_cooldown=120,
                    scale_in_cooldown=600,
                )
            ),
        )
        return target, policy
