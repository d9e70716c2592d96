"""Many versions on one endpoint, each called by its name."""

from __future__ import annotations

from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker
from ml_contract.load import LoadedWorkload

from constructs import Construct
from ml_lifecycle import instance_types
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.pseudo import arn
from ml_lifecycle.serving.approved import endpoint_role, vpc_config
from ml_lifecycle.serving.base import VARIANT_NAME, SageMakerEndpoint, data_capture
from ml_lifecycle.serving.rollout import deployment, refuse_unwatched
from ml_lifecycle.serving.scaling import Fleet, scale
from ml_lifecycle.serving.shelf import ModelShelf
from ml_lifecycle.training.job_role import JobNetwork

__all__ = ["MultiModelEndpoint"]


class MultiModelEndpoint(SageMakerEndpoint):
    """Define an endpoint that serves the latest approved versions of a workload, each by its name.

    A caller names the version, ``TargetModel=3.tar.gz``; SageMaker loads it when it is first asked for and
    drops what is asked for least when memory runs out. Approving a version puts it beside the others
    (``multi_model.keep_versions``, default 5): it can be called at once, and nothing of the fleet changes.
    What ``serving.rollout`` moves is the fleet: another image or instance type. Scaling, capture, network and
    encryption as for ``ModelEndpoint``.

    Example::

        MultiModelEndpoint(
            self, "Endpoint",
            workload=workload, endpoint_name="dev-claims-fraud",
            approval_parameter_name=registry.approval_parameter_name,
            model_package_group_name=registry.group_name,
            artifacts=lake.artifacts, volume_key=keys.data_key, log_key=keys.logs, image=image,
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
        model_package_group_name: str,
        artifacts: Zone,
        volume_key: kms.IKey,
        log_key: kms.IKey,
        image: ecr_assets.DockerImageAsset,
        network: JobNetwork | None = None,
        log_retention_days: int = 90,
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
            style="multi_model",
        )
        refuse_unwatched(self._serving)
        self.role = endpoint_role(
            self,
            "Role",
            endpoint_name=endpoint_name,
            artifacts=artifacts,
            read=f"{self._slug}/served/",
            volume_key=volume_key,
            repository=image.repository,
            network=network,
            captured=f"{self._slug}/capture/",
        )
        approved = self._approve()
        self.shelf = ModelShelf(
            self,
            "Shelf",
            slug=self._slug,
            model_package_group_name=model_package_group_name,
            approved=approved,
            artifacts=artifacts,
            log_key=log_key,
            log_retention_days=log_retention_days,
            keep=self._serving.multi_model.keep_versions,
        )
        part = sagemaker.CfnModel
        self.model = part(
            self,
            "Model",
            execution_role_arn=self.role.role_arn,
            containers=[
                part.ContainerDefinitionProperty(
                    image=image.image_uri,
                    mode="MultiModel",
                    model_data_url=self.shelf.folder_uri,
                    multi_model_config=part.MultiModelConfigProperty(
                        model_cache_setting="Enabled" if self._serving.multi_model.cache else "Disabled"
                    ),
                    # With the number of the version it is the package's ARN, which every answer names.
                    environment={
                        "MODEL_PACKAGE_GROUP": arn("sagemaker", f"model-package/{model_package_group_name}")
                    },
                )
            ],
            enable_network_isolation=True,
            vpc_config=None if network is None else vpc_config(network),
        )
        self.model.node.add_dependency(self.role)
        # The first model stands there before anybody can ask for it.
        self.model.node.add_dependency(self.shelf.resource)
        instance_type = self._serving.instance_type
        self.config = sagemaker.CfnEndpointConfig(
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
            data_capture_config=data_capture(self._serving, str(self.capture_uri)),
            kms_key_id=None if instance_types.has_local_disk(instance_type) else volume_key.key_arn,
        )
        self._watched()
        self.endpoint = sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_name=endpoint_name,
            endpoint_config_name=self.config.attr_endpoint_config_name,
            retain_all_variant_properties=True,
            deployment_config=deployment(self._serving.rollout, [self.error_alarm, self.latency_alarm]),
        )
        self.scaling_target, scaled = scale(
            self,
            fleet=Fleet(
                namespace="sagemaker",
                dimension="sagemaker:variant:DesiredInstanceCount",
                resource_id=f"endpoint/{endpoint_name}/variant/{VARIANT_NAME}",
                load=self.metrics.metric("InvocationsPerInstance", period=None, statistic="Sum"),
                predefined="SageMakerVariantInvocationsPerInstance",
            ),
            scaling=self._serving.scaling,
            after=[self.endpoint],
        )
        self._only_approved(self.model, self.config, self.endpoint, *scaled)

    @property
    def outputs(self) -> dict[str, str]:
        """What a caller needs to know, by the name of the stack's output."""
        return super().outputs | {"ModelsUri": self.shelf.folder_uri}
