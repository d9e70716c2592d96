"""Foundation models fitted to texts of a workload: by Bedrock, or by SageMaker's serverless customisation."""

from __future__ import annotations

from typing import Any

from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from ml_contract.load import LoadedWorkload
from ml_contract.spec.alternatives import FoundationModel

from constructs import Construct
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.pseudo import PARTITION, REGION, arn, service_principal
from ml_lifecycle.training.job_machine import Job, JobMachine, name_in, unique_name
from ml_lifecycle.training.job_role import JobNetwork, grant_key, grant_network, grant_output_key, job_role
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["FoundationModelCustomization"]

#: The hub that SageMaker keeps: JumpStart's models.
_PUBLIC_HUB = "SageMakerPublicHub"


class FoundationModelCustomization(Construct):
    """Define a state machine that fits a foundation model to the workload's texts and waits for its end.

    Data is read from ``<artifacts>/<slug>/<training_data>`` and results are written below
    ``<artifacts>/<slug>/foundation-models/``. Bedrock makes a custom model, encrypted with ``key``, that is
    served with provisioned throughput or on demand; SageMaker registers what it makes in
    ``model_package_group_name``. In the VPC when ``network`` is given.

    Nothing of it is deployed to an endpoint: whether a model of that size earns its cost is a decision of its
    own.

    Raises:
        ValueError: the workload names no ``alternatives.foundation_model``; SageMaker's way without a
            group.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: LoadedWorkload,
        name_prefix: str,
        artifacts: Zone,
        key: kms.IKey,
        log_key: kms.IKey,
        network: JobNetwork | None = None,
        model_package_group_name: str | None = None,
        log_retention_days: int = 90,
    ) -> None:
        super().__init__(scope, construct_id)
        spec = workload.workload
        wanted = spec.alternatives.foundation_model
        if wanted is None:
            raise ValueError(f"{workload.path} must name alternatives.foundation_model, got none")
        if wanted.service == "jumpstart" and model_package_group_name is None:
            raise ValueError("model_package_group_name must be given for service jumpstart, got None")
        self._artifacts, self._key, self._network = artifacts, key, network
        self._prefix, self._folder = name_prefix, f"{spec.slug}/"
        self._output = f"{spec.slug}/foundation-models/"
        bedrock = wanted.service == "bedrock"
        self.role = self._bedrock_role() if bedrock else self._sagemaker_role()
        artifacts.grant_read(self.role, self._folder + wanted.training_data)
        if wanted.validation_data is not None:
            artifacts.grant_read(self.role, self._folder + wanted.validation_data)
        artifacts.grant_write(self.role, self._output)
        self.machine = JobMachine(
            self,
            "Machine",
            name=f"{name_prefix}-foundation-model",
            description=f"Fits {wanted.model} to texts of {name_prefix}",
            log_key=log_key,
            log_retention_days=log_retention_days,
            every_seconds=300,
            job=self._bedrock_job(wanted)
            if bedrock
            else self._sagemaker_job(wanted, str(model_package_group_name)),
        )
        self.machine.grant_pass(self.role, "bedrock" if bedrock else "sagemaker")
        if bedrock:
            self._grant_bedrock(wanted)
        else:
            self._grant_sagemaker(wanted, str(model_package_group_name))

    # --- Bedrock ----------------------------------------------------------------------------------------

    def _bedrock_role(self) -> iam.Role:
        role = iam.Role(
            self,
            "JobRole",
            description=f"Bedrock's customisation for {self._prefix}",
            assumed_by=service_principal("bedrock", own_account=True),
        )
        if self._network is not None:
            # Bedrock User Guide, "Protect your model customization jobs using a VPC".
            grant_network(role, self._network)
        return role

    def _bedrock_job(self, wanted: FoundationModel) -> Job:
        artifacts = self._artifacts
        given: dict[str, Any] = {
            "JobName.$": unique_name(self._prefix),
            "CustomModelName.$": unique_name(self._prefix),
            "RoleArn": self.role.role_arn,
            "BaseModelIdentifier": wanted.model,
            "CustomizationType": wanted.technique.upper(),
            "CustomModelKmsKeyId": self._key.key_arn,
            "TrainingDataConfig": {"S3Uri": artifacts.uri(self._folder + wanted.training_data)},
            "OutputDataConfig": {"S3Uri": artifacts.uri(self._output)},
            "HyperParameters": dict(wanted.hyperparameters),
        }
        if wanted.validation_data is not None:
            data = {"S3Uri": artifacts.uri(self._folder + wanted.validation_data)}
            given["ValidationDataConfig"] = {"Validators": [data]}
        if self._network is not None:
            given["VpcConfig"] = {
                "SubnetIds": self._network.subnet_ids,
                "SecurityGroupIds": self._network.security_group_ids,
            }
        return Job(
            start="bedrock:createModelCustomizationJob",
            given=given,
            look="bedrock:getModelCustomizationJob",
            by={"JobIdentifier.$": "$.started.JobArn"},
            status="Status",
            good="Completed",
            bad=("Failed", "Stopped"),
            reason="FailureMessage",
        )

    def _grant_bedrock(self, wanted: FoundationModel) -> None:
        base = f"arn:{PARTITION}:bedrock:{REGION}::foundation-model/{wanted.model}"
        jobs = [arn("bedrock", "model-customization-job/*"), arn("bedrock", "custom-model/*")]
        iam.Grant.add_to_principal(
            grantee=self.machine.role,
            actions=["bedrock:CreateModelCustomizationJob"],
            resource_arns=[base, *jobs],
        )
        iam.Grant.add_to_principal(
            grantee=self.machine.role,
            actions=["bedrock:GetModelCustomizationJob"],
            resource_arns=jobs[:1],
        )
        acknowledge_wildcards(
            self.machine.role, "Bedrock makes up the ids of jobs and custom models.", resources=jobs
        )
        # Bedrock User Guide, "Encryption of model customization jobs": who creates the job lets Bedrock use
        # the key for the model.
        iam.Grant.add_to_principal(
            grantee=self.machine.role,
            actions=["kms:CreateGrant"],
            resource_arns=[self._key.key_arn],
            conditions={"StringEquals": {"kms:ViaService": f"bedrock.{REGION}.amazonaws.com"}},
        )
        iam.Grant.add_to_principal(
            grantee=self.machine.role,
            actions=["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"],
            resource_arns=[self._key.key_arn],
            conditions={"StringEquals": {"kms:ViaService": f"bedrock.{REGION}.amazonaws.com"}},
        )

    # --- SageMaker ----------------------------------------------------------------------------------------

    def _sagemaker_role(self) -> iam.Role:
        role = job_role(
            self,
            "JobRole",
            log_groups=["/aws/sagemaker/TrainingJobs"],
            network=self._network,
            description=f"SageMaker's customisation for {self._prefix}",
        )
        grant_key(self._key, role)
        grant_output_key(self._artifacts.key, role)
        return role

    def _model_arn(self, wanted: FoundationModel) -> str:
        """ARN in the public hub; without a version SageMaker takes the newest."""
        name = f"hub-content/{_PUBLIC_HUB}/Model/{wanted.model}"
        return f"arn:{PARTITION}:sagemaker:{REGION}:aws:{name}"

    def _sagemaker_job(self, wanted: FoundationModel, group: str) -> Job:
        artifacts = self._artifacts
        channels = [("train", wanted.training_data), ("validation", wanted.validation_data)]
        given: dict[str, Any] = {
            "TrainingJobName.$": unique_name(self._prefix),
            "RoleArn": self.role.role_arn,
            "ServerlessJobConfig": {
                "BaseModelArn": self._model_arn(wanted),
                "AcceptEula": wanted.accept_eula,
                "JobType": "FineTuning",
                "CustomizationTechnique": wanted.technique.upper(),
                "Peft": "LORA",
            },
            "HyperParameters": dict(wanted.hyperparameters),
            "InputDataConfig": [
                {
                    "ChannelName": name,
                    "DataSource": {
                        "S3DataSource": {
                            "S3DataType": "S3Prefix",
                            "S3Uri": artifacts.uri(self._folder + below),
                            "S3DataDistributionType": "FullyReplicated",
                        }
                    },
                }
                for name, below in channels
                if below is not None
            ],
            "OutputDataConfig": {
                "S3OutputPath": artifacts.uri(self._output),
                "KmsKeyId": artifacts.key.key_arn,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": 86_400},
            "ModelPackageConfig": {
                "ModelPackageGroupArn": arn("sagemaker", f"model-package-group/{group}"),
            },
        }
        if self._network is not None:
            given["VpcConfig"] = {
                "Subnets": self._network.subnet_ids,
                "SecurityGroupIds": self._network.security_group_ids,
            }
        return Job(
            start="sagemaker:createTrainingJob",
            given=given,
            look="sagemaker:describeTrainingJob",
            by={"TrainingJobName.$": name_in("$.started.TrainingJobArn")},
            status="TrainingJobStatus",
            good="Completed",
            bad=("Failed", "Stopped"),
            reason="FailureReason",
        )

    def _grant_sagemaker(self, wanted: FoundationModel, group: str) -> None:
        jobs = arn("sagemaker", f"training-job/{self._prefix[:21].rstrip('-')}-*")
        iam.Grant.add_to_principal(
            grantee=self.machine.role,
            actions=["sagemaker:CreateTrainingJob", "sagemaker:DescribeTrainingJob"],
            resource_arns=[jobs],
        )
        acknowledge_wildcards(
            self.machine.role,
            "A job's name ends in a number; the wildcard ends at its prefix.",
            resources=[jobs],
        )
        content = self._model_arn(wanted)
        versions = [content] if "/" in wanted.model else [content, f"{content}/*"]
        iam.Grant.add_to_principal(
            grantee=self.role, actions=["sagemaker:DescribeHubContent"], resource_arns=versions
        )
        packages = [
            arn("sagemaker", f"model-package-group/{group}"),
            arn("sagemaker", f"model-package/{group}/*"),
        ]
        iam.Grant.add_to_principal(
            grantee=self.role,
            actions=["sagemaker:CreateModelPackage", "sagemaker:DescribeModelPackageGroup"],
            resource_arns=packages,
        )
        acknowledge_wildcards(
            self.role,
            "Versions are known when they are made; the model and the group are one each.",
            resources=[*versions, *packages],
        )
