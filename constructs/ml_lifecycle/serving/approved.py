"""The approved model of a workload as the serving stack sees it: parameter, condition, role, model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import aws_cdk as cdk
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker

from constructs import Construct
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.registry.approval import NONE_APPROVED
from ml_lifecycle.training.job_role import JobNetwork, grant_key, grant_pull, job_role

__all__ = ["Approved", "approved_model", "challenger_model", "endpoint_role", "packaged_model"]


@dataclass(frozen=True, kw_only=True)
class Approved:
    """A model package that may or may not be named.

    ``package`` is its ARN (a token), or ``none``; ``condition`` holds while it is not ``none``.
    """

    package: str
    condition: cdk.CfnCondition


def approved_model(scope: Construct, parameter_name: str) -> Approved:
    """Define the approval parameter as a parameter of the stack, and the condition that it names a model."""
    approved = cdk.CfnParameter(
        scope,
        "ApprovedModelPackage",
        type="AWS::SSM::Parameter::Value<String>",
        default=parameter_name,
        description="Name of the parameter that holds the approved model package, or none.",
    )
    condition = cdk.CfnCondition(
        scope,
        "IsApproved",
        expression=cdk.Fn.condition_not(cdk.Fn.condition_equals(approved.value_as_string, NONE_APPROVED)),
    )
    return Approved(package=approved.value_as_string, condition=condition)


def challenger_model(scope: Construct, parameter_name: str, approved: Approved) -> Approved:
    """Define the challenger as a parameter of the stack; there is one only beside an approved model."""
    challenger = cdk.CfnParameter(
        scope,
        "ChallengerModelPackage",
        type="AWS::SSM::Parameter::Value<String>",
        default=parameter_name,
        description="Name of the parameter that holds the model package that is being tried, or none.",
    )
    condition = cdk.CfnCondition(
        scope,
        "HasChallenger",
        expression=cdk.Fn.condition_and(
            # A condition is an expression too; only jsii's types do not say so.
            cast(cdk.ICfnConditionExpression, approved.condition),
            cdk.Fn.condition_not(cdk.Fn.condition_equals(challenger.value_as_string, NONE_APPROVED)),
        ),
    )
    return Approved(package=challenger.value_as_string, condition=condition)


def endpoint_role(
    scope: Construct,
    construct_id: str,
    *,
    endpoint_name: str,
    artifacts: Zone,
    read: str,
    volume_key: kms.IKey,
    repository: ecr.IRepository,
    network: JobNetwork | None,
    captured: str | None = None,
    log_groups: list[str] | None = None,
) -> iam.Role:
    """Define the role that an endpoint's containers act as.

    It may pull the image, read the models below ``read`` and write captured requests below ``captured``.
    """
    role = job_role(
        scope,
        construct_id,
        log_groups=[f"/aws/sagemaker/Endpoints/{endpoint_name}"] if log_groups is None else log_groups,
        network=network,
        metric_namespaces=["/aws/sagemaker/Endpoints", "AWS/SageMaker"],
        description=f"Endpoint {endpoint_name}",
    )
    grant_pull(repository, role)
    grant_key(volume_key, role)
    artifacts.grant_read(role, read)
    if captured is not None:
        artifacts.grant_write(role, captured)
    return role


def packaged_model(
    scope: Construct,
    construct_id: str,
    *,
    approved: Approved,
    role: iam.Role,
    network: JobNetwork | None,
    isolated: bool = True,
) -> sagemaker.CfnModel:
    """Define the model of a package, without network access of its own unless ``isolated`` is False."""
    model = sagemaker.CfnModel(
        scope,
        construct_id,
        execution_role_arn=role.role_arn,
        containers=[
            sagemaker.CfnModel.ContainerDefinitionProperty(
                model_package_name=approved.package,
                # The model cannot know its own number; with it every answer says who gave it.
                environment={"MODEL_PACKAGE": approved.package},
            )
        ],
        enable_network_isolation=True if isolated else None,
        vpc_config=None if network is None else vpc_config(network),
    )
    # SageMaker reads the model's data as this role when it creates the model.
    model.node.add_dependency(role)
    model.cfn_options.condition = approved.condition
    return model


def vpc_config(network: JobNetwork) -> sagemaker.CfnModel.VpcConfigProperty:
    """Return where a model's containers stand."""
    return sagemaker.CfnModel.VpcConfigProperty(
        subnets=network.subnet_ids, security_group_ids=network.security_group_ids
    )
