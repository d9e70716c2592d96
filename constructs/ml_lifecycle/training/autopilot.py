"""Autopilot: SageMaker searches algorithms and their hyperparameters by itself."""

from __future__ import annotations

from typing import Any

from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from ml_contract.load import LoadedWorkload
from ml_contract.spec.alternatives import Autopilot

from constructs import Construct
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.pseudo import arn
from ml_lifecycle.training.job_machine import Job, JobMachine, name_in, unique_name
from ml_lifecycle.training.job_role import JobNetwork, grant_key, grant_output_key, job_role
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["AutopilotSearch"]

_PROBLEMS = {
    "binary": "BinaryClassification",
    "multiclass": "MulticlassClassification",
    "regression": "Regression",
}
#: What a task is usually judged by; SageMaker wants both the problem and the objective, or neither.
_OBJECTIVES = {"binary": "AUC", "multiclass": "Accuracy", "regression": "RMSE"}


class AutopilotSearch(Construct):
    """Define a state machine that runs an Autopilot job on a table of the workload and waits for its end.

    The input names the table: ``{"training": "s3://.../prepare/train/"}``, the Parquet of a pipeline
    execution's Prepare step, below ``<artifacts>/<slug>/training/``. What Autopilot makes stands below
    ``<artifacts>/<slug>/autopilot/``: candidates, notebooks, a leaderboard. Its models run in images of AWS
    and are not registered: they show what a search reaches, beside what the pipeline made.

    Jobs run in the VPC when ``network`` is given, with encrypted volumes, output and traffic.

    Raises:
        ValueError: the workload names no ``alternatives.autopilot``.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: LoadedWorkload,
        name_prefix: str,
        artifacts: Zone,
        volume_key: kms.IKey,
        log_key: kms.IKey,
        network: JobNetwork | None = None,
        log_retention_days: int = 90,
    ) -> None:
        super().__init__(scope, construct_id)
        spec = workload.workload
        wanted = spec.alternatives.autopilot
        if wanted is None:
            raise ValueError(f"{workload.path} must name alternatives.autopilot, got none")
        self.role = job_role(
            self,
            "JobRole",
            log_groups=["/aws/sagemaker/ProcessingJobs", "/aws/sagemaker/TrainingJobs"],
            network=network,
            description=f"Autopilot's jobs for {name_prefix}",
        )
        output = f"{spec.slug}/autopilot/"
        artifacts.grant_read(self.role, f"{spec.slug}/training/")
        artifacts.grant_read(self.role, output)
        artifacts.grant_write(self.role, output)
        grant_output_key(artifacts.key, self.role)
        grant_key(volume_key, self.role)
        self._grant_jobs()
        self.machine = JobMachine(
            self,
            "Machine",
            name=f"{name_prefix}-autopilot",
            description=f"Runs Autopilot for {name_prefix}",
            log_key=log_key,
            log_retention_days=log_retention_days,
            job=Job(
                start="sagemaker:createAutoMLJobV2",
                given={
                    "AutoMLJobName.$": unique_name(name_prefix),
                    "AutoMLJobInputDataConfig": [
                        {
                            "ChannelType": "training",
                            "ContentType": "x-application/vnd.amazon+parquet",
                            "CompressionType": "None",
                            "DataSource": {
                                "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri.$": "$.training"}
                            },
                        }
                    ],
                    "OutputDataConfig": {
                        "S3OutputPath": artifacts.uri(output),
                        "KmsKeyId": artifacts.key.key_arn,
                    },
                    "AutoMLProblemTypeConfig": {
                        "TabularJobConfig": _tabular(wanted, spec.label.field, spec.label.task)
                    },
                    "AutoMLJobObjective": {
                        "MetricName": _OBJECTIVES[spec.label.task]
                        if wanted.objective is None
                        else wanted.objective
                    },
                    "RoleArn": self.role.role_arn,
                    "SecurityConfig": _security(volume_key, network),
                },
                look="sagemaker:describeAutoMLJobV2",
                by={"AutoMLJobName.$": name_in("$.started.AutoMLJobArn")},
                status="AutoMLJobStatus",
                good="Completed",
                bad=("Failed", "Stopped"),
                reason="FailureReason",
            ),
        )
        self.machine.grant_pass(self.role, "sagemaker")
        jobs = arn("sagemaker", f"automl-job/{name_prefix[:21].rstrip('-')}-*")
        iam.Grant.add_to_principal(
            grantee=self.machine.role,
            actions=["sagemaker:CreateAutoMLJobV2", "sagemaker:DescribeAutoMLJobV2"],
            resource_arns=[jobs],
        )
        acknowledge_wildcards(
            self.machine.role,
            "A job's name ends in a number; the wildcard ends at its prefix.",
            resources=[jobs],
        )

    def _grant_jobs(self) -> None:
        """What Autopilot starts as its role (Developer Guide, "Autopilot IAM role and permissions")."""
        kinds = {
            "processing-job": ("CreateProcessingJob", "DescribeProcessingJob", "StopProcessingJob"),
            "training-job": ("CreateTrainingJob", "DescribeTrainingJob", "StopTrainingJob"),
            "hyper-parameter-tuning-job": (
                "CreateHyperParameterTuningJob",
                "DescribeHyperParameterTuningJob",
                "StopHyperParameterTuningJob",
            ),
            "transform-job": ("CreateTransformJob", "DescribeTransformJob", "StopTransformJob"),
            "model": ("CreateModel", "DescribeModel", "DeleteModel"),
        }
        for kind, operations in kinds.items():
            found = arn("sagemaker", f"{kind}/*")
            iam.Grant.add_to_principal(
                grantee=self.role,
                actions=["sagemaker:AddTags", *(f"sagemaker:{operation}" for operation in operations)],
                resource_arns=[found],
            )
            acknowledge_wildcards(
                self.role,
                "Autopilot makes up the names of what it starts; only SageMaker acts as this role.",
                resources=[found],
            )
        iam.Grant.add_to_principal(
            grantee=self.role,
            actions=["iam:PassRole"],
            resource_arns=[self.role.role_arn],
            conditions={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
        )


def _tabular(wanted: Autopilot, label: str, task: str) -> dict[str, Any]:
    criteria: dict[str, int] = {"MaxAutoMLJobRuntimeInSeconds": wanted.max_runtime_minutes * 60}
    if wanted.max_candidates is not None:
        criteria["MaxCandidates"] = wanted.max_candidates
    return {
        "TargetAttributeName": label,
        "ProblemType": _PROBLEMS[task],
        "Mode": wanted.mode.upper(),
        "CompletionCriteria": criteria,
    }


def _security(volume_key: kms.IKey, network: JobNetwork | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "VolumeKmsKeyId": volume_key.key_arn,
        "EnableInterContainerTrafficEncryption": True,
    }
    if network is not None:
        found["VpcConfig"] = {"Subnets": network.subnet_ids, "SecurityGroupIds": network.security_group_ids}
    return found
