"""From a file in the drop bucket to rows of the raw table, a quarantine and an audit record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from aws_cdk import aws_stepfunctions as stepfunctions
from ml_contract.compiled import CompiledContract
from ml_contract.records.landing import LandingSpec
from ml_contract.spec.sources import DmsSource, JdbcSource, Source

from constructs import Construct
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.alarms import alarm
from ml_lifecycle.code import lambda_context
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.dead_letters import DeadLetterQueue
from ml_lifecycle.foundation import LAMBDA_BUSY, RETRY_KILLED, grant_logs_and_traces, log_group, logging_to
from ml_lifecycle.pseudo import PARTITION, arn, service_principal

#: What EventBridge is told of each batch.
BATCH_EVENT_SOURCE = "ml-lifecycle.sources"
BATCH_EVENT = "Batch Landed"
#: Where the metrics of batches are, by Environment, Workload and Source.
METRICS = "MLLifecycle/Sources"
#: Folder of the drop bucket; each source has one of its own name below it.
DROP_PREFIX = "drop/"
#: AWS Lambda quotas: a function runs 15 minutes at most ...
_TIMEOUT = 15
#: ... and has at most 10,240 MiB of storage below /tmp. A file, its rows and its quarantine lie there.
_STORAGE_MIB = 10_240
_STORAGE_PER_FILE = 6
#: How long a batch may wait for files that its manifest names, and how often it looks.
_WAIT_SECONDS, _WAITS = 300, 24


def landing_spec(name: str, source: Source) -> LandingSpec:
    """Return what landing needs to know of a source of ``workload.yaml``."""
    # What Glue reads from a database and what DMS copies is written as Parquet, a file at a time.
    form, delimiter, manifest = "parquet", ",", False
    if not isinstance(source, JdbcSource | DmsSource):
        form, delimiter, manifest = source.format, source.delimiter, source.manifest
    return LandingSpec(
        name=name,
        kind=source.kind,
        owner=source.owner,
        schema_version=source.schema_version,
        format=form,
        delimiter=delimiter,
        manifest=manifest,
        rename=dict(source.rename),
        ignore=source.ignore,
        changes=isinstance(source, DmsSource),
    )


class BatchLanding(Construct):
    """Define the one way of batch sources into the raw zone.

    A drop bucket of its own, one folder a source; EventBridge tells a state machine of each new object (or
    manifest): is the batch all there, land each file, keep the record, tell EventBridge. The worker is
    ``lambda/batch_landing``; it checks every record as the stream's transform does. Below ``<slug>/`` of
    the raw zone:

    - ``data/ingest_date=YYYY-MM-DD/``: the rows, beside the streamed ones
    - ``quarantine/``: refused records and files, with every reason
    - ``batches/audit/<source>/<day>/``: one JSON record a batch
    - ``batches/files/``: which file was landed; the same content again changes nothing
    - ``deletions/``: what change data says is deleted

    The drop has a bucket and a key of its own because others write there: none of them gets near the
    lake's, Transfer Acceleration is a matter of a whole bucket, and what is refused never lies in the lake.

    Defaults: files up to 1,024 MiB (larger ones are quarantined whole), 2 GiB of memory, five files of a
    batch at once, two hours for a manifest's files to arrive; the drop forgets after 90 days. Every batch
    raises the event "Batch Landed" of ``ml-lifecycle.sources``. ``alarm_topic`` is told when a batch fails
    or cannot be started.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        contract: CompiledContract,
        environment_name: str,
        sources: Sequence[LandingSpec],
        zone: Zone,
        access_logs: s3.IBucket,
        data_prefix: str,
        quarantine_prefix: str,
        log_key: kms.IKey,
        message_key: kms.IKey,
        accelerate: bool = False,
        largest_file_mib: int = 1_024,
        memory_mib: int = 2_048,
        drop_days: int = 90,
        log_retention_days: int = 90,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
        alarm_topic: sns.ITopic | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        if not sources:
            problems.append("sources must name one source at least, got none")
        most = _STORAGE_MIB // _STORAGE_PER_FILE
        if not 1 <= largest_file_mib <= most:
            problems.append(
                f"largest_file_mib must be between 1 and {most} (Lambda's 10,240 MiB of storage hold a file "
                f"and what is made of it), got {largest_file_mib}"
            )
        if not 512 <= memory_mib <= 10_240:
            problems.append(f"memory_mib must be between 512 and 10240, got {memory_mib}")
        if drop_days < 1:
            problems.append(f"drop_days must be at least 1, got {drop_days}")
        if problems:
            raise ValueError("batch landing: " + "; ".join(problems))
        self.contract = contract
        self.environment_name = environment_name
        self.sources = tuple(sources)
        self.zone = zone
        self.data_prefix = data_prefix
        self.quarantine_prefix = quarantine_prefix
        self.batches_prefix = f"{contract.slug}/batches/"
        self.deletions_prefix = f"{contract.slug}/deletions/"
        self.key = kms.Key(
            self,
            "Key",
            description=f"Dropped files of {contract.name}",
            enable_key_rotation=True,
            removal_policy=removal_policy,
        )
        self.drop = Zone(
            self,
            "Drop",
            key=self.key,
            access_logs=access_logs,
            lifecycle_rules=[s3.LifecycleRule(id="Forget", expiration=cdk.Duration.days(drop_days))],
            noncurrent_version_days=drop_days,
            removal_policy=removal_policy,
        )
        if accelerate:
            bucket = self.drop.bucket.node.default_child
            if not isinstance(bucket, s3.CfnBucket):
                raise TypeError(
                    f"the bucket's default child must be a CfnBucket, got {type(bucket).__name__}"
                )
            bucket.accelerate_configuration = s3.CfnBucket.AccelerateConfigurationProperty(
                acceleration_status="Enabled"
            )
        self.function = self._function(largest_file_mib, memory_mib, log_key, log_retention_days)
        self.state_machine = self._state_machine(log_key, log_retention_days)
        self.dead_letters = DeadLetterQueue(self, "DeadLetters", key=message_key)
        self._start_on_drop()
        self.alarms = self._alarms(alarm_topic)

    @property
    def state_machine_arn(self) -> str:
        """ARN of the state machine: one execution a batch."""
        return self.state_machine.ref

    def folder(self, source: str) -> str:
        """Return the prefix of the drop bucket that files of ``source`` go below."""
        return f"{DROP_PREFIX}{source}/"

    # --- worker ---------------------------------------------------------------------------------------------

    def _function(
        self, largest_file_mib: int, memory_mib: int, log_key: kms.IKey, log_retention_days: int
    ) -> lambda_.DockerImageFunction:
        group = log_group(self, "WorkerLogs", key=log_key, retention_days=log_retention_days)
        role = iam.Role(
            self,
            "WorkerRole",
            assumed_by=service_principal("lambda"),
            description="Lands dropped files: checks records, writes rows, quarantine and audit records",
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["logs:CreateLogStream", "logs:PutLogEvents"],
            resource_arns=[group.log_group_arn],
        )
        # The whole bucket: "not there" is an answer only to who may list it (HeadObject, "Permissions").
        self.drop.grant_read(role, "")
        iam.Grant.add_to_principal(
            grantee=role, actions=["s3:GetObjectVersion"], resource_arns=[self.drop.arn()]
        )
        for prefix in (self.data_prefix, self.quarantine_prefix, self.batches_prefix, self.deletions_prefix):
            self.zone.grant_write(role, prefix)
        self.zone.grant_read(role, self.batches_prefix)
        iam.Grant.add_to_principal(
            grantee=role, actions=["s3:ListBucket"], resource_arns=[self.zone.bucket.bucket_arn]
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["cloudwatch:PutMetricData"],
            resource_arns=["*"],
            conditions={"StringEquals": {"cloudwatch:namespace": METRICS}},
        )
        acknowledge(
            role,
            "IAM5[Resource::*]",
            "PutMetricData has no resource to name; the condition ends the grant at this namespace",
        )
        specs = json.dumps([spec.to_json() for spec in self.sources], sort_keys=True)
        context = lambda_context("batch_landing", self.contract, {"sources.json": specs})
        return lambda_.DockerImageFunction(
            self,
            "Worker",
            code=lambda_.DockerImageCode.from_image_asset(
                str(context), platform=ecr_assets.Platform.LINUX_AMD64
            ),
            architecture=lambda_.Architecture.X86_64,
            memory_size=memory_mib,
            ephemeral_storage_size=cdk.Size.mebibytes(max(512, largest_file_mib * _STORAGE_PER_FILE)),
            timeout=cdk.Duration.minutes(_TIMEOUT),
            role=role,
            log_group=group,
            environment={
                "DROP_URI": self.drop.uri(DROP_PREFIX),
                "DATA_URI": self.zone.uri(self.data_prefix),
                "QUARANTINE_URI": self.zone.uri(self.quarantine_prefix),
                "BATCHES_URI": self.zone.uri(self.batches_prefix),
                "DELETIONS_URI": self.zone.uri(self.deletions_prefix),
                "LARGEST_FILE_BYTES": str(largest_file_mib * 1024 * 1024),
                "ENVIRONMENT_NAME": self.environment_name,
            },
            description=f"Lands batches of {self.contract.name}",
        )

    # --- workflow -------------------------------------------------------------------------------------------

    def _state_machine(self, log_key: kms.IKey, log_retention_days: int) -> stepfunctions.CfnStateMachine:
        # Step Functions adds to the resource policy of a log group, whose size is limited, unless the name
        # begins so (AWS Step Functions Developer Guide, "CloudWatch Logs resource policy size restrictions").
        group = log_group(self, "WorkflowLogs", key=log_key, retention_days=log_retention_days)
        role = iam.Role(
            self,
            "WorkflowRole",
            assumed_by=service_principal("states", own_account=True),
            description="Lands batches: invokes the worker, tells EventBridge",
        )
        iam.Grant.add_to_principal(
            grantee=role, actions=["lambda:InvokeFunction"], resource_arns=[self.function.function_arn]
        )
        iam.Grant.add_to_principal(
            grantee=role, actions=["events:PutEvents"], resource_arns=[arn("events", "event-bus/default")]
        )
        grant_logs_and_traces(role)
        machine = stepfunctions.CfnStateMachine(
            self,
            "Workflow",
            role_arn=role.role_arn,
            state_machine_type="STANDARD",
            definition_string=cdk.Stack.of(self).to_json_string(self._definition()),
            logging_configuration=logging_to(group),
            tracing_configuration=stepfunctions.CfnStateMachine.TracingConfigurationProperty(enabled=True),
        )
        machine.node.add_dependency(role)
        return machine

    def _task(self, payload: dict[str, Any]) -> dict[str, Any]:
        return {
            "Type": "Task",
            "Resource": f"arn:{PARTITION}:states:::lambda:invoke",
            "Parameters": {"FunctionName": self.function.function_arn, "Payload": payload},
        }

    def _definition(self) -> dict[str, Any]:
        busy = {
            "ErrorEquals": ["TransientError", *LAMBDA_BUSY],
            "IntervalSeconds": 2,
            "MaxAttempts": 6,
            "BackoffRate": 2,
        }
        patience = {
            "ErrorEquals": ["IncompleteBatchError"],
            "IntervalSeconds": _WAIT_SECONDS,
            "MaxAttempts": _WAITS,
            "BackoffRate": 1,
        }
        checked = {"ResultSelector": {"batch.$": "$.Payload"}, "ResultPath": "$.checked"}
        land_file = {
            **self._task({"task": "land", "source.$": "$.source", "file.$": "$.file"}),
            "OutputPath": "$.Payload",
            "Retry": [
                busy,
                {"ErrorEquals": ["MisconfiguredError", "BadEventError"], "MaxAttempts": 0},
                # Out of memory or time, or killed: what was written is written again, the same.
                {"ErrorEquals": ["States.ALL"], "IntervalSeconds": 5, "MaxAttempts": 2, "BackoffRate": 2},
            ],
            "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "FileFailed"}],
            "End": True,
        }
        file_failed = {
            "Type": "Pass",
            "Parameters": {"file.$": "$.file.key", "outcome": "failed", "reason.$": "$.error.Cause"},
            "End": True,
        }
        return {
            "Comment": f"Lands batches of {self.contract.name}",
            "StartAt": "Check",
            "States": {
                "Check": {
                    **self._task({"task": "check", "object.$": "$.detail.object"}),
                    **checked,
                    "Retry": [busy, patience, RETRY_KILLED],
                    "Catch": [
                        {
                            "ErrorEquals": ["IncompleteBatchError"],
                            "ResultPath": "$.error",
                            "Next": "GiveUp",
                        }
                    ],
                    "Next": "WhatIsIt",
                },
                "GiveUp": {
                    **self._task({"task": "check", "object.$": "$.detail.object", "last": True}),
                    **checked,
                    "Retry": [busy, RETRY_KILLED],
                    "Next": "WhatIsIt",
                },
                "WhatIsIt": {
                    "Type": "Choice",
                    "Choices": [
                        {"Variable": "$.checked.batch.status", "StringEquals": "skip", "Next": "Skipped"},
                        {"Variable": "$.checked.batch.status", "StringEquals": "ready", "Next": "Land"},
                    ],
                    "Default": "NothingToLand",
                },
                "NothingToLand": {"Type": "Pass", "Result": [], "ResultPath": "$.files", "Next": "Record"},
                "Land": {
                    "Type": "Map",
                    "ItemsPath": "$.checked.batch.files",
                    "ItemSelector": {
                        "source.$": "$.checked.batch.source",
                        "file.$": "$$.Map.Item.Value",
                    },
                    "MaxConcurrency": 5,
                    "ItemProcessor": {
                        "ProcessorConfig": {"Mode": "INLINE"},
                        "StartAt": "LandFile",
                        "States": {"LandFile": land_file, "FileFailed": file_failed},
                    },
                    "ResultPath": "$.files",
                    "Next": "Record",
                },
                "Record": {
                    **self._task(
                        {
                            "task": "finish",
                            "batch.$": "$.checked.batch",
                            "files.$": "$.files",
                            "started_at.$": "$$.Execution.StartTime",
                        }
                    ),
                    "ResultSelector": {"batch.$": "$.Payload"},
                    "ResultPath": "$.record",
                    "Retry": [busy, RETRY_KILLED],
                    "Next": "Tell",
                },
                "Tell": {
                    "Type": "Task",
                    "Resource": f"arn:{PARTITION}:states:::events:putEvents",
                    "Parameters": {
                        "Entries": [
                            {
                                "Source": BATCH_EVENT_SOURCE,
                                "DetailType": BATCH_EVENT,
                                "EventBusName": "default",
                                "Detail.$": "$.record.batch",
                            }
                        ]
                    },
                    # Kept beside the record. A null ResultPath, which would drop it, does not reach the
                    # template: the CDK leaves nulls out.
                    "ResultPath": "$.told",
                    "Retry": [
                        {
                            "ErrorEquals": ["States.ALL"],
                            "IntervalSeconds": 2,
                            "MaxAttempts": 5,
                            "BackoffRate": 2,
                        }
                    ],
                    "Next": "HowDidItEnd",
                },
                "HowDidItEnd": {
                    "Type": "Choice",
                    "Choices": [
                        {"Variable": "$.record.batch.outcome", "StringEquals": "failed", "Next": "Failed"}
                    ],
                    "Default": "Done",
                },
                "Failed": {
                    "Type": "Fail",
                    "Error": "BatchFailed",
                    "Cause": "Files of the batch could not be landed; its audit record names them",
                },
                "Skipped": {"Type": "Succeed"},
                "Done": {"Type": "Succeed", "OutputPath": "$.record.batch"},
            },
        }

    def _start_on_drop(self) -> None:
        role = iam.Role(
            self,
            "DropRole",
            assumed_by=service_principal("events", own_account=True),
            description="Starts the landing of dropped files",
        )
        iam.Grant.add_to_principal(
            grantee=role, actions=["states:StartExecution"], resource_arns=[self.state_machine.ref]
        )
        keys: list[dict[str, str]] = [
            {"wildcard": f"{self.folder(s.name)}*.manifest.json"}
            if s.manifest
            else {"prefix": self.folder(s.name)}
            for s in self.sources
        ]
        rule = events.CfnRule(
            self,
            "Dropped",
            description=f"New files of {self.contract.name}'s batch sources",
            event_pattern={
                "source": ["aws.s3"],
                "detail-type": ["Object Created"],
                "detail": {
                    "bucket": {"name": [self.drop.bucket.bucket_name]},
                    "object": {"key": keys},
                },
            },
            targets=[
                events.CfnRule.TargetProperty(
                    id="Landing",
                    arn=self.state_machine.ref,
                    role_arn=role.role_arn,
                    dead_letter_config=events.CfnRule.DeadLetterConfigProperty(
                        arn=self.dead_letters.queue.queue_arn
                    ),
                    retry_policy=events.CfnRule.RetryPolicyProperty(
                        maximum_event_age_in_seconds=86_400, maximum_retry_attempts=185
                    ),
                )
            ],
        )
        rule.node.add_dependency(role)
        self.dead_letters.allow_rules([rule.attr_arn])

    # --- surface --------------------------------------------------------------------------------------------

    def grant_drop(self, grantee: iam.IGrantable, source: str) -> iam.Grant:
        """Grant dropping files of ``source``: writing into its folder, no reading."""
        return self.drop.grant_write(grantee, self.folder(source))

    def grant_read_batches(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant reading the audit records."""
        return self.zone.grant_read(grantee, self.batches_prefix)

    def metric_batches(self, source: str, *, period: cdk.Duration | None = None) -> cloudwatch.Metric:
        """Batches of ``source`` that landed."""
        return self._metric("Batches", source, period)

    def metric_quarantined(self, source: str, *, period: cdk.Duration | None = None) -> cloudwatch.Metric:
        """Records of ``source`` that were refused."""
        return self._metric("RecordsQuarantined", source, period)

    def _metric(self, name: str, source: str, period: cdk.Duration | None) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=METRICS,
            metric_name=name,
            dimensions_map={
                "Environment": self.environment_name,
                "Workload": self.contract.name,
                "Source": source,
            },
            statistic="Sum",
            period=cdk.Duration.minutes(5) if period is None else period,
        )

    def metric_failed(self, *, period: cdk.Duration | None = None) -> cloudwatch.Metric:
        """Batches that could not be landed."""
        return cloudwatch.Metric(
            namespace="AWS/States",
            metric_name="ExecutionsFailed",
            dimensions_map={"StateMachineArn": self.state_machine.ref},
            statistic="Sum",
            period=cdk.Duration.minutes(5) if period is None else period,
        )

    def alarm_when_stale(
        self, scope: Construct, source: str, *, hours: int, topic: sns.ITopic | None
    ) -> cloudwatch.CfnAlarm:
        """Define the alarm on a source that brought nothing for ``hours``."""
        # CloudWatch, PutMetricAlarm: periods of an hour, a week of them at most.
        if not 1 <= hours <= 168:
            raise ValueError(f"hours must be between 1 and 168, got {hours}")
        return alarm(
            scope,
            "Stale",
            what=f"No batch of {source} for {hours} hours",
            runbook="source-stale",
            namespace=METRICS,
            metric="Batches",
            dimensions={
                "Environment": self.environment_name,
                "Workload": self.contract.name,
                "Source": source,
            },
            period_seconds=3_600,
            periods=hours,
            threshold=1,
            comparison="LessThanThreshold",
            # No data is no batch.
            missing="breaching",
            topic=topic,
        )

    def _alarms(self, topic: sns.ITopic | None) -> tuple[cloudwatch.CfnAlarm, ...]:
        return (
            alarm(
                self,
                "BatchFails",
                what="A batch could not be landed: its audit record names the files",
                runbook="batch-not-landed",
                namespace="AWS/States",
                metric="ExecutionsFailed",
                dimensions={"StateMachineArn": self.state_machine.ref},
                topic=topic,
            ),
            alarm(
                self,
                "NotStarted",
                what="Events of dropped files wait in the dead-letter queue: drop the files again",
                runbook="dead-letters",
                namespace="AWS/SQS",
                metric="ApproximateNumberOfMessagesVisible",
                dimensions={"QueueName": self.dead_letters.queue.queue_name},
                statistic="Maximum",
                topic=topic,
            ),
        )
