"""Redshift Serverless on the lake: SQL over its tables by Spectrum, and tables of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_redshiftserverless as redshift

from constructs import Construct
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.pseudo import arn, service_principal
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["RedshiftWarehouse"]


class RedshiftWarehouse(Construct):
    """Define a namespace and a workgroup of Redshift Serverless that read the lake by Spectrum.

    Nobody types a password: Redshift makes the administrator's and keeps it in Secrets Manager, encrypted
    with ``key``. The workgroup stands in ``subnets`` (three availability zones), is not public, takes TLS
    only and routes COPY and UNLOAD through the VPC. ``role`` is the namespace's default role; ``grant_zone``
    lets it read a zone. ``external_schema`` gives the statement that an administrator runs once per database.
    ``grant_query`` lets somebody ask by the Data API; ``allow`` lets a security group of the VPC connect.

    Defaults: 8 RPU (the least), at most 32; user and connection logs go to CloudWatch. An idle workgroup
    costs nothing but its storage. What is in its own tables is retained with the namespace.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        key: kms.IKey,
        vpc: ec2.IVpc,
        subnets: Sequence[ec2.ISubnet],
        base_rpu: int = 8,
        max_rpu: int = 32,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        # Amazon Redshift Serverless API Reference, CreateNamespace and CreateWorkgroup.
        if not re.fullmatch(r"[a-z0-9-]{3,64}", name):
            problems.append(f"name must be 3 to 64 lower-case letters, digits and hyphens, got {name!r}")
        # Amazon Redshift Management Guide, "Compute capacity for Amazon Redshift Serverless": 4, 8 to 512 in
        # steps of 8; 4 is not offered everywhere.
        for label, value in (("base_rpu", base_rpu), ("max_rpu", max_rpu)):
            if not 8 <= value <= 512 or value % 8:
                problems.append(f"{label} must be 8 to 512 in steps of 8, got {value}")
        if base_rpu > max_rpu:
            problems.append(f"max_rpu must be at least base_rpu ({base_rpu}), got {max_rpu}")
        # "Considerations when using Amazon Redshift Serverless": three subnets in three availability zones.
        if len(subnets) < 3:
            problems.append(f"subnets must stand in three availability zones, got {len(subnets)}")
        if problems:
            raise ValueError("redshift warehouse: " + "; ".join(problems))
        self.name = name
        self.key = key
        self.role = iam.Role(
            self,
            "Role",
            description="Redshift reads the lake through it",
            # Amazon Redshift Management Guide, "Granting permissions to Amazon Redshift Serverless".
            assumed_by=iam.CompositePrincipal(
                service_principal("redshift-serverless"), service_principal("redshift")
            ),
        )
        self.namespace = redshift.CfnNamespace(
            self,
            "Namespace",
            namespace_name=name,
            db_name="analysis",
            manage_admin_password=True,
            admin_password_secret_kms_key_id=key.key_arn,
            kms_key_id=key.key_arn,
            default_iam_role_arn=self.role.role_arn,
            iam_roles=[self.role.role_arn],
            log_exports=["userlog", "connectionlog"],
        )
        self.namespace.apply_removal_policy(removal_policy)
        self.namespace.node.add_dependency(self.role)
        self.security_group = ec2.SecurityGroup(
            self,
            "SecurityGroup",
            vpc=vpc,
            description=f"Warehouse {name}",
            allow_all_outbound=False,
        )
        self.security_group.add_egress_rule(
            ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "Endpoints of AWS services in the VPC"
        )
        self.workgroup = redshift.CfnWorkgroup(
            self,
            "Workgroup",
            workgroup_name=name,
            namespace_name=name,
            base_capacity=base_rpu,
            max_capacity=max_rpu,
            enhanced_vpc_routing=True,
            publicly_accessible=False,
            subnet_ids=[subnet.subnet_id for subnet in subnets],
            security_group_ids=[self.security_group.security_group_id],
            config_parameters=[
                redshift.CfnWorkgroup.ConfigParameterProperty(
                    parameter_key="require_ssl", parameter_value="true"
                )
            ],
        )
        self.workgroup.add_resource_dependency(self.namespace)

    def grant_zone(self, zone: Zone, prefix: str = "") -> iam.Grant:
        """Let Spectrum read a zone's files and what the catalog says of its database.

        Where Lake Formation is in force (``zone.governed``), ``role`` sees no table before an administrator
        grants it some: everybody who asks the warehouse asks as this one role.
        """
        database = zone.database_name
        if database is None:
            raise ValueError(f"zone must have a Glue database, {zone.node.path} has none")
        grant = zone.grant_read(self.role, prefix)
        tables = arn("glue", f"table/{database}/*")
        wild = [tables]
        grant = grant.combine(
            iam.Grant.add_to_principal(
                grantee=self.role,
                actions=[
                    "glue:GetDatabase",
                    "glue:GetPartition",
                    "glue:GetPartitions",
                    "glue:GetTable",
                    "glue:GetTables",
                ],
                resource_arns=[arn("glue", "catalog"), arn("glue", f"database/{database}"), tables],
            )
        )
        if zone.governed:
            # Service Authorization Reference, AWS Lake Formation: GetDataAccess has no resource.
            wild.append("*")
            grant = grant.combine(
                iam.Grant.add_to_principal(
                    grantee=self.role, actions=["lakeformation:GetDataAccess"], resource_arns=["*"]
                )
            )
        acknowledge_wildcards(
            self.role,
            "An external schema shows whichever tables the zone's own database has, by reading only; "
            "GetDataAccess has no resource, Lake Formation decides by table.",
            resources=wild,
        )
        return grant

    def grant_query(self, role: iam.Role) -> iam.Grant:
        """Grant asking by the Redshift Data API and reading the answers, one's own only.

        In the database the role is a user of its own, ``IAMR:<role>``, with what PUBLIC may see there until
        an administrator grants it more.
        """
        workgroup = self.workgroup.attr_workgroup_workgroup_arn
        grant = iam.Grant.add_to_principal(
            grantee=role,
            actions=[
                "redshift-data:BatchExecuteStatement",
                "redshift-data:ExecuteStatement",
                "redshift-serverless:GetCredentials",
            ],
            resource_arns=[workgroup],
        )
        acknowledge_wildcards(
            role,
            "A statement has an id and no ARN; the condition lets its owner read and cancel it, nobody else.",
            resources=["*"],
        )
        return grant.combine(
            iam.Grant.add_to_principal(
                grantee=role,
                actions=[
                    "redshift-data:CancelStatement",
                    "redshift-data:DescribeStatement",
                    "redshift-data:GetStatementResult",
                ],
                resource_arns=["*"],
                # Amazon Redshift Management Guide, "Authorizing access to the Amazon Redshift Data API".
                conditions={"StringEquals": {"redshift-data:statement-owner-iam-userid": "${aws:userid}"}},
            )
        )

    def allow(self, clients: ec2.ISecurityGroup) -> None:
        """Let members of a security group connect, on 5439; their own group must let them out."""
        self.security_group.add_ingress_rule(clients, ec2.Port.tcp(5439), "Clients of the warehouse")

    def external_schema(self, database: str) -> str:
        """Return the statement that shows a Glue database as a schema of the warehouse.

        Raises ValueError for a name that is none of ours: it would stand in SQL.
        """
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,126}", database):
            raise ValueError(f"database must be lower-case letters, digits and underscores, got {database!r}")
        return (
            f"CREATE EXTERNAL SCHEMA IF NOT EXISTS {database} FROM DATA CATALOG "
            f"DATABASE '{database}' IAM_ROLE default"
        )

    def metric(
        self, metric_name: str, *, statistic: str = "Sum", period: cdk.Duration | None = None
    ) -> cloudwatch.Metric:
        """Return a metric of the workgroup, e.g. ``ComputeSeconds`` (RPU seconds)."""
        return cloudwatch.Metric(
            namespace="AWS/Redshift-Serverless",
            metric_name=metric_name,
            dimensions_map={"Workgroup": self.name},
            statistic=statistic,
            period=cdk.Duration.minutes(5) if period is None else period,
        )
