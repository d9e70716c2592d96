"""A feature group of SageMaker Feature Store, made from the contract."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Literal

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker
from ml_contract.compiled import CompiledContract

from constructs import Construct
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.foundation import grant_encrypt_decrypt
from ml_lifecycle.pseudo import arn, service_principal
from ml_lifecycle.training.wildcards import acknowledge_wildcards

#: Amazon SageMaker, CreateFeatureGroup: FeatureGroupName.
_LONGEST_NAME = 64
#: Glue database that Feature Store makes its tables in.
_CATALOG_DATABASE = "sagemaker_featurestore"


def schema_hash(identifier: str, event_time: str, definitions: Sequence[tuple[str, str]]) -> str:
    """Return eight hexadecimal digits that change when, and only when, the schema changes."""
    canonical = json.dumps([identifier, event_time, [list(d) for d in definitions]], separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


class FeatureGroup(Construct):
    """Define the online and offline feature group of one workload.

    The schema is the contract's: identifier, event time, label and each feature. The name ends in a hash of
    the schema, because CloudFormation replaces a group whose schema changes: a new schema makes a new group
    beside the old one, and the old one, with all its data, is retained. The offline store lies below
    ``<offline_prefix>`` of ``zone``.

    ``table_format`` is Glue (Hive) or Iceberg. The online store is encrypted with ``online_key``.
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
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        definitions = contract.feature_definitions()
        self.schema_hash = schema_hash(contract.identifier, contract.event_time, definitions)
        self.name = f"{name_prefix}-{self.schema_hash}"
        if len(self.name) > _LONGEST_NAME:
            raise ValueError(
                f"feature group name must have at most {_LONGEST_NAME} characters, "
                f"got {len(self.name)} ({self.name}); "
                "give a shorter name_prefix"
            )
        prefix = f"{contract.slug}/offline-store/" if offline_prefix is None else offline_prefix
        self.zone = zone
        self.online_key = online_key if online else None
        self.offline_prefix = prefix
        self.role = self._role(zone, prefix)
        online_config: Mapping[str, object] = {
            "EnableOnlineStore": True,
            "StorageType": "Standard",
            "SecurityConfig": {"KmsKeyId": online_key.key_arn},
        }
        self.group = sagemaker.CfnFeatureGroup(
            self,
            "Group",
            feature_group_name=self.name,
            record_identifier_feature_name=contract.identifier,
            event_time_feature_name=contract.event_time,
            feature_definitions=[
                sagemaker.CfnFeatureGroup.FeatureDefinitionProperty(feature_name=name, feature_type=kind)
                for name, kind in definitions
            ],
            # The registry schema names these keys in PascalCase, and the CDK passes plain objects through
            # unchanged.
            offline_store_config={
                "S3StorageConfig": {"S3Uri": zone.uri(prefix.rstrip("/")), "KmsKeyId": zone.key.key_arn},
                "DisableGlueTableCreation": False,
                "TableFormat": table_format,
            },
            online_store_config=online_config if online else None,
            role_arn=self.role.role_arn,
            description=f"Features of {contract.name}, schema {self.schema_hash}",
        )
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
            "Feature Store ends the table's name with a time of its own; it begins with this group's name.",
            resources=[table],
        )
        return role

    def grant_put_records(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant writing records, and describing the group, which a writer does to learn the schema."""
        grant = iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["sagemaker:PutRecord", "sagemaker:DescribeFeatureGroup"],
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
