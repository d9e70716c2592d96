"""From raw rows to curated rows to features on one machine: SageMaker Processing, by Step Functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3_assets as s3_assets
from aws_cdk import aws_sns as sns
from ml_contract.compiled import CompiledContract

from constructs import Construct
from ml_lifecycle import code, instance_types
from ml_lifecycle.data_lake import DataLake, IcebergTable
from ml_lifecycle.features import FeatureGroup
from ml_lifecycle.images import sagemaker_image
from ml_lifecycle.isolation import open_job
from ml_lifecycle.processing.engine import WorkflowEngine
from ml_lifecycle.processing.workflow import GATHER_SECONDS, RANDOM, BatchWorkflow, short_name
from ml_lifecycle.processing.zones import BatchTables
from ml_lifecycle.pseudo import PARTITION, REGION, arn
from ml_lifecycle.training import service_model
from ml_lifecycle.training.job_role import JobNetwork, grant_asset, grant_key, grant_pull, job_role
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["SingleNodeTransform"]

_LOGS = "/aws/sagemaker/ProcessingJobs"
#: After these SageMaker is asked again: throttled, or no machine of that type is free.
_BUSY = (
    "SageMaker.AmazonSageMakerException",
    "SageMaker.ResourceLimitExceededException",
    "SageMaker.ThrottlingException",
)


class SingleNodeTransform(WorkflowEngine):
    """Define how raw rows become curated rows and features on one machine, with polars.

    Two SageMaker Processing jobs of the image ``containers/batch`` in a Step Functions state machine:
    ``curate`` (duplicates, quality rules, a report per run) and ``build_features`` (features zone and Feature
    Store). Rows, report and table are those of the Spark engines; it is the quickest while one machine holds
    the table, and costs nothing between runs. Partitions of the raw table are entered into the catalog by
    ``curate``: there is no crawler.

    It starts when data lands below ``raw_prefix`` (after five minutes of gathering), on a ``schedule`` (UTC)
    and by hand; one run at a time (``BatchWorkflow``).

    Defaults: ml.m5.xlarge (4 vCPU, 16 GiB), a 60 GB volume, two hours per job, no retry of a job that failed,
    because a failed quality rule fails again. Volume, outputs and logs are encrypted with customer-managed
    keys. With ``labels`` the newest label that people gave a record takes the place of its own.
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
        volume_key: kms.IKey,
        log_key: kms.IKey,
        instance_type: str = "ml.m5.xlarge",
        volume_gb: int = 60,
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
        instance_types.check(instance_type, "processing", where="single-node transform")
        self.contract = contract
        self.raw_prefix = raw_prefix
        self._prefix = short_name(name_prefix)
        self._instance_type = instance_type
        self._volume_gb = volume_gb
        self._network = network
        self._seconds = 7_200 if timeout is None else int(timeout.to_seconds())
        # SageMaker refuses a key for a volume that the machine encrypts itself.
        self._volume_key = None if instance_types.has_local_disk(instance_type) else volume_key
        self.tables = BatchTables(
            self,
            contract=contract,
            lake=lake,
            log_key=log_key,
            log_retention_days=log_retention_days,
            labels=labels,
        )
        self.image = image or sagemaker_image(
            self, "Image", image="batch", platform=ecr_assets.Platform.LINUX_AMD64
        )
        self.contract_asset = s3_assets.Asset(self, "Contract", path=str(code.contract_file(contract)))
        self.curate_role = self._job_role("CurateRole", "Reads raw rows, commits curated rows and reports")
        self.tables.grant_curate(self.curate_role, raw_prefix, raw_table)
        self.features_role = self._job_role(
            "FeaturesRole", "Reads curated rows, writes features and feature records"
        )
        self.tables.grant_build(self.features_role)
        feature_group.grant_put_records(self.features_role)
        self.workflow = BatchWorkflow(
            self,
            "Workflow",
            name=f"{name_prefix}-batch",
            title=f"{contract.name}: curate, build features",
            curate=self._task(
                "curate", self.curate_role, self.tables.curate_arguments(raw_prefix, raw_table)
            ),
            features=self._task(
                "features", self.features_role, self.tables.features_arguments(feature_group.name)
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
        open_job(
            self.workflow.state_machine,
            "ProcessingJob",
            "Its programs call S3, the catalog and the feature store, which isolation would cut off.",
        )
        self._grant_jobs(volume_key)

    @property
    def new_data_event(self) -> dict[str, object]:
        """Pattern of the event that says: there are new features."""
        return {
            "source": ["aws.sagemaker"],
            "detail-type": ["SageMaker Processing Job State Change"],
            "detail": {
                "ProcessingJobName": [{"prefix": f"{self._prefix}-features-"}],
                "ProcessingJobStatus": ["Completed"],
            },
        }

    @property
    def outputs(self) -> dict[str, str]:
        """Names under which an operator finds the engine."""
        return {
            "BatchStateMachineArn": self.state_machine_arn,
            "CurateQuarantineUri": self.tables.lake.raw.uri(self.tables.quarantine_prefix),
        }

    # --- jobs -----------------------------------------------------------------------------------------------

    def _job_role(self, construct_id: str, description: str) -> iam.Role:
        role = job_role(
            self, construct_id, log_groups=[_LOGS], network=self._network, description=description
        )
        grant_pull(self.image.repository, role)
        grant_asset(self.contract_asset, role)
        if self._volume_key is not None:
            grant_key(self._volume_key, role)
        return role

    def _task(self, step: str, role: iam.Role, arguments: Mapping[str, str]) -> dict[str, Any]:
        command = {"curate": "curate", "features": "build_features"}[step]
        given = {"contract": self.contract_asset.s3_object_url, "aws_region": REGION, **arguments}
        words = [command, *(word for name, value in given.items() for word in (f"--{name}", value))]
        found = service_model.problems(
            "CreateProcessingJob",
            {
                "ProcessingJobName": f"{self._prefix}-{step}-0123456789ab",
                **self._request(
                    role="arn:aws:iam::000000000000:role/stand-in",
                    image="000000000000.dkr.ecr.us-east-1.amazonaws.com/stand-in:batch",
                    arguments=[command, *(word for name in given for word in (f"--{name}", "stand-in"))],
                    volume_key=None,
                    subnets=["subnet-stand-in"],
                    security_groups=["sg-stand-in"],
                ),
            },
        )
        if found:
            raise ValueError("single-node transform: SageMaker would refuse the job:\n" + "\n".join(found))
        network = self._network
        request = self._request(
            role=role.role_arn,
            image=self.image.image_uri,
            arguments=words,
            volume_key=None if self._volume_key is None else self._volume_key.key_arn,
            subnets=None if network is None else network.subnet_ids,
            security_groups=None if network is None else network.security_group_ids,
        )
        request.pop("Environment")
        return {
            "Type": "Task",
            "Resource": f"arn:{PARTITION}:states:::sagemaker:createProcessingJob.sync",
            "Parameters": {
                "ProcessingJobName.$": f"States.Format('{self._prefix}-{step}-{{}}', {RANDOM})",
                "Environment": {"RUN_ID.$": "$$.Execution.Name"},
                **request,
            },
        }

    def _request(
        self,
        *,
        role: str,
        image: str,
        arguments: list[str],
        volume_key: str | None,
        subnets: list[str] | None,
        security_groups: list[str] | None,
    ) -> dict[str, Any]:
        cluster: dict[str, Any] = {
            "InstanceCount": 1,
            "InstanceType": self._instance_type,
            "VolumeSizeInGB": self._volume_gb,
        }
        if volume_key is not None:
            cluster["VolumeKmsKeyId"] = volume_key
        # Its own calls (S3, catalog, Feature Store) forbid network isolation.
        network: dict[str, Any] = {
            "EnableNetworkIsolation": False,
            "EnableInterContainerTrafficEncryption": True,
        }
        if subnets is not None:
            network["VpcConfig"] = {"Subnets": subnets, "SecurityGroupIds": security_groups}
        return {
            "RoleArn": role,
            "AppSpecification": {"ImageUri": image, "ContainerArguments": arguments},
            "Environment": {"RUN_ID": "stand-in"},
            "ProcessingResources": {"ClusterConfig": cluster},
            "StoppingCondition": {"MaxRuntimeInSeconds": self._seconds},
            "NetworkConfig": network,
            "Tags": [{"Key": "ml-lifecycle:workload", "Value": self.contract.name}],
        }

    def _grant_jobs(self, volume_key: kms.IKey) -> None:
        # What createProcessingJob.sync takes (AWS Step Functions Developer Guide, "IAM policies for calling
        # Amazon SageMaker AI").
        role = self.workflow.role
        jobs = [
            arn("sagemaker", f"processing-job/{self._prefix}-{step}-*") for step in ("curate", "features")
        ]
        iam.Grant.add_to_principal(
            grantee=role,
            actions=[
                "sagemaker:AddTags",
                "sagemaker:CreateProcessingJob",
                "sagemaker:DescribeProcessingJob",
                "sagemaker:StopProcessingJob",
            ],
            resource_arns=jobs,
        )
        acknowledge_wildcards(
            role, "Each job has a random end of its name; the wildcard ends at the prefix.", resources=jobs
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["iam:PassRole"],
            resource_arns=[self.curate_role.role_arn, self.features_role.role_arn],
            conditions={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["events:DescribeRule", "events:PutRule", "events:PutTargets"],
            resource_arns=[arn("events", "rule/StepFunctionsGetEventsForSageMakerProcessingJobsRule")],
        )
        if self._volume_key is not None:
            grant_key(volume_key, role)
