"""Upkeep of Iceberg tables: expiry of snapshots, removal of orphans, compaction."""

from __future__ import annotations

from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam

from constructs import Construct
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.data_lake.iceberg_table import IcebergTable
from ml_lifecycle.pseudo import ACCOUNT, PARTITION, REGION, service_principal
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["TableUpkeep"]

#: Kind of optimizer -> its log group (AWS Glue Developer Guide, "Table optimization prerequisites").
_LOG_GROUPS = {
    "retention": "/aws-glue/iceberg-retention/logs",
    "orphan_file_deletion": "/aws-glue/iceberg-orphan-file-deletion/logs",
    "compaction": "/aws-glue/iceberg-compaction/logs",
}


class TableUpkeep(Construct):
    """Define Glue's optimizers of an Iceberg table; they run once a day.

    Defaults: snapshots expire after 30 days, save the 3 newest, and with them the files that no other
    snapshot names; files that no snapshot ever named go after 3 days; small files of a partition are
    rewritten into fewer (bin packing) once there are 100. Without ``compact`` nothing is rewritten.

    The optimizers share one role, which may change this table only. Files that they remove stay as noncurrent
    versions of the zone's objects for as long as the zone keeps those.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        table: IcebergTable,
        snapshot_days: int = 30,
        snapshots_kept: int = 3,
        orphan_days: int = 3,
        compact: bool = True,
        compact_files: int = 100,
    ) -> None:
        super().__init__(scope, construct_id)
        problems = [
            f"{name} must be at least {least}, got {value}"
            for name, value, least in (
                ("snapshot_days", snapshot_days, 1),
                ("snapshots_kept", snapshots_kept, 1),
                ("orphan_days", orphan_days, 1),
                ("compact_files", compact_files, 2),
            )
            if value < least
        ]
        if problems:
            raise ValueError("table upkeep: " + "; ".join(problems))
        self.table = table
        self.role = iam.Role(
            self,
            "Role",
            description="Glue's optimizers expire snapshots, remove orphans and compact files through it",
            assumed_by=service_principal("glue", own_account=True),
        )
        table.grant_commit(self.role)
        kinds = ["retention", "orphan_file_deletion", *(["compaction"] if compact else [])]
        self._grant_logs(kinds)
        if table.zone.governed:
            _grant_vended_access(self.role)
        props = glue.CfnTableOptimizer
        settings: dict[str, dict[str, object]] = {
            "retention": {
                "retention_configuration": props.RetentionConfigurationProperty(
                    iceberg_configuration=props.IcebergRetentionConfigurationProperty(
                        snapshot_retention_period_in_days=snapshot_days,
                        number_of_snapshots_to_retain=snapshots_kept,
                        clean_expired_files=True,
                    )
                )
            },
            "orphan_file_deletion": {
                "orphan_file_deletion_configuration": props.OrphanFileDeletionConfigurationProperty(
                    iceberg_configuration=props.IcebergConfigurationProperty(
                        orphan_file_retention_period_in_days=orphan_days, location=table.uri
                    )
                )
            },
            "compaction": {
                "compaction_configuration": props.CompactionConfigurationProperty(
                    iceberg_configuration=props.IcebergCompactionConfigurationProperty(
                        strategy="binpack", min_input_files=compact_files, delete_file_threshold=1
                    )
                )
            },
        }
        self.optimizers = tuple(self._optimizer(kind, settings[kind]) for kind in kinds)

    def _optimizer(self, kind: str, settings: dict[str, object]) -> glue.CfnTableOptimizer:
        configuration: dict[str, object] = {
            "enabled": True,
            "role_arn": self.role.role_arn,
            **settings,
        }
        optimizer = glue.CfnTableOptimizer(
            self,
            "".join(part.title() for part in kind.split("_")),
            catalog_id=ACCOUNT,
            database_name=self.table.database_name,
            table_name=self.table.name,
            type=kind,
            table_optimizer_configuration=glue.CfnTableOptimizer.TableOptimizerConfigurationProperty(
                **configuration  # type: ignore[arg-type]
            ),
        )
        # Glue tries the role when an optimizer is made.
        optimizer.node.add_dependency(self.role)
        return optimizer

    def _grant_logs(self, kinds: list[str]) -> None:
        groups = [f"arn:{PARTITION}:logs:{REGION}:{ACCOUNT}:log-group:{_LOG_GROUPS[kind]}" for kind in kinds]
        streams = [f"{group}:*" for group in groups]
        iam.Grant.add_to_principal(
            grantee=self.role,
            actions=["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"],
            resource_arns=[*groups, *streams],
        )
        acknowledge_wildcards(
            self.role,
            "Glue names the streams of its optimizers' log groups; the grant ends at those groups and only "
            "lets the role write",
            resources=streams,
        )


def _grant_vended_access(role: iam.Role) -> None:
    iam.Grant.add_to_principal(grantee=role, actions=["lakeformation:GetDataAccess"], resource_arns=["*"])
    acknowledge(
        role,
        "IAM5[Resource::*]",
        "GetDataAccess has no resource to name; what it gives is what Lake Formation granted the role",
    )
