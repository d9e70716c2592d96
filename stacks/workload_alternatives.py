"""Other ways to a model, and what runs a pipeline: nothing, unless a workload or environment asks."""

from __future__ import annotations

import aws_cdk as cdk
from ml_contract.load import LoadedWorkload
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.training.autopilot import AutopilotSearch
from ml_lifecycle.training.data_wrangler import DataWranglerFlow
from ml_lifecycle.training.foundation_models import FoundationModelCustomization
from ml_lifecycle.training.orchestration import PipelineStateMachine

from constructs import Construct
from environments import Environment
from stacks.base import LifecycleStack
from stacks.foundation import FoundationStack
from stacks.workload_models import WorkloadModelsStack, job_network

__all__ = ["WorkloadAlternativesStack"]


class WorkloadAlternativesStack(LifecycleStack):
    """State machines of one workload: of its ``alternatives``, and the one that runs its pipeline."""

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
            description=f"{spec.title}: other ways to a model ({environment.name})",
        )
        name = f"{environment.name}-{spec.slug}"
        wanted, network = spec.alternatives, job_network(foundation)
        keys, days = foundation.keys, environment.retention.log_days
        outputs: dict[str, str] = {}
        if environment.orchestration.step_functions:
            machine = PipelineStateMachine(
                self,
                "Train",
                name=f"{name}-train",
                pipeline=models.training_pipeline,
                log_key=keys.logs,
                log_retention_days=days,
            )
            outputs["TrainStateMachineArn"] = machine.state_machine_arn
        if wanted.autopilot is not None:
            search = AutopilotSearch(
                self,
                "Autopilot",
                workload=workload,
                name_prefix=name,
                artifacts=lake.artifacts,
                volume_key=keys.data_key,
                log_key=keys.logs,
                network=network,
                log_retention_days=days,
            )
            outputs["AutopilotStateMachineArn"] = search.machine.state_machine_arn
        if wanted.foundation_model is not None:
            fitted = FoundationModelCustomization(
                self,
                "FoundationModel",
                workload=workload,
                name_prefix=name,
                artifacts=lake.artifacts,
                key=keys.data_key,
                log_key=keys.logs,
                network=network,
                model_package_group_name=models.registry.group_name,
                log_retention_days=days,
            )
            outputs["FoundationModelStateMachineArn"] = fitted.machine.state_machine_arn
        if wanted.wrangler is not None:
            flow = DataWranglerFlow(
                self,
                "Wrangler",
                workload=workload,
                name_prefix=name,
                features=lake.features,
                volume_key=keys.data_key,
                log_key=keys.logs,
                pipeline=models.training_pipeline,
                network=network,
                log_retention_days=days,
            )
            outputs["WranglerStateMachineArn"] = flow.machine.state_machine_arn
        for output, value in outputs.items():
            cdk.CfnOutput(self, output, value=value)
