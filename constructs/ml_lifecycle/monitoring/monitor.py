"""Data quality and drift of live traffic."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3_assets as s3_assets
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_scheduler as scheduler
from ml_contract.load import LoadedWorkload

from constructs import Construct
from ml_lifecycle import code, instance_types
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.dead_letters import DeadLetterQueue
from ml_lifecycle.images import sagemaker_image
from ml_lifecycle.pseudo import arn, service_principal
from ml_lifecycle.registry import ModelRegistry
from ml_lifecycle.training import service_model
from ml_lifecycle.training.job_role import (
    JobNetwork,
    grant_asset,
    grant_key,
    grant_output_key,
    grant_pull,
    job_role,
)
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["METRIC_NAMESPACE", "Engine", "ModelMonitor"]

Engine = Literal["processing", "model_monitor"]

#: Where the monitor image publishes, with the dimensions Environment and Workload.
METRIC_NAMESPACE = "MLLifecycle"
#: Minutes past the hour: captured requests are written to S3 with some delay.
_MINUTE = 20
#: A job's name has at most 63 characters; a schedule's execution id up to 36, and a hyphend goes between.
_NAME_LENGTH = 63 - 36 - 1
_EXECUTION_ID = "<aws.scheduler.execution-id>"
_SCHEDULED_TIME = "<aws.scheduler.scheduled-time>"
_INPUT = "/opt/ml/processing/input"
_OUTPUT = "/opt/ml/processing/output"


class ModelMonitor(Construct):
    """Define what watches an endpoint's captured traffic, by one of two engines with the same image and
    results.

    ``processing`` runs the image by SageMaker Processing on an EventBridge schedule; anyone may use it.
    ``model_monitor`` runs it by SageMaker Model Monitor, which is closed to accounts that did not use it
    before 2026-07-30; its schedule needs an endpoint, so give the ``condition`` under which there is one.
    Either writes ``statistics.json``, ``constraints.json`` and ``constraint_violations.json`` below
    ``<artifacts>/<slug>/monitoring/`` and publishes ``Violations``, ``RecordsJudged``, ``Unjudged`` and
    ``FeatureDrift`` in the namespace ``MLLifecycle``; alarms, dashboard and retraining do not know the
    engine.

    A run judges the whole hours of its window, 20 minutes after the last has ended. ``drift_alarm`` fires
    when a run finds at least ``alarm_after_violations``; ``unjudged_alarm`` when a run saw fewer records than
    it needs for a judgement.

    Example::

        ModelMonitor(
            self, "Monitor",
            workload=workload, environment_name="dev", endpoint_name="dev-claims-fraud",
            registry=registry, artifacts=lake.artifacts,
            volume_key=keys.data_key, message_key=keys.messages,
        )

    Raises:
        ContractError: an instance type that SageMaker does not offer for processing, with its line.
        ValueError: a request that SageMaker would refuse.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: LoadedWorkload,
        environment_name: str,
        endpoint_name: str,
        registry: ModelRegistry,
        artifacts: Zone,
        volume_key: kms.IKey,
        message_key: kms.IKey,
        engine: Engine | None = None,
        network: JobNetwork | None = None,
        condition: cdk.CfnCondition | None = None,
        image: ecr_assets.DockerImageAsset | None = None,
        volume_gb: int = 30,
        max_runtime: cdk.Duration | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        instance_types.check_workload(workload)
        spec = workload.workload
        self._workload = workload
        self.workload_name = spec.name
        self.environment_name = environment_name
        self._endpoint_name = endpoint_name
        self._artifacts = artifacts
        self._registry = registry
        self._network = network
        self._volume_gb = volume_gb
        # A run that is not done before the next begins is of no use.
        every = cdk.Duration.hours(spec.monitoring.every_hours)
        self._seconds = min(every.to_seconds(), 3_600) if max_runtime is None else max_runtime.to_seconds()
        self._volume_key_arn = (
            None if instance_types.has_local_disk(spec.monitoring.instance_type) else volume_key.key_arn
        )
        self.engine: Engine = spec.monitoring.engine if engine is None else engine
        self.uri = artifacts.uri(f"{spec.slug}/monitoring")
        self.job_prefix = f"{environment_name}-{spec.slug}"[:_NAME_LENGTH].rstrip("-")
        self.image = image or sagemaker_image(
            self, "Image", image="monitoring", platform=ecr_assets.Platform.LINUX_AMD64
        )
        self.contract = s3_assets.Asset(self, "Contract", path=str(code.contract_file(workload.compiled)))
        self.role = self._role(volume_key)
        if self.engine == "processing":
            self.schedule_name = self._own_schedule(message_key, volume_key)
        else:
            self.schedule_name = self._managed_schedule(condition)
        self.drift_alarm = self.metric_violations().create_alarm(
            self,
            "Drift",
            alarm_description=(
                f"Traffic of {endpoint_name} violates its baseline: "
                "read constraint_violations.json of the latest run"
            ),
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            threshold=spec.monitoring.alarm_after_violations,
            evaluation_periods=1,
            # A run that did not happen is no drift; that it did not happen is for the other alarm.
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        self.unjudged_alarm = self.metric_unjudged().create_alarm(
            self,
            "Unjudged",
            alarm_description=(
                f"Traffic of {endpoint_name} could not be judged: "
                f"fewer than {spec.monitoring.minimum_records} records, or no baseline"
            ),
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            threshold=1,
            evaluation_periods=1,
            # Before the first model there is nothing to judge: no data, no alarm, no all-clear either.
            treat_missing_data=cloudwatch.TreatMissingData.MISSING,
        )

    def metric_violations(
        self, *, period: cdk.Duration | None = None, statistic: str = "Maximum"
    ) -> cloudwatch.Metric:
        """Violations that a run found; a run's window unless ``period`` says otherwise."""
        return self._metric("Violations", period, statistic)

    def metric_records_judged(
        self, *, period: cdk.Duration | None = None, statistic: str = "Sum"
    ) -> cloudwatch.Metric:
        """Records that a run judged."""
        return self._metric("RecordsJudged", period, statistic)

    def metric_unjudged(
        self, *, period: cdk.Duration | None = None, statistic: str = "Maximum"
    ) -> cloudwatch.Metric:
        """1 when a run could not judge, 0 when it could."""
        return self._metric("Unjudged", period, statistic)

    def grant_read_reports(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant reading what the runs wrote."""
        return self._artifacts.grant_read(grantee, f"{self._workload.workload.slug}/monitoring/")

    def on_run_failed(self, rule_id: str, *, target: events.IRuleTarget) -> events.Rule:
        """Send an event to ``target`` when a run of the ``processing`` engine fails."""
        rule = events.Rule(
            self,
            rule_id,
            description=f"A monitoring run of {self._endpoint_name} failed",
            event_pattern=events.EventPattern(
                source=["aws.sagemaker"],
                detail_type=["SageMaker Processing Job State Change"],
                detail={
                    "ProcessingJobName": [{"prefix": f"{self.job_prefix}-"}],
                    "ProcessingJobStatus": ["Failed"],
                },
            ),
        )
        rule.add_target(target)
        return rule

    def _metric(self, name: str, period: cdk.Duration | None, statistic: str) -> cloudwatch.Metric:
        spec = self._workload.workload
        return cloudwatch.Metric(
            namespace=METRIC_NAMESPACE,
            metric_name=name,
            dimensions_map={"Environment": self.environment_name, "Workload": spec.name},
            period=cdk.Duration.hours(spec.monitoring.every_hours) if period is None else period,
            statistic=statistic,
        )

    def _role(self, volume_key: kms.IKey) -> iam.Role:
        slug = self._workload.workload.slug
        role = job_role(
            self,
            "Role",
            log_groups=["/aws/sagemaker/ProcessingJobs"],
            network=self._network,
            metric_namespaces=[METRIC_NAMESPACE],
            description=f"Judges the traffic of {self._endpoint_name}",
        )
        grant_pull(self.image.repository, role)
        grant_asset(self.contract, role)
        grant_key(volume_key, role)
        self._artifacts.grant_read(role, f"{slug}/capture/")
        self._artifacts.grant_read(role, f"{slug}/training/")
        self._artifacts.grant_write(role, f"{slug}/monitoring/")
        grant_output_key(self._artifacts.key, role)
        self._registry.grant_read(role)
        return role

    # --- engine: processing -----------------------------------------------------------------------

    def _own_schedule(self, message_key: kms.IKey, volume_key: kms.IKey) -> str:
        self.dead_letters = DeadLetterQueue(self, "DeadLetters", key=message_key)
        role = iam.Role(
            self,
            "ScheduleRole",
            description=f"Starts the monitoring runs of {self._endpoint_name}",
            assumed_by=service_principal("scheduler", own_account=True),
        )
        jobs = arn("sagemaker", f"processing-job/{self.job_prefix}-*")
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["sagemaker:AddTags", "sagemaker:CreateProcessingJob"],
            resource_arns=[jobs],
        )
        acknowledge_wildcards(
            role, "Each run is named after its execution; the wildcard ends at the prefix.", resources=[jobs]
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["iam:PassRole"],
            resource_arns=[self.role.role_arn],
            conditions={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
        )
        grant_key(volume_key, role)
        self.dead_letters.grant_send(role)
        self.schedule = scheduler.CfnSchedule(
            self,
            "Schedule",
            description=f"Judges the traffic of {self._endpoint_name}",
            schedule_expression=self._cron(),
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=f"arn:{cdk.Aws.PARTITION}:scheduler:::aws-sdk:sagemaker:createProcessingJob",
                role_arn=role.role_arn,
                input=cdk.Stack.of(self).to_json_string(self._request()),
                dead_letter_config=scheduler.CfnSchedule.DeadLetterConfigProperty(
                    arn=self.dead_letters.queue.queue_arn
                ),
                retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                    maximum_event_age_in_seconds=3_600, maximum_retry_attempts=10
                ),
            ),
        )
        for each in (role, self.role):
            self.schedule.node.add_dependency(each)
        return self.schedule.ref

    def _cron(self) -> str:
        hours = self._workload.workload.monitoring.every_hours
        return f"cron({_MINUTE} {'*' if hours == 1 else '0' if hours == 24 else f'0/{hours}'} * * ? *)"

    def _request(self) -> dict[str, Any]:
        """Request of one run. EventBridge Scheduler fills in the execution's id and time."""
        found = service_model.problems(
            "CreateProcessingJob",
            self._run(
                execution_id="0123456789abcdef",
                role="arn:aws:iam::000000000000:role/stand-in",
                image="000000000000.dkr.ecr.us-east-1.amazonaws.com/stand-in:monitoring",
                contract="s3://stand-in/contract.json",
                bucket="s3://stand-in/",
                output_key="arn:aws:kms:us-east-1:000000000000:key/stand-in",
                volume_key=None,
                subnets=["subnet-stand-in"],
                security_groups=["sg-stand-in"],
            ),
        )
        if found:
            raise ValueError(
                f"{self._workload.path}: SageMaker would refuse the monitoring run:\n" + "\n".join(found)
            )
        network = self._network
        return self._run(
            execution_id=_EXECUTION_ID,
            role=self.role.role_arn,
            image=self.image.image_uri,
            contract=self.contract.s3_object_url,
            bucket=self._artifacts.uri(),
            output_key=self._artifacts.key.key_arn,
            volume_key=self._volume_key_arn,
            subnets=None if network is None else network.subnet_ids,
            security_groups=None if network is None else network.security_group_ids,
        )

    def _run(
        self,
        *,
        execution_id: str,
        role: str,
        image: str,
        contract: str,
        bucket: str,
        output_key: str,
        volume_key: str | None,
        subnets: list[str] | None,
        security_groups: list[str] | None,
    ) -> dict[str, Any]:
        spec = self._workload.workload
        cluster: dict[str, Any] = {
            "InstanceCount": 1,
            "InstanceType": spec.monitoring.instance_type,
            "VolumeSizeInGB": self._volume_gb,
        }
        if volume_key is not None:
            cluster["VolumeKmsKeyId"] = volume_key
        # Its own calls (capture, metrics, registry) forbid network isolation.
        network: dict[str, Any] = {"EnableNetworkIsolation": False}
        if subnets is not None:
            network["VpcConfig"] = {"Subnets": subnets, "SecurityGroupIds": security_groups}
        return {
            "ProcessingJobName": f"{self.job_prefix}-{execution_id}",
            "RoleArn": role,
            "AppSpecification": {"ImageUri": image},
            "Environment": {
                "APPROVED_MODEL_PARAMETER": self._registry.approval_parameter_name,
                "CAPTURE_URI": f"{bucket}{spec.slug}/capture",
                "ENDPOINT_NAME": self._endpoint_name,
                "ENVIRONMENT": self.environment_name,
                "SCHEDULED_TIME": _SCHEDULED_TIME,
                "WINDOW_HOURS": str(spec.monitoring.every_hours),
                "WORKLOAD": spec.name,
            },
            "ProcessingInputs": [
                {
                    "InputName": "contract",
                    "S3Input": {
                        "S3Uri": contract,
                        "LocalPath": f"{_INPUT}/contract",
                        "S3DataType": "S3Prefix",
                        "S3InputMode": "File",
                    },
                }
            ],
            "ProcessingOutputConfig": {
                "KmsKeyId": output_key,
                "Outputs": [
                    {
                        "OutputName": "report",
                        "S3Output": {
                            "S3Uri": f"{bucket}{spec.slug}/monitoring/{execution_id}",
                            "LocalPath": f"{_OUTPUT}/report",
                            "S3UploadMode": "EndOfJob",
                        },
                    }
                ],
            },
            "ProcessingResources": {"ClusterConfig": cluster},
            "StoppingCondition": {"MaxRuntimeInSeconds": self._seconds},
            "NetworkConfig": network,
            "Tags": [
                {"Key": "ml-lifecycle:environment", "Value": self.environment_name},
                {"Key": "ml-lifecycle:workload", "Value": spec.name},
            ],
        }

    # --- engine: model_monitor --------------------------------------------------------------------

    def _managed_schedule(self, condition: cdk.CfnCondition | None) -> str:
        spec = self._workload.workload
        network = self._network
        self.job_definition_name = self._job_definition_name()
        self.job_definition = sagemaker.CfnDataQualityJobDefinition(
            self,
            "JobDefinition",
            job_definition_name=self.job_definition_name,
            role_arn=self.role.role_arn,
            data_quality_app_specification=(
                sagemaker.CfnDataQualityJobDefinition.DataQualityAppSpecificationProperty(
                    image_uri=self.image.image_uri,
                    environment={
                        "APPROVED_MODEL_PARAMETER": self._registry.approval_parameter_name,
                        "CONTRACT_URI": self.contract.s3_object_url,
                        "ENDPOINT_NAME": self._endpoint_name,
                        "ENVIRONMENT": self.environment_name,
                        "WORKLOAD": spec.name,
                    },
                )
            ),
            data_quality_job_input=sagemaker.CfnDataQualityJobDefinition.DataQualityJobInputProperty(
                endpoint_input=sagemaker.CfnDataQualityJobDefinition.EndpointInputProperty(
                    endpoint_name=self._endpoint_name, local_path=f"{_INPUT}/endpoint"
                )
            ),
            data_quality_job_output_config=(
                sagemaker.CfnDataQualityJobDefinition.MonitoringOutputConfigProperty(
                    kms_key_id=self._artifacts.key.key_arn,
                    monitoring_outputs=[
                        sagemaker.CfnDataQualityJobDefinition.MonitoringOutputProperty(
                            s3_output=sagemaker.CfnDataQualityJobDefinition.S3OutputProperty(
                                s3_uri=self.uri, local_path=f"{_OUTPUT}/report", s3_upload_mode="EndOfJob"
                            )
                        )
                    ],
                )
            ),
            job_resources=sagemaker.CfnDataQualityJobDefinition.MonitoringResourcesProperty(
                cluster_config=sagemaker.CfnDataQualityJobDefinition.ClusterConfigProperty(
                    instance_count=1,
                    instance_type=spec.monitoring.instance_type,
                    volume_size_in_gb=self._volume_gb,
                    volume_kms_key_id=self._volume_key_arn,
                )
            ),
            network_config=sagemaker.CfnDataQualityJobDefinition.NetworkConfigProperty(
                enable_network_isolation=False,
                vpc_config=None
                if network is None
                else sagemaker.CfnDataQualityJobDefinition.VpcConfigProperty(
                    subnets=network.subnet_ids, security_group_ids=network.security_group_ids
                ),
            ),
            stopping_condition=sagemaker.CfnDataQualityJobDefinition.StoppingConditionProperty(
                max_runtime_in_seconds=self._seconds
            ),
        )
        self.job_definition.node.add_dependency(self.role)
        name = f"{self.environment_name}-{spec.slug}"
        self.managed_schedule = sagemaker.CfnMonitoringSchedule(
            self,
            "ManagedSchedule",
            monitoring_schedule_name=name,
            monitoring_schedule_config=sagemaker.CfnMonitoringSchedule.MonitoringScheduleConfigProperty(
                monitoring_job_definition_name=self.job_definition_name,
                monitoring_type="DataQuality",
                schedule_config=sagemaker.CfnMonitoringSchedule.ScheduleConfigProperty(
                    schedule_expression=_managed_cron(spec.monitoring.every_hours)
                ),
            ),
        )
        if condition is not None:
            for resource in (self.job_definition, self.managed_schedule):
                resource.cfn_options.condition = condition
        return name

    def _job_definition_name(self) -> str:
        """Name that ends in a hash of the content: a job definition is immutable, and a schedule names it."""
        network = self._network
        content = cdk.Stack.of(self).resolve(
            [
                self.image.image_uri,
                self.contract.s3_object_url,
                self.uri,
                self._endpoint_name,
                self.environment_name,
                self._registry.approval_parameter_name,
                self._workload.workload.monitoring.instance_type,
                self._volume_gb,
                self._volume_key_arn,
                self._artifacts.key.key_arn,
                self._seconds,
                self.role.role_arn,
                None if network is None else [*network.subnet_ids, *network.security_group_ids],
            ]
        )
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        # 63 characters at most (CreateDataQualityJobDefinition).
        return f"{self.job_prefix}-{digest[:8]}"


def _managed_cron(every_hours: int) -> str:
    """Model Monitor knows full hours only (``ScheduleConfig``): hourly, every n hours from midnight, or
    daily.
    """
    if every_hours == 1:
        return "cron(0 * ? * * *)"
    return "cron(0 0 ? * * *)" if every_hours == 24 else f"cron(0 0/{every_hours} ? * * *)"
