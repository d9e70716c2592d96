"""From a stream to checked rows by Spark's micro-batches: an AWS Glue streaming job."""

from __future__ import annotations

import json
from typing import Literal

from aws_cdk import aws_events as events
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3_assets as s3_assets
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sns as sns
from ml_contract.compiled import CompiledContract

from constructs import Construct
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.code import contract_file, glue_library, glue_script
from ml_lifecycle.data_lake import Zone, parquet_table
from ml_lifecycle.foundation import glue_security, log_group
from ml_lifecycle.ingestion import StreamIngestion
from ml_lifecycle.processing.batch import GLUE_VERSION
from ml_lifecycle.processing.modules import GLUE_MODULES
from ml_lifecycle.pseudo import PARTITION, REGION, arn, service_principal
from ml_lifecycle.training.job_role import grant_asset
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["STREAMING_MODULES", "StreamingTransform"]

#: What the job imports that AWS Glue does not bring.
STREAMING_MODULES = (
    "msgspec==0.22.0",
    *(module for module in GLUE_MODULES if module.startswith("pyarrow==")),
)
#: A job that ended, for whatever reason, is started again after so long at most.
_RESTART_MINUTES = 15
#: Less than seven days (AWS Glue, CreateJob: Timeout).
_LONGEST_MINUTES = 10_079
#: Days of the table: before the project there were none.
_FIRST_DAY = "2026-01-01"


class StreamingTransform(Construct):
    """Define a Spark job that never ends: checked records of a stream as rows, a micro-batch each window.

    It reads the stream of ``ingestion`` beside Firehose, from the oldest record on, and checks each record as
    Firehose's transform does. Valid ones are rows of the table ``<workload>_live`` in ``zone``, with the
    columns, ``record_id`` and ``received_at`` of the raw table; others go to ``<slug>/live-quarantine/`` in
    the quarantine's format. Training and features read Firehose's raw table, not this one: it is for what
    wants Spark on records in flight, and rows soon after they came. Its checkpoint lies in ``checkpoints``:
    losing it means reading the stream from its oldest record again.

    A micro-batch that is repeated writes the same objects. A run that ends is started again within 15 minutes
    by EventBridge Scheduler; while one runs, Glue refuses another. ``failure_topic`` is told when it failed.

    Defaults: windows of 100 s, two G.025X workers (0.25 DPU each; one drives, the other works; AWS Glue
    Developer Guide, "Worker types": for streaming jobs alone), no retry within a run. A run ends after seven
    days, which is as long as Glue lets one run (CreateJob, Timeout); the schedule starts the next. Everything
    it writes is encrypted with customer-managed keys.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        contract: CompiledContract,
        name_prefix: str,
        ingestion: StreamIngestion,
        zone: Zone,
        checkpoints: Zone,
        log_key: kms.IKey,
        window_seconds: int = 100,
        worker_type: Literal["G.025X", "G.1X", "G.2X"] = "G.025X",
        workers: int = 2,
        log_retention_days: int = 90,
        failure_topic: sns.ITopic | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        if not 10 <= window_seconds <= 900:
            problems.append(f"window_seconds must be between 10 and 900, got {window_seconds}")
        # AWS Glue, CreateJob: NumberOfWorkers.
        if not 2 <= workers <= 299:
            problems.append(f"workers must be between 2 and 299, got {workers}")
        if worker_type not in ("G.025X", "G.1X", "G.2X"):
            problems.append(f"worker_type must be one of G.025X, G.1X, G.2X, got {worker_type!r}")
        if problems:
            raise ValueError("streaming transform: " + "; ".join(problems))
        self.contract, self.zone, self.checkpoints = contract, zone, checkpoints
        self.data_prefix = f"{contract.slug}/live/"
        self.quarantine_prefix = f"{contract.slug}/live-quarantine/"
        self.checkpoint_prefix = f"{contract.slug}/checkpoints/live/"
        self._name = f"{name_prefix}-live"
        self._log_prefix = f"/aws-glue/jobs/{self._name}"
        self.table_name = f"{contract.name}_live"
        self.table = parquet_table(
            self,
            "Table",
            zone=zone,
            name=self.table_name,
            columns=contract.glue_columns(),
            prefix=self.data_prefix,
            partition_key=("ingest_date", "string"),
            projection={
                "projection.ingest_date.type": "date",
                "projection.ingest_date.format": "yyyy-MM-dd",
                "projection.ingest_date.range": f"{_FIRST_DAY},NOW",
            },
        )
        groups = [
            log_group(
                self,
                f"{kind.title()}Logs",
                key=log_key,
                retention_days=log_retention_days,
                name=f"{self._log_prefix}/{kind}",
            )
            for kind in ("output", "error")
        ]
        script = s3_assets.Asset(self, "Script", path=str(glue_script("curate_stream")))
        library = s3_assets.Asset(self, "Library", path=str(glue_library()))
        contract_asset = s3_assets.Asset(self, "Contract", path=str(contract_file(contract)))
        self.role = self._role(ingestion)
        for asset in (script, library, contract_asset):
            grant_asset(asset, self.role)
        self.job = glue.CfnJob(
            self,
            "Job",
            description=f"Records of {contract.name} to checked rows, every {window_seconds} s",
            role=self.role.role_arn,
            command=glue.CfnJob.JobCommandProperty(
                name="gluestreaming", python_version="3", script_location=script.s3_object_url
            ),
            glue_version=GLUE_VERSION,
            worker_type=worker_type,
            number_of_workers=workers,
            timeout=_LONGEST_MINUTES,
            # The next run takes the checkpoint up; retries of Glue would do so against the schedule.
            max_retries=0,
            execution_property=glue.CfnJob.ExecutionPropertyProperty(max_concurrent_runs=1),
            security_configuration=glue_security(
                self,
                "Security",
                name=self._name,
                log_key=log_key,
                bookmark_key=self.checkpoints.key,
                data_key=self.zone.key,
            ).ref,
            default_arguments={
                "--job-language": "python",
                "--additional-python-modules": ",".join(STREAMING_MODULES),
                "--enable-metrics": "true",
                "--custom-logGroup-prefix": self._log_prefix,
                "--extra-py-files": library.s3_object_url,
                "--aws_region": REGION,
                "--contract": contract_asset.s3_object_url,
                "--stream_name": ingestion.stream_name,
                "--data_uri": zone.uri(self.data_prefix),
                "--quarantine_uri": zone.uri(self.quarantine_prefix),
                "--checkpoint_uri": checkpoints.uri(self.checkpoint_prefix),
                "--window_seconds": str(window_seconds),
                "--files": str(workers - 1),
            },
        )
        self.job.node.add_dependency(self.role, *groups)
        self._keep_running()
        if failure_topic is not None:
            self._tell_failures(failure_topic)

    @property
    def job_name(self) -> str:
        """Name of the job."""
        return self.job.ref

    @property
    def job_arn(self) -> str:
        """ARN of the job."""
        return arn("glue", f"job/{self.job.ref}")

    def grant_read(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant reading the rows' files; the catalog's table is the zone's to grant."""
        return self.zone.grant_read(grantee, self.data_prefix)

    def grant_start(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant starting and stopping the job, and looking at its runs."""
        return iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["glue:BatchStopJobRun", "glue:GetJobRun", "glue:GetJobRuns", "glue:StartJobRun"],
            resource_arns=[self.job_arn],
        )

    def _role(self, ingestion: StreamIngestion) -> iam.Role:
        role = iam.Role(
            self,
            "Role",
            description="Reads the stream, writes checked rows and refused records",
            assumed_by=service_principal("glue", own_account=True),
        )
        ingestion.grant_read(role)
        for prefix in (self.data_prefix, self.quarantine_prefix):
            self.zone.grant_write(role, prefix)
        # Spark asks for folders, renames what it wrote and removes what is old.
        self.checkpoints.grant_read(role, self.checkpoint_prefix)
        self.checkpoints.grant_write(role, self.checkpoint_prefix, delete=True)
        self.checkpoints.grant_folder(role, self.checkpoint_prefix, write=True)
        # Glue puts the names of security configuration and role into the group's name, and makes that group
        # (AWS Glue Developer Guide, "Security configuration with continuous logging").
        logs = arn("logs", f"log-group:{self._log_prefix}*")
        iam.Grant.add_to_principal(
            grantee=role,
            actions=[
                "logs:AssociateKmsKey",
                "logs:CreateLogGroup",
                "logs:CreateLogStream",
                "logs:PutLogEvents",
            ],
            resource_arns=[logs],
        )
        acknowledge_wildcards(
            role,
            "Glue puts the names of security configuration and role into the name of a job's log group; the "
            "wildcard begins with this job's own prefix.",
            resources=[logs],
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["cloudwatch:PutMetricData"],
            resource_arns=["*"],
            conditions={"StringEquals": {"cloudwatch:namespace": "Glue"}},
        )
        acknowledge(
            role,
            "IAM5[Resource::*]",
            "PutMetricData has no resource to name; the condition on the namespace ends the grant at Glue's",
        )
        return role

    def _keep_running(self) -> None:
        role = iam.Role(
            self,
            "ScheduleRole",
            description="Starts the streaming job when it does not run",
            assumed_by=service_principal("scheduler", own_account=True),
        )
        iam.Grant.add_to_principal(grantee=role, actions=["glue:StartJobRun"], resource_arns=[self.job_arn])
        schedule = scheduler.CfnSchedule(
            self,
            "Schedule",
            description=f"Starts the streaming job of {self.contract.name} when it does not run",
            schedule_expression=f"rate({_RESTART_MINUTES} minutes)",
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=f"arn:{PARTITION}:scheduler:::aws-sdk:glue:startJobRun",
                role_arn=role.role_arn,
                input=json.dumps({"JobName": self.job.ref}),
                # Refused as long as a run goes on (ConcurrentRunsExceededException): nothing to repeat.
                retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                    maximum_retry_attempts=0, maximum_event_age_in_seconds=60
                ),
            ),
        )
        schedule.node.add_dependency(role)

    def _tell_failures(self, topic: sns.ITopic) -> None:
        events.CfnRule(
            self,
            "Failures",
            description=f"The streaming job of {self.contract.name} failed",
            event_pattern={
                "source": ["aws.glue"],
                "detail-type": ["Glue Job State Change"],
                "detail": {"jobName": [self.job.ref], "state": ["FAILED", "TIMEOUT"]},
            },
            targets=[events.CfnRule.TargetProperty(id="Topic", arn=topic.topic_arn)],
        )
