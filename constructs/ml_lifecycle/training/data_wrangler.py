"""A flow of SageMaker Data Wrangler as a processing job, and the training that may follow it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3_assets as s3_assets
from ml_contract.load import LoadedWorkload

from constructs import Construct
from ml_lifecycle import instance_types
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.isolation import open_job
from ml_lifecycle.pseudo import PARTITION, arn
from ml_lifecycle.training.job_machine import Job, JobMachine, name_in, unique_name
from ml_lifecycle.training.job_role import (
    JobNetwork,
    grant_asset,
    grant_key,
    grant_output_key,
    grant_pull,
    job_role,
)
from ml_lifecycle.training.pipeline import TrainingPipeline
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["DataWranglerFlow"]

#: Accounts that hold Data Wrangler's image (SageMaker SDK 3.27, image_uri_config/data-wrangler.json).
_ACCOUNTS = {
    "af-south-1": "143210264188",
    "ap-east-1": "707077482487",
    "ap-northeast-1": "649008135260",
    "ap-northeast-2": "131546521161",
    "ap-northeast-3": "913387583493",
    "ap-south-1": "089933028263",
    "ap-southeast-1": "119527597002",
    "ap-southeast-2": "422173101802",
    "ca-central-1": "557239378090",
    "eu-central-1": "024640144536",
    "eu-north-1": "054986407534",
    "eu-south-1": "488287956546",
    "eu-west-1": "245179582081",
    "eu-west-2": "894491911112",
    "eu-west-3": "807237891255",
    "me-south-1": "376037874950",
    "sa-east-1": "424196993095",
    "us-east-1": "663277389841",
    "us-east-2": "415577184552",
    "us-west-1": "926135532090",
    "us-west-2": "174368400705",
}
_REPOSITORY = "sagemaker-data-wrangler-container"
_VERSION = "5.x"


class DataWranglerFlow(Construct):
    """Define a state machine that runs the workload's flow over its features and waits for its end.

    The flow (``alternatives.wrangler.flow``, exported from Studio) reads what Data Wrangler calls a dataset
    of type S3; the machine passes the workload's features as its only input. Parquet is written below
    ``<features>/<slug>/wrangled/``. With ``train`` the training pipeline is then started with that folder as
    its ``FeaturesUri``, so the flow must keep the columns of the contract.

    Raises:
        ValueError: the workload names no ``alternatives.wrangler``.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: LoadedWorkload,
        name_prefix: str,
        features: Zone,
        volume_key: kms.IKey,
        log_key: kms.IKey,
        pipeline: TrainingPipeline,
        network: JobNetwork | None = None,
        log_retention_days: int = 90,
    ) -> None:
        super().__init__(scope, construct_id)
        spec = workload.workload
        wanted = spec.alternatives.wrangler
        if wanted is None:
            raise ValueError(f"{workload.path} must name alternatives.wrangler, got none")
        self.flow = s3_assets.Asset(self, "Flow", path=str(Path(workload.path).parent / wanted.flow))
        self.role = job_role(
            self,
            "JobRole",
            log_groups=["/aws/sagemaker/ProcessingJobs"],
            network=network,
            description=f"Data Wrangler's job for {name_prefix}",
        )
        source, target = f"{spec.slug}/data/", f"{spec.slug}/wrangled/"
        features.grant_read(self.role, source)
        features.grant_write(self.role, target)
        grant_output_key(features.key, self.role)
        grant_key(volume_key, self.role)
        grant_asset(self.flow, self.role)
        image, local = self._image(), instance_types.has_local_disk(wanted.instance_type)
        given: dict[str, Any] = {
            "ProcessingJobName.$": unique_name(name_prefix),
            "RoleArn": self.role.role_arn,
            "AppSpecification": {
                "ImageUri": image,
                "ContainerArguments": [
                    f"--output-config '{json.dumps({wanted.output: {'content_type': 'PARQUET'}})}'"
                ],
            },
            "ProcessingInputs": [
                _input("flow", self.flow.s3_object_url, "flow"),
                _input("features", features.uri(source), "features"),
            ],
            "ProcessingOutputConfig": {
                "KmsKeyId": features.key.key_arn,
                "Outputs": [
                    {
                        "OutputName": wanted.output,
                        "S3Output": {
                            "S3Uri": features.uri(target),
                            "LocalPath": "/opt/ml/processing/output",
                            "S3UploadMode": "EndOfJob",
                        },
                    }
                ],
            },
            "ProcessingResources": {
                "ClusterConfig": {
                    "InstanceCount": wanted.instance_count,
                    "InstanceType": wanted.instance_type,
                    "VolumeSizeInGB": 30,
                    **({} if local else {"VolumeKmsKeyId": volume_key.key_arn}),
                }
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": wanted.max_runtime_minutes * 60},
            "NetworkConfig": {
                # Its nodes talk to each other: Data Wrangler runs Spark.
                "EnableInterContainerTrafficEncryption": True,
                **(
                    {}
                    if network is None
                    else {
                        "VpcConfig": {
                            "Subnets": network.subnet_ids,
                            "SecurityGroupIds": network.security_group_ids,
                        }
                    }
                ),
            },
        }
        self.machine = JobMachine(
            self,
            "Machine",
            name=f"{name_prefix}-wrangler",
            description=f"Runs the Data Wrangler flow of {name_prefix}",
            log_key=log_key,
            log_retention_days=log_retention_days,
            then=self._training(pipeline, features.uri(target)) if wanted.train else None,
            job=Job(
                start="sagemaker:createProcessingJob",
                given=given,
                look="sagemaker:describeProcessingJob",
                by={"ProcessingJobName.$": name_in("$.started.ProcessingJobArn")},
                status="ProcessingJobStatus",
                good="Completed",
                bad=("Failed", "Stopped"),
                reason="FailureReason",
            ),
        )
        open_job(
            self.machine.state_machine,
            "ProcessingJob",
            "Data Wrangler's program reads its sources by their own APIs, which isolation would cut off.",
        )
        self.machine.grant_pass(self.role, "sagemaker")
        jobs = arn("sagemaker", f"processing-job/{name_prefix[:21].rstrip('-')}-*")
        iam.Grant.add_to_principal(
            grantee=self.machine.role,
            actions=["sagemaker:CreateProcessingJob", "sagemaker:DescribeProcessingJob"],
            resource_arns=[jobs],
        )
        acknowledge_wildcards(
            self.machine.role,
            "A job's name ends in a number; the wildcard ends at its prefix.",
            resources=[jobs],
        )
        if wanted.train:
            pipeline.grant_start(self.machine.role)
            features.grant_read(pipeline.processing_role, target)

    @staticmethod
    def _training(pipeline: TrainingPipeline, uri: str) -> tuple[str, dict[str, Any]]:
        return (
            "sagemaker:startPipelineExecution",
            {
                "PipelineName": pipeline.pipeline_name,
                "PipelineParameters": [
                    {"Name": "FeaturesUri", "Value": uri},
                    {"Name": "Reason", "Value": "a Data Wrangler flow has run"},
                ],
                "ClientRequestToken.$": "States.Hash($$.Execution.Id, 'SHA-256')",
            },
        )

    def _image(self) -> str:
        """The image of the stack's region; AWS keeps it in an account per region."""
        stack = cdk.Stack.of(self)
        if cdk.Token.is_unresolved(stack.region):
            table = cdk.CfnMapping(
                self,
                "Images",
                mapping={region: {"account": account} for region, account in _ACCOUNTS.items()},
            )
            account = table.find_in_map(cdk.Aws.REGION, "account")
        elif stack.region in _ACCOUNTS:
            account = _ACCOUNTS[stack.region]
        else:
            raise ValueError(
                f"region must be one that has Data Wrangler ({', '.join(_ACCOUNTS)}), got {stack.region}"
            )
        repository = f"arn:{PARTITION}:ecr:{cdk.Aws.REGION}:{account}:repository/{_REPOSITORY}"
        grant_pull(
            ecr.Repository.from_repository_attributes(
                self, "Repository", repository_arn=repository, repository_name=_REPOSITORY
            ),
            self.role,
        )
        return f"{account}.dkr.ecr.{cdk.Aws.REGION}.{cdk.Aws.URL_SUFFIX}/{_REPOSITORY}:{_VERSION}"


def _input(name: str, uri: str, folder: str) -> dict[str, Any]:
    return {
        "InputName": name,
        "S3Input": {
            "S3Uri": uri,
            "LocalPath": f"/opt/ml/processing/{folder}",
            "S3DataType": "S3Prefix",
            "S3InputMode": "File",
        },
    }
