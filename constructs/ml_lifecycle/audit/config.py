"""AWS Config: the record of how resources are set, and the rules that they are held to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import aws_cdk as cdk
from aws_cdk import aws_config as config
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3

from constructs import Construct
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.pseudo import ACCOUNT, PARTITION, service_principal

__all__ = ["RULES", "ConfigRecorder", "ConfigRules", "ManagedRule"]


@dataclass(frozen=True, kw_only=True)
class ManagedRule:
    """A rule of AWS Config's own list.

    ``looks_at`` are the types whose changes it judges; a rule without any is asked once a day. ``tagged`` is
    False where CloudFormation puts no tags on them. ``needs_trail`` is a rule about CloudTrail.
    """

    identifier: str
    says: str
    looks_at: tuple[str, ...] = ()
    tagged: bool = True
    needs_trail: bool = False


#: Rules that fit what the lifecycle deploys, by construct id. Source: AWS Config Developer Guide, "List of
#: AWS Config Managed Rules": identifier, trigger, resource types.
RULES: Final[Mapping[str, ManagedRule]] = {
    "BucketsEncrypted": ManagedRule(
        identifier="S3_DEFAULT_ENCRYPTION_KMS",
        says="Buckets encrypt with a key of KMS",
        looks_at=("AWS::S3::Bucket",),
    ),
    "BucketsClosed": ManagedRule(
        identifier="S3_BUCKET_LEVEL_PUBLIC_ACCESS_PROHIBITED",
        says="Buckets block public access",
        looks_at=("AWS::S3::Bucket",),
    ),
    "BucketsTls": ManagedRule(
        identifier="S3_BUCKET_SSL_REQUESTS_ONLY",
        says="Buckets refuse requests without TLS",
        looks_at=("AWS::S3::Bucket",),
    ),
    "BucketsVersioned": ManagedRule(
        identifier="S3_BUCKET_VERSIONING_ENABLED",
        says="Buckets keep old versions",
        looks_at=("AWS::S3::Bucket",),
    ),
    "StreamsEncrypted": ManagedRule(
        identifier="KINESIS_STREAM_ENCRYPTED",
        says="Streams are encrypted",
        looks_at=("AWS::Kinesis::Stream",),
    ),
    "TopicsEncrypted": ManagedRule(
        identifier="SNS_ENCRYPTED_KMS", says="Topics are encrypted", looks_at=("AWS::SNS::Topic",)
    ),
    "FunctionsClosed": ManagedRule(
        identifier="LAMBDA_FUNCTION_PUBLIC_ACCESS_PROHIBITED",
        says="Nobody outside the account may invoke a function",
        looks_at=("AWS::Lambda::Function",),
    ),
    "PoliciesWithoutAdmin": ManagedRule(
        identifier="IAM_POLICY_NO_STATEMENTS_WITH_ADMIN_ACCESS",
        says="No policy allows everything on everything",
        looks_at=("AWS::IAM::Policy",),
        tagged=False,
    ),
    "KeysRotate": ManagedRule(
        identifier="CMK_BACKING_KEY_ROTATION_ENABLED", says="Customer-managed keys rotate"
    ),
    "KeysStay": ManagedRule(
        identifier="KMS_CMK_NOT_SCHEDULED_FOR_DELETION", says="No key is on its way to deletion"
    ),
    "EndpointsEncrypted": ManagedRule(
        identifier="SAGEMAKER_ENDPOINT_CONFIGURATION_KMS_KEY_CONFIGURED",
        says="Endpoints encrypt the volumes of their instances",
    ),
    "NotebooksEncrypted": ManagedRule(
        identifier="SAGEMAKER_NOTEBOOK_INSTANCE_KMS_KEY_CONFIGURED", says="Notebooks encrypt their volumes"
    ),
    "NotebooksInside": ManagedRule(
        identifier="SAGEMAKER_NOTEBOOK_NO_DIRECT_INTERNET_ACCESS",
        says="Notebooks have no way to the internet of their own",
    ),
    "NetworksLogged": ManagedRule(identifier="VPC_FLOW_LOGS_ENABLED", says="VPCs have flow logs"),
    "ImagesScanned": ManagedRule(
        identifier="ECR_PRIVATE_IMAGE_SCANNING_ENABLED", says="Repositories scan their images"
    ),
    "TrailThere": ManagedRule(
        identifier="CLOUD_TRAIL_ENABLED", says="The account has a trail", needs_trail=True
    ),
    "TrailEncrypted": ManagedRule(
        identifier="CLOUD_TRAIL_ENCRYPTION_ENABLED", says="Trails are encrypted", needs_trail=True
    ),
    "TrailValidated": ManagedRule(
        identifier="CLOUD_TRAIL_LOG_FILE_VALIDATION_ENABLED",
        says="Trails write digests that show a changed file",
        needs_trail=True,
    ),
}


class ConfigRecorder(Construct):
    """Define AWS Config's recorder and where it delivers: a bucket and a key of its own.

    It records the ``types`` only, as AWS Config bills each recorded change; by default those that ``RULES``
    look at. A Region of an account has one recorder and one delivery channel: leave this out where there are
    some. It acts as AWS Config's service-linked role, which an account has once Config was ever on
    (``aws iam create-service-linked-role --aws-service-name config.amazonaws.com``); Security Hub's control
    Config.1 asks for that role.

    Default: what was delivered is kept 365 days, retained with its key.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        access_logs: s3.IBucket,
        types: Sequence[str] | None = None,
        retention_days: int = 365,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        recorded = sorted(
            {t for rule in RULES.values() for t in rule.looks_at} if types is None else {*types}
        )
        problems = []
        if not recorded:
            problems.append("types must hold at least one, got none; left out, what RULES look at")
        if retention_days < 1:
            problems.append(f"retention_days must be at least 1, got {retention_days}")
        if problems:
            raise ValueError("config recorder: " + "; ".join(problems))
        self.types = tuple(recorded)
        self.key = kms.Key(
            self,
            "Key",
            description="What AWS Config delivers",
            enable_key_rotation=True,
            removal_policy=removal_policy,
        )
        self.zone = Zone(
            self,
            "Config",
            key=self.key,
            access_logs=access_logs,
            lifecycle_rules=[s3.LifecycleRule(id="Expire", expiration=cdk.Duration.days(retention_days))],
            noncurrent_version_days=30,
            removal_policy=removal_policy,
        )
        self._let_config_deliver()
        props = config.CfnConfigurationRecorder
        # Neither depends on the other: CloudFormation makes both at a time and starts the recorder once the
        # channel is there (template reference, AWS::Config::ConfigurationRecorder).
        self.recorder = props(
            self,
            "Recorder",
            role_arn=(
                f"arn:{PARTITION}:iam::{ACCOUNT}:role/aws-service-role/config.amazonaws.com/"
                "AWSServiceRoleForConfig"
            ),
            recording_group=props.RecordingGroupProperty(
                all_supported=False, include_global_resource_types=False, resource_types=recorded
            ),
        )
        self.channel = config.CfnDeliveryChannel(
            self,
            "Channel",
            s3_bucket_name=self.zone.bucket.bucket_name,
            s3_kms_key_arn=self.key.key_arn,
            config_snapshot_delivery_properties=config.CfnDeliveryChannel.ConfigSnapshotDeliveryPropertiesProperty(
                delivery_frequency="TwentyFour_Hours"
            ),
        )
        # Config tries the bucket when the channel is made.
        if self.zone.bucket.policy is not None:
            self.channel.node.add_dependency(self.zone.bucket.policy)

    def _let_config_deliver(self) -> None:
        # AWS Config Developer Guide, "Permissions for the Amazon S3 Bucket" and "... for the KMS Key": the
        # service itself delivers when the recorder acts as the service-linked role.
        source = {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
        bucket, principal = self.zone.bucket, service_principal("config")
        for sid, actions, resource, conditions in (
            ("ConfigAsks", ["s3:GetBucketAcl", "s3:ListBucket"], bucket.bucket_arn, source),
            (
                "ConfigDelivers",
                ["s3:PutObject"],
                bucket.arn_for_objects(f"AWSLogs/{ACCOUNT}/Config/*"),
                {"StringEquals": {**source["StringEquals"], "s3:x-amz-acl": "bucket-owner-full-control"}},
            ),
        ):
            bucket.add_to_resource_policy(
                iam.PolicyStatement(
                    sid=sid,
                    principals=[principal],
                    actions=actions,
                    resources=[resource],
                    conditions=conditions,
                )
            )
        self.key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="ConfigEncrypts",
                principals=[principal],
                actions=["kms:Decrypt", "kms:GenerateDataKey"],
                resources=["*"],  # in a key policy: this key
                conditions=source,
            )
        )


class ConfigRules(Construct):
    """Define managed rules of AWS Config: by default all of ``RULES`` that ``trail`` lets be kept.

    Rules about changes judge what carries the tag ``tag_key`` = ``tag_value`` where it takes tags, others
    the whole Region. A rule
    needs a recorder: the account's, or ``recorder``. Each evaluation is billed.

    Raises:
        ValueError: a name that is none of ``RULES``.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        tag_key: str,
        tag_value: str,
        trail: bool,
        without: Sequence[str] = (),
        recorder: ConfigRecorder | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        unknown = sorted({*without} - RULES.keys())
        if unknown:
            raise ValueError(
                f"config rules: without must hold some of {', '.join(RULES)}, got {', '.join(unknown)}"
            )
        self.rules: dict[str, config.CfnConfigRule] = {}
        props = config.CfnConfigRule
        for name, rule in RULES.items():
            if name in without or (rule.needs_trail and not trail):
                continue
            made = self.rules[name] = props(
                self,
                name,
                description=rule.says,
                source=props.SourceProperty(owner="AWS", source_identifier=rule.identifier),
                scope=_scope(rule, tag_key, tag_value),
                maximum_execution_frequency=None if rule.looks_at else "TwentyFour_Hours",
            )
            if recorder is not None:
                made.add_resource_dependency(recorder.recorder)
                made.add_resource_dependency(recorder.channel)

    @property
    def names(self) -> list[str]:
        """Names of the rules, as CloudFormation gives them."""
        return [rule.ref for rule in self.rules.values()]


def _scope(rule: ManagedRule, tag_key: str, tag_value: str) -> config.CfnConfigRule.ScopeProperty | None:
    """What a change must be about; a rule that is asked by the clock has no scope."""
    if not rule.looks_at:
        return None
    if rule.tagged:
        return config.CfnConfigRule.ScopeProperty(tag_key=tag_key, tag_value=tag_value)
    return config.CfnConfigRule.ScopeProperty(compliance_resource_types=[*rule.looks_at])
