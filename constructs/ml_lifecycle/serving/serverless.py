"""An endpoint without instances."""

from __future__ import annotations

from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker
from ml_contract.load import LoadedWorkload

from constructs import Construct
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.isolation import open_job
from ml_lifecycle.serving.approved import endpoint_role, packaged_model
from ml_lifecycle.serving.base import VARIANT_NAME, SageMakerEndpoint

__all__ = ["ServerlessEndpoint"]


class ServerlessEndpoint(SageMakerEndpoint):
    """Define a serverless endpoint of the approved model: containers come with requests and go without.

    Memory, how many requests at once, and how many containers stay warm (default none) are the workload's
    ``serving.serverless``. A new model takes over all at once: such endpoints have no deployment guardrails,
    so ``error_alarm`` and ``latency_alarm`` tell of a bad model and turn nothing back. SageMaker gives them
    no VPC, no network isolation and no data capture (Developer Guide, "Deploy models with SageMaker
    Serverless Inference", "Feature exclusions"), so nothing watches their traffic for drift.

    Example::

        ServerlessEndpoint(
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
            style="serverless",
        )
        self.role = endpoint_role(
            self,
            "Role",
            endpoint_name=endpoint_name,
            artifacts=artifacts,
            read=f"{self._slug}/training/",
            volume_key=volume_key,
            repository=repository,
            network=None,
        )
        approved = self._approve()
        self.model = packaged_model(
            self, "Model", approved=approved, role=self.role, network=None, isolated=False
        )
        open_job(
            self.model,
            "Model",
            "A serverless endpoint takes no model with network isolation; its role reads model files only.",
        )
        given = self._serving.serverless
        self.config = sagemaker.CfnEndpointConfig(
            self,
            "Config",
            production_variants=[
                sagemaker.CfnEndpointConfig.ProductionVariantProperty(
                    model_name=self.model.attr_model_name,
                    variant_name=VARIANT_NAME,
                    initial_variant_weight=1,
                    serverless_config=sagemaker.CfnEndpointConfig.ServerlessConfigProperty(
                        memory_size_in_mb=given.memory_mb,
                        max_concurrency=given.max_concurrency,
                        provisioned_concurrency=given.provisioned_concurrency,
                    ),
                )
            ],
            kms_key_id=volume_key.key_arn,
        )
        self._watched()
        self.endpoint = sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_name=endpoint_name,
            endpoint_config_name=self.config.attr_endpoint_config_name,
        )
        self._only_approved(self.config, self.endpoint)
