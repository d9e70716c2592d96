"""Roles that SageMaker's jobs and endpoints act as, and where they run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3_assets as s3_assets

from constructs import Construct
from ml_lifecycle.pseudo import arn, service_principal
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = [
    "JobNetwork",
    "grant_asset",
    "grant_key",
    "grant_network",
    "grant_output_key",
    "grant_pull",
    "grant_pull_token",
    "job_role",
]


@dataclass(frozen=True, kw_only=True)
class JobNetwork:
    """Subnets and security groups that jobs and endpoints are placed in.

    SageMaker takes 1 to 16 subnets and 1 to 5 security groups (VpcConfig).
    """

    subnets: tuple[ec2.ISubnet, ...]
    security_groups: tuple[ec2.ISecurityGroup, ...]

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= len(self.subnets) <= 16:
            problems.append(f"subnets must be 1 to 16, got {len(self.subnets)}")
        if not 1 <= len(self.security_groups) <= 5:
            problems.append(f"security_groups must be 1 to 5, got {len(self.security_groups)}")
        if problems:
            raise ValueError("; ".join(problems))

    @cached_property
    def subnet_ids(self) -> list[str]:
        """Ids for ``VpcConfig.Subnets``."""
        return [subnet.subnet_id for subnet in self.subnets]

    @cached_property
    def security_group_ids(self) -> list[str]:
        """Ids for ``VpcConfig.SecurityGroupIds``."""
        return [group.security_group_id for group in self.security_groups]


def job_role(
    scope: Construct,
    construct_id: str,
    *,
    log_groups: Sequence[str],
    network: JobNetwork | None,
    metric_namespaces: Iterable[str] = (),
    description: str,
) -> iam.Role:
    """Define a role that only SageMaker may assume, with what every job needs: its logs, its network
    interfaces.

    Args:
        scope: where the role belongs.
        construct_id: id of the role.
        log_groups: log groups that SageMaker writes for such a job, e.g. ``/aws/sagemaker/TrainingJobs``.
        network: given when the job runs in a VPC.
        metric_namespaces: CloudWatch namespaces the job's own code publishes to.
        description: what acts as this role.
    """
    role = iam.Role(
        scope,
        construct_id,
        description=description,
        assumed_by=service_principal("sagemaker", own_account=True),
    )

    def group(name: str) -> str:
        return arn("logs", f"log-group:{name}")

    groups = [group(name) for name in log_groups]
    streams = [group(f"{name}:*") for name in log_groups]
    if groups:
        # The first job of an account makes the group.
        iam.Grant.add_to_principal(
            grantee=role, actions=["logs:CreateLogGroup"], resource_arns=[*groups, *streams]
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            resource_arns=streams,
        )
        acknowledge_wildcards(
            role,
            "SageMaker names a stream after each job; the wildcard ends at its log groups.",
            resources=streams,
        )
    namespaces = list(metric_namespaces)
    if namespaces:
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["cloudwatch:PutMetricData"],
            # CloudWatch has no resource for it; the namespace is the narrowest that IAM knows.
            resource_arns=["*"],
            conditions={"StringEquals": {"cloudwatch:namespace": namespaces}},
        )
        acknowledge_wildcards(
            role,
            "PutMetricData has no resource type; a condition limits it to one namespace.",
            resources=["*"],
        )
    if network is not None:
        grant_network(role, network)
    return role


def grant_network(role: iam.Role, network: JobNetwork) -> None:
    """Let who runs a job make and remove the interfaces that tie it to the VPC, as its role."""
    interfaces = arn("ec2", "network-interface/*")
    places = [
        *(arn("ec2", f"subnet/{subnet_id}") for subnet_id in network.subnet_ids),
        *(arn("ec2", f"security-group/{group_id}") for group_id in network.security_group_ids),
    ]
    iam.Grant.add_to_principal(
        grantee=role, actions=["ec2:CreateNetworkInterface"], resource_arns=[interfaces, *places]
    )
    iam.Grant.add_to_principal(
        grantee=role,
        actions=[
            "ec2:CreateNetworkInterfacePermission",
            "ec2:DeleteNetworkInterface",
            "ec2:DeleteNetworkInterfacePermission",
        ],
        resource_arns=[interfaces],
    )
    iam.Grant.add_to_principal(
        grantee=role,
        actions=[
            "ec2:DescribeDhcpOptions",
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSubnets",
            "ec2:DescribeVpcs",
        ],
        resource_arns=["*"],  # EC2's Describe calls have no resource types
    )
    acknowledge_wildcards(
        role,
        "Interfaces are named by EC2 when a job starts and can stand only in the given subnets and groups; "
        "Describe calls have no resource types.",
        resources=[interfaces, "*"],
    )


def grant_key(key: kms.IKey, grantee: iam.IGrantable) -> iam.Grant:
    """Grant what attaching an encrypted volume takes: SageMaker passes the key on to EBS by a grant."""
    iam.Grant.add_to_principal(
        grantee=grantee,
        actions=["kms:CreateGrant"],
        resource_arns=[key.key_arn],
        conditions={"Bool": {"kms:GrantIsForAWSResource": "true"}},
    )
    return iam.Grant.add_to_principal(
        grantee=grantee,
        actions=["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext"],
        resource_arns=[key.key_arn],
    )


def grant_output_key(key: kms.IKey, grantee: iam.IGrantable) -> iam.Grant:
    """Grant what a job that is told a key for its output must have beside writing to S3.

    "The SageMaker execution role must include permissions to call kms:Encrypt" (OutputDataConfig, KmsKeyId).
    """
    return iam.Grant.add_to_principal(grantee=grantee, actions=["kms:Encrypt"], resource_arns=[key.key_arn])


def grant_pull_token(grantee: iam.IRole) -> None:
    """Grant the token that every pull begins with."""
    iam.Grant.add_to_principal(
        grantee=grantee,
        actions=["ecr:GetAuthorizationToken"],
        resource_arns=["*"],  # a token is for the account's registry; it opens nothing by itself
    )
    acknowledge_wildcards(
        grantee,
        "GetAuthorizationToken has no resource type; which images may be pulled is granted per repository.",
        resources=["*"],
    )


def grant_pull(repository: ecr.IRepository, grantee: iam.IRole) -> iam.Grant:
    """Grant pulling images of one repository."""
    grant_pull_token(grantee)
    return iam.Grant.add_to_principal(
        grantee=grantee,
        actions=["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
        resource_arns=[repository.repository_arn],
    )


def grant_asset(asset: s3_assets.Asset, grantee: iam.IRole) -> iam.Grant:
    """Grant reading one asset; SageMaker lists its key before it downloads it."""
    iam.Grant.add_to_principal(
        grantee=grantee,
        actions=["s3:ListBucket"],
        resource_arns=[asset.bucket.bucket_arn],
        conditions={"StringEquals": {"s3:prefix": [asset.s3_object_key]}},
    )
    return iam.Grant.add_to_principal(
        grantee=grantee,
        actions=["s3:GetObject"],
        resource_arns=[asset.bucket.arn_for_objects(asset.s3_object_key)],
    )
