"""The customer-managed keys that are not the lake's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, get_args

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms

from constructs import Construct
from ml_lifecycle.pseudo import ACCOUNT, PARTITION, REGION, arn, service_principal, stack_of

Purpose = Literal["data", "logs", "messages"]
#: Administration of a key without its use (AWS KMS Developer Guide, "Allows key administrators to administer
#: the KMS key").
ADMINISTRATION: Final = (
    "kms:CancelKeyDeletion",
    "kms:CreateAlias",
    "kms:DeleteAlias",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:DisableKeyRotation",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListAliases",
    "kms:ListGrants",
    "kms:ListKeyPolicies",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:RevokeGrant",
    "kms:ScheduleKeyDeletion",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateAlias",
    "kms:UpdateKeyDescription",
)
#: What streams and volumes ask of the key of their data, as their caller.
USE: Final = (
    "kms:Decrypt",
    "kms:DescribeKey",
    "kms:Encrypt",
    "kms:GenerateDataKey",
    "kms:GenerateDataKeyWithoutPlaintext",
)


class Keys(Construct):
    """Define one customer-managed key per purpose, each rotated yearly and retained.

    - ``data_key``: streams, volumes of jobs, the online feature store
    - ``logs``: log groups of this account and region; CloudWatch Logs may use it for those only
    - ``messages``: topics and queues that EventBridge, CloudWatch alarms and budgets of this account send to

    ``own`` names keys that are there already, by purpose; nothing is added to their policies.

    ``classifications`` maps classifications to the workloads that have them: each gets a key for streams and
    job volumes, ``data_key_of``. Its policy lets roles use it whose tags name this environment and one of
    these workloads, whatever their own policies say; SageMaker may be given grants on it; it is administered
    by whom IAM lets or, with ``administrators``, by these and by the role that deploys (KMS refuses a policy
    that locks out who sets it), and by the account's root user. Nobody is given ``kms:*``.

    Default: no key by classification. A key costs 1 USD per month, and as much again for its first and second
    rotation (AWS KMS pricing).
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        own: Mapping[Purpose, str] | None = None,
        classifications: Mapping[str, Sequence[str]] | None = None,
        role_tags: Mapping[str, str] | None = None,
        workload_tag: str = "ml-lifecycle:workload",
        administrators: Sequence[str] = (),
    ) -> None:
        super().__init__(scope, construct_id)
        own = {} if own is None else own
        unknown = sorted(set(own) - set(get_args(Purpose)))
        if unknown:
            raise ValueError(f"keys: own must name {', '.join(get_args(Purpose))}, got {', '.join(unknown)}")
        self._tags, self._workload_tag = {} if role_tags is None else dict(role_tags), workload_tag
        self._administrators = tuple(administrators)
        self.data_key: kms.IKey = self._given(own, "data") or self._key(
            "Data", "Streams, job volumes and the online feature store"
        )
        self.logs: kms.IKey = self._given(own, "logs") or self._logs_key()
        self.messages: kms.IKey = self._given(own, "messages") or self._messages_key()
        self.by_classification = {
            name: self._classified(name, workloads)
            for name, workloads in ({} if classifications is None else classifications).items()
        }

    def data_key_of(self, classification: str) -> kms.IKey:
        """Return the key of streams and job volumes of workloads of a classification."""
        return self.by_classification.get(classification, self.data_key)

    def _given(self, own: Mapping[Purpose, str], purpose: Purpose) -> kms.IKey | None:
        if purpose not in own:
            return None
        return kms.Key.from_key_arn(self, purpose.title(), own[purpose])

    def _classified(self, classification: str, workloads: Sequence[str]) -> kms.Key:
        account = iam.AccountRootPrincipal()
        tags = {f"aws:PrincipalTag/{key}": value for key, value in self._tags.items()}
        policy = iam.PolicyDocument(
            statements=[
                *self._administration(),
                iam.PolicyStatement(
                    sid="RolesOfItsWorkloads",
                    principals=[account],
                    actions=[*USE],
                    resources=["*"],  # in a key policy: this key
                    conditions={
                        "StringEquals": {
                            **tags,
                            f"aws:PrincipalTag/{self._workload_tag}": sorted(workloads),
                            "kms:CallerAccount": ACCOUNT,
                        }
                    },
                ),
                iam.PolicyStatement(
                    # SageMaker hands the key of a volume on to EBS: by a grant of the job's role, or of who
                    # makes an endpoint (SageMaker API Reference, CreateEndpointConfig, KmsKeyId).
                    sid="GrantsToServices",
                    principals=[account],
                    actions=["kms:CreateGrant"],
                    resources=["*"],  # in a key policy: this key
                    conditions={
                        "Bool": {"kms:GrantIsForAWSResource": "true"},
                        "StringEquals": {"kms:CallerAccount": ACCOUNT},
                    },
                ),
            ]
        )
        return kms.Key(
            self,
            classification.title(),
            description=f"Streams and job volumes of workloads that are {classification}",
            enable_key_rotation=True,
            removal_policy=cdk.RemovalPolicy.RETAIN,
            policy=policy,
        )

    def _administration(self) -> list[iam.PolicyStatement]:
        """Whom the account's IAM lets; or named ones, and the root user, without whom a key can be lost."""
        if not self._administrators:
            return [
                iam.PolicyStatement(
                    sid="AdministrationByIam",
                    principals=[iam.AccountRootPrincipal()],
                    actions=[*ADMINISTRATION],
                    resources=["*"],  # in a key policy: this key
                )
            ]
        synthesizer = stack_of(self).synthesizer
        deployer = (
            [cdk.Fn.sub(synthesizer.cloud_formation_execution_role_arn)]
            if isinstance(synthesizer, cdk.DefaultStackSynthesizer)
            else []
        )
        root = f"arn:{PARTITION}:iam::{ACCOUNT}:root"
        return [
            iam.PolicyStatement(
                sid="Administrators",
                principals=[iam.ArnPrincipal(name) for name in (*self._administrators, *deployer)],
                actions=[*ADMINISTRATION],
                resources=["*"],  # in a key policy: this key
            ),
            iam.PolicyStatement(
                # The account as principal stands for all its roles; the condition leaves its root user.
                sid="RootUser",
                principals=[iam.AccountRootPrincipal()],
                actions=[*ADMINISTRATION],
                resources=["*"],  # in a key policy: this key
                conditions={"ArnEquals": {"aws:PrincipalArn": root}},
            ),
        ]

    def _logs_key(self) -> kms.Key:
        key = self._key("Logs", "Log groups")
        key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="CloudWatchLogsOfThisAccount",
                principals=[service_principal(f"logs.{REGION}")],
                # The actions that CloudWatch Logs documents for a key ("Encrypt log data using AWS KMS").
                actions=[
                    "kms:Encrypt",
                    "kms:Decrypt",
                    "kms:ReEncrypt*",
                    "kms:GenerateDataKey*",
                    "kms:DescribeKey",
                ],
                resources=["*"],  # in a key policy: this key
                conditions={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": arn("logs", "log-group:*")}},
            )
        )
        return key

    def _messages_key(self) -> kms.Key:
        key = self._key("Messages", "Topics and queues of events and alarms")
        key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="EventsAndAlarmsOfThisAccount",
                principals=[
                    service_principal("events"),
                    service_principal("cloudwatch"),
                    # AWS Budgets, "Creating an Amazon SNS topic for budget notifications": encrypted.
                    service_principal("budgets"),
                ],
                actions=["kms:Decrypt", "kms:GenerateDataKey"],
                resources=["*"],  # in a key policy: this key
                conditions={"StringEquals": {"aws:SourceAccount": ACCOUNT}},
            )
        )
        return key

    def _key(self, construct_id: str, description: str) -> kms.Key:
        return kms.Key(
            self,
            construct_id,
            description=description,
            enable_key_rotation=True,
            removal_policy=cdk.RemovalPolicy.RETAIN,
        )


def grant_encrypt_decrypt(key: kms.IKey, grantee: iam.IGrantable) -> iam.Grant:
    """Grant reading and writing data under ``key``: ``kms:Decrypt`` and ``kms:GenerateDataKey``, no more."""
    return iam.Grant.add_to_principal(
        grantee=grantee, actions=["kms:Decrypt", "kms:GenerateDataKey"], resource_arns=[key.key_arn]
    )
