"""From the files of data capture to items."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms

from constructs import Construct
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.dead_letters import DeadLetterQueue
from ml_lifecycle.labelling.items import ItemTable
from ml_lifecycle.pseudo import service_principal
from ml_lifecycle.zip_function import zip_function

__all__ = ["PACKAGE", "CaptureRouter"]

#: The package of the functions of both engines.
PACKAGE = "label_tasks"


class CaptureRouter(Construct):
    """Define the function that makes items of captured predictions, and the rule that calls it.

    ``folder`` holds the package and the rules of the workload. A file that fails three times, or cannot be
    delivered for six hours, stays in ``dead_letters`` for 14 days.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload_name: str,
        folder: Path,
        items: ItemTable,
        artifacts: Zone,
        capture_prefix: str,
        environment: Mapping[str, str],
        message_key: kms.IKey,
        log_key: kms.IKey,
        log_retention_days: int = 90,
    ) -> None:
        super().__init__(scope, construct_id)
        self.dead_letters = DeadLetterQueue(self, "DeadLetters", key=message_key)
        self.function = zip_function(
            self,
            "Router",
            package=PACKAGE,
            handler=f"{PACKAGE}.router.handler",
            folder=folder,
            description="Makes items of predictions that the model is not sure of",
            log_key=log_key,
            log_retention_days=log_retention_days,
            environment={
                "TABLE": items.name,
                "BUCKET": artifacts.bucket.bucket_name,
                "PREFIX": capture_prefix,
                **environment,
            },
            timeout=cdk.Duration.minutes(5),
            dead_letters=self.dead_letters,
        )
        artifacts.grant_read(self.function, capture_prefix)
        items.grant(self.function, "PutItem")
        self.rule = events.CfnRule(
            self,
            "Captured",
            description=f"Predictions of {workload_name} that data capture wrote",
            event_pattern={
                "source": ["aws.s3"],
                "detail-type": ["Object Created"],
                "detail": {
                    "bucket": {"name": [artifacts.bucket.bucket_name]},
                    "object": {"key": [{"prefix": capture_prefix}]},
                },
            },
            targets=[
                events.CfnRule.TargetProperty(
                    id="Router",
                    arn=self.function.function_arn,
                    dead_letter_config=events.CfnRule.DeadLetterConfigProperty(
                        arn=self.dead_letters.queue.queue_arn
                    ),
                    retry_policy=events.CfnRule.RetryPolicyProperty(
                        maximum_event_age_in_seconds=21_600, maximum_retry_attempts=20
                    ),
                )
            ],
        )
        self.function.add_permission(
            "AllowCaptured", principal=service_principal("events"), source_arn=self.rule.attr_arn
        )
        self.dead_letters.allow_rules([self.rule.attr_arn])

    def grant_request(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant asking for labels of records that nobody has labelled: invoke the function with them."""
        return iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["lambda:InvokeFunction"],
            resource_arns=[self.function.function_arn],
        )
