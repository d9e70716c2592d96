"""Where alarms and failures are told."""

from __future__ import annotations

from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns

from constructs import Construct
from ml_lifecycle.pseudo import ACCOUNT, service_principal


class Notices(Construct):
    """Define the topic that alarms and failure events of one environment are published to.

    Encrypted with ``key``, which must let CloudWatch, EventBridge and Budgets use it (as ``Keys.messages``).
    ``email`` gets a message after its owner confirms the subscription. CloudWatch alarms, EventBridge
    rules and budgets of this account may publish.
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
                    service_principal("cloudwatch"),
                    service_principal("events"),
                    service_principal("budgets"),
                ],
                actions=["sns:Publish"],
                resources=[self.topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": ACCOUNT}},
            )
        )
        if email is not None:
            sns.CfnSubscription(
                self, "Email", topic_arn=self.topic.topic_arn, protocol="email", endpoint=email
            )
