"""The data lake of one environment."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from ml_contract.load import LoadedWorkload
from ml_lifecycle.data_lake import DataLake, Expiration

from constructs import Construct
from environments import Environment
from stacks.base import LifecycleStack

#: The second consent to destroy data, ``-c destroy_data=<environment>``; the first is the environment's.
DESTROY_CONTEXT = "destroy_data"
#: Metadata of the template of an environment that gives the first.
FIRST_CONSENT = "ml-lifecycle:destroy-data"


class DataLakeStack(LifecycleStack):
    """Zones, catalog and Lake Formation; expirations of what each workload writes for a while only."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        workloads: Sequence[LoadedWorkload] = (),
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description=f"Data lake of {environment.name}",
            termination_protection=environment.production,
        )
        if environment.destroy_data:
            # The first consent, for who destroys by the templates alone.
            self.template_options.metadata = {FIRST_CONSENT: True}
        retention = environment.retention
        destroy = self.node.try_get_context(DESTROY_CONTEXT) == environment.name
        if destroy and not environment.destroy_data:
            raise ValueError(
                f"{DESTROY_CONTEXT} must name an environment that has destroy_data=True, "
                f"got {environment.name!r}; "
                f"set it in environments/{environment.name}.py first"
            )
        self.removal_policy = cdk.RemovalPolicy.DESTROY if destroy else cdk.RemovalPolicy.RETAIN
        self.lake = DataLake(
            self,
            "Lake",
            database_prefix=environment.name,
            raw_to_ia_days=retention.raw_to_ia_days,
            raw_to_glacier_days=retention.raw_to_glacier_days,
            noncurrent_version_days=retention.noncurrent_version_days,
            access_log_days=retention.access_log_days,
            noncurrent_to_deep_archive_days=retention.noncurrent_to_deep_archive_days,
            access_logs_to_deep_archive_days=retention.access_logs_to_deep_archive_days,
            expirations=[
                expiration
                for loaded in workloads
                for expiration in (
                    Expiration(
                        zone="raw",
                        prefix=f"{loaded.workload.slug}/delivery-errors/",
                        days=retention.failed_delivery_days,
                    ),
                    Expiration(
                        zone="artifacts",
                        prefix=f"{loaded.workload.slug}/capture/",
                        days=retention.capture_days,
                    ),
                    *_ends_of_raw_data(environment, loaded),
                )
            ],
            administrators=environment.lake_administrators,
            governed=environment.governance is not None,
            removal_policy=self.removal_policy,
            destroy_data=environment.destroy_data,
        )


def _ends_of_raw_data(environment: Environment, loaded: LoadedWorkload) -> list[Expiration]:
    """When records of the workload's classification go, good ones and bad ones."""
    days = environment.retention.raw_days.get(loaded.workload.classification)
    if days is None:
        return []
    return [
        Expiration(zone="raw", prefix=f"{loaded.workload.slug}/{folder}/", days=days)
        for folder in ("data", "quarantine")
    ]
