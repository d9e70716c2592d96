"""Keys, network and notices of one environment."""

from __future__ import annotations

from ml_lifecycle.foundation import Keys, MonthlyBudget, Network, Notices

from constructs import Construct
from environments import Environment
from stacks.base import ENVIRONMENT_TAG, LifecycleStack


class FoundationStack(LifecycleStack):
    """What every other stack of the environment stands on."""

    def __init__(
        self, scope: Construct, construct_id: str, *, environment: Environment, pollers: bool = False
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description=f"Keys, network and notices of {environment.name}",
            termination_protection=environment.production,
        )
        self.keys = Keys(self, "Keys")
        self.network = Network(
            self,
            "Network",
            log_key=self.keys.logs,
            cidr=environment.network.cidr,
            max_azs=environment.network.max_azs,
            interface_endpoints=environment.network.interface_endpoints,
            log_retention_days=environment.retention.log_days,
            pollers=pollers,
        )
        self.vpc = self.network.vpc
        self.subnets = self.vpc.isolated_subnets
        self.job_security_group = self.network.job_security_group
        self.notices = Notices(self, "Notices", key=self.keys.messages, email=environment.alarm_email)
        if environment.budget_usd is not None:
            MonthlyBudget(
                self,
                "Budget",
                limit_usd=environment.budget_usd,
                tag_key=ENVIRONMENT_TAG,
                tag_value=environment.name,
                topic=self.notices.topic,
            )
