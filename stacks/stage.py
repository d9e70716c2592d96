"""One environment: every stack of the lifecycle, composed."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from ml_contract.load import LoadedWorkload

from constructs import Construct
from environments import Environment
from stacks.data_lake import DataLakeStack
from stacks.foundation import FoundationStack
from stacks.workload_data import WorkloadDataStack


class LifecycleStage(cdk.Stage):
    """The lifecycle of all workloads in one environment."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        workloads: Sequence[LoadedWorkload],
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            env=cdk.Environment(account=environment.account, region=environment.region),
        )
        self.foundation = FoundationStack(self, "Foundation", environment=environment)
        self.data_lake = DataLakeStack(self, "DataLake", environment=environment, workloads=workloads)
        for workload in workloads:
            name = workload.workload.id
            WorkloadDataStack(
                self,
                f"{name}Data",
                environment=environment,
                workload=workload,
                foundation=self.foundation,
                lake=self.data_lake.lake,
            )
