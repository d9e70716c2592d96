"""Copies of models on one fleet: an endpoint without a model, and inference components on it."""

from __future__ import annotations

from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker
from ml_contract.load import LoadedWorkload
from ml_contract.spec.serving import Components

from constructs import Construct
from ml_lifecycle import instance_types
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.pseudo import arn
from ml_lifecycle.serving.approved import endpoint_role, packaged_model
from ml_lifecycle.serving.base import VARIANT_NAME, SageMakerEndpoint, data_capture
from ml_lifecycle.serving.metrics import EndpointMetrics
from ml_lifecycle.serving.rollout import component_deployment, refuse_unwatched
from ml_lifecycle.serving.scaling import Fleet, from_zero, scale
from ml_lifecycle.training.job_role import JobNetwork

__all__ = ["InferenceComponents"]


class InferenceComponents(SageMakerEndpoint):
    """Define an endpoint whose fleet holds copies of the approved model, each with its share of an instance.

    The endpoint has instances and no model; ``component`` is the approved model with what a copy needs
    (``serving.components``). SageMaker places copies and adds instances up to ``components.max_instances``.
    Copies follow their load between ``scaling.min_capacity``, which may be 0, and ``max_capacity``; the
    fleet then goes to 0 too, and the first request that finds nobody brings a copy back (it is answered with
    an error). A new model replaces copies batch by batch (``rollout.step_percent``) and goes back when an
    alarm fires. ``add_model`` places another model on the same fleet.

    Example::

        InferenceComponents(
            self, "Endpoint",
            workload=workload, endpoint_name="dev-claims-fraud",
            approval_parameter_name=registry.approval_parameter_name,
            artifacts=lake.artifacts, volume_key=keys.data_key, repository=image.repository,
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
            style="inference_components",
        )
        refuse_unwatched(self._serving)
        wants = self._serving.components
        if self._serving.initial_instance_count > wants.max_instances:
            raise ValueError(
                f"serving.initial_instance_count must be at most components.max_instances "
                f"{wants.max_instances}, got {self._serving.initial_instance_count}"
            )
        self.component_name = endpoint_name
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
            log_groups=[
                f"/aws/sagemaker/Endpoints/{endpoint_name}",
                f"/aws/sagemaker/InferenceComponents/{self.component_name}",
            ],
        )
        approved = self._approve()
        self.model = packaged_model(self, "Model", approved=approved, role=self.role, network=network)
        self.config = self._config(volume_key, network)
        self._watched()
        self.endpoint = sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_name=endpoint_name,
            endpoint_config_name=self.config.attr_endpoint_config_name,
        )
        self.component = self._component()
        scaling = self._serving.scaling
        self.scaling_target, scaled = scale(
            self,
            fleet=Fleet(
                namespace="sagemaker",
                dimension="sagemaker:inference-component:DesiredCopyCount",
                resource_id=f"inference-component/{self.component_name}",
                load=self.metrics.metric("InvocationsPerCopy", period=None, statistic="Sum"),
                predefined="SageMakerInferenceComponentInvocationsPerCopy",
            ),
            scaling=scaling,
            after=[self.component],
        )
        if scaling.to_zero:
            scaled += from_zero(
                self,
                self.scaling_target,
                metric=self.metrics.metric("NoCapacityInvocationFailures", period=None, statistic="Maximum"),
                description=f"A request to {self.component_name} found no copy",
            )
        self._only_approved(self.config, self.endpoint, self.component, *scaled)

    @property
    def outputs(self) -> dict[str, str]:
        """What a caller needs to know, by the name of the stack's output."""
        return super().outputs | {"InferenceComponentName": self.component_name}

    @property
    def metrics(self) -> EndpointMetrics:
        """Metrics of the copies of this model, whatever else the fleet holds."""
        return EndpointMetrics(dimensions={"InferenceComponentName": self.component_name})

    @property
    def component_arn(self) -> str:
        """ARN of the inference component."""
        return arn("sagemaker", f"inference-component/{self.component_name}")

    def grant_invoke(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant asking this model; others on the same fleet are not granted with it."""
        return iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["sagemaker:InvokeEndpoint"],
            resource_arns=[self.endpoint_arn, self.component_arn],
        )

    def _config(self, volume_key: kms.IKey, network: JobNetwork | None) -> sagemaker.CfnEndpointConfig:
        part = sagemaker.CfnEndpointConfig
        instance_type = self._serving.instance_type
        config = part(
            self,
            "Config",
            # What the fleet acts as and where it stands belongs to it, not to one of its models.
            execution_role_arn=self.role.role_arn,
            enable_network_isolation=True,
            vpc_config=None
            if network is None
            else part.VpcConfigProperty(
                subnets=network.subnet_ids, security_group_ids=network.security_group_ids
            ),
            production_variants=[
                part.ProductionVariantProperty(
                    variant_name=VARIANT_NAME,
                    instance_type=instance_type,
                    initial_instance_count=self._serving.initial_instance_count,
                    managed_instance_scaling=part.ManagedInstanceScalingProperty(
                        status="ENABLED",
                        min_instance_count=0 if self._serving.scaling.to_zero else 1,
                        max_instance_count=self._serving.components.max_instances,
                    ),
                    routing_config=part.RoutingConfigProperty(routing_strategy="LEAST_OUTSTANDING_REQUESTS"),
                )
            ],
            data_capture_config=data_capture(self._serving, str(self.capture_uri)),
            kms_key_id=None if instance_types.has_local_disk(instance_type) else volume_key.key_arn,
        )
        # The policy is a resource beside the role: the fleet writes what it captured until it is gone.
        config.node.add_dependency(self.role)
        return config

    def _component(self) -> sagemaker.CfnInferenceComponent:
        wants = self._serving.components
        return self._place(
            "Component",
            name=self.component_name,
            model=self.model,
            wants=wants,
            deployment_config=component_deployment(
                self._serving.rollout, [self.error_alarm, self.latency_alarm]
            ),
        )

    def add_model(
        self, construct_id: str, *, name: str, model: sagemaker.CfnModel, wants: Components | None = None
    ) -> sagemaker.CfnInferenceComponent:
        """Place copies of another model on the same fleet; a caller names it: ``InferenceComponentName``.

        ``wants`` is what a copy needs of an instance and how many there are, one core and 1,024 MB by
        default. It exists as long as the fleet does, and its number of copies is not scaled.
        """
        if name == self.component_name:
            raise ValueError(f"name must differ from the fleet's first component, got {name!r}")
        component = self._place(
            construct_id, name=name, model=model, wants=Components() if wants is None else wants
        )
        self._only_approved(component)
        return component

    def _place(
        self,
        construct_id: str,
        *,
        name: str,
        model: sagemaker.CfnModel,
        wants: Components,
        deployment_config: sagemaker.CfnInferenceComponent.InferenceComponentDeploymentConfigProperty
        | None = None,
    ) -> sagemaker.CfnInferenceComponent:
        part = sagemaker.CfnInferenceComponent
        component = part(
            self,
            construct_id,
            inference_component_name=name,
            endpoint_name=self.endpoint_name,
            variant_name=VARIANT_NAME,
            specification=part.InferenceComponentSpecificationProperty(
                model_name=model.attr_model_name,
                compute_resource_requirements=part.InferenceComponentComputeResourceRequirementsProperty(
                    number_of_cpu_cores_required=wants.cpus,
                    min_memory_required_in_mb=wants.memory_mb,
                    number_of_accelerator_devices_required=wants.accelerators or None,
                ),
            ),
            runtime_config=part.InferenceComponentRuntimeConfigProperty(copy_count=wants.copies),
            deployment_config=deployment_config,
        )
        # The endpoint is named, not referred to.
        component.add_resource_dependency(self.endpoint)
        return component
