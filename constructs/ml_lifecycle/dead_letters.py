"""Queues that keep what could not be delivered or handled."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sqs as sqs

from constructs import Construct
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.pseudo import service_principal

__all__ = ["DeadLetterQueue"]


class DeadLetterQueue(Construct):
    """Define an encrypted queue that keeps events for 14 days, the longest SQS knows.

    ``key`` must let the services that write to the queue use it, as ``Keys.messages`` does. It is used by its
    ARN only: nothing here changes the key's own policy, which may stand in another stack.
    """

    def __init__(self, scope: Construct, construct_id: str, *, key: kms.IKey) -> None:
        super().__init__(scope, construct_id)
        self.key = kms.Key.from_key_arn(self, "Key", key.key_arn)
        self.queue = sqs.Queue(
            self,
            "Queue",
            encryption=sqs.QueueEncryption.KMS,
            encryption_master_key=self.key,
            enforce_ssl=True,
            retention_period=cdk.Duration.days(14),
        )
        acknowledge(
            self.queue, "SQS3", "This is the dead-letter queue itself: of a function, a rule or a schedule."
        )

    def grant_send(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant sending to the queue, encryption included."""
        iam.Grant.add_to_principal(
            grantee=grantee, actions=["kms:Decrypt", "kms:GenerateDataKey"], resource_arns=[self.key.key_arn]
        )
        return iam.Grant.add_to_principal(
            grantee=grantee, actions=["sqs:SendMessage"], resource_arns=[self.queue.queue_arn]
        )

    def allow_rules(self, rule_arns: list[str]) -> None:
        """Let these EventBridge rules send what they could not deliver."""
        allow_rules(self.queue, rule_arns)


def allow_rules(queue: sqs.Queue, rule_arns: list[str]) -> None:
    """Let these EventBridge rules, and no others, send to ``queue``."""
    queue.add_to_resource_policy(
        iam.PolicyStatement(
            sid="OwnRules",
            principals=[service_principal("events")],
            actions=["sqs:SendMessage"],
            resources=[queue.queue_arn],
            conditions={"ArnEquals": {"aws:SourceArn": rule_arns}},
        )
    )
