"""A feature group of SageMaker Feature Store, made from the contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker
from ml_contract.compiled import CompiledContract
from ml_contract.evolution.feature_lock import GroupVersion, schema_hash

from constructs import Construct
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.foundation import grant_encrypt_decrypt
from ml_lifecycle.pseudo import arn, service_principal
from ml_lifecycle.training.wildcards import acknowledge_wildcards

#: Amazon SageMaker, CreateFeatureGroup: FeatureGroupName.
_LONGEST_NAME = 64
#: Glue database that Feature Store makes its tables in.
_CATALOG_DATABASE = "sagemaker_featurestore"
_TABLE_REASON = (
    "Feature Store ends the table's name with a time of its own; it begins with this group's name."
)


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Capacity of the online store: on demand, unless units are given."""

    read_units: int | None = None
    write_units: int | None = None

    def __post_init__(self) -> None:
        given = [self.read_units, self.write_units]
        if any(unit is None for unit in given) != all(unit is None for unit in given):
            raise ValueError(
                f"throughput must have read_units and write_units, or none of them, got {given}; "
                "none is on demand"
            )
        # Amazon SageMaker, CreateFeatureGroup: ThroughputConfig, 0 to 10,000,000; 0 would serve nobody.
        wrong = [unit for unit in given if unit is not None and not 1 <= unit <= 10_000_000]
        if wrong:
            raise ValueError(f"throughput units must be between 1 and 10000000, got {wrong}")

    @property
    def provisioned(self) -> bool:
        """Whether capacity is provisioned."""
        return self.read_units is not None


class FeatureGroup(Construct):
    """Define the online and offline feature group of one workload.

    The schema is ``version``'s; without one it is the contract's: identifier, event time, label and each
    feature. The offline store lies below ``<offline_prefix>`` of ``zone``. Defaults: an offline store in
    Glue's (Hive) format, an online store of the Standard tier, encrypted with ``online_key``, on demand,
    whose records stay (``ttl_days=None``).

    A group's data is lost with it, so nothing here replaces one that stands. Further features are added where
    it stands: ``FeatureDefinitions`` is not among the type's create-only properties, CloudFormation calls
    UpdateFeatureGroup. Everything that is create-only (name, keys, stores, description, **tags**) is either
    the same in every synthesis or part of the version's name; the group carries no tags for this reason.
    Should CloudFormation replace it nevertheless, the old group is retained.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        contract: CompiledContract,
        name_prefix: str,
        zone: Zone,
        online_key: kms.IKey,
        offline_prefix: str | None = None,
        table_format: Literal["Glue", "Iceberg"] = "Glue",
        online: bool = True,
        storage: Literal["Standard", "InMemory"] = "Standard",
        ttl_days: int | None = None,
        throughput: Throughput = Throughput(),
        version: GroupVersion | None = None,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        made = GroupVersion.of(contract) if version is None else version
        self.schema_hash = schema_hash(made.identifier, made.event_time, made.definitions)
        self.name = f"{name_prefix}-{made.suffix}"
        problems = []
        if len(self.name) > _LONGEST_NAME:
            problems.append(
                f"feature group name must have at most {_LONGEST_NAME} characters, "
                f"got {len(self.name)} ({self.name}); "
                "give a shorter name_prefix"
            )
        if ttl_days is not None and ttl_days < 1:
            problems.append(f"ttl_days must be 1 or more, or None to keep records, got {ttl_days}")
        if not online and (ttl_days is not None or storage != "Standard" or throughput.provisioned):
            problems.append("ttl_days, storage and throughput are of the online store, got online=False")
        if storage == "InMemory" and throughput.provisioned:
            problems.append("storage must be Standard for provisioned throughput, got InMemory")
        if problems:
            raise ValueError("; ".join(problems))
        prefix = f"{contract.slug}/offline-store/" if offline_prefix is None else offline_prefix
        self.zone = zone
        self.online_key = online_key if online else None
        self.offline_prefix = prefix
        self.table_format = table_format
        self.role = self._role(zone, prefix)
        self.group = sagemaker.CfnFeatureGroup(
            self,
            "Group",
            feature_group_name=self.name,
            record_identifier_feature_name=made.identifier,
            event_time_feature_name=made.event_time,
            feature_definitions=[
                sagemaker.CfnFeatureGroup.FeatureDefinitionProperty(feature_name=name, feature_type=kind)
                for name, kind in made.definitions
            ],
            # The registry schema names these keys in PascalCase, and the CDK passes plain objects through
            # unchanged.
            offline_store_config={
                "S3StorageConfig": {"S3Uri": zone.uri(prefix.rstrip("/")), "KmsKeyId": zone.key.key_arn},
                "DisableGlueTableCreation": False,
                "TableFormat": table_format,
            },
            online_store_config=_online(online_key, storage, ttl_days) if online else None,
            throughput_config=_throughput(throughput) if online else None,
            role_arn=self.role.role_arn,
            # Create-only, as are tags: neither may say what changes.
            description=f"Features of {contract.name}",
        )
        self.group.add_property_deletion_override("Tags")
        self.group.apply_removal_policy(removal_policy)
        self.group.node.add_dependency(self.role)
        self.arn = arn("sagemaker", f"feature-group/{self.name}")

    def _role(self, zone: Zone, prefix: str) -> iam.Role:
        role = iam.Role(
            self,
            "Role",
            description="Feature Store writes the offline store through it",
            # No aws:SourceAccount: Feature Store is not among the features that are documented to send it
            # (SageMaker Developer Guide, "Cross-service confused deputy prevention").
            assumed_by=service_principal("sagemaker"),
        )
        zone.grant_read(role, prefix)
        zone.grant_write(role, prefix)
        # What AmazonSageMakerFeatureStoreAccess (version 3) gives beyond reading and writing: it looks at the
        # bucket's ACL, writes objects with an ACL, and keeps the Glue table it made up to date.
        iam.Grant.add_to_principal(
            grantee=role, actions=["s3:GetBucketAcl"], resource_arns=[zone.bucket.bucket_arn]
        )
        iam.Grant.add_to_principal(
            grantee=role, actions=["s3:PutObjectAcl"], resource_arns=[zone.arn(prefix)]
        )
        table = arn("glue", f"table/{_CATALOG_DATABASE}/{self.name.replace('-', '_')}*")
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["glue:GetTable", "glue:UpdateTable"],
            resource_arns=[
                arn("glue", "catalog"),
                arn("glue", f"database/{_CATALOG_DATABASE}"),
                table,
            ],
        )
        acknowledge_wildcards(
            role,
            _TABLE_REASON,
            resources=[table],
        )
        return role

    def grant_put_records(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant writing records, and describing the group, which a writer does to learn the schema.

        With an online store also looking whether a record stands there and taking it out: one of the same
        event time is replaced no other way.
        """
        replacing = ["sagemaker:BatchGetRecord", "sagemaker:DeleteRecord"]
        grant = iam.Grant.add_to_principal(
            grantee=grantee,
            actions=[
                "sagemaker:PutRecord",
                "sagemaker:DescribeFeatureGroup",
                *([] if self.online_key is None else replacing),
            ],
            resource_arns=[self.arn],
        )
        return (
            grant
            if self.online_key is None
            else grant.combine(grant_encrypt_decrypt(self.online_key, grantee))
        )

    def grant_get_records(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant reading records from the online store."""
        grant = iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["sagemaker:GetRecord", "sagemaker:BatchGetRecord"],
            resource_arns=[self.arn],
        )
        if self.online_key is None:
            raise ValueError(
                "records are read from an online store, got a group with online=False; read the offline store"
            )
        return grant.combine(
            iam.Grant.add_to_principal(
                grantee=grantee, actions=["kms:Decrypt"], resource_arns=[self.online_key.key_arn]
            )
        )

    def grant_delete_records(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant deleting records, softly or for good: what a request for erasure takes."""
        grant = iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["sagemaker:DeleteRecord", "sagemaker:DescribeFeatureGroup"],
            resource_arns=[self.arn],
        )
        return (
            grant
            if self.online_key is None
            else grant.combine(grant_encrypt_decrypt(self.online_key, grantee))
        )

    def grant_read_history(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant reading every record that was ever put, from the offline store's files and its Glue table."""
        table = arn("glue", f"table/{_CATALOG_DATABASE}/{self.name.replace('-', '_')}*")
        iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["sagemaker:DescribeFeatureGroup"],
            resource_arns=[self.arn],
        )
        iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["glue:GetTable"],
            resource_arns=[arn("glue", "catalog"), arn("glue", f"database/{_CATALOG_DATABASE}"), table],
        )
        principal = grantee.grant_principal
        if isinstance(principal, Construct):
            acknowledge_wildcards(principal, _TABLE_REASON, resources=[table])
        return self.zone.grant_read(grantee, self.offline_prefix)

    def metric(
        self,
        metric_name: str,
        *,
        operation: Literal["PutRecord", "GetRecord", "BatchGetRecord", "DeleteRecord"],
        statistic: str = "Sum",
        period: cdk.Duration | None = None,
    ) -> cloudwatch.Metric:
        """Return a metric of the group, e.g. ``Invocations`` or ``Latency`` (microseconds)."""
        return cloudwatch.Metric(
            namespace="AWS/SageMaker/FeatureStore",
            metric_name=metric_name,
            dimensions_map={"FeatureGroupName": self.name, "OperationName": operation},
            statistic=statistic,
            period=cdk.Duration.minutes(5) if period is None else period,
        )


def _online(key: kms.IKey, storage: str, ttl_days: int | None) -> dict[str, Any]:
    config: dict[str, Any] = {
        "EnableOnlineStore": True,
        "StorageType": storage,
        "SecurityConfig": {"KmsKeyId": key.key_arn},
    }
    if ttl_days is not None:
        config["TtlDuration"] = {"Unit": "Days", "Value": ttl_days}
    return config


def _throughput(throughput: Throughput) -> sagemaker.CfnFeatureGroup.ThroughputConfigProperty:
    # Said either way: a group that was provisioned goes back only when it is told to.
    return sagemaker.CfnFeatureGroup.ThroughputConfigProperty(
        throughput_mode="Provisioned" if throughput.provisioned else "OnDemand",
        provisioned_read_capacity_units=throughput.read_units,
        provisioned_write_capacity_units=throughput.write_units,
    )
