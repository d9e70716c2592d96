"""The customer-managed keys that are not the lake's own."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms

from constructs import Construct
from ml_lifecycle.pseudo import ACCOUNT, REGION, arn, service_principal


class Keys(Construct):
    """Define one customer-managed key per purpose, each rotated yearly and retained.

    - ``data_key``: streams, volumes of jobs, the online feature store
    - ``logs``: log groups of this account and region; CloudWatch Logs may use it for those only
    - ``messages``: topics and queues that EventBridge, CloudWatch alarms and budgets of this account send to

    A key costs 1 USD per month, and as much again for its first and second rotation (AWS KMS pricing).
    """

    def __init__(self, scope: Construct, construct_id: str) -> None:
        super().__init__(scope, construct_id)
        self.data_key = self._key("Data", "Streams, job volumes and the online feature store")
        self.logs = self._key("Logs", "Log groups")
        self.logs.add_to_resource_policy(
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
        self.messages = self._key("Messages", "Topics and queues of events and alarms")
        self.messages.add_to_resource_policy(
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
