"""How labels become rows of the lake."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs

from constructs import Construct
from ml_lifecycle.code import lake_lambda_context
from ml_lifecycle.data_lake import IcebergTable, Zone
from ml_lifecycle.dead_letters import DeadLetterQueue
from ml_lifecycle.foundation import log_group
from ml_lifecycle.labelling.items import ItemTable
from ml_lifecycle.pseudo import service_principal

__all__ = ["LabelLanding"]

#: Columns of the table of labels with their Hive types (``label_landing.table.COLUMNS``).
COLUMNS = (
    ("identifier", "string"),
    ("label", "string"),
    ("labelled_at", "timestamp"),
    ("labelled_by", "array<string>"),
    ("votes", "int"),
    ("agreement", "double"),
    ("resolution", "string"),
    ("origin", "string"),
    ("task", "string"),
    ("inference_id", "string"),
)
#: A batch waits this long for more messages, so that a commit holds more than one label.
_WINDOW_SECONDS = 20
_BATCH = 200
_TIMEOUT_SECONDS = 120


class LabelLanding(Construct):
    """Define the queue of decided items and the function that appends their labels to an Iceberg table.

    The table is ``<database of the zone>.<table_name>`` at ``prefix`` of ``zone``. Rows are only ever
    appended. A message that fails five times stays in ``dead_letters`` for 14 days; others of its batch land.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        zone: Zone,
        table_name: str,
        prefix: str,
        items: ItemTable,
        message_key: kms.IKey,
        log_key: kms.IKey,
        log_retention_days: int = 90,
    ) -> None:
        super().__init__(scope, construct_id)
        self.table = IcebergTable(
            self,
            "Labels",
            zone=zone,
            name=table_name,
            columns=COLUMNS,
            prefix=prefix,
            log_key=log_key,
            log_retention_days=log_retention_days,
        )
        self.table_name = f"{self.table.database_name}.{self.table.name}"
        self.uri = self.table.uri
        self._key = kms.Key.from_key_arn(self, "Key", message_key.key_arn)
        self.dead_letters = DeadLetterQueue(self, "DeadLetters", key=message_key)
        self.queue = sqs.Queue(
            self,
            "Queue",
            encryption=sqs.QueueEncryption.KMS,
            encryption_master_key=self._key,
            enforce_ssl=True,
            # Six times the function's timeout and the window (Lambda, "Using Lambda with Amazon SQS").
            visibility_timeout=cdk.Duration.seconds(6 * _TIMEOUT_SECONDS + _WINDOW_SECONDS),
            retention_period=cdk.Duration.days(14),
            dead_letter_queue=sqs.DeadLetterQueue(max_receive_count=5, queue=self.dead_letters.queue),
        )
        group = log_group(self, "Logs", key=log_key, retention_days=log_retention_days)
        self.role = iam.Role(
            self,
            "Role",
            description="Appends labels to the lake",
            assumed_by=service_principal("lambda"),
        )
        group.grant_write(self.role)
        items.grant(self.role, "GetItem")
        self.table.grant_read(self.role)
        self.table.grant_commit(self.role)
        # pyiceberg asks whether a file is there before it writes it: to who may not list, S3 says 403.
        zone.grant_folder(self.role, prefix)
        iam.Grant.add_to_principal(
            grantee=self.role,
            actions=["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"],
            resource_arns=[self.queue.queue_arn],
        )
        iam.Grant.add_to_principal(
            grantee=self.role, actions=["kms:Decrypt"], resource_arns=[message_key.key_arn]
        )
        self.function = lambda_.DockerImageFunction(
            self,
            "Function",
            description="Appends labels to the lake",
            code=lambda_.DockerImageCode.from_image_asset(
                str(lake_lambda_context("label_landing")), platform=ecr_assets.Platform.LINUX_AMD64
            ),
            architecture=lambda_.Architecture.X86_64,
            # pyarrow alone takes half of it.
            memory_size=1_024,
            timeout=cdk.Duration.seconds(_TIMEOUT_SECONDS),
            role=self.role,
            log_group=group,
            environment={
                "TABLE": items.name,
                "LABEL_TABLE": self.table_name,
            },
        )
        mapping = lambda_.CfnEventSourceMapping(
            self,
            "Feed",
            function_name=self.function.function_name,
            event_source_arn=self.queue.queue_arn,
            batch_size=_BATCH,
            maximum_batching_window_in_seconds=_WINDOW_SECONDS,
            function_response_types=["ReportBatchItemFailures"],
            # Two writers at most: commits of more only get into each other's way.
            scaling_config=lambda_.CfnEventSourceMapping.ScalingConfigProperty(maximum_concurrency=2),
        )
        mapping.node.add_dependency(self.role)

    def grant_send(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant sending a decided item to the queue."""
        iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["kms:Decrypt", "kms:GenerateDataKey"],
            resource_arns=[self._key.key_arn],
        )
        return iam.Grant.add_to_principal(
            grantee=grantee, actions=["sqs:SendMessage"], resource_arns=[self.queue.queue_arn]
        )
