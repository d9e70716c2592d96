"""Managed Airflow: there only where an environment names it."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from ml_lifecycle.training.airflow import AirflowOrchestration, dag_folder

from constructs import Construct
from environments import Environment
from stacks.base import LifecycleStack
from stacks.foundation import FoundationStack
from stacks.workload_models import WorkloadModelsStack

__all__ = ["AirflowStack"]


class AirflowStack(LifecycleStack):
    """Managed Airflow of one environment, with a DAG for each workload's training pipeline."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        foundation: FoundationStack,
        models: Sequence[WorkloadModelsStack],
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description=f"Managed Airflow that starts training ({environment.name})",
            synthesizer=cdk.DefaultStackSynthesizer(bucket_prefix=dag_folder()),
        )
        wanted = environment.orchestration.airflow
        if wanted is None:
            raise ValueError(f"environment {environment.name!r} must name orchestration.airflow, got None")
        self.airflow = AirflowOrchestration(
            self,
            "Airflow",
            name=f"{environment.name}-training",
            pipelines=[one.training_pipeline for one in models],
            key=foundation.keys.data_key,
            vpc=foundation.vpc,
            subnets=foundation.subnets,
            version=wanted.version,
            environment_class=wanted.environment_class,
            max_workers=wanted.max_workers,
        )
        cdk.CfnOutput(self, "AirflowName", value=self.airflow.name)
