"""Which instance the approved model should run on, measured by SageMaker in the account."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3_assets as s3_assets
from aws_cdk import aws_stepfunctions as stepfunctions
from ml_contract.compiled import Column, CompiledContract
from ml_contract.load import LoadedWorkload

from constructs import Construct
from ml_lifecycle import instance_types
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.foundation import grant_logs_and_traces, log_group, logging_to
from ml_lifecycle.processing.workflow import RANDOM
from ml_lifecycle.pseudo import PARTITION, arn, service_principal
from ml_lifecycle.serving.approved import Approved
from ml_lifecycle.training import service_model
from ml_lifecycle.training.job_role import JobNetwork, grant_asset, grant_key, grant_pull, job_role
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["InstanceRecommender", "sample_payload"]

#: What a job makes is named after the job, cut at 40 characters (CreateInferenceRecommendationsJob, JobName).
_PREFIX_LENGTH = 40 - 1 - 12
#: A job that measures instances takes about 45 minutes (Developer Guide, "Inference recommendations").
_LOOK_SECONDS = 60


class InstanceRecommender(Construct):
    """Define what asks SageMaker Inference Recommender about the approved model.

    A state machine, started by hand (``grant_start``), since each run pays for the instances it tries: it
    creates a recommendation job with a made-up request of the workload, waits for it, and its output holds
    the job's recommendations: instance types with their cost, latency and most requests a minute. The types
    are the workload's ``serving.recommend.instance_types``; without any SageMaker picks them. ``python -m
    rehearsal load-test`` measures the container without an account.

    Example::

        InstanceRecommender(
            self, "Recommender",
            workload=workload, name="dev-claims-fraud", approved=endpoint.approved,
            artifacts=lake.artifacts, volume_key=keys.data_key, log_key=keys.logs,
            repository=image.repository,
        )

    Raises:
        ValueError: a workload without ``serving.recommend``; a request that SageMaker would refuse.
        ContractError: an instance type that SageMaker does not offer for endpoints, with its line.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: LoadedWorkload,
        name: str,
        approved: Approved,
        artifacts: Zone,
        volume_key: kms.IKey,
        log_key: kms.IKey,
        repository: ecr.IRepository,
        network: JobNetwork | None = None,
        log_retention_days: int = 90,
    ) -> None:
        super().__init__(scope, construct_id)
        instance_types.check_workload(workload)
        spec = workload.workload
        if spec.serving.recommend is None:
            raise ValueError("workload must have serving.recommend, got none; set it or leave this out")
        self._types = list(spec.serving.recommend.instance_types)
        self._task = "REGRESSION" if spec.label.task == "regression" else "CLASSIFICATION"
        self.job_prefix = f"{name}-ir"[:_PREFIX_LENGTH].rstrip("-")
        self.state_machine_arn = arn("states", f"stateMachine:{name}-recommender")
        self.payload = s3_assets.Asset(self, "Payload", path=str(_written(sample_payload(workload.compiled))))
        self.role = self._job_role(f"{spec.slug}/training/", artifacts, volume_key, repository, network)
        self.state_machine = self._machine(
            name,
            approved=approved,
            volume_key=volume_key,
            network=network,
            log_key=log_key,
            days=log_retention_days,
        )
        self.state_machine.cfn_options.condition = approved.condition

    @property
    def outputs(self) -> dict[str, str]:
        """What a caller needs to know, by the name of the stack's output."""
        return {"RecommenderStateMachineArn": self.state_machine_arn}

    def grant_start(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant asking for recommendations; the input is ``{}``."""
        return iam.Grant.add_to_principal(
            grantee=grantee, actions=["states:StartExecution"], resource_arns=[self.state_machine_arn]
        )

    def _job_role(
        self,
        models: str,
        artifacts: Zone,
        volume_key: kms.IKey,
        repository: ecr.IRepository,
        network: JobNetwork | None,
    ) -> iam.Role:
        role = job_role(
            self,
            "Role",
            log_groups=["/aws/sagemaker/InferenceRecommendationsJobs"],
            network=network,
            metric_namespaces=["/aws/sagemaker/InferenceRecommendationsJobs", "/aws/sagemaker/Endpoints"],
            description=f"Recommendation jobs {self.job_prefix}: they make endpoints and ask them",
        )
        grant_pull(repository, role)
        grant_key(volume_key, role)
        grant_asset(self.payload, role)
        artifacts.grant_read(role, models)
        made = [
            arn("sagemaker", f"{kind}/{self.job_prefix}*")
            for kind in ("model", "endpoint-config", "endpoint")
        ]
        iam.Grant.add_to_principal(
            grantee=role,
            actions=[
                *(
                    f"sagemaker:{verb}{kind}"
                    for kind in ("Model", "EndpointConfig", "Endpoint")
                    for verb in ("Create", "Describe", "Delete")
                ),
                "sagemaker:AddTags",
                "sagemaker:InvokeEndpoint",
            ],
            resource_arns=made,
        )
        acknowledge_wildcards(
            role,
            "The job names what it makes after itself; the wildcard ends at its prefix.",
            resources=made,
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["iam:PassRole"],
            resource_arns=[role.role_arn],
            conditions={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
        )
        return role

    def _machine(
        self,
        name: str,
        *,
        approved: Approved,
        volume_key: kms.IKey,
        network: JobNetwork | None,
        log_key: kms.IKey,
        days: int,
    ) -> stepfunctions.CfnStateMachine:
        role = iam.Role(
            self,
            "StepsRole",
            description=f"Starts and awaits the recommendation jobs of {name}",
            assumed_by=service_principal("states", own_account=True),
        )
        jobs = arn("sagemaker", f"inference-recommendations-job/{self.job_prefix}-*")
        iam.Grant.add_to_principal(
            grantee=role,
            actions=[
                "sagemaker:CreateInferenceRecommendationsJob",
                "sagemaker:DescribeInferenceRecommendationsJob",
            ],
            resource_arns=[jobs],
        )
        acknowledge_wildcards(
            role, "Each run names its job; the wildcard ends at the prefix.", resources=[jobs]
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["iam:PassRole"],
            resource_arns=[self.role.role_arn],
            conditions={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
        )
        grant_logs_and_traces(role)
        machine = stepfunctions.CfnStateMachine(
            self,
            "Steps",
            state_machine_name=f"{name}-recommender",
            role_arn=role.role_arn,
            state_machine_type="STANDARD",
            definition_string=cdk.Stack.of(self).to_json_string(
                self._definition(approved, volume_key, network)
            ),
            logging_configuration=logging_to(log_group(self, "StepsLogs", key=log_key, retention_days=days)),
            tracing_configuration=stepfunctions.CfnStateMachine.TracingConfigurationProperty(enabled=True),
        )
        for each in (role, self.role):
            machine.node.add_dependency(each)
        return machine

    def _definition(
        self, approved: Approved, volume_key: kms.IKey, network: JobNetwork | None
    ) -> dict[str, Any]:
        problems = service_model.problems(
            "CreateInferenceRecommendationsJob",
            self._job(
                role="arn:aws:iam::000000000000:role/stand-in",
                package="arn:aws:sagemaker:us-east-1:000000000000:model-package/stand-in/1",
                payload="s3://stand-in/payload.tar.gz",
                key="arn:aws:kms:us-east-1:000000000000:key/stand-in",
                network=None,
            )
            | {"JobName": "stand-in"},
        )
        if problems:
            raise ValueError("SageMaker would refuse the recommendation job:\n" + "\n".join(problems))
        call = f"arn:{PARTITION}:states:::aws-sdk:sagemaker"
        return {
            "Comment": "Which instance the approved model should run on",
            "StartAt": "Name",
            "States": {
                "Name": {
                    "Type": "Pass",
                    "Parameters": {"name.$": f"States.Format('{self.job_prefix}-{{}}', {RANDOM})"},
                    "Next": "Create",
                },
                "Create": {
                    "Type": "Task",
                    "Resource": f"{call}:createInferenceRecommendationsJob",
                    "Parameters": {
                        **self._job(
                            role=self.role.role_arn,
                            package=approved.package,
                            payload=self.payload.s3_object_url,
                            key=volume_key.key_arn,
                            network=network,
                        ),
                        "JobName.$": "$.name",
                    },
                    "ResultPath": None,
                    "Next": "Wait",
                },
                "Wait": {"Type": "Wait", "Seconds": _LOOK_SECONDS, "Next": "Look"},
                "Look": {
                    "Type": "Task",
                    "Resource": f"{call}:describeInferenceRecommendationsJob",
                    "Parameters": {"JobName.$": "$.name"},
                    "ResultPath": "$.job",
                    "Next": "Ended",
                },
                "Ended": {
                    "Type": "Choice",
                    "Choices": [
                        {"Variable": "$.job.Status", "StringEquals": "COMPLETED", "Next": "Recommended"},
                        *(
                            {"Variable": "$.job.Status", "StringEquals": status, "Next": "Failed"}
                            for status in ("FAILED", "STOPPED")
                        ),
                    ],
                    "Default": "Wait",
                },
                "Recommended": {
                    "Type": "Pass",
                    "Parameters": {"recommendations.$": "$.job.InferenceRecommendations"},
                    "End": True,
                },
                "Failed": {
                    "Type": "Fail",
                    "Error": "RecommendationJobFailed",
                    "Cause": f"DescribeInferenceRecommendationsJob of {self.job_prefix}-* says why",
                },
            },
        }

    def _job(
        self, *, role: str, package: str, payload: str, key: str, network: JobNetwork | None
    ) -> dict[str, Any]:
        container: dict[str, Any] = {
            "Domain": "MACHINE_LEARNING",
            "Task": self._task,
            "PayloadConfig": {
                "SamplePayloadUrl": payload,
                "SupportedContentTypes": ["application/json"],
            },
        }
        if self._types:
            container["SupportedInstanceTypes"] = self._types
        source: dict[str, Any] = {
            "ModelPackageVersionArn": package,
            "ContainerConfig": container,
            "VolumeKmsKeyId": key,
        }
        if network is not None:
            source["VpcConfig"] = {
                "Subnets": network.subnet_ids,
                "SecurityGroupIds": network.security_group_ids,
            }
        return {"JobType": "Default", "RoleArn": role, "InputConfig": source}


def sample_payload(contract: CompiledContract) -> bytes:
    """Return a ``.tar.gz`` with one made-up request: a middle number, the first of the allowed texts.

    The same contract gives the same bytes. Fields without a known value are left out; nothing is required of
    a request.
    """
    record = {
        column.source: value
        for column in contract.for_requests.columns
        if column.name != contract.label.field and (value := _middle(column)) is not None
    }
    body = json.dumps(record, sort_keys=True).encode()
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo("payload.json")
        member.size = len(body)
        archive.addfile(member, io.BytesIO(body))
    return gzip.compress(plain.getvalue(), mtime=0)


def _middle(column: Column) -> Any:
    if column.type in ("integer", "number"):
        low = 0.0 if column.minimum is None else column.minimum
        high = low + 1 if column.maximum is None else column.maximum
        middle = (low + high) / 2
        return int(middle) if column.type == "integer" else middle
    if column.type == "boolean":
        return False
    if column.type == "string" and column.allowed is not None:
        return column.allowed[0]
    return None


def _written(content: bytes) -> Path:
    """A file for the CDK to copy; its name stands in no template, its content's hash does."""
    path = Path(tempfile.mkdtemp(prefix="payload-")) / "payload.tar.gz"
    path.write_bytes(content)
    return path
