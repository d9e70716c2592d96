"""People label for one workload. Its items and its people are data: they are kept."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lakeformation as lakeformation
from ml_contract.load import LoadedWorkload
from ml_lifecycle.data_lake import DataLake, IcebergTable
from ml_lifecycle.labelling import Labelling
from ml_lifecycle.pseudo import ACCOUNT

from constructs import Construct
from environments import Environment
from stacks.base import LifecycleStack
from stacks.data_lake import DESTROY_CONTEXT
from stacks.foundation import FoundationStack
from stacks.governance import GovernanceStack
from stacks.workload_governance import govern_table


class WorkloadLabelsStack(LifecycleStack):
    """Queue, page and landing of labels; there when the workload has ``labelling``."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        workload: LoadedWorkload,
        foundation: FoundationStack,
        lake: DataLake,
        features_role: iam.Role,
        governance: GovernanceStack | None = None,
    ) -> None:
        spec = workload.workload
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            workload=workload,
            description=f"{spec.title}: labels ({environment.name})",
            termination_protection=environment.production,
        )
        destroy = environment.destroy_data and self.node.try_get_context(DESTROY_CONTEXT) == environment.name
        self.labelling = Labelling(
            self,
            "Labelling",
            workload=workload,
            name_prefix=f"{environment.name}-{spec.slug}",
            curated=lake.curated,
            artifacts=lake.artifacts,
            capture_prefix=f"{spec.slug}/capture/",
            data_key=foundation.keys.data_key,
            message_key=foundation.keys.messages,
            log_key=foundation.keys.logs,
            log_retention_days=environment.retention.log_days,
            alarm_topic=foundation.notices.topic,
            removal_policy=cdk.RemovalPolicy.DESTROY if destroy else cdk.RemovalPolicy.RETAIN,
        )
        if governance is not None:
            table = self.labelling.engine.landing.table
            identifier = workload.compiled.by_name[workload.compiled.identifier]
            govern_table(
                self,
                "LabelsGovernance",
                workload=workload,
                governance=governance,
                zone=lake.curated,
                table_name=table.name,
                columns=[column for column, _ in table.columns],
                sensitive={
                    **({} if identifier.sensitive is None else {"identifier": identifier.sensitive}),
                    # Who labelled is a person too.
                    "labelled_by": "pii",
                },
                depends_on=[table],
            )
            self._grant_reading(table, features_role)
        for output, value in {"Workload": spec.name, **self.labelling.outputs()}.items():
            cdk.CfnOutput(self, output, value=value)

    @property
    def labels_table(self) -> IcebergTable:
        """The labels that people gave."""
        return self.labelling.engine.landing.table

    def _grant_reading(self, table: IcebergTable, role: iam.Role) -> None:
        # Lake Formation's part of BatchTables.grant_labels.
        name = lakeformation.CfnPrincipalPermissions
        granted = name(
            self,
            "LabelsForFeatures",
            principal=name.DataLakePrincipalProperty(data_lake_principal_identifier=role.role_arn),
            resource=name.ResourceProperty(
                table=name.TableResourceProperty(
                    catalog_id=ACCOUNT, database_name=table.database_name, name=table.name
                )
            ),
            permissions=["SELECT", "DESCRIBE"],
            permissions_with_grant_option=[],
        )
        granted.node.add_dependency(table)
