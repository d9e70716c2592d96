"""Athena: a workgroup whose settings nobody overrides, and queries that are saved in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_athena as athena
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam

from constructs import Construct
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.pseudo import arn

ENGINE = "Athena engine version 3"


@dataclass(frozen=True, kw_only=True)
class SavedQuery:
    """A query kept in a workgroup, for people to run."""

    id: str
    name: str
    description: str
    database: str
    sql: str


class QueryWorkgroup(Construct):
    """Define an Athena workgroup on engine version 3 whose settings hold for every query of it.

    Results go below ``prefix`` of ``zone``, encrypted with the zone's key, and to no other place; a query
    that reads more than ``scan_limit`` is cancelled (10 GiB unless given; Athena takes 10 MB to 7 EB);
    CloudWatch has its metrics. Give each group of people a workgroup and a prefix of its own: a result holds
    what its asker was allowed to see.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        zone: Zone,
        prefix: str,
        description: str = "",
        scan_limit: cdk.Size | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        limit = int((cdk.Size.gibibytes(10) if scan_limit is None else scan_limit).to_bytes())
        problems = []
        # Athena API Reference, WorkGroupConfiguration: BytesScannedCutoffPerQuery is at least 10,000,000.
        if limit < 10_000_000:
            problems.append(f"scan_limit must be at least 10 MB, got {limit} bytes")
        if not prefix.endswith("/") or prefix.startswith("/"):
            problems.append(f"prefix must end with '/' and not start with it, got {prefix!r}")
        if problems:
            raise ValueError("query workgroup: " + "; ".join(problems))
        self.name = name
        self.zone = zone
        self.prefix = prefix
        self.arn = arn("athena", f"workgroup/{name}")
        props = athena.CfnWorkGroup
        self.workgroup = props(
            self,
            "Workgroup",
            name=name,
            description=description,
            state="ENABLED",
            recursive_delete_option=True,
            work_group_configuration=props.WorkGroupConfigurationProperty(
                enforce_work_group_configuration=True,
                publish_cloud_watch_metrics_enabled=True,
                bytes_scanned_cutoff_per_query=limit,
                requester_pays_enabled=False,
                engine_version=props.EngineVersionProperty(selected_engine_version=ENGINE),
                result_configuration=props.ResultConfigurationProperty(
                    output_location=zone.uri(prefix),
                    encryption_configuration=props.EncryptionConfigurationProperty(
                        encryption_option="SSE_KMS", kms_key=zone.key.key_arn
                    ),
                ),
            ),
        )
        self.saved: dict[str, athena.CfnNamedQuery] = {}

    def save(self, queries: Sequence[SavedQuery], *, scope: Construct | None = None) -> None:
        """Keep ``queries`` in the workgroup, defined in ``scope`` (this construct unless given)."""
        for query in queries:
            named = athena.CfnNamedQuery(
                self if scope is None else scope,
                query.id,
                name=query.name,
                description=query.description,
                database=query.database,
                query_string=query.sql,
                work_group=self.name,
            )
            named.node.add_dependency(self.workgroup)
            self.saved[query.name] = named

    def grant_query(self, role: iam.IRole) -> iam.Grant:
        """Grant asking in this workgroup, seeing its saved queries, and reading and writing its results.

        What a query may read is decided elsewhere: by Lake Formation and by IAM.
        """
        self.zone.grant_read(role, self.prefix)
        self.zone.grant_write(role, self.prefix)
        return iam.Grant.add_to_principal(
            grantee=role,
            actions=[
                "athena:BatchGetNamedQuery",
                "athena:BatchGetQueryExecution",
                "athena:GetNamedQuery",
                "athena:GetQueryExecution",
                "athena:GetQueryResults",
                "athena:GetWorkGroup",
                "athena:ListNamedQueries",
                "athena:ListQueryExecutions",
                "athena:StartQueryExecution",
                "athena:StopQueryExecution",
            ],
            resource_arns=[self.arn],
        )

    def metric_processed_bytes(
        self, *, period: cdk.Duration | None = None, statistic: str = "Sum"
    ) -> cloudwatch.Metric:
        """Return the bytes that queries read, in a period of five minutes unless given."""
        return cloudwatch.Metric(
            namespace="AWS/Athena",
            metric_name="ProcessedBytes",
            dimensions_map={"WorkGroup": self.name},
            period=cdk.Duration.minutes(5) if period is None else period,
            statistic=statistic,
        )
