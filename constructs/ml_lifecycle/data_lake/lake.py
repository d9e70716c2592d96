"""The data lake: zones, their key, their catalog and who governs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lakeformation as lakeformation
from aws_cdk import aws_s3 as s3

from constructs import Construct
from ml_lifecycle.acknowledge import COMPLIANCE, acknowledge
from ml_lifecycle.data_lake.zone import Zone
from ml_lifecycle.pseudo import service_principal

ZoneName = Literal["raw", "curated", "features", "artifacts"]
#: Amazon S3 storage classes: S3 Glacier Deep Archive bills 180 days at least.
DEEP_ARCHIVE_LEAST_DAYS = 180


@dataclass(frozen=True, kw_only=True)
class Expiration:
    """Objects of ``zone`` below ``prefix`` are deleted ``days`` after they were written."""

    zone: ZoneName
    prefix: str
    days: int

    def __post_init__(self) -> None:
        problems = []
        if self.days < 1:
            problems.append(f"days must be at least 1, got {self.days}")
        if not self.prefix.endswith("/") or self.prefix.startswith("/"):
            problems.append(f"prefix must end with '/' and not start with it, got {self.prefix!r}")
        if problems:
            raise ValueError("expiration: " + "; ".join(problems))


class DataLake(Construct):
    """Define the lake of one environment: raw, curated, features and artifacts zones, and access logs.

    Defaults: one customer-managed key with yearly rotation and bucket keys; versions for 90 days; raw data
    in Standard-IA after 30 days and Glacier Instant Retrieval after 180; curated data, features and
    artifacts in Intelligent-Tiering; access logs for 365 days. Raw, curated and features have the Glue
    databases ``<database_prefix>_raw`` and so on.

    Lake Formation: the three zones are registered in hybrid access mode, so IAM policies stay effective for
    whoever is not opted in, and the lake deploys into accounts that never used Lake Formation.
    ``administrators`` (role or user ARNs) are appended to the account's administrators together with the
    role that deploys; without any, the account's settings are not touched. PutDataLakeSettings itself
    replaces the whole list; ``MutationType: APPEND`` of CloudFormation does not.

    ``governed`` puts Lake Formation in force: the zones are registered without hybrid access mode, new tables
    of their databases are open to nobody by IAM alone, and the role that deploys becomes an administrator.
    Tables that were there before keep ``IAM_ALLOWED_PRINCIPALS`` until it is revoked from them.

    Data is retained. It goes with the stack only if ``removal_policy`` is DESTROY and ``destroy_data``
    consents, and even then CloudFormation refuses to delete a bucket that holds an object.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        database_prefix: str,
        raw_to_ia_days: int = 30,
        raw_to_glacier_days: int = 180,
        noncurrent_version_days: int = 90,
        access_log_days: int = 365,
        noncurrent_to_deep_archive_days: int | None = None,
        access_logs_to_deep_archive_days: int | None = None,
        expirations: Sequence[Expiration] = (),
        administrators: Sequence[str] = (),
        governed: bool = False,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
        destroy_data: bool = False,
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        if removal_policy == cdk.RemovalPolicy.DESTROY and not destroy_data:
            problems.append(
                "removal_policy DESTROY needs destroy_data=True, got False; both consent before data goes"
            )
        if raw_to_ia_days < 30:
            problems.append(
                f"raw_to_ia_days must be at least 30 (Amazon S3, lifecycle constraints), got {raw_to_ia_days}"
            )
        if raw_to_glacier_days < raw_to_ia_days + 30:
            problems.append(
                f"raw_to_glacier_days must be at least 30 more than raw_to_ia_days ({raw_to_ia_days}), "
                f"got {raw_to_glacier_days}"
            )
        for name, days, end in (
            ("noncurrent_to_deep_archive_days", noncurrent_to_deep_archive_days, noncurrent_version_days),
            ("access_logs_to_deep_archive_days", access_logs_to_deep_archive_days, access_log_days),
        ):
            latest = end - DEEP_ARCHIVE_LEAST_DAYS
            if days is not None and not 1 <= days <= latest:
                problems.append(
                    f"{name} must be between 1 and {latest}, {DEEP_ARCHIVE_LEAST_DAYS} days before the end "
                    f"of what it archives, got {days}"
                )
        if problems:
            raise ValueError("data lake: " + "; ".join(problems))
        self.key = kms.Key(
            self,
            "Key",
            description="Zones of the data lake",
            enable_key_rotation=True,
            removal_policy=removal_policy,
        )
        self.access_logs = self._access_log_bucket(
            access_log_days, access_logs_to_deep_archive_days, removal_policy
        )
        tiered = [
            s3.LifecycleRule(
                id="Tiering",
                transitions=[
                    s3.Transition(
                        storage_class=s3.StorageClass.INTELLIGENT_TIERING,
                        transition_after=cdk.Duration.days(0),
                    )
                ],
            )
        ]
        ageing = [
            s3.LifecycleRule(
                id="Ageing",
                transitions=[
                    s3.Transition(
                        storage_class=s3.StorageClass.INFREQUENT_ACCESS,
                        transition_after=cdk.Duration.days(raw_to_ia_days),
                    ),
                    s3.Transition(
                        storage_class=s3.StorageClass.GLACIER_INSTANT_RETRIEVAL,
                        transition_after=cdk.Duration.days(raw_to_glacier_days),
                    ),
                ],
            )
        ]

        def zone(zone_id: str, rules: Sequence[s3.LifecycleRule], *, tables: bool = True) -> Zone:
            name = zone_id.lower()
            return Zone(
                self,
                zone_id,
                key=self.key,
                access_logs=self.access_logs,
                database_name=f"{database_prefix}_{name}" if tables else None,
                lifecycle_rules=[
                    *rules,
                    *(
                        s3.LifecycleRule(
                            id=f"Expire{index}", prefix=rule.prefix, expiration=cdk.Duration.days(rule.days)
                        )
                        for index, rule in enumerate(e for e in expirations if e.zone == name)
                    ),
                ],
                noncurrent_version_days=noncurrent_version_days,
                noncurrent_to_deep_archive_days=noncurrent_to_deep_archive_days,
                analyse_storage_class=zone_id == "Raw",
                governed=governed,
                removal_policy=removal_policy,
            )

        self.raw = zone("Raw", ageing)
        self.curated = zone("Curated", tiered)
        self.features = zone("Features", tiered)
        self.artifacts = zone("Artifacts", tiered, tables=False)
        self.zones = (self.raw, self.curated, self.features, self.artifacts)
        self.governed = governed
        self._govern(administrators)

    def _access_log_bucket(
        self, days: int, to_deep_archive_days: int | None, removal_policy: cdk.RemovalPolicy
    ) -> s3.Bucket:
        bucket = s3.Bucket(
            self,
            "AccessLogs",
            # Log delivery writes to a bucket with SSE-S3 only (Amazon S3, "Enabling server access logging").
            encryption=s3.BucketEncryption.S3_MANAGED,
            versioned=True,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="Housekeeping",
                    expiration=cdk.Duration.days(days),
                    transitions=None
                    if to_deep_archive_days is None
                    else [
                        s3.Transition(
                            storage_class=s3.StorageClass.DEEP_ARCHIVE,
                            transition_after=cdk.Duration.days(to_deep_archive_days),
                        )
                    ],
                    noncurrent_version_expiration=cdk.Duration.days(30),
                    abort_incomplete_multipart_upload_after=cdk.Duration.days(7),
                )
            ],
            removal_policy=removal_policy,
        )
        acknowledge(
            bucket,
            "S1",
            "this bucket receives the access logs of the others; logging its own deliveries never ends",
        )
        acknowledge(
            bucket,
            "S3DefaultEncryptionKMS",
            "S3 delivers access logs to buckets with SSE-S3 only (Amazon S3, Enabling server access logging)",
            packs=COMPLIANCE,
        )
        return bucket

    def _govern(self, administrators: Sequence[str]) -> None:
        role = iam.Role(
            self,
            "RegistrationRole",
            description="Lake Formation reads and writes the registered zones through it",
            # Both services, without a condition, as Lake Formation's "Requirements for roles used to register
            # locations" says: neither is documented to send aws:SourceAccount there.
            assumed_by=iam.CompositePrincipal(
                service_principal("lakeformation"),
                service_principal("glue"),
            ),
        )
        settings = self._settings(administrators)
        for zone in (self.raw, self.curated, self.features):
            zone.grant_read(role, "")
            zone.grant_write(role, "", delete=True)
            registration = lakeformation.CfnResource(
                zone,
                "Registration",
                resource_arn=zone.bucket.bucket_arn,
                use_service_linked_role=False,
                role_arn=role.role_arn,
                hybrid_access_enabled=not self.governed,
            )
            registration.node.add_dependency(role)
            zone.registration = registration
            if settings is not None:
                registration.add_resource_dependency(settings)
                if zone.database is not None:
                    zone.database.add_resource_dependency(settings)

    def _settings(self, administrators: Sequence[str]) -> lakeformation.CfnDataLakeSettings | None:
        if not administrators and not self.governed:
            return None
        synthesizer = cdk.Stack.of(self).synthesizer
        deployer = (
            [synthesizer.cloud_formation_execution_role_arn]
            if isinstance(synthesizer, cdk.DefaultStackSynthesizer)
            else []
        )
        arns = [*administrators, *(cdk.Fn.sub(arn) for arn in deployer if arn not in administrators)]
        if not arns:
            return None
        return lakeformation.CfnDataLakeSettings(
            self,
            "Settings",
            admins=[
                lakeformation.CfnDataLakeSettings.DataLakePrincipalProperty(
                    data_lake_principal_identifier=arn
                )
                for arn in arns
            ],
            mutation_type="APPEND",
        )
