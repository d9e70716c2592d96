"""Features over time of one workload, kept current as records arrive."""

from __future__ import annotations

import aws_cdk as cdk
from ml_contract.load import LoadedWorkload
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.windows import WindowedFeatures

from constructs import Construct
from environments import Environment
from stacks.base import LifecycleStack
from stacks.foundation import FoundationStack
from stacks.workload_data import WorkloadDataStack


class WorkloadWindowsStack(LifecycleStack):
    """The Flink application, its rows and the feature group of the newest windows."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        workload: LoadedWorkload,
        foundation: FoundationStack,
        lake: DataLake,
        data: WorkloadDataStack,
    ) -> None:
        spec = workload.workload
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            workload=workload,
            description=f"{spec.title}: windows ({environment.name})",
            termination_protection=environment.production,
        )
        if spec.windows is None:
            raise ValueError(f"workload must have windows, got {spec.name} without")
        self.windows = WindowedFeatures(
            self,
            "Windows",
            contract=workload.compiled,
            name_prefix=f"{environment.name}-{spec.slug}",
            source_stream=data.ingestion.stream,
            zone=lake.features,
            data_key=foundation.keys.data_key,
            message_key=foundation.keys.messages,
            log_key=foundation.keys.logs,
            allowed_lateness_hours=spec.windows.allowed_lateness_hours,
            connector=environment.flink_connector,
            small_stream=environment.cost.small_streams,
            log_retention_days=environment.retention.log_days,
            alarm_topic=foundation.notices.topic,
        )
        outputs = {
            "Workload": spec.name,
            "WindowApplicationName": self.windows.name,
            "WindowFeatureGroupName": self.windows.feature_group.name,
            "WindowStreamName": self.windows.stream.stream_name,
        }
        for name, value in outputs.items():
            cdk.CfnOutput(self, name, value=value)
