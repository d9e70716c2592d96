"""Answers to whole files: batch transform jobs of the approved model."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sns as sns
from aws_cdk import aws_stepfunctions as stepfunctions
from ml_contract.load import LoadedWorkload

from constructs import Construct
from ml_lifecycle import instance_types
from ml_lifecycle.alarms import described
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.foundation import grant_logs_and_traces, log_group, logging_to
from ml_lifecycle.processing.workflow import RANDOM
from ml_lifecycle.pseudo import PARTITION, arn, service_principal
from ml_lifecycle.serving.approved import Approved, approved_model, packaged_model
from ml_lifecycle.serving.metrics import Watch
from ml_lifecycle.training import service_model
from ml_lifecycle.training.job_role import (
    JobNetwork,
    grant_key,
    grant_output_key,
    grant_pull,
    job_role,
)
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["BatchTransform"]

#: A job's name has at most 63 characters (CreateTransformJob); 12 random ones and a hyphen follow the prefix.
_PREFIX_LENGTH = 63 - 1 - 12
#: What Step Functions learns of a job's end by; AWS names the rule ("Manage SageMaker with Step Functions").
_MANAGED_RULE = "StepFunctionsGetEventsForSageMakerTransformJobsRule"
#: The container's own limit of an answer (InvokeEndpoint: 60 seconds); a job waits as long.
_ANSWER_SECONDS = 60


class BatchTransform(Construct):
    """Define what scores files with the approved model: a state machine that runs a batch transform job.

    Input is what lies below ``<artifacts>/<slug>/batch/in/``, a record a line; answers come below
    ``batch/out/`` under the same names with ``.out``. It starts every ``batch.every_hours`` hours with the
    whole folder, or with ``batch.on_new_data`` for each object that lands there; an empty folder starts no
    job. With ``batch.join: input`` each answer stands beside its record. A file whose records cannot be
    answered gets no ``.out`` and fails its job; ``error_alarm`` tells ``alarm_topic``. While no model is
    approved there is no state machine.

    Example::

        BatchTransform(
            self, "Batch",
            workload=workload, name="dev-claims-fraud",
            approval_parameter_name=registry.approval_parameter_name,
            artifacts=lake.artifacts, volume_key=keys.data_key, log_key=keys.logs,
            repository=image.repository,
        )

    ``approved`` is given instead of ``approval_parameter_name`` beside an endpoint, which has made it.

    Raises:
        ContractError: an instance type that SageMaker does not offer for transform, with its line.
        ValueError: a job that SageMaker would refuse; a workload without ``serving.batch``.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: LoadedWorkload,
        name: str,
        artifacts: Zone,
        volume_key: kms.IKey,
        log_key: kms.IKey,
        repository: ecr.IRepository,
        approval_parameter_name: str | None = None,
        approved: Approved | None = None,
        network: JobNetwork | None = None,
        log_retention_days: int = 90,
        alarm_topic: sns.ITopic | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        instance_types.check_workload(workload)
        spec = workload.workload
        if spec.serving.batch is None:
            raise ValueError("workload must have serving.batch, got none; set it or leave the construct out")
        if (approval_parameter_name is None) == (approved is None):
            raise ValueError("either approval_parameter_name or approved must be given, not both or neither")
        self._batch = spec.serving.batch
        self._artifacts = artifacts
        self.capture_uri: str | None = None
        self.job_prefix = f"{name}-batch"[:_PREFIX_LENGTH].rstrip("-")
        self._input, self._output = f"{spec.slug}/batch/in/", f"{spec.slug}/batch/out/"
        self.state_machine_arn = arn("states", f"stateMachine:{name}-batch")
        self.role = self._job_role(spec.slug, volume_key, repository, network)
        self.approved = approved or approved_model(self, str(approval_parameter_name))
        self.condition = self.approved.condition
        self.model = packaged_model(self, "Model", approved=self.approved, role=self.role, network=network)
        key = None if instance_types.has_local_disk(self._batch.instance_type) else volume_key.key_arn
        self.state_machine = self._machine(name, key, log_key, log_retention_days)
        self._started()
        self.error_alarm = self.metric_failed().create_alarm(
            self,
            "Failed",
            alarm_description=described(
                f"Files of {name} were not scored: a batch transform job failed", runbook="files-not-scored"
            ),
            threshold=1,
            evaluation_periods=1,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        if alarm_topic is not None:
            self.error_alarm.add_alarm_action(actions.SnsAction(alarm_topic))

    @property
    def outputs(self) -> dict[str, str]:
        """What a caller needs to know, by the name of the stack's output."""
        return {
            "TransformInputUri": self._artifacts.uri(self._input),
            "TransformOutputUri": self._artifacts.uri(self._output),
            "TransformStateMachineArn": self.state_machine_arn,
        }

    @property
    def alarms(self) -> list[cloudwatch.IAlarm]:
        """Alarms that somebody should hear of."""
        return [self.error_alarm]

    @property
    def watch(self) -> Watch:
        """What a dashboard shows."""
        return Watch(
            requests=self._metric("ExecutionsStarted", None, "Sum"),
            errors=self.metric_failed(),
            latency=[self._metric("ExecutionTime", None, "Maximum")],
            unit="milliseconds",
        )

    def grant_start(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant scoring by hand: input ``{}``, or ``{"uri": "s3://..."}`` for files below one prefix."""
        return iam.Grant.add_to_principal(
            grantee=grantee, actions=["states:StartExecution"], resource_arns=[self.state_machine_arn]
        )

    def grant_files(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant putting files to be scored and reading their answers."""
        self._artifacts.grant_write(grantee, self._input)
        return self._artifacts.grant_read(grantee, self._output)

    def metric_failed(
        self, *, period: cdk.Duration | None = None, statistic: str = "Sum"
    ) -> cloudwatch.Metric:
        """Count of runs that failed; five minutes unless ``period`` says otherwise."""
        return self._metric("ExecutionsFailed", period, statistic)

    def _metric(self, name: str, period: cdk.Duration | None, statistic: str) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace="AWS/States",
            metric_name=name,
            dimensions_map={"StateMachineArn": self.state_machine_arn},
            period=cdk.Duration.minutes(5) if period is None else period,
            statistic=statistic,
        )

    def _job_role(
        self, slug: str, volume_key: kms.IKey, repository: ecr.IRepository, network: JobNetwork | None
    ) -> iam.Role:
        role = job_role(
            self,
            "Role",
            log_groups=["/aws/sagemaker/TransformJobs"],
            network=network,
            metric_namespaces=["/aws/sagemaker/TransformJobs"],
            description=f"Batch transform jobs of {slug}",
        )
        grant_pull(repository, role)
        grant_key(volume_key, role)
        self._artifacts.grant_read(role, f"{slug}/training/")
        self._artifacts.grant_read(role, self._input)
        self._artifacts.grant_write(role, self._output)
        grant_output_key(self._artifacts.key, role)
        return role

    def _machine(
        self, name: str, volume_key: str | None, log_key: kms.IKey, days: int
    ) -> stepfunctions.CfnStateMachine:
        role = iam.Role(
            self,
            "StepsRole",
            description=f"Runs the batch transform jobs of {name}",
            assumed_by=service_principal("states", own_account=True),
        )
        jobs = arn("sagemaker", f"transform-job/{self.job_prefix}-*")
        iam.Grant.add_to_principal(
            grantee=role,
            actions=[
                "sagemaker:AddTags",
                "sagemaker:CreateTransformJob",
                "sagemaker:DescribeTransformJob",
                "sagemaker:StopTransformJob",
            ],
            resource_arns=[jobs],
        )
        acknowledge_wildcards(
            role, "Each run names its job; the wildcard ends at the prefix.", resources=[jobs]
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["events:DescribeRule", "events:PutRule", "events:PutTargets"],
            resource_arns=[arn("events", f"rule/{_MANAGED_RULE}")],
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["s3:ListBucket"],
            resource_arns=[self._artifacts.bucket.bucket_arn],
            conditions={"StringEquals": {"s3:prefix": [self._input]}},
        )
        grant_logs_and_traces(role)
        group = log_group(self, "StepsLogs", key=log_key, retention_days=days)
        machine = stepfunctions.CfnStateMachine(
            self,
            "Steps",
            state_machine_name=f"{name}-batch",
            role_arn=role.role_arn,
            state_machine_type="STANDARD",
            definition_string=cdk.Stack.of(self).to_json_string(self._definition(volume_key)),
            logging_configuration=logging_to(group),
            tracing_configuration=stepfunctions.CfnStateMachine.TracingConfigurationProperty(enabled=True),
        )
        machine.node.add_dependency(role)
        machine.node.add_dependency(self.role)
        machine.cfn_options.condition = self.condition
        return machine

    def _definition(self, volume_key: str | None) -> dict[str, Any]:
        found = service_model.problems(
            "CreateTransformJob",
            {
                **self._job(model="stand-in", output="s3://stand-in/out", key="stand-in", volume_key=None),
                "TransformJobName": "stand-in",
                "TransformInput": self._source("s3://stand-in/in/"),
            },
        )
        if found:
            raise ValueError("SageMaker would refuse the batch transform job:\n" + "\n".join(found))
        job = self._job(
            model=self.model.attr_model_name,
            output=self._artifacts.uri(self._output),
            key=self._artifacts.key.key_arn,
            volume_key=volume_key,
        )
        source = self._source("")
        source["DataSource"] = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri.$": "$.uri"}}
        return {
            "Comment": "Scores files with the approved model",
            "StartAt": "Which",
            "States": {
                "Which": {
                    "Type": "Choice",
                    "Choices": [{"Variable": "$.uri", "IsPresent": True, "Next": "Score"}],
                    "Default": "Look",
                },
                # SageMaker refuses a job over a prefix without objects; nothing to do is no failure.
                "Look": {
                    "Type": "Task",
                    "Resource": f"arn:{PARTITION}:states:::aws-sdk:s3:listObjectsV2",
                    "Parameters": {
                        "Bucket": self._artifacts.bucket.bucket_name,
                        "Prefix": self._input,
                        "MaxKeys": 1,
                    },
                    "ResultSelector": {"count.$": "$.KeyCount"},
                    "Next": "Any",
                },
                "Any": {
                    "Type": "Choice",
                    "Choices": [{"Variable": "$.count", "NumericGreaterThan": 0, "Next": "All"}],
                    "Default": "Nothing",
                },
                "Nothing": {"Type": "Succeed"},
                "All": {
                    "Type": "Pass",
                    "Result": {"uri": self._artifacts.uri(self._input)},
                    "Next": "Score",
                },
                "Score": {
                    "Type": "Task",
                    "Resource": f"arn:{PARTITION}:states:::sagemaker:createTransformJob.sync",
                    "Parameters": {
                        **job,
                        "TransformJobName.$": f"States.Format('{self.job_prefix}-{{}}', {RANDOM})",
                        "TransformInput": source,
                    },
                    "ResultPath": None,
                    # A job that failed fails again; a request that was throttled does not.
                    "Retry": [
                        {
                            "ErrorEquals": ["SageMaker.AmazonSageMakerException", "ThrottlingException"],
                            "IntervalSeconds": 30,
                            "MaxAttempts": 3,
                            "BackoffRate": 2,
                        }
                    ],
                    "End": True,
                },
            },
        }

    def _source(self, uri: str) -> dict[str, Any]:
        return {
            "ContentType": self._batch.content_type,
            "SplitType": "Line",
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}},
        }

    def _job(self, *, model: str, output: str, key: str, volume_key: str | None) -> dict[str, Any]:
        batch = self._batch
        resources: dict[str, Any] = {
            "InstanceType": batch.instance_type,
            "InstanceCount": batch.instance_count,
        }
        if volume_key is not None:
            resources["VolumeKmsKeyId"] = volume_key
        return {
            "ModelName": model,
            "BatchStrategy": "MultiRecord" if batch.strategy == "MULTI_RECORD" else "SingleRecord",
            "MaxPayloadInMB": batch.max_payload_mb,
            "ModelClientConfig": {
                "InvocationsTimeoutInSeconds": _ANSWER_SECONDS,
                "InvocationsMaxRetries": 1,
            },
            "TransformOutput": {
                "S3OutputPath": output,
                "Accept": batch.content_type,
                "AssembleWith": "Line",
                "KmsKeyId": key,
            },
            "TransformResources": resources,
            "DataProcessing": {"JoinSource": "Input" if batch.join == "input" else "None"},
        }

    def _started(self) -> None:
        if self._batch.every_hours is None:
            self._on_new_data()
        else:
            self._on_schedule(self._batch.every_hours)

    def _on_schedule(self, hours: int) -> None:
        role = self._starter("ScheduleRole", "scheduler")
        schedule = scheduler.CfnSchedule(
            self,
            "Schedule",
            description=f"Scores the files of {self.job_prefix}",
            schedule_expression=f"rate({hours} hour{'' if hours == 1 else 's'})",
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=self.state_machine.ref,
                role_arn=role.role_arn,
                input="{}",
                retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                    maximum_event_age_in_seconds=3_600, maximum_retry_attempts=10
                ),
            ),
        )
        schedule.node.add_dependency(role)
        schedule.cfn_options.condition = self.condition

    def _on_new_data(self) -> None:
        role = self._starter("RuleRole", "events")
        rule = events.CfnRule(
            self,
            "NewData",
            description=f"A file of {self.job_prefix} landed",
            event_pattern={
                "source": ["aws.s3"],
                "detail-type": ["Object Created"],
                "detail": {
                    "bucket": {"name": [self._artifacts.bucket.bucket_name]},
                    "object": {"key": [{"prefix": self._input}]},
                },
            },
            targets=[
                events.CfnRule.TargetProperty(
                    id="Steps",
                    arn=self.state_machine.ref,
                    role_arn=role.role_arn,
                    input_transformer=events.CfnRule.InputTransformerProperty(
                        input_paths_map={"bucket": "$.detail.bucket.name", "key": "$.detail.object.key"},
                        input_template='{"uri": "s3://<bucket>/<key>"}',
                    ),
                )
            ],
        )
        rule.node.add_dependency(role)
        rule.cfn_options.condition = self.condition

    def _starter(self, role_id: str, service: str) -> iam.Role:
        role = iam.Role(
            self,
            role_id,
            description=f"Starts the batch transform jobs of {self.job_prefix}",
            assumed_by=service_principal(service, own_account=True),
        )
        self.grant_start(role)
        return role
