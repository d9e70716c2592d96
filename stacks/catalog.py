"""What the people of one environment take off a shelf by themselves."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from ml_contract.load import LoadedWorkload
from ml_lifecycle.catalog import TrialCatalog, TrialEndpoint
from ml_lifecycle.data_lake import DataLake

from constructs import Construct
from environments import Catalog, Environment
from stacks.base import ENVIRONMENT_TAG, WORKLOAD_TAG, LifecycleStack
from stacks.foundation import FoundationStack
from stacks.governance import GovernanceStack
from stacks.workload_models import WorkloadModelsStack, job_network


class CatalogStack(LifecycleStack):
    """A portfolio with a trial endpoint for each workload, for the personas of ``environment.catalog``."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        catalog: Catalog,
        workloads: Sequence[tuple[LoadedWorkload, WorkloadModelsStack]],
        foundation: FoundationStack,
        governance: GovernanceStack,
        lake: DataLake,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description=f"Trial endpoints of {environment.name}, off the shelf",
            termination_protection=environment.production,
        )
        self.catalog = TrialCatalog(
            self,
            "Catalog",
            name=f"{environment.name}-trials",
            provider=f"Platform of {environment.name}",
            tags={ENVIRONMENT_TAG: environment.name},
        )
        for workload, models in workloads:
            spec = workload.workload
            name = f"{environment.name}-{spec.slug}"
            part = Construct(self, spec.id)
            # The keys of a classification know roles by the workload that their tags name.
            cdk.Tags.of(part).add(WORKLOAD_TAG, spec.name, exclude_resource_types=["aws:cdk:stack"])
            trial = TrialEndpoint(
                part,
                "Trial",
                name=name,
                group_name=models.registry.group_name,
                parameters=f"/ml-lifecycle/{environment.name}/{spec.slug}/trial",
                artifacts=lake.artifacts,
                models_prefix=f"{spec.slug}/training/",
                repository=models.training_pipeline.images["serving"].repository,
                volume_key=foundation.data_key(workload),
                network=job_network(foundation),
                instance_types=catalog.instance_types,
            )
            self.catalog.add_trial(part, "Product", trial=trial)
        for persona in catalog.personas:
            self.catalog.grant_launch(
                governance.personas.roles[persona], "".join(part.title() for part in persona.split("_"))
            )
        cdk.CfnOutput(self, "PortfolioId", value=self.catalog.portfolio.portfolio_id)
