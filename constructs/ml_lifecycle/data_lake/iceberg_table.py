"""Iceberg tables of the Glue Data Catalog."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_

from constructs import Construct
from ml_lifecycle.data_lake.zone import Zone
from ml_lifecycle.pseudo import stack_of
from ml_lifecycle.zip_function import zip_function

__all__ = ["PARTITION_TRANSFORMS", "IcebergTable", "PartitionTransform"]

PartitionTransform = Literal["identity", "year", "month", "day"]
PARTITION_TRANSFORMS: tuple[PartitionTransform, ...] = ("identity", "year", "month", "day")
#: The function of all Iceberg tables of a stack.
_FUNCTION_ID = "IcebergTables"


class IcebergTable(Construct):
    """Define an Iceberg table (format version 2) below ``prefix`` of a zone.

    ``columns`` are pairs of name and Hive type, ``partition_by`` pairs of transform and column; by default
    the table has no partitions. Data files are zstd Parquet. The table exists when the stack is deployed:
    grants, optimizers and queries may name it (``table.name``, a reference).

    It is a custom resource, for a reason: CloudFormation's own ``AWS::Glue::Table`` can make an Iceberg
    table, and its next update sends the template's table as a whole, without ``metadata_location``, the only
    pointer to the data (cloudformation-coverage-roadmap, issues 1919 and 2495). This one makes the table when
    it does not exist, adds the columns that it lacks, and changes nothing else. A column that changes its
    type fails the deploy; one that the template no longer names stays, for the rows that have it.

    The table is kept when the stack or the resource goes. With ``removal_policy`` DESTROY its entry of the
    catalog goes; files are the zone's.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        zone: Zone,
        name: str,
        columns: Sequence[tuple[str, str]],
        prefix: str,
        log_key: kms.IKey,
        partition_by: Sequence[tuple[PartitionTransform, str]] = (),
        log_retention_days: int = 90,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        _check(zone, name, columns, prefix, partition_by)
        self.zone = zone
        self.prefix = prefix
        self.columns = tuple(columns)
        self.database_name = str(zone.database_name)
        self._plain_name = name
        destroy = removal_policy == cdk.RemovalPolicy.DESTROY
        function, role = _function(self, log_key, log_retention_days)
        zone.grant_create_tables(role, name)
        # Metadata files are read and written, data files never seen.
        zone.grant_read(role, f"{prefix}metadata/")
        zone.grant_write(role, f"{prefix}metadata/")
        if destroy:
            zone.grant_drop_table(role, name)
        self.resource = cdk.CustomResource(
            self,
            "Table",
            service_token=function.function_arn,
            resource_type="Custom::IcebergTable",
            properties={
                "Database": self.database_name,
                "Name": name,
                "Location": zone.uri(prefix).rstrip("/"),
                "Columns": [list(column) for column in columns],
                "PartitionBy": [list(part) for part in partition_by],
                "OnDelete": "delete" if destroy else "keep",
            },
            removal_policy=removal_policy,
            service_timeout=cdk.Duration.minutes(5),
        )
        # The policy and what Lake Formation grants are resources beside the role.
        self.resource.node.add_dependency(role)
        if zone.database is not None and stack_of(zone) is stack_of(self):
            self.resource.node.add_dependency(zone.database)

    @property
    def name(self) -> str:
        """Name of the table, as a reference: who names the table so comes after it."""
        return self.resource.get_att_string("Name")

    @property
    def uri(self) -> str:
        """Folder of the table; its files are found through its snapshots, not by listing."""
        return self.zone.uri(self.prefix)

    def grant_read(self, role: iam.Role) -> iam.Grant:
        """Grant reading the rows of any snapshot: catalog, metadata and data files."""
        self.zone.grant_read(role, self.prefix)
        return self.zone.grant_query_table(role, self.name)

    def grant_commit(self, role: iam.Role) -> iam.Grant:
        """Grant reading rows, writing files and committing them; a commit also removes old metadata files."""
        self.zone.grant_read(role, self.prefix)
        self.zone.grant_write(role, self.prefix, delete=True)
        # Before a file is written its key is asked for, and "not found" is an answer only to who may list the
        # whole bucket; else S3 says 403 (Amazon S3, HeadObject, "Permissions").
        iam.Grant.add_to_principal(
            grantee=role, actions=["s3:ListBucket"], resource_arns=[self.zone.bucket.bucket_arn]
        )
        return self.zone.grant_alter_table(role, self.name)


def _check(
    zone: Zone,
    name: str,
    columns: Sequence[tuple[str, str]],
    prefix: str,
    partition_by: Sequence[tuple[PartitionTransform, str]],
) -> None:
    problems = []
    if zone.database_name is None:
        problems.append(f"zone must have a database, got zone {zone.node.id} without one")
    # AWS Glue Developer Guide, "Database and table names": what Athena takes as well.
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,127}", name):
        problems.append(f"name must be lower-case letters, digits and underscores, got {name!r}")
    if not prefix.endswith("/") or prefix.startswith("/"):
        problems.append(f"prefix must end with '/' and not start with it, got {prefix!r}")
    names = [column for column, _ in columns]
    if not names:
        problems.append("columns must not be empty")
    twice = sorted({column for column in names if names.count(column) > 1})
    if twice:
        problems.append(f"columns must have names of their own, got twice: {', '.join(twice)}")
    problems += [
        f"partition_by takes {', '.join(PARTITION_TRANSFORMS)} of a column, got {transform}({column})"
        for transform, column in partition_by
        if transform not in PARTITION_TRANSFORMS or column not in names
    ]
    if problems:
        raise ValueError("iceberg table: " + "; ".join(problems))


def _function(
    table: IcebergTable, log_key: kms.IKey, log_retention_days: int
) -> tuple[lambda_.IFunction, iam.Role]:
    """The stack's function for Iceberg tables; the first table brings it."""
    stack = cdk.Stack.of(table)
    scope = stack.node.try_find_child(_FUNCTION_ID)
    if scope is None:
        scope = Construct(stack, _FUNCTION_ID)
        zip_function(
            scope,
            "Function",
            package="iceberg_table",
            description="Makes Iceberg tables and adds columns to them",
            log_key=log_key,
            log_retention_days=log_retention_days,
            timeout=cdk.Duration.minutes(3),
        )
    function, role = scope.node.find_child("Function"), scope.node.find_child("FunctionRole")
    if not isinstance(function, lambda_.Function) or not isinstance(role, iam.Role):
        raise TypeError(f"{_FUNCTION_ID} of stack {stack.node.path} must be the function of Iceberg tables")
    return function, role
