"""Keys, network and notices of one environment."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_kms as kms
from ml_contract.load import LoadedWorkload
from ml_lifecycle.delivery import DeliveryAccess
from ml_lifecycle.foundation import (
    ExistingVpc,
    Keys,
    MonthlyBudget,
    Network,
    Notices,
    Perimeter,
    Stakeholders,
)
from ml_lifecycle.observability import SavedQueries

from constructs import Construct
from environments import Environment, Security
from environments.delivery import Delivery
from stacks.base import ENVIRONMENT_TAG, WORKLOAD_TAG, LifecycleStack


class FoundationStack(LifecycleStack):
    """What every other stack of the environment stands on."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        pollers: bool = False,
        delivery: Delivery | None = None,
        workloads: Sequence[LoadedWorkload] = (),
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description=f"Keys, network and notices of {environment.name}",
            termination_protection=environment.production,
        )
        security = environment.security
        self.keys = Keys(
            self,
            "Keys",
            own=security.keys.given,
            classifications=_classifications(workloads) if security.keys_by_classification else None,
            role_tags={ENVIRONMENT_TAG: environment.name},
            workload_tag=WORKLOAD_TAG,
            administrators=security.key_administrators,
        )
        self.network = Network(
            self,
            "Network",
            log_key=self.keys.logs,
            cidr=environment.network.cidr,
            max_azs=environment.network.max_azs,
            interface_endpoints=environment.network.interface_endpoints,
            log_retention_days=environment.retention.log_days,
            pollers=pollers,
            perimeter=_perimeter(security),
            existing=_existing(security),
        )
        self.vpc = self.network.vpc
        self.subnets = self.vpc.isolated_subnets
        self.job_security_group = self.network.job_security_group
        self.notices = Notices(self, "Notices", key=self.keys.messages, email=environment.alarm_email)
        self.stakeholders = Stakeholders(
            self, "Stakeholders", key=self.keys.messages, subscribers=environment.stakeholders
        )
        # Jobs of all workloads write to the same groups.
        SavedQueries(
            self,
            "Queries",
            folder=environment.name,
            groups={
                "jobs": ["/aws/sagemaker/ProcessingJobs", "/aws/sagemaker/TrainingJobs"],
                "everything": [],
            },
        )
        if environment.budget_usd is not None:
            action = environment.cost.budget_action
            MonthlyBudget(
                self,
                "Budget",
                limit_usd=environment.budget_usd,
                tag_key=ENVIRONMENT_TAG,
                tag_value=environment.name,
                topic=self.notices.topic,
                deny_roles=() if action is None else action.roles,
                deny_percent=100 if action is None else action.percent,
                deny_approval="MANUAL" if action is None else action.approval,
            )
        if delivery is not None:
            DeliveryAccess(
                self,
                "DeliveryAccess",
                delivery=delivery.name,
                environment=environment.name,
                stage=environment.id,
                account=delivery.account,
            )

    def data_key(self, workload: LoadedWorkload) -> kms.IKey:
        """Return the key of a workload's streams and job volumes."""
        return self.keys.data_key_of(workload.workload.classification)


def _classifications(workloads: Sequence[LoadedWorkload]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for loaded in workloads:
        found.setdefault(loaded.workload.classification, []).append(loaded.workload.name)
    return dict(sorted(found.items()))


def _perimeter(security: Security) -> Perimeter | None:
    given = security.perimeter
    if given is None:
        return None
    return Perimeter(organization_id=given.organization_id, more_buckets=given.more_buckets)


def _existing(security: Security) -> ExistingVpc | None:
    given = security.vpc
    if given is None:
        return None
    return ExistingVpc(
        vpc_id=given.vpc_id,
        cidr=given.cidr,
        subnet_ids=given.subnet_ids,
        availability_zones=given.availability_zones,
        s3_prefix_list_id=given.s3_prefix_list_id,
    )
