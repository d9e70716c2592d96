"""From raw rows to curated rows to features on EMR Serverless: the Spark jobs of ``glue/`` in a workflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_emrserverless as emrserverless
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3_assets as s3_assets
from aws_cdk import aws_sns as sns
from ml_contract.compiled import CompiledContract

from constructs import Construct
from ml_lifecycle import code
from ml_lifecycle.data_lake import DataLake, IcebergTable
from ml_lifecycle.features import FeatureGroup
from ml_lifecycle.foundation import log_group
from ml_lifecycle.processing.engine import WorkflowEngine
from ml_lifecycle.processing.workflow import GATHER_SECONDS, BatchWorkflow
from ml_lifecycle.processing.zones import BatchTables
from ml_lifecycle.pseudo import PARTITION, REGION, arn, service_principal
from ml_lifecycle.training.job_role import JobNetwork, grant_asset
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["EMR_RELEASE", "EmrServerlessTransform"]

#: Spark 3.5; the base of containers/spark is of the same release.
EMR_RELEASE = "emr-7.7.0"
#: The image's Python, for the driver and for the executors.
_PYTHON = "/usr/bin/python3.11"
#: After these EMR Serverless is asked again.
_BUSY = (
    "EMRServerless.InternalServerException",
    "EMRServerless.ServiceQuotaExceededException",
    "EMRServerless.ThrottlingException",
)


class EmrServerlessTransform(WorkflowEngine):
    """Define how raw rows become curated rows and features on a Spark cluster that comes and goes.

    An EMR Serverless application that starts with a job and stops when idle, and a Step Functions state
    machine that runs the same PySpark code as the Glue engine, ``glue/curate`` and ``glue/build_features``,
    as two jobs. Rows, report and table are those of the other engines; data quality rules are judged by the
    project's own evaluator. Partitions of the raw table are entered into the catalog by ``curate``.

    It starts when data lands below ``raw_prefix`` (after five minutes of gathering), on a ``schedule`` (UTC)
    and by hand; one run at a time (``BatchWorkflow``).

    Defaults: at most 64 vCPU and 256 GB, stopped after 15 idle minutes, six hours per job, no retry of a job
    that failed. Local disks and logs are encrypted with customer-managed keys. The image ``containers/spark``
    holds the packages; in a VPC give a ``network``. With ``labels`` the newest label that people gave a
    record takes the place of its own.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        contract: CompiledContract,
        name_prefix: str,
        lake: DataLake,
        raw_table: glue.CfnTable | IcebergTable,
        raw_prefix: str,
        feature_group: FeatureGroup,
        log_key: kms.IKey,
        max_vcpu: int = 64,
        max_memory_gb: int = 256,
        idle_minutes: int = 15,
        network: JobNetwork | None = None,
        timeout: cdk.Duration | None = None,
        schedule: str | None = "cron(0 2 * * ? *)",
        on_landing: bool = True,
        gather_seconds: int = GATHER_SECONDS,
        labels: bool = False,
        log_retention_days: int = 90,
        failure_topic: sns.ITopic | None = None,
        image: ecr_assets.DockerImageAsset | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        # A driver and one executor of the default size take 8 vCPU and 32 GB (EMR Serverless User Guide,
        # "Worker configurations": 4 vCPU, 16 GB).
        if max_vcpu < 8:
            problems.append(f"max_vcpu must be at least 8, got {max_vcpu}")
        if max_memory_gb < 32:
            problems.append(f"max_memory_gb must be at least 32, got {max_memory_gb}")
        # AutoStopConfiguration.idleTimeoutMinutes.
        if not 1 <= idle_minutes <= 10_080:
            problems.append(f"idle_minutes must be between 1 and 10080, got {idle_minutes}")
        if problems:
            raise ValueError("EMR Serverless transform: " + "; ".join(problems))
        self.contract = contract
        self.raw_prefix = raw_prefix
        self.name = f"{name_prefix}-batch"
        self._minutes = 360 if timeout is None else int(timeout.to_minutes())
        self.tables = BatchTables(
            self,
            contract=contract,
            lake=lake,
            log_key=log_key,
            log_retention_days=log_retention_days,
            labels=labels,
        )
        self.image = image or ecr_assets.DockerImageAsset(
            self,
            "Image",
            directory=str(code.image_context("spark")),
            platform=ecr_assets.Platform.LINUX_AMD64,
        )
        self.contract_asset = s3_assets.Asset(self, "Contract", path=str(code.contract_file(contract)))
        self.library_asset = s3_assets.Asset(self, "Library", path=str(code.glue_library()))
        self.log_group = log_group(self, "Logs", key=log_key, retention_days=log_retention_days)
        self._log_key = log_key
        self._disk_key = lake.key
        self.application = self._application(max_vcpu, max_memory_gb, idle_minutes, network)
        self.curate_role = self._job_role("CurateRole", "Reads raw rows, commits curated rows and reports")
        self.tables.grant_curate(self.curate_role, raw_prefix, raw_table)
        lake.raw.grant_folder(self.curate_role, raw_prefix)
        lake.curated.grant_folder(self.curate_role, self.data_prefix, write=True)
        self.features_role = self._job_role(
            "FeaturesRole", "Reads curated rows, writes features and feature records"
        )
        self.tables.grant_build(self.features_role)
        lake.curated.grant_folder(self.features_role, self.data_prefix)
        lake.features.grant_folder(self.features_role, self.data_prefix, write=True)
        lake.features.grant_folder(self.features_role, self.tables.snapshots_prefix, write=True)
        feature_group.grant_put_records(self.features_role)
        self.workflow = BatchWorkflow(
            self,
            "Workflow",
            name=self.name,
            title=f"{contract.name}: curate, build features",
            curate=self._task(
                "curate", self.curate_role, self.tables.curate_arguments(raw_prefix, raw_table)
            ),
            features=self._task(
                "build_features",
                self.features_role,
                self.tables.features_arguments(feature_group.name),
            ),
            retry=_BUSY,
            raw=lake.raw,
            raw_prefix=raw_prefix,
            log_key=log_key,
            schedule=schedule,
            on_landing=on_landing,
            gather_seconds=gather_seconds,
            log_retention_days=log_retention_days,
            failure_topic=failure_topic,
        )
        self._grant_jobs()

    @property
    def new_data_event(self) -> dict[str, object]:
        """Pattern of the event that says: there are new features."""
        return {
            "source": ["aws.emr-serverless"],
            "detail-type": ["EMR Serverless Job Run State Change"],
            "detail": {
                "applicationId": [self.application.attr_application_id],
                "jobRunName": ["build_features"],
                "state": ["SUCCESS"],
            },
        }

    @property
    def outputs(self) -> dict[str, str]:
        """Names under which an operator finds the engine."""
        return {
            "BatchStateMachineArn": self.state_machine_arn,
            "EmrApplicationId": self.application.attr_application_id,
            "CurateQuarantineUri": self.tables.lake.raw.uri(self.tables.quarantine_prefix),
        }

    # --- the application and its jobs -----------------------------------------------------------------------

    def _application(
        self, max_vcpu: int, max_memory_gb: int, idle_minutes: int, network: JobNetwork | None
    ) -> emrserverless.CfnApplication:
        props = emrserverless.CfnApplication
        return emrserverless.CfnApplication(
            self,
            "Application",
            name=self.name,
            type="SPARK",
            release_label=EMR_RELEASE,
            architecture="X86_64",
            image_configuration=props.ImageConfigurationInputProperty(image_uri=self.image.image_uri),
            auto_start_configuration=props.AutoStartConfigurationProperty(enabled=True),
            auto_stop_configuration=props.AutoStopConfigurationProperty(
                enabled=True, idle_timeout_minutes=idle_minutes
            ),
            maximum_capacity=props.MaximumAllowedResourcesProperty(
                cpu=f"{max_vcpu} vCPU", memory=f"{max_memory_gb} GB"
            ),
            network_configuration=None
            if network is None
            else props.NetworkConfigurationProperty(
                subnet_ids=network.subnet_ids, security_group_ids=network.security_group_ids
            ),
        )

    def _job_role(self, construct_id: str, description: str) -> iam.Role:
        role = iam.Role(
            self,
            construct_id,
            description=description,
            assumed_by=service_principal("emr-serverless", own_account=True),
        )
        for asset in (self.contract_asset, self.library_asset):
            grant_asset(asset, role)
        streams = [self.log_group.log_group_arn]
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            resource_arns=streams,
        )
        # EMR Serverless User Guide, "Amazon CloudWatch logging": looks for the group before it writes.
        iam.Grant.add_to_principal(
            grantee=role, actions=["logs:DescribeLogGroups"], resource_arns=[arn("logs", "*")]
        )
        acknowledge_wildcards(
            role,
            "EMR Serverless names log streams after each run; groups can be listed in a whole Region only.",
            resources=[*streams, arn("logs", "*")],
        )
        # Shuffle data on local disks.
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["kms:Decrypt", "kms:GenerateDataKey"],
            resource_arns=[self._disk_key.key_arn],
        )
        return role

    def _task(self, step: str, role: iam.Role, arguments: Mapping[str, str]) -> dict[str, Any]:
        script = s3_assets.Asset(self, f"{step}Script", path=str(code.glue_script(step, "emr")))
        grant_asset(script, role)
        given = {"contract": self.contract_asset.s3_object_url, "aws_region": REGION, **arguments}
        words = [word for name, value in given.items() for word in (f"--{name}", value)]
        listed = ", ".join([*(f"'{word}'" for word in words), "'--run_id'", "$$.Execution.Name"])
        settings = {
            "spark.submit.pyFiles": self.library_asset.s3_object_url,
            "spark.emr-serverless.driverEnv.PYSPARK_DRIVER_PYTHON": _PYTHON,
            "spark.emr-serverless.driverEnv.PYSPARK_PYTHON": _PYTHON,
            "spark.executorEnv.PYSPARK_PYTHON": _PYTHON,
        }
        return {
            "Type": "Task",
            "Resource": f"arn:{PARTITION}:states:::emr-serverless:startJobRun.sync",
            "Parameters": {
                "ApplicationId": self.application.attr_application_id,
                "ExecutionRoleArn": role.role_arn,
                "Name": step,
                "ExecutionTimeoutMinutes": self._minutes,
                "JobDriver": {
                    "SparkSubmit": {
                        "EntryPoint": script.s3_object_url,
                        "EntryPointArguments.$": f"States.Array({listed})",
                        "SparkSubmitParameters": " ".join(
                            f"--conf {name}={value}" for name, value in settings.items()
                        ),
                    }
                },
                "ConfigurationOverrides": {
                    "DiskEncryptionConfiguration": {"EncryptionKeyArn": self._disk_key.key_arn},
                    "MonitoringConfiguration": {
                        "CloudWatchLoggingConfiguration": {
                            "Enabled": True,
                            "LogGroupName": self.log_group.log_group_name,
                            "EncryptionKeyArn": self._log_key.key_arn,
                        }
                    },
                },
            },
        }

    def _grant_jobs(self) -> None:
        # What startJobRun.sync takes (AWS Step Functions Developer Guide, "IAM policies for calling EMR
        # Serverless").
        role, application = self.workflow.role, self.application.attr_arn
        runs = f"{application}/jobruns/*"
        iam.Grant.add_to_principal(
            grantee=role, actions=["emr-serverless:StartJobRun"], resource_arns=[application]
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["emr-serverless:CancelJobRun", "emr-serverless:GetJobRun"],
            resource_arns=[runs],
        )
        acknowledge_wildcards(
            role, "A run is named by the service; the wildcard ends at this application.", resources=[runs]
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["iam:PassRole"],
            resource_arns=[self.curate_role.role_arn, self.features_role.role_arn],
            conditions={"StringEquals": {"iam:PassedToService": "emr-serverless.amazonaws.com"}},
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["events:DescribeRule", "events:PutRule", "events:PutTargets"],
            resource_arns=[arn("events", "rule/StepFunctionsGetEventsForEMRServerlessJobRule")],
        )
