"""Where alarms and failures are told."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns

from constructs import Construct


class Notices(Construct):
    """Define the topic that alarms and failure events of one environment are published to.

    Encrypted with ``key``, which must let CloudWatch and EventBridge use it (``Keys.messages`` does).
    ``email`` gets a message after its owner confirms the subscription. CloudWatch alarms and EventBridge
    rules of this account may publish.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, key: kms.IKey, email: str | None = None
    ) -> None:
        super().__init__(scope, construct_id)
        self.topic = sns.Topic(self, "Topic", master_key=key, enforce_ssl=True)
        self.topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AlarmsAndEventsOfThisAccount",
                principals=[
                    iam.ServicePrincipal("cloudwatch.amazonaws.com"),
                    iam.ServicePrincipal("events.amazonaws.com"),
                ],
                actions=["sns:Publish"],
                resources=[self.topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": cdk.Stack.of(self).account}},
            )
        )
        if email is not None:
            sns.CfnSubscription(
                self, "Email", topic_arn=self.topic.topic_arn, protocol="email", endpoint=email
            )
