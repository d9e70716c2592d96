"""Deploy a model by its tag, apart from any deploy of infrastructure: approve a version where it shall serve.

What follows the approval is the environment's own: the promotion function, the alarms, the way back.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

__all__ = ["Approved", "ModelError", "approve", "package_of"]

#: Key of a version's metadata that ``--tag`` is looked for in. Versions in a group take no tags of AWS
#: (SageMaker, CreateModelPackage, "Tags").
TAG = "tag"


class ModelError(Exception):
    """There is no such version, or it may not serve."""


@dataclass(frozen=True, kw_only=True)
class Approved:
    """What was done: the version, and what the approval parameter said before and says now."""

    package: str
    before: str
    now: str


def package_of(sagemaker: Any, ssm: Any, group: str, parameter: str, tag: str) -> str:
    """The version that a tag names.

    ``tag`` is an ARN, ``v12``, ``previous`` (what was approved before what is approved now), or what the
    version's metadata has under ``tag``.

    Raises:
        ModelError: no version of the group, or more than one, has it.
    """
    pages = sagemaker.get_paginator("list_model_packages").paginate(
        ModelPackageGroupName=group, SortBy="CreationTime", SortOrder="Descending"
    )
    versions = [package for page in pages for package in page["ModelPackageSummaryList"]]
    arns = [str(version["ModelPackageArn"]) for version in versions]
    if tag == "previous":
        return _previous(ssm, parameter, arns)
    number = re.fullmatch(r"v(\d+)", tag)
    if tag.startswith("arn:"):
        found = [arn for arn in arns if arn == tag]
    elif number:
        found = [arn for arn in arns if arn.endswith(f"/{number.group(1)}")]
    else:
        found = [arn for arn in arns if _tag(sagemaker, arn) == tag]
    if len(found) != 1:
        raise ModelError(
            f"{len(found) or 'no'} versions of {group} are {tag!r}; there are "
            f"{', '.join('v' + arn.rsplit('/', 1)[-1] for arn in arns) or 'none'}"
        )
    return found[0]


def _tag(sagemaker: Any, arn: str) -> str | None:
    described = sagemaker.describe_model_package(ModelPackageName=arn)
    tag: str | None = described.get("CustomerMetadataProperties", {}).get(TAG)
    return tag


def _previous(ssm: Any, parameter: str, arns: list[str]) -> str:
    pages = ssm.get_paginator("get_parameter_history").paginate(Name=parameter)
    history = [str(version["Value"]) for page in pages for version in page["Parameters"]]
    before = [value for value in history if value != history[-1] and value in arns]
    if not before:
        raise ModelError(f"{parameter} never named another version that is still there")
    return before[-1]


def approve(
    sagemaker: Any,
    ssm: Any,
    *,
    group: str,
    parameter: str,
    tag: str,
    reason: str,
    wait_seconds: float = 0,
) -> Approved:
    """Approve a version; with ``wait_seconds`` wait until the environment has taken it up.

    Needs ``sagemaker:ListModelPackages``, ``DescribeModelPackage`` and ``UpdateModelPackage`` on the group's
    versions, ``ssm:GetParameter`` and ``GetParameterHistory`` on the approval parameter.

    Raises:
        ModelError: there is no such version, it failed, or it was not taken up in time.
    """
    arn = package_of(sagemaker, ssm, group, parameter, tag)
    described = sagemaker.describe_model_package(ModelPackageName=arn)
    if described.get("ModelPackageStatus") != "Completed":
        raise ModelError(f"{arn} is {described.get('ModelPackageStatus')}, not Completed")
    before = _value(ssm, parameter)
    if described.get("ModelApprovalStatus") == "Approved" and before != arn:
        # An approval is a change of status: what is approved already has to be taken back to be given again.
        sagemaker.update_model_package(
            ModelPackageArn=arn, ModelApprovalStatus="PendingManualApproval", ApprovalDescription=reason
        )
    if before != arn:
        sagemaker.update_model_package(
            ModelPackageArn=arn, ModelApprovalStatus="Approved", ApprovalDescription=reason
        )
    deadline = time.monotonic() + wait_seconds
    while wait_seconds and _value(ssm, parameter) != arn:
        status = sagemaker.describe_model_package(ModelPackageName=arn)
        if status.get("ModelApprovalStatus") == "Rejected":
            raise ModelError(f"{arn} was rejected: {status.get('ApprovalDescription', 'no reason given')}")
        if time.monotonic() > deadline:
            raise ModelError(f"after {wait_seconds:g} s {parameter} says {_value(ssm, parameter)}, not {arn}")
        time.sleep(min(5.0, wait_seconds / 20))
    return Approved(package=arn, before=before, now=_value(ssm, parameter))


def _value(ssm: Any, parameter: str) -> str:
    value: str = ssm.get_parameter(Name=parameter)["Parameter"]["Value"]
    return value
