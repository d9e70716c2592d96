"""Where the people of one environment work."""

from __future__ import annotations

import aws_cdk as cdk
from ml_lifecycle.studio import StudioDomain
from ml_lifecycle.training import TrackingServer

from constructs import Construct
from environments import Environment, Studio
from stacks.base import LifecycleStack
from stacks.foundation import FoundationStack
from stacks.governance import GovernanceStack


class StudioStack(LifecycleStack):
    """A Studio domain with a profile for each persona that ``environment.studio`` names."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        studio: Studio,
        foundation: FoundationStack,
        governance: GovernanceStack,
        tracking: TrackingServer | None,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description=f"Studio domain of {environment.name}",
            termination_protection=environment.production,
        )
        self.domain = StudioDomain(
            self,
            "Studio",
            name=f"{environment.name}-studio",
            personas={persona: governance.personas.roles[persona] for persona in studio.personas},
            vpc=foundation.vpc,
            subnets=foundation.subnets,
            security_group=foundation.job_security_group,
            key=foundation.keys.data_key,
            idle_minutes=studio.idle_minutes,
            home_files=studio.home_files,
            tracking=tracking,
        )
        cdk.CfnOutput(self, "DomainId", value=self.domain.domain.attr_domain_id)
        for persona, profile in self.domain.profiles.items():
            title = "".join(part.title() for part in persona.split("_"))
            cdk.CfnOutput(self, f"{title}Profile", value=profile.user_profile_name)
