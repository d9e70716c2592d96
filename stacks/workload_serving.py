"""The endpoint of one workload. Holds no data: it may be deleted and made again."""

from __future__ import annotations

import aws_cdk as cdk
from ml_contract.load import LoadedWorkload
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.serving import ModelEndpoint

from constructs import Construct
from environments import Environment
from stacks.base import LifecycleStack
from stacks.foundation import FoundationStack
from stacks.workload_models import WorkloadModelsStack, job_network


class WorkloadServingStack(LifecycleStack):
    """The approved model, served; nothing but alarms and a role while none is approved."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        workload: LoadedWorkload,
        foundation: FoundationStack,
        lake: DataLake,
        models: WorkloadModelsStack,
    ) -> None:
        spec = workload.workload
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            workload=workload,
            description=f"{spec.title}: serving ({environment.name})",
        )
        # The parameter that this stack reads is named, not referred to.
        self.add_stack_dependency(models)
        self.endpoint = ModelEndpoint(
            self,
            "Endpoint",
            workload=workload,
            endpoint_name=f"{environment.name}-{spec.slug}",
            approval_parameter_name=models.registry.approval_parameter_name,
            artifacts=lake.artifacts,
            volume_key=foundation.keys.data_key,
            repository=models.training_pipeline.images["serving"].repository,
            network=job_network(foundation),
            challenger_parameter_name=models.registry.challenger_parameter_name,
        )
        outputs = {"Workload": spec.name, **self.endpoint.outputs}
        for output, value in outputs.items():
            cdk.CfnOutput(self, output, value=value)
