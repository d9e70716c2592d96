"""What is seen of an environment as a whole; off unless the environment asks for it."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from ml_contract.load import LoadedWorkload
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.monitoring import ModelDashboard, ShownModel
from ml_lifecycle.observability import PlatformDashboard

from constructs import Construct
from environments import Environment
from stacks.base import LifecycleStack
from stacks.foundation import FoundationStack


class PlatformStack(LifecycleStack):
    """The dashboard of all workloads, the page over their models, and the alarm on what they share."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        foundation: FoundationStack,
        lake: DataLake,
        workloads: Sequence[LoadedWorkload],
        models: Sequence[ShownModel],
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description=f"All workloads of {environment.name} at a glance",
        )
        self.dashboard = PlatformDashboard(
            self,
            "Platform",
            name=environment.name,
            environment_name=environment.name,
            stage=environment.id,
            workloads={
                loaded.workload.title: f"{environment.name}-{loaded.workload.slug}" for loaded in workloads
            },
            topic=foundation.notices.topic,
        )
        self.models = ModelDashboard(
            self,
            "Models",
            environment_name=environment.name,
            models=models,
            artifacts=lake.artifacts,
            message_key=foundation.keys.messages,
            log_key=foundation.keys.logs,
            log_retention_days=environment.retention.log_days,
            alarm_topic=foundation.notices.topic,
        )
        cdk.CfnOutput(self, "ModelDashboardUri", value=self.models.uri)
        cdk.CfnOutput(self, "ModelDashboardFunctionName", value=self.models.function.function_name)
