"""What is seen of an environment as a whole; off unless the environment asks for it."""

from __future__ import annotations

from collections.abc import Sequence

from ml_contract.load import LoadedWorkload
from ml_lifecycle.observability import PlatformDashboard

from constructs import Construct
from environments import Environment
from stacks.base import LifecycleStack
from stacks.foundation import FoundationStack


class PlatformStack(LifecycleStack):
    """The dashboard of all workloads and the alarm on what they share."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        foundation: FoundationStack,
        workloads: Sequence[LoadedWorkload],
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
