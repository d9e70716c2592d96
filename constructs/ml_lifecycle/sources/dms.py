"""Tables that AWS DMS Serverless copies and keeps up to date."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from aws_cdk import aws_dms as dms
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns

from constructs import Construct
from ml_lifecycle.pseudo import REGION, service_principal
from ml_lifecycle.sources.batch_source import BatchSource
from ml_lifecycle.sources.credentials import login
from ml_lifecycle.sources.landing import BatchLanding

Engine = Literal["postgresql", "mysql", "oracle", "sqlserver"]
Mode = Literal["full_load", "change_data", "full_load_and_change_data"]
#: AWS DMS, CreateEndpoint: EngineName, and SslMode as "Using SSL with AWS DMS" has it by engine.
_ENGINES = {"postgresql": "postgres", "mysql": "mysql", "oracle": "oracle", "sqlserver": "sqlserver"}
_TLS = {"postgresql": "require", "sqlserver": "require", "mysql": "verify-ca", "oracle": "verify-ca"}
_MODES = {
    "full_load": "full-load",
    "change_data": "cdc",
    "full_load_and_change_data": "full-load-and-cdc",
}
#: CreateReplicationConfig, ComputeConfig: MaxCapacityUnits.
CAPACITIES = (1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 384)


class DmsReplication(BatchSource):
    """Define a source that DMS Serverless copies to Parquet: everything once, changes from then on, or both.

    Files arrive in the source's folder of the drop, each row with the column ``Op``: I and U land as rows
    (the newest of an identifier replaces the others in the curated table), D is kept apart below
    ``deletions/`` of the raw zone and counted in the audit record. Nothing is deleted by a deletion that a
    source reports: what becomes of it is the data owner's decision.

    TLS is always on: ``require`` for postgresql and sqlserver; mysql and oracle know ``verify-ca`` only and
    need ``certificate_arn``. The login is a secret. The account must have the role ``dms-vpc-role`` (AWS DMS
    User Guide, "Creating the IAM roles to use with AWS DMS"). CloudFormation makes the replication and does
    not start it: ``aws dms start-replication``.

    Defaults: both, four capacity units of 2 GB at most.
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
        tables: Sequence[str],
        vpc: ec2.IVpc,
        subnets: Sequence[ec2.ISubnet],
        key: kms.IKey,
        mode: Mode = "full_load_and_change_data",
        maximum_capacity: int = 4,
        certificate_arn: str | None = None,
        secret_arn: str | None = None,
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
        if engine not in _ENGINES:
            problems.append(f"engine must be one of {', '.join(_ENGINES)}, got {engine!r}")
        elif (_TLS[engine] == "verify-ca") != (certificate_arn is not None):
            problems.append(
                f"certificate_arn goes with mysql and oracle, whose TLS it proves, got {certificate_arn!r} "
                f"with {engine}"
            )
        if mode not in _MODES:
            problems.append(f"mode must be one of {', '.join(_MODES)}, got {mode!r}")
        if maximum_capacity not in CAPACITIES:
            allowed = ", ".join(map(str, CAPACITIES))
            problems.append(f"maximum_capacity must be one of {allowed}, got {maximum_capacity}")
        bare = [t for t in tables if t.count(".") != 1]
        if not tables or bare:
            problems.append(f"tables must be <schema>.<table>, one at least, got {bare or 'none'}")
        if len(subnets) < 2:
            problems.append(f"subnets must be in two zones at least (DMS, subnet groups), got {len(subnets)}")
        if problems:
            raise ValueError("dms replication: " + "; ".join(problems))
        self.secret = login(
            self,
            "Login",
            arn=secret_arn,
            key=key,
            description=f"DMS reads the source {name}",
            # DMS finds the server in the secret too (AWS DMS User Guide, "Using secrets").
            beside={"host": host, "port": port},
        )
        self.security_group = ec2.SecurityGroup(
            self,
            "Group",
            vpc=vpc,
            description=f"DMS reading {name}: the database, the endpoints",
            allow_all_outbound=False,
        )
        self.security_group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(port), "The database")
        self.security_group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "AWS's endpoints")
        self.source = self._source(engine, database, certificate_arn, key)
        self.target = self._target()
        # A name of its own: DMS asks for one, and has it in lower case.
        identifier = f"{name_prefix}-{name.replace('_', '-')}"
        group = dms.CfnReplicationSubnetGroup(
            self,
            "Subnets",
            replication_subnet_group_description=f"Where the replication of {name} runs",
            replication_subnet_group_identifier=identifier,
            subnet_ids=[subnet.subnet_id for subnet in subnets],
        )
        self.replication = dms.CfnReplicationConfig(
            self,
            "Replication",
            replication_config_identifier=identifier,
            replication_type=_MODES[mode],
            source_endpoint_arn=self.source.ref,
            target_endpoint_arn=self.target.ref,
            table_mappings={"rules": [self._selected(i, table) for i, table in enumerate(tables, start=1)]},
            replication_settings={
                "Logging": {"EnableLogging": True},
                "FullLoadSettings": {"TargetTablePrepMode": "DO_NOTHING"},
            },
            compute_config=dms.CfnReplicationConfig.ComputeConfigProperty(
                max_capacity_units=maximum_capacity,
                min_capacity_units=1,
                multi_az=False,
                kms_key_id=key.key_arn,
                replication_subnet_group_id=group.ref,
                vpc_security_group_ids=[self.security_group.security_group_id],
            ),
        )

    @staticmethod
    def _selected(number: int, table: str) -> dict[str, Any]:
        schema, name = table.split(".")
        return {
            "rule-type": "selection",
            "rule-id": str(number),
            "rule-name": str(number),
            "object-locator": {"schema-name": schema, "table-name": name},
            "rule-action": "include",
        }

    def _source(
        self,
        engine: Engine,
        database: str,
        certificate_arn: str | None,
        key: kms.IKey,
    ) -> dms.CfnEndpoint:
        # AWS DMS User Guide, "Using secrets to access endpoints": the principal has the Region's name.
        role = iam.Role(
            self,
            "LoginRole",
            description=f"DMS: the login of the source {self.name}",
            assumed_by=service_principal(f"dms.{REGION}"),
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"],
            resource_arns=[self.secret.secret_arn],
        )
        iam.Grant.add_to_principal(
            grantee=role, actions=["kms:Decrypt", "kms:DescribeKey"], resource_arns=[key.key_arn]
        )
        reached: dict[str, Any] = {
            "secrets_manager_access_role_arn": role.role_arn,
            "secrets_manager_secret_id": self.secret.secret_arn,
        }
        props = dms.CfnEndpoint
        settings: dict[str, Any]
        if engine == "postgresql":
            settings = {"postgre_sql_settings": props.PostgreSqlSettingsProperty(**reached)}
        elif engine == "mysql":
            settings = {"my_sql_settings": props.MySqlSettingsProperty(**reached)}
        elif engine == "oracle":
            settings = {"oracle_settings": props.OracleSettingsProperty(**reached)}
        else:
            settings = {"microsoft_sql_server_settings": props.MicrosoftSqlServerSettingsProperty(**reached)}
        endpoint = dms.CfnEndpoint(
            self,
            "Source",
            endpoint_type="source",
            engine_name=_ENGINES[engine],
            database_name=database,
            ssl_mode=_TLS[engine],
            certificate_arn=certificate_arn,
            kms_key_id=key.key_arn,
            **settings,
        )
        endpoint.node.add_dependency(role)
        return endpoint

    def _target(self) -> dms.CfnEndpoint:
        role = iam.Role(
            self,
            "TargetRole",
            description=f"DMS: writes the source {self.name} into its folder of the drop",
            assumed_by=service_principal("dms"),
        )
        drop = self.landing.drop
        drop.grant_read(role, self.prefix)
        drop.grant_write(role, self.prefix, delete=True)
        endpoint = dms.CfnEndpoint(
            self,
            "Target",
            endpoint_type="target",
            engine_name="s3",
            s3_settings=dms.CfnEndpoint.S3SettingsProperty(
                bucket_name=drop.bucket.bucket_name,
                bucket_folder=self.prefix.rstrip("/"),
                service_access_role_arn=role.role_arn,
                data_format="parquet",
                parquet_version="parquet-2-0",
                parquet_timestamp_in_millisecond=True,
                # Every row says what happened to it, those of the full load too.
                include_op_for_full_load=True,
                timestamp_column_name="dms_timestamp",
                encryption_mode="SSE_KMS",
                server_side_encryption_kms_key_id=self.landing.key.key_arn,
                # A file a minute at most, or 32 MB.
                cdc_max_batch_interval=60,
                cdc_min_file_size=32_000,
            ),
        )
        endpoint.node.add_dependency(role)
        return endpoint
