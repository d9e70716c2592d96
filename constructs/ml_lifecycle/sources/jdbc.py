"""A table of a database, read by a Glue job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3_assets as s3_assets
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sns as sns

from constructs import Construct
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.code import glue_script
from ml_lifecycle.foundation import glue_security, log_group
from ml_lifecycle.pseudo import ACCOUNT, PARTITION, arn, service_principal
from ml_lifecycle.sources.batch_source import BatchSource
from ml_lifecycle.sources.credentials import login
from ml_lifecycle.sources.landing import BatchLanding
from ml_lifecycle.training.wildcards import acknowledge_wildcards

#: Spark 3.5, Python 3.11 (AWS Glue Developer Guide, "AWS Glue versions").
GLUE_VERSION = "5.0"
Engine = Literal["postgresql", "mysql", "redshift", "oracle", "sqlserver"]
#: AWS Glue Developer Guide, "JDBC connections": the URL of each engine.
_URLS = {
    "postgresql": "jdbc:postgresql://{host}:{port}/{database}",
    "mysql": "jdbc:mysql://{host}:{port}/{database}",
    "redshift": "jdbc:redshift://{host}:{port}/{database}",
    "oracle": "jdbc:oracle:thin://@{host}:{port}/{database}",
    "sqlserver": "jdbc:sqlserver://{host}:{port};databaseName={database}",
}


class JdbcTable(BatchSource):
    """Define a source that is a table of a database: what is new in it is read on a schedule.

    A Glue job of ours reads the rows beyond the job bookmark over a Glue connection and writes them as
    Parquet into the source's folder of the drop, where every source's way begins. The connection enforces
    TLS (JDBC_ENFORCE_SSL) and names a Secrets Manager secret; a job has no login in its arguments. The
    ``bookmark`` columns must only grow.

    The bookmark moves when a run succeeded: one that was killed is read again, and its rows have the record
    ids they had.

    Defaults: two G.1X workers, an hour at most, one run at a time, daily at one o'clock (UTC), a secret that
    is made to be filled. Network: ``subnet`` must reach the database; Glue needs a security group that lets
    its own members in (AWS Glue Developer Guide, "Setting up Amazon VPC for JDBC connections").
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        landing: BatchLanding,
        name_prefix: str,
        engine: Engine,
        host: str,
        port: int,
        database: str,
        table: str,
        bookmark: Sequence[str],
        vpc: ec2.IVpc,
        subnet: ec2.ISubnet,
        key: kms.IKey,
        log_key: kms.IKey,
        columns: Sequence[str] = (),
        schedule: str = "cron(0 1 * * ? *)",
        secret_arn: str | None = None,
        workers: int = 2,
        log_retention_days: int = 90,
        fresh_within_hours: int | None = 24,
        alarm_topic: sns.ITopic | None = None,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            name=name,
            landing=landing,
            fresh_within_hours=fresh_within_hours,
            alarm_topic=alarm_topic,
        )
        problems = []
        if engine not in _URLS:
            problems.append(f"engine must be one of {', '.join(_URLS)}, got {engine!r}")
        if not bookmark:
            problems.append("bookmark must name one column at least, got none; which rows are new?")
        if not 2 <= workers <= 299:
            problems.append(f"workers must be between 2 and 299, got {workers}")
        if not schedule.startswith(("cron(", "rate(")):
            problems.append(f"schedule must be cron(...) or rate(...), got {schedule!r}")
        if problems:
            raise ValueError("jdbc table: " + "; ".join(problems))
        self.key = key
        self.secret = login(
            self, "Login", arn=secret_arn, key=key, description=f"Reads {table} for the source {name}"
        )
        self._vpc_id, self._subnet_id = vpc.vpc_id, subnet.subnet_id
        self.security_group = self._security_group(vpc, port)
        self.connection = glue.CfnConnection(
            self,
            "Connection",
            catalog_id=ACCOUNT,
            connection_input=glue.CfnConnection.ConnectionInputProperty(
                connection_type="JDBC",
                description=f"{engine} of the source {name}",
                connection_properties={
                    "JDBC_CONNECTION_URL": _URLS[engine].format(host=host, port=port, database=database),
                    "JDBC_ENFORCE_SSL": "true",
                    "SECRET_ID": self.secret.secret_arn,
                },
                physical_connection_requirements=glue.CfnConnection.PhysicalConnectionRequirementsProperty(
                    subnet_id=subnet.subnet_id,
                    availability_zone=subnet.availability_zone,
                    security_group_id_list=[self.security_group.security_group_id],
                ),
            ),
        )
        self._log_prefix = f"/aws-glue/jobs/{name_prefix}-{name.replace('_', '-')}"
        groups = [
            log_group(
                self,
                f"{kind.title()}Logs",
                key=log_key,
                retention_days=log_retention_days,
                name=f"{self._log_prefix}/{kind}",
            )
            for kind in ("output", "error")
        ]
        self.script = s3_assets.Asset(self, "Script", path=str(glue_script("read_jdbc")))
        self.role = self._role()
        self.job = glue.CfnJob(
            self,
            "Job",
            description=f"Reads what is new in {table} for the source {name}",
            role=self.role.role_arn,
            command=glue.CfnJob.JobCommandProperty(
                name="glueetl", python_version="3", script_location=self.script.s3_object_url
            ),
            glue_version=GLUE_VERSION,
            worker_type="G.1X",
            number_of_workers=workers,
            timeout=60,
            # A bookmark that two runs move would lose rows between them.
            max_retries=0,
            execution_property=glue.CfnJob.ExecutionPropertyProperty(max_concurrent_runs=1),
            connections=glue.CfnJob.ConnectionsListProperty(connections=[self.connection.ref]),
            security_configuration=glue_security(
                self,
                "Security",
                name=f"{name_prefix}-{name}".replace("_", "-"),
                log_key=log_key,
                bookmark_key=self.key,
                data_key=landing.key,
            ).ref,
            default_arguments={
                "--job-language": "python",
                "--job-bookmark-option": "job-bookmark-enable",
                "--enable-metrics": "true",
                "--custom-logGroup-prefix": self._log_prefix,
                "--connection_name": self.connection.ref,
                "--connection_type": engine,
                "--table": table,
                "--bookmark": ",".join(bookmark),
                "--columns": ",".join(columns) or "*",
                "--drop_uri": self.uri,
            },
        )
        self.job.node.add_dependency(self.role)
        for group in groups:
            self.job.node.add_dependency(group)
        self._schedule(schedule)

    @property
    def job_name(self) -> str:
        """Name of the job that reads."""
        return self.job.ref

    def _security_group(self, vpc: ec2.IVpc, port: int) -> ec2.SecurityGroup:
        group = ec2.SecurityGroup(
            self,
            "Group",
            vpc=vpc,
            description=f"Glue reading {self.name}: its own members, the database, the endpoints",
            allow_all_outbound=False,
        )
        group.add_ingress_rule(group, ec2.Port.all_tcp(), "Between the nodes of the job")
        group.add_egress_rule(group, ec2.Port.all_tcp(), "Between the nodes of the job")
        group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(port), "The database")
        group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "AWS's endpoints")
        return group

    def _role(self) -> iam.Role:
        role = iam.Role(
            self,
            "JobRole",
            description=f"Glue: reads the source {self.name} into its folder of the drop",
            assumed_by=service_principal("glue", own_account=True),
        )
        drop = self.landing.drop
        drop.grant_read(role, self.prefix)
        drop.grant_write(role, self.prefix, delete=True)
        drop.grant_folder(role, self.prefix, write=True)
        asset = f"arn:{PARTITION}:s3:::{self.script.s3_bucket_name}/{self.script.s3_object_key}"
        iam.Grant.add_to_principal(grantee=role, actions=["s3:GetObject"], resource_arns=[asset])
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"],
            resource_arns=[self.secret.secret_arn],
        )
        # The login's key; bookmarks are encrypted with it too.
        iam.Grant.add_to_principal(
            grantee=role, actions=["kms:Decrypt", "kms:Encrypt"], resource_arns=[self.key.key_arn]
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["glue:GetConnection"],
            resource_arns=[arn("glue", "catalog"), arn("glue", f"connection/{self.connection.ref}")],
        )
        groups = arn("logs", f"log-group:{self._log_prefix}*")
        iam.Grant.add_to_principal(
            grantee=role,
            actions=[
                "logs:CreateLogGroup",
                "logs:CreateLogStream",
                "logs:PutLogEvents",
                "logs:AssociateKmsKey",
            ],
            resource_arns=[groups],
        )
        acknowledge_wildcards(
            role,
            "Glue puts the names of security configuration and role into the name of a job's log group; the "
            "wildcard begins with this source's own prefix.",
            resources=[groups],
        )
        # AWS Glue Developer Guide, "Setting up a VPC": the job's network interfaces, in its subnet and group
        # only; interfaces have no name before they are.
        interfaces = arn("ec2", "network-interface/*")
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["ec2:CreateNetworkInterface"],
            resource_arns=[
                interfaces,
                arn("ec2", f"subnet/{self._subnet_id}"),
                arn("ec2", f"security-group/{self.security_group.security_group_id}"),
            ],
        )
        iam.Grant.add_to_principal(
            grantee=role, actions=["ec2:DeleteNetworkInterface"], resource_arns=[interfaces]
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["ec2:DescribeVpcAttribute"],
            resource_arns=[arn("ec2", f"vpc/{self._vpc_id}")],
        )
        acknowledge_wildcards(
            role,
            "Interfaces have no name before they are; they stand in the job's one subnet and one group",
            resources=[interfaces],
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=[
                "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeRouteTables",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
                "ec2:DescribeVpcEndpoints",
            ],
            resource_arns=["*"],
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["cloudwatch:PutMetricData"],
            resource_arns=["*"],
            conditions={"StringEquals": {"cloudwatch:namespace": "Glue"}},
        )
        acknowledge(
            role,
            "IAM5[Resource::*]",
            "EC2 describes, and CloudWatch takes metrics, without a resource to name; one namespace",
        )
        return role

    def _schedule(self, expression: str) -> None:
        role = iam.Role(
            self,
            "ScheduleRole",
            description=f"Starts the reading of {self.name}",
            assumed_by=service_principal("scheduler", own_account=True),
        )
        iam.Grant.add_to_principal(
            grantee=role, actions=["glue:StartJobRun"], resource_arns=[arn("glue", f"job/{self.job.ref}")]
        )
        schedule = scheduler.CfnSchedule(
            self,
            "Schedule",
            description=f"Reads the source {self.name}",
            schedule_expression=expression,
            schedule_expression_timezone="UTC",
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=f"arn:{PARTITION}:scheduler:::aws-sdk:glue:startJobRun",
                role_arn=role.role_arn,
                input=cdk.Stack.of(self).to_json_string({"JobName": self.job.ref}),
            ),
        )
        schedule.node.add_dependency(role)
