"""What the role of each kind of job is let and refused, as calls that stand in its template.

The policies are made where the jobs are; here stands what must come out of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from aws_cdk import aws_iam as iam

from ml_lifecycle.security.rights import NOT_THERE, Call, call_data

__all__ = ["KINDS", "METADATA", "JobRole", "RoleKind", "show_role"]

RoleKind = Literal["pipeline", "processing", "training", "model", "monitor"]
#: Key of the role's Metadata.
METADATA: Final = "MLLifecycle::JobRole"


@dataclass(frozen=True, kw_only=True)
class JobRole:
    """Calls that the role of a kind of job may make, and calls that it must not."""

    title: str
    let: Mapping[str, Call]
    refused: Mapping[str, Call]


def _reads(bucket: str, prefix: str) -> Call:
    return Call(
        service="s3", operation="ListObjectsV2", parameters={"Bucket": f"${{{bucket}}}", "Prefix": prefix}
    )


def _writes(bucket: str, prefix: str) -> Call:
    """Begin an upload, which takes the permission to write and makes no object; who calls aborts it."""
    return Call(
        service="s3",
        operation="CreateMultipartUpload",
        parameters={"Bucket": f"${{{bucket}}}", "Key": f"{prefix}probe-of-rights"},
    )


def _measures(namespace: str) -> Call:
    data = [{"MetricName": "ProbeOfRights", "Value": 0.0}]
    return Call(
        service="cloudwatch",
        operation="PutMetricData",
        parameters={"Namespace": namespace, "MetricData": data},
    )


_READS_RAW = {"read raw records": _reads("RawBucket", "${Slug}/data/")}
_READS_FEATURES = {"read features": _reads("FeaturesBucket", "${Slug}/data/")}
_READS_CAPTURE = {"read what endpoints captured": _reads("ArtifactsBucket", "${Slug}/capture/")}
_READS_TRAINING = {"read what trainings made": _reads("ArtifactsBucket", "${Slug}/training/")}
_WRITES_TRAINING = {"write what trainings make": _writes("ArtifactsBucket", "${Slug}/training/")}
_WRITES_CAPTURE = {"write what the endpoint captures": _writes("ArtifactsBucket", "${Slug}/capture/")}
#: No job decides what is served, changes records or widens a role.
_NO_JOB: Final[Mapping[str, Call]] = {
    "approve a version": Call(
        service="sagemaker",
        operation="UpdateModelPackage",
        parameters={
            "ModelPackageArn": (
                "arn:aws:sagemaker:${Region}:${Account}:model-package/${ModelPackageGroupName}/9999"
            ),
            "ModelApprovalStatus": "Approved",
        },
    ),
    "say what is served": Call(
        service="ssm",
        operation="PutParameter",
        parameters={"Name": "${ApprovedModelParameter}", "Value": "none", "Overwrite": True},
    ),
    "change curated records": _writes("LakeBucket", "${Slug}/data/"),
    "delete curated records": Call(
        service="s3",
        operation="DeleteObject",
        parameters={"Bucket": "${LakeBucket}", "Key": "${Slug}/data/probe-of-rights"},
    ),
    "widen itself": Call(
        service="iam",
        operation="PutRolePolicy",
        parameters={"RoleName": "${OwnRole}", "PolicyName": "more", "PolicyDocument": "{}"},
    ),
    **_READS_RAW,
}

KINDS: Final[Mapping[RoleKind, JobRole]] = {
    "pipeline": JobRole(
        title="starts the steps of a training",
        let={
            "look at its training jobs": Call(
                service="sagemaker",
                operation="DescribeTrainingJob",
                parameters={"TrainingJobName": "pipelines-no-such-job"},
                answers=NOT_THERE,
            ),
            **_READS_TRAINING,
        },
        refused={
            **_NO_JOB,
            **_READS_FEATURES,
            **_READS_CAPTURE,
            **_WRITES_TRAINING,
            "start itself": Call(
                service="sagemaker",
                operation="StartPipelineExecution",
                parameters={"PipelineName": "${PipelineName}"},
            ),
        },
    ),
    "processing": JobRole(
        title="prepares records and judges models",
        let={**_READS_FEATURES, **_READS_TRAINING, **_WRITES_TRAINING},
        refused={**_NO_JOB, **_READS_CAPTURE, **_WRITES_CAPTURE},
    ),
    "training": JobRole(
        title="trains a model on what was prepared",
        let={**_READS_TRAINING, **_WRITES_TRAINING},
        refused={**_NO_JOB, **_READS_FEATURES, **_READS_CAPTURE},
    ),
    "model": JobRole(
        title="answers requests",
        let={
            **_READS_TRAINING,
            **_WRITES_CAPTURE,
            "publish the endpoint's metrics": _measures("/aws/sagemaker/Endpoints"),
        },
        refused={
            **_NO_JOB,
            **_READS_FEATURES,
            **_WRITES_TRAINING,
            "publish the monitors' metrics": _measures("MLLifecycle"),
        },
    ),
    "monitor": JobRole(
        title="judges what the endpoint captured",
        let={
            **_READS_CAPTURE,
            **_READS_TRAINING,
            "see which version is served": Call(
                service="ssm", operation="GetParameter", parameters={"Name": "${ApprovedModelParameter}"}
            ),
            "publish the monitors' metrics": _measures("MLLifecycle"),
        },
        refused={
            **_NO_JOB,
            **_READS_FEATURES,
            **_WRITES_TRAINING,
            **_WRITES_CAPTURE,
            "publish the endpoint's metrics": _measures("AWS/SageMaker"),
        },
    ),
}


def show_role(role: iam.IRole, kind: RoleKind) -> None:
    """Let the template of ``role`` say of which kind it is, and which calls show that.

    Raises:
        ValueError: there is no such kind.
        TypeError: the role is not made by this app.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(get_args(RoleKind))}, got {kind!r}")
    resource = role.node.default_child
    if not isinstance(resource, iam.CfnRole):
        raise TypeError(f"role must be made by this app to be shown, got {role.node.path}")
    shown = KINDS[kind]
    data: dict[str, Any] = {
        "kind": kind,
        "title": shown.title,
        "let": {name: call_data(call) for name, call in shown.let.items()},
        "refused": {name: call_data(call) for name, call in shown.refused.items()},
    }
    resource.add_metadata(METADATA, data)
