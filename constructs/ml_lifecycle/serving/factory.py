"""One switch for every way to serve: the construct of a workload's style."""

from __future__ import annotations

from typing import Protocol, TypedDict

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from ml_contract.load import LoadedWorkload

from constructs import Construct
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.serving.approved import Approved
from ml_lifecycle.serving.asynchronous import AsynchronousEndpoint
from ml_lifecycle.serving.batch import BatchTransform
from ml_lifecycle.serving.components import InferenceComponents
from ml_lifecycle.serving.endpoint import ModelEndpoint
from ml_lifecycle.serving.function import LambdaTarget
from ml_lifecycle.serving.metrics import Watch
from ml_lifecycle.serving.multi_model import MultiModelEndpoint
from ml_lifecycle.serving.serverless import ServerlessEndpoint
from ml_lifecycle.serving.service import EcsService
from ml_lifecycle.training.job_role import JobNetwork

__all__ = ["Served", "served"]


class Served(Protocol):
    """What everything that serves an approved model has, whatever its style."""

    approved: Approved
    condition: cdk.CfnCondition
    capture_uri: str | None

    @property
    def outputs(self) -> dict[str, str]:
        """What a caller needs to know, by the name of the stack's output."""
        ...

    @property
    def alarms(self) -> list[cloudwatch.IAlarm]:
        """Alarms that somebody should hear of."""
        ...

    @property
    def watch(self) -> Watch:
        """What a dashboard shows."""
        ...


class _Common(TypedDict):
    """What every style is given."""

    workload: LoadedWorkload
    approval_parameter_name: str
    artifacts: Zone


class _OnSageMaker(_Common):
    volume_key: kms.IKey


class _Logged(TypedDict):
    log_key: kms.IKey
    log_retention_days: int


def served(
    scope: Construct,
    construct_id: str,
    *,
    workload: LoadedWorkload,
    name: str,
    approval_parameter_name: str,
    model_package_group_name: str,
    artifacts: Zone,
    volume_key: kms.IKey,
    message_key: kms.IKey,
    log_key: kms.IKey,
    image: ecr_assets.DockerImageAsset,
    vpc: ec2.IVpc,
    network: JobNetwork,
    challenger_parameter_name: str | None = None,
    certificate_arn: str | None = None,
    log_retention_days: int = 90,
    alarm_topic: sns.ITopic | None = None,
) -> Served:
    """Define what serves the workload's approved model, by its ``serving.style``.

    Args:
        scope: where it belongs.
        construct_id: its id there.
        workload: whose model.
        name: of the endpoint, function or service, e.g. ``dev-claims-fraud``.
        approval_parameter_name: SSM parameter that names the approved model package.
        model_package_group_name: group of the package.
        artifacts: zone of models, captured requests, and the files of asynchronous and batch requests.
        volume_key: key of the volumes of instances.
        message_key: key that topics use.
        log_key: key that log groups use.
        image: the serving image.
        vpc: where it stands.
        network: subnets and groups there.
        challenger_parameter_name: SSM parameter of the model that is tried (``rollout.strategy`` ab, shadow).
        certificate_arn: style ecs: certificate of its listener.
        log_retention_days: how long our own log groups keep.
        alarm_topic: style batch_transform: who is told of a failed job.
    """
    common: _Common = {
        "workload": workload,
        "approval_parameter_name": approval_parameter_name,
        "artifacts": artifacts,
    }
    sagemaker: _OnSageMaker = {**common, "volume_key": volume_key}
    logged: _Logged = {"log_key": log_key, "log_retention_days": log_retention_days}
    repository = image.repository
    made: Served
    match workload.workload.serving.style:
        case "batch_transform":
            made = BatchTransform(
                scope,
                construct_id,
                name=name,
                repository=repository,
                network=network,
                alarm_topic=alarm_topic,
                **sagemaker,
                **logged,
            )
        case "lambda":
            made = LambdaTarget(
                scope,
                construct_id,
                function_name=f"{name}-serving",
                model_package_group_name=model_package_group_name,
                image=image,
                vpc=vpc,
                subnets=ec2.SubnetSelection(subnets=list(network.subnets)),
                security_groups=list(network.security_groups),
                **common,
                **logged,
            )
        case "ecs":
            made = EcsService(
                scope,
                construct_id,
                service_name=name,
                model_package_group_name=model_package_group_name,
                image=image,
                vpc=vpc,
                subnets=list(network.subnets),
                callers=network.security_groups[0],
                certificate_arn=certificate_arn,
                **common,
                **logged,
            )
        case "multi_model":
            made = MultiModelEndpoint(
                scope,
                construct_id,
                endpoint_name=name,
                model_package_group_name=model_package_group_name,
                image=image,
                network=network,
                **sagemaker,
                **logged,
            )
        case "asynchronous":
            made = AsynchronousEndpoint(
                scope,
                construct_id,
                endpoint_name=name,
                message_key=message_key,
                repository=repository,
                network=network,
                **sagemaker,
            )
        case "serverless":
            made = ServerlessEndpoint(
                scope, construct_id, endpoint_name=name, repository=repository, **sagemaker
            )
        case "inference_components":
            made = InferenceComponents(
                scope, construct_id, endpoint_name=name, repository=repository, network=network, **sagemaker
            )
        case "real_time":
            made = ModelEndpoint(
                scope,
                construct_id,
                endpoint_name=name,
                repository=repository,
                network=network,
                challenger_parameter_name=challenger_parameter_name,
                **sagemaker,
            )
    return made
