"""Features as records arrive: a function of its own on the stream, and nothing lost on the way."""

from __future__ import annotations

import hashlib

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kinesis as kinesis
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from ml_contract.compiled import CompiledContract

from constructs import Construct
from ml_lifecycle.alarms import alarm
from ml_lifecycle.code import lambda_context
from ml_lifecycle.features import FeatureGroup
from ml_lifecycle.foundation import grant_encrypt_decrypt, log_group
from ml_lifecycle.ingestion.stream import StreamIngestion
from ml_lifecycle.pseudo import service_principal

__all__ = ["StreamConsumer"]

#: Where Lambda writes what it discards, in the bucket it is given; nobody can choose it (Lambda Developer
#: Guide, "Configuring destinations for failed invocations", Amazon S3).
FAILURES_PREFIX = "aws/lambda/"
#: Well above what a batch takes: the function stops beginning records eight seconds before.
_TIMEOUT_SECONDS = 60


class StreamConsumer(Construct):
    """Define the consumer that keeps the online store of a feature group up to date as records arrive.

    A container-image function reads the stream beside Firehose. It checks each record by the contract,
    computes its features with the row engine that serving uses, and puts them into the online store; the
    offline store stays the batch path's. What becomes of a record that cannot be put:

    - the contract or the feature store refuses it: ``<slug>/consumer-quarantine/`` of the raw zone, in the
      format of ``<slug>/quarantine/``. That one stays the delivery path's, which sees the same records, so
      nothing is counted twice
    - a service is busy: the batch is tried again from that record on, ``attempts`` times, in halves when the
      function itself fails
    - still not put, older than ``maximum_age_minutes``, or too long for a function's payload: Lambda keeps
      the whole batch below ``aws/lambda/<mapping>/`` of the raw zone, records included

    Redelivery and reordering are harmless: the store keeps the newest event time, the quarantine names a line
    by its place in the stream. Defaults: shared throughput, batches of 100, three attempts, an hour, one
    batch per shard at a time; ``fan_out`` registers a consumer with a read throughput of its own.
    ``alarm_topic`` is told when records wait too long, when Lambda keeps a batch aside, when it drops one and
    when the function fails.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        contract: CompiledContract,
        ingestion: StreamIngestion,
        feature_group: FeatureGroup,
        log_key: kms.IKey,
        fan_out: bool = False,
        batch_size: int = 100,
        attempts: int = 3,
        maximum_age_minutes: int = 60,
        parallelization: int = 1,
        memory_mib: int = 1024,
        log_retention_days: int = 90,
        alarm_topic: sns.ITopic | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        # Lambda API reference, CreateEventSourceMapping.
        for name, value, low, high in (
            ("batch_size", batch_size, 1, 10_000),
            ("attempts", attempts, 1, 10_001),
            ("maximum_age_minutes", maximum_age_minutes, 1, 10_080),
            ("parallelization", parallelization, 1, 10),
            ("memory_mib", memory_mib, 128, 10_240),
        ):
            if not low <= value <= high:
                problems.append(f"{name} must be between {low} and {high}, got {value}")
        if feature_group.online_key is None:
            problems.append("feature_group must have an online store, got one with online=False")
        if problems:
            raise ValueError("stream consumer: " + "; ".join(problems))
        self.ingestion = ingestion
        self.feature_group = feature_group
        self.zone = ingestion.zone
        self.quarantine_prefix = f"{contract.slug}/consumer-quarantine/"
        self.role = self._role(log_key, log_retention_days)
        self.registration = self._registration(contract) if fan_out else None
        self._grant()
        self.function = lambda_.DockerImageFunction(
            self,
            "Function",
            code=lambda_.DockerImageCode.from_image_asset(
                str(lambda_context("stream_consumer", contract)), platform=ecr_assets.Platform.LINUX_AMD64
            ),
            architecture=lambda_.Architecture.X86_64,
            memory_size=memory_mib,
            timeout=cdk.Duration.seconds(_TIMEOUT_SECONDS),
            role=self.role,
            log_group=self.log_group,
            environment={
                "FEATURE_GROUP_NAME": feature_group.name,
                "QUARANTINE_URI": self.zone.uri(self.quarantine_prefix),
            },
            description=f"Features of {contract.name} into the online store as records arrive",
        )
        self.mapping = self._mapping(batch_size, attempts, maximum_age_minutes, parallelization)
        self.alarms = self._alarms(alarm_topic, maximum_age_minutes)

    @property
    def failures_prefix(self) -> str:
        """Prefix of the raw zone below which Lambda keeps the batches that it gave up."""
        return f"{FAILURES_PREFIX}{self.mapping.ref}/"

    def _role(self, log_key: kms.IKey, log_retention_days: int) -> iam.Role:
        self.log_group = log_group(self, "Logs", key=log_key, retention_days=log_retention_days)
        role = iam.Role(
            self,
            "Role",
            assumed_by=service_principal("lambda"),
            description="Reads the stream, puts features into the online store, keeps what is refused",
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["logs:CreateLogStream", "logs:PutLogEvents"],
            resource_arns=[self.log_group.log_group_arn],
        )
        return role

    def _registration(self, contract: CompiledContract) -> kinesis.CfnStreamConsumer:
        stream_arn = self.ingestion.stream.stream_arn
        # CloudFormation wants a name, unique in the stream, and can change nothing of a consumer in place.
        digest = hashlib.sha256(self.node.path.encode()).hexdigest()[:8]
        consumer = kinesis.CfnStreamConsumer(
            self, "FanOut", consumer_name=f"{contract.slug}-online-{digest}", stream_arn=stream_arn
        )
        # Its tags too: a changed tag would register a successor under a name that is taken, and fail.
        consumer.add_property_deletion_override("Tags")
        return consumer

    def _grant(self) -> None:
        """Grant the role what Lambda does with it and what the function does, no more."""
        role, stream_arn = self.role, self.ingestion.stream.stream_arn
        # Lambda Developer Guide, "Process Amazon Kinesis Data Streams records with Lambda": what a mapping
        # reads with, by the way it reads.
        self.ingestion.grant_read(role)
        iam.Grant.add_to_principal(
            grantee=role, actions=["kinesis:DescribeStreamSummary"], resource_arns=[stream_arn]
        )
        if self.registration is not None:
            iam.Grant.add_to_principal(
                grantee=role,
                actions=["kinesis:SubscribeToShard", "kinesis:DescribeStreamConsumer"],
                resource_arns=[self.registration.attr_consumer_arn],
            )
        self.zone.grant_write(role, self.quarantine_prefix)
        # The mapping's own id is not known before it is made, and it is made with this policy.
        self.zone.grant_write(role, FAILURES_PREFIX)
        iam.Grant.add_to_principal(
            grantee=role, actions=["s3:ListBucket"], resource_arns=[self.zone.bucket.bucket_arn]
        )
        iam.Grant.add_to_principal(
            grantee=role, actions=["sagemaker:PutRecord"], resource_arns=[self.feature_group.arn]
        )
        if self.feature_group.online_key is not None:
            grant_encrypt_decrypt(self.feature_group.online_key, role)

    def _mapping(
        self, batch_size: int, attempts: int, maximum_age_minutes: int, parallelization: int
    ) -> lambda_.CfnEventSourceMapping:
        source = (
            self.ingestion.stream.stream_arn
            if self.registration is None
            else self.registration.attr_consumer_arn
        )
        props = lambda_.CfnEventSourceMapping
        mapping = lambda_.CfnEventSourceMapping(
            self,
            "Mapping",
            function_name=self.function.function_name,
            event_source_arn=source,
            # The oldest record that is there: a mapping that is made anew reads what arrived meanwhile, and
            # what it reads twice changes nothing.
            starting_position="TRIM_HORIZON",
            batch_size=batch_size,
            parallelization_factor=parallelization,
            bisect_batch_on_function_error=True,
            function_response_types=["ReportBatchItemFailures"],
            maximum_retry_attempts=attempts - 1,
            maximum_record_age_in_seconds=maximum_age_minutes * 60,
            destination_config=props.DestinationConfigProperty(
                on_failure=props.OnFailureProperty(destination=self.zone.bucket.bucket_arn)
            ),
            # Counts what Lambda gives up; without it only the function's own errors are seen.
            metrics_config=props.MetricsConfigProperty(metrics=["EventCount"]),
        )
        mapping.node.add_dependency(self.role)
        return mapping

    def grant_read_quarantine(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant reading the records that this consumer refused."""
        return self.zone.grant_read(grantee, self.quarantine_prefix)

    def grant_read_failures(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant reading the batches that Lambda gave up, of every mapping that keeps them in this zone."""
        return self.zone.grant_read(grantee, FAILURES_PREFIX)

    def metric_iterator_age(self, *, period: cdk.Duration | None = None) -> cloudwatch.Metric:
        """Milliseconds that the last record of a batch had waited when the function ended."""
        return self._metric("IteratorAge", "FunctionName", self.function.function_name, "Maximum", period)

    def metric_kept_aside(self, *, period: cdk.Duration | None = None) -> cloudwatch.Metric:
        """Records that Lambda gave up and wrote to the raw zone."""
        return self._metric(
            "OnFailureDestinationDeliveredEventCount",
            "EventSourceMappingUUID",
            self.mapping.ref,
            "Sum",
            period,
        )

    def metric_dropped(self, *, period: cdk.Duration | None = None) -> cloudwatch.Metric:
        """Records that Lambda gave up and could not write anywhere: they are in the stream alone."""
        return self._metric("DroppedEventCount", "EventSourceMappingUUID", self.mapping.ref, "Sum", period)

    def metric_errors(self, *, period: cdk.Duration | None = None) -> cloudwatch.Metric:
        """Invocations of the function that failed."""
        return self._metric("Errors", "FunctionName", self.function.function_name, "Sum", period)

    @staticmethod
    def _metric(
        name: str, dimension: str, value: str, statistic: str, period: cdk.Duration | None
    ) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace="AWS/Lambda",
            metric_name=name,
            dimensions_map={dimension: value},
            statistic=statistic,
            period=cdk.Duration.minutes(5) if period is None else period,
        )

    def _alarms(self, topic: sns.ITopic | None, maximum_age_minutes: int) -> tuple[cloudwatch.CfnAlarm, ...]:
        function = {"FunctionName": self.function.function_name}
        mapping = {"EventSourceMappingUUID": self.mapping.ref}
        return (
            alarm(
                self,
                "ConsumesLate",
                what="Records wait too long for the consumer: past their age they are kept aside, not put",
                runbook="stream-read-late",
                namespace="AWS/Lambda",
                metric="IteratorAge",
                dimensions=function,
                statistic="Maximum",
                threshold=maximum_age_minutes * 60_000 / 2,
                periods=2,
                topic=topic,
            ),
            alarm(
                self,
                "KeptAside",
                what="Lambda gave up records: they lie below aws/lambda/ of the raw zone; the batch path "
                "brings their features",
                runbook="records-kept-aside",
                namespace="AWS/Lambda",
                metric="OnFailureDestinationDeliveredEventCount",
                dimensions=mapping,
                topic=topic,
            ),
            alarm(
                self,
                "Dropped",
                what="Lambda gave up records and could not keep them: the batch path brings their features",
                runbook="records-kept-aside",
                namespace="AWS/Lambda",
                metric="DroppedEventCount",
                dimensions=mapping,
                topic=topic,
            ),
            alarm(
                self,
                "ConsumerFails",
                what="The consumer function fails: its records wait in the stream",
                runbook="function-fails",
                namespace="AWS/Lambda",
                metric="Errors",
                dimensions=function,
                topic=topic,
            ),
        )
