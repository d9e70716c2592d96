"""One run of a monitor: what it is told, what it may do, and the request that starts it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3_assets as s3_assets
from ml_contract.load import LoadedWorkload

from constructs import Construct
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.monitoring.kinds import KINDS, Facts, Kind, cadence
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

__all__ = [
    "GROUND_TRUTH",
    "INPUT",
    "METRIC_NAMESPACE",
    "OUTPUT",
    "WHY_OPEN",
    "MonitorJob",
    "grant_run",
    "monitor_role",
    "request",
]

#: Where the monitor image publishes, with the dimensions Environment and Workload.
METRIC_NAMESPACE = "MLLifecycle"
#: Labels that came, below ``<artifacts>/<slug>/``.
GROUND_TRUTH = "ground-truth"
INPUT = "/opt/ml/processing/input"
OUTPUT = "/opt/ml/processing/output"
#: EventBridge Scheduler fills these in (EventBridge Scheduler User Guide, "Adding context attributes").
EXECUTION_ID = "<aws.scheduler.execution-id>"
SCHEDULED_TIME = "<aws.scheduler.scheduled-time>"


@dataclass(frozen=True, kw_only=True)
class MonitorJob:
    """What a run of either engine needs. ``seconds`` is the longest that it may take."""

    workload: LoadedWorkload
    kind: Kind
    environment_name: str
    endpoint_name: str
    registry: ModelRegistry
    artifacts: Zone
    image: ecr_assets.DockerImageAsset
    contract: s3_assets.Asset
    role: iam.Role
    name_prefix: str
    volume_gb: int
    volume_key_arn: str | None
    seconds: int
    network: JobNetwork | None

    @property
    def facts(self) -> Facts:
        """What is fixed about its kind."""
        return KINDS[self.kind]

    @property
    def every_hours(self) -> int:
        """Hours between two runs, and of the traffic that one judges."""
        return cadence(self.workload.workload, self.kind)

    @property
    def reports_prefix(self) -> str:
        """Where the runs' folders lie in the artifacts zone."""
        return f"{self.workload.workload.slug}/{self.facts.folder}"

    @property
    def ground_truth_prefix(self) -> str:
        """Where the labels lie in the artifacts zone."""
        return f"{self.workload.workload.slug}/{GROUND_TRUTH}"

    def environment(self, bucket: str) -> dict[str, str]:
        """What the program is told by either engine. ``bucket`` is ``s3://<artifacts>/``."""
        told = {
            "APPROVED_MODEL_PARAMETER": self.registry.approval_parameter_name,
            "ENDPOINT_NAME": self.endpoint_name,
            "ENVIRONMENT": self.environment_name,
            "KIND": self.kind,
            "REPORTS_URI": f"{bucket}{self.reports_prefix}",
            "WORKLOAD": self.workload.workload.name,
        }
        if self.facts.labelled:
            told["GROUND_TRUTH_URI"] = f"{bucket}{self.ground_truth_prefix}"
        return told


#: Why a run is not in network isolation; its security group and endpoints end where it gets.
WHY_OPEN = "Its program calls S3, CloudWatch, SageMaker and Parameter Store, which isolation would cut off."


def monitor_role(scope: Construct, kind: Kind, *, endpoint_name: str, network: JobNetwork | None) -> iam.Role:
    """Define the role that the runs of a kind act as."""
    return job_role(
        scope,
        "Role",
        log_groups=["/aws/sagemaker/ProcessingJobs"],
        network=network,
        metric_namespaces=[METRIC_NAMESPACE],
        description=(
            f"Judges the traffic of {endpoint_name}"
            if kind == "data"
            else f"Judges the traffic of {endpoint_name}: {kind}"
        ),
    )


def grant_run(job: MonitorJob, volume_key: kms.IKey) -> None:
    """Grant a run what it reads and writes: capture, baselines, labels, its own reports."""
    role, slug = job.role, job.workload.workload.slug
    grant_pull(job.image.repository, role)
    grant_asset(job.contract, role)
    grant_key(volume_key, role)
    job.artifacts.grant_read(role, f"{slug}/capture/")
    job.artifacts.grant_read(role, f"{slug}/training/")
    # Since when something is so stands in the reports of earlier runs.
    job.artifacts.grant_read(role, f"{job.reports_prefix}/")
    if job.facts.labelled:
        job.artifacts.grant_read(role, f"{job.ground_truth_prefix}/")
    job.artifacts.grant_write(role, f"{job.reports_prefix}/")
    grant_output_key(job.artifacts.key, role)
    job.registry.grant_read(role)


def request(job: MonitorJob) -> dict[str, Any]:
    """Request of one run by SageMaker Processing; EventBridge Scheduler fills in id and time.

    Raises:
        ValueError: SageMaker would refuse it.
    """
    found = service_model.problems(
        "CreateProcessingJob",
        _request(
            job,
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
            f"{job.workload.path}: SageMaker would refuse the monitoring run:\n" + "\n".join(found)
        )
    network = job.network
    return _request(
        job,
        execution_id=EXECUTION_ID,
        role=job.role.role_arn,
        image=job.image.image_uri,
        contract=job.contract.s3_object_url,
        bucket=job.artifacts.uri(),
        output_key=job.artifacts.key.key_arn,
        volume_key=job.volume_key_arn,
        subnets=None if network is None else network.subnet_ids,
        security_groups=None if network is None else network.security_group_ids,
    )


def _request(
    job: MonitorJob,
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
    spec = job.workload.workload
    cluster: dict[str, Any] = {
        "InstanceCount": 1,
        "InstanceType": spec.monitoring.instance_type,
        "VolumeSizeInGB": job.volume_gb,
    }
    if volume_key is not None:
        cluster["VolumeKmsKeyId"] = volume_key
    # Its own calls (capture, metrics, registry) forbid network isolation.
    network: dict[str, Any] = {
        "EnableNetworkIsolation": False,
        "EnableInterContainerTrafficEncryption": True,
    }
    if subnets is not None:
        network["VpcConfig"] = {"Subnets": subnets, "SecurityGroupIds": security_groups}
    return {
        "ProcessingJobName": f"{job.name_prefix}-{execution_id}",
        "RoleArn": role,
        "AppSpecification": {"ImageUri": image},
        "Environment": {
            **job.environment(bucket),
            "CAPTURE_URI": f"{bucket}{spec.slug}/capture",
            "SCHEDULED_TIME": SCHEDULED_TIME,
            "WINDOW_HOURS": str(job.every_hours),
        },
        "ProcessingInputs": [
            {
                "InputName": "contract",
                "S3Input": {
                    "S3Uri": contract,
                    "LocalPath": f"{INPUT}/contract",
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
                        "S3Uri": f"{bucket}{job.reports_prefix}/{execution_id}",
                        "LocalPath": f"{OUTPUT}/report",
                        "S3UploadMode": "EndOfJob",
                    },
                }
            ],
        },
        "ProcessingResources": {"ClusterConfig": cluster},
        "StoppingCondition": {"MaxRuntimeInSeconds": job.seconds},
        "NetworkConfig": network,
        "Tags": [
            {"Key": "ml-lifecycle:environment", "Value": job.environment_name},
            {"Key": "ml-lifecycle:workload", "Value": spec.name},
        ],
    }
