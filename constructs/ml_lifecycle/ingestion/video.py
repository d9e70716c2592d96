"""Kinesis Video Streams: pictures of a camera in the lake."""

from __future__ import annotations

import re

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kinesisvideo as video
from aws_cdk import aws_kms as kms
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sns as sns

from constructs import Construct
from ml_lifecycle.alarms import alarm
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.dead_letters import DeadLetterQueue
from ml_lifecycle.foundation import grant_encrypt_decrypt
from ml_lifecycle.pseudo import service_principal
from ml_lifecycle.zip_function import zip_function

__all__ = ["VideoSource"]


class VideoSource(Construct):
    """Define a Kinesis video stream and a function that brings its pictures below a prefix of a zone.

    Cameras write with ``grant_put_media``. Each minute the pictures of the minute before last are written to
    ``<prefix><stream>/date=YYYY-MM-DD/<time>.jpg``, one per ``interval_seconds``; a repeated call writes the
    same objects. Defaults: media are kept a day, one picture in 3 seconds; encrypted with ``key``; the stream
    is retained with its media.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        zone: Zone,
        prefix: str,
        key: kms.IKey,
        message_key: kms.IKey,
        log_key: kms.IKey,
        retention_hours: int = 24,
        interval_seconds: int = 3,
        log_retention_days: int = 90,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
        alarm_topic: sns.ITopic | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        # Amazon Kinesis Video Streams, CreateStream: StreamName.
        if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,256}", name):
            problems.append(
                f"name must be 1 to 256 letters, digits, dots, hyphens and underscores, got {name!r}"
            )
        # Amazon Kinesis Video Streams, CreateStream: DataRetentionInHours; 0 keeps nothing to take pictures
        # of.
        if not 1 <= retention_hours <= 87_600:
            problems.append(f"retention_hours must be between 1 and 87600, got {retention_hours}")
        # GetImages: SamplingInterval, at least 200 milliseconds; a minute is what one call brings.
        if not 1 <= interval_seconds <= 60:
            problems.append(f"interval_seconds must be between 1 and 60, got {interval_seconds}")
        if not prefix.endswith("/") or prefix.startswith("/"):
            problems.append(f"prefix must end with '/' and not start with it, got {prefix!r}")
        if problems:
            raise ValueError("video source: " + "; ".join(problems))
        self.key = key
        self.prefix = prefix
        self.stream = video.CfnStream(
            self, "Stream", name=name, data_retention_in_hours=retention_hours, kms_key_id=key.key_arn
        )
        self.stream.apply_removal_policy(removal_policy)
        self.function = zip_function(
            self,
            "Pictures",
            package="video_frames",
            description=f"Brings pictures of the video stream {name}",
            log_key=log_key,
            log_retention_days=log_retention_days,
            environment={
                "STREAM_NAME": name,
                "BUCKET": zone.bucket.bucket_name,
                "PREFIX": prefix,
                "INTERVAL_MILLISECONDS": str(interval_seconds * 1000),
            },
        )
        iam.Grant.add_to_principal(
            grantee=self.function,
            actions=["kinesisvideo:GetDataEndpoint", "kinesisvideo:GetImages"],
            resource_arns=[self.stream.attr_arn],
        )
        iam.Grant.add_to_principal(
            grantee=self.function, actions=["kms:Decrypt"], resource_arns=[key.key_arn]
        )
        zone.grant_write(self.function, prefix)
        self.dead_letters = DeadLetterQueue(self, "Missed", key=message_key)
        self.alarm = alarm(
            self,
            "DeadLettersWait",
            what="A picture was not taken: its minute waits in a dead-letter queue",
            runbook="dead-letters",
            namespace="AWS/SQS",
            metric="ApproximateNumberOfMessagesVisible",
            dimensions={"QueueName": self.dead_letters.queue.queue_name},
            statistic="Maximum",
            topic=alarm_topic,
        )
        self._schedule()

    def _schedule(self) -> None:
        role = iam.Role(
            self,
            "ScheduleRole",
            description="Calls for pictures each minute",
            assumed_by=service_principal("scheduler", own_account=True),
        )
        iam.Grant.add_to_principal(
            grantee=role, actions=["lambda:InvokeFunction"], resource_arns=[self.function.function_arn]
        )
        self.dead_letters.grant_send(role)
        props = scheduler.CfnSchedule
        schedule = props(
            self,
            "Schedule",
            # On the minute: a rate would count from the second of its making.
            schedule_expression="cron(* * * * ? *)",
            flexible_time_window=props.FlexibleTimeWindowProperty(mode="OFF"),
            target=props.TargetProperty(
                arn=self.function.function_arn,
                role_arn=role.role_arn,
                # EventBridge Scheduler User Guide, "Context attributes": the time that it was due.
                input='{"until": "<aws.scheduler.scheduled-time>"}',
                dead_letter_config=props.DeadLetterConfigProperty(arn=self.dead_letters.queue.queue_arn),
                retry_policy=props.RetryPolicyProperty(
                    maximum_event_age_in_seconds=3600, maximum_retry_attempts=5
                ),
            ),
        )
        schedule.node.add_dependency(role)

    def grant_put_media(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant a camera writing to the stream."""
        grant = iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["kinesisvideo:DescribeStream", "kinesisvideo:GetDataEndpoint", "kinesisvideo:PutMedia"],
            resource_arns=[self.stream.attr_arn],
        )
        return grant.combine(grant_encrypt_decrypt(self.key, grantee))
