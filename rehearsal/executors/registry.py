"""SageMaker's model registry: groups, versions, approval, and the event that an approval raises."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge
from rehearsal.services.engine import ApiError, Call, Record, Service, instead

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = [
    "approved_containers",
    "create_package",
    "delete_group",
    "delete_package",
    "delete_policy",
    "describe_package",
    "find_package",
    "get_policy",
    "install",
    "list_packages",
    "put_policy",
    "update_package",
]

_STATUS_DETAILS: dict[str, list[Any]] = {"ValidationStatuses": [], "ImageScanStatuses": []}
_MERGED = ("CustomerMetadataProperties",)


def find_package(service: Service, name_or_arn: str) -> Record:
    """A package by ARN, by `group/version` or by name.

    :raises ApiError: there is none
    """
    name = name_or_arn
    match = re.fullmatch(r"arn:[^:]+:sagemaker:[^:]+:\d+:model-package/(.+)", name_or_arn)
    if match is not None:
        name = match[1]
    record = service.peek("ModelPackage", name)
    if record is None:
        raise ApiError("ValidationException", f"ModelPackage {name_or_arn} does not exist.")
    return record


def approved_containers(service: Service, name_or_arn: str) -> list[dict[str, Any]]:
    """The containers of a package for a model that is to be deployed.

    :raises ApiError: the package is not approved, or cannot be deployed
    """
    record = find_package(service, name_or_arn)
    status = record.data.get("ModelApprovalStatus")
    if status != "Approved":
        raise ApiError(
            "ValidationException",
            f"ModelPackage {record.arn} has the approval status {status}; only an Approved one is deployed",
        )
    specification = record.data.get("InferenceSpecification")
    if specification is None:
        raise ApiError("ValidationException", f"ModelPackage {record.arn} has no InferenceSpecification")
    containers: list[dict[str, Any]] = specification["Containers"]
    return containers


@instead("sagemaker", "CreateModelPackage")
def create_package(service: Service, call: Call) -> dict[str, Any]:
    """Register a version in its group, or a package of its own name."""
    params = {key: value for key, value in call.params.items() if key not in ("Tags", "ClientToken")}
    if call.params.get("ValidationSpecification") or call.params.get("SourceAlgorithmSpecification"):
        raise ApiError(
            "ValidationException",
            "the rehearsal registers packages by InferenceSpecification and runs no validation",
        )
    group = params.get("ModelPackageGroupName")
    if (group is None) == (params.get("ModelPackageName") is None):
        raise ApiError(
            "ValidationException", "Exactly one of ModelPackageGroupName and ModelPackageName must be given"
        )
    if group is not None and call.params.get("Tags"):
        raise ApiError(
            "ValidationException", "a version uses the tags of its ModelPackageGroup; it takes no Tags itself"
        )
    with service.lock:
        if group is None:
            name = params["ModelPackageName"]
        else:
            owner = _group(service, group)
            version = int(owner.data.get("_LastVersion", 0)) + 1
            owner.data["_LastVersion"] = version
            name = f"{owner.name}/{version}"
            params |= {"ModelPackageGroupName": owner.name, "ModelPackageVersion": version}
            params.setdefault("ModelApprovalStatus", "PendingManualApproval")
        record = service.put("ModelPackage", name, params, status="Completed")
        service.update(record, ModelPackageStatusDetails=_STATUS_DETAILS, CertifyForMarketplace=False)
        tags = service.traits.tags_in(call.params)
        if tags:
            service.tags.setdefault(record.arn, {}).update(tags)
    _tell(service, record, ["ModelPackageStatus"])
    return {"ModelPackageArn": record.arn}


def _group(service: Service, name_or_arn: str) -> Record:
    record = service.peek("ModelPackageGroup", name_or_arn.rsplit("/", 1)[-1])
    if record is None:
        raise ApiError("ValidationException", f"ModelPackageGroup {name_or_arn} does not exist.")
    return record


@instead("sagemaker", "DescribeModelPackage")
def describe_package(service: Service, call: Call) -> dict[str, Any]:
    """Describe a package by ARN or name."""
    record = find_package(service, call.params["ModelPackageName"])
    return service.describe("ModelPackage", record, service.operation("DescribeModelPackage").output_shape)


@instead("sagemaker", "UpdateModelPackage")
def update_package(service: Service, call: Call) -> dict[str, Any]:
    """Change the approval or the metadata of a package; a change of either raises the event."""
    params = dict(call.params)
    record = find_package(service, params.pop("ModelPackageArn"))
    changes: dict[str, Any] = {}
    gone = params.pop("CustomerMetadataPropertiesToRemove", [])
    for key in _MERGED:
        if key in params or gone:
            merged = {**record.data.get(key, {}), **params.pop(key, {})}
            changes[key] = {k: v for k, v in merged.items() if k not in gone}
    changes |= params
    service.update(record, **changes)
    _tell(service, record, sorted(changes))
    return {"ModelPackageArn": record.arn}


@instead("sagemaker", "DeleteModelPackage")
def delete_package(service: Service, call: Call) -> dict[str, Any]:
    """Delete one version; its number is not given again."""
    service.remove("ModelPackage", find_package(service, call.params["ModelPackageName"]).name)
    return {}


@instead("sagemaker", "DeleteModelPackageGroup")
def delete_group(service: Service, call: Call) -> dict[str, Any]:
    """Delete an empty group."""
    group = _group(service, call.params["ModelPackageGroupName"])
    if any(True for _ in _versions(service, group.name)):
        raise ApiError(
            "ConflictException",
            f"ModelPackageGroup {group.name} still holds model packages; delete these first",
        )
    service.remove("ModelPackageGroup", group.name)
    return {}


@instead("sagemaker", "PutModelPackageGroupPolicy")
def put_policy(service: Service, call: Call) -> dict[str, Any]:
    """Say who of other accounts may use a group and its versions."""
    group = _group(service, call.params["ModelPackageGroupName"])
    text = call.params["ResourcePolicy"]
    try:
        statements = json.loads(text)["Statement"]
    except (ValueError, KeyError, TypeError) as error:
        raise ApiError("ValidationException", f"ResourcePolicy is no policy document: {error}") from error
    for statement in statements if isinstance(statements, list) else [statements]:
        resources = statement.get("Resource", [])
        for resource in [resources] if isinstance(resources, str) else resources:
            if group.name not in resource:
                raise ApiError(
                    "ValidationException", f"the policy of {group.name} names another resource: {resource}"
                )
    service.update(group, _Policy=text)
    return {"ModelPackageGroupArn": group.arn}


@instead("sagemaker", "GetModelPackageGroupPolicy")
def get_policy(service: Service, call: Call) -> dict[str, Any]:
    """Return the policy of a group."""
    group = _group(service, call.params["ModelPackageGroupName"])
    if "_Policy" not in group.data:
        raise ApiError("ValidationException", f"Cannot find resource policy for: {group.arn}")
    return {"ResourcePolicy": group.data["_Policy"]}


@instead("sagemaker", "DeleteModelPackageGroupPolicy")
def delete_policy(service: Service, call: Call) -> dict[str, Any]:
    """Forget the policy of a group."""
    _group(service, call.params["ModelPackageGroupName"]).data.pop("_Policy", None)
    return {}


def _policy_of(runtime: Runtime, resource: str) -> tuple[str | None, str] | None:
    """The policy that a group, or a version by its group, is under, and the owner's account."""
    match = re.fullmatch(
        r"arn:[^:]+:sagemaker:([^:]+):(\d+):model-package(?:-group)?/([^/]+)(?:/.*)?", resource
    )
    if match is None or match[2] != runtime.account:
        return None
    group = runtime.service("sagemaker", match[1]).peek("ModelPackageGroup", match[3])
    return (None if group is None else group.data.get("_Policy")), match[2]


def install(runtime: Runtime) -> None:
    """Hold other accounts to the policies of groups."""
    bridge.add_resource_policies("sagemaker", lambda resource: _policy_of(runtime, resource))


def _versions(service: Service, group: str) -> list[Record]:
    return [
        record
        for record in service.records.get("ModelPackage", {}).values()
        if record.data.get("ModelPackageGroupName") == group
    ]


@instead("sagemaker", "ListModelPackages")
def list_packages(service: Service, call: Call) -> dict[str, Any]:
    """List the versions of a group, or the packages that are in none."""
    params = call.params
    group = params.get("ModelPackageGroupName")
    kind = params.get("ModelPackageType", "Versioned" if group is not None else "Unversioned")
    with service.lock:
        if group is not None:
            records = _versions(service, _group(service, group).name)
        else:
            records = [
                record
                for record in service.records.get("ModelPackage", {}).values()
                if kind == "Both" or ("ModelPackageGroupName" in record.data) == (kind == "Versioned")
            ]
    records = [record for record in records if _wanted(record, params)]
    by = params.get("SortBy", "CreationTime")
    records.sort(
        key=lambda record: _order(record, by), reverse=params.get("SortOrder", "Descending") == "Descending"
    )
    start = int(params.get("NextToken", 0))
    end = start + int(params.get("MaxResults", 100))
    shape = service.operation("ListModelPackages").output_shape
    item = shape.members["ModelPackageSummaryList"].member  # type: ignore[union-attr]
    output: dict[str, Any] = {
        "ModelPackageSummaryList": [
            service.describe("ModelPackage", record, item) for record in records[start:end]
        ]
    }
    if end < len(records):
        output["NextToken"] = str(end)
    return output


def _order(record: Record, by: str) -> tuple[str | datetime, int]:
    first = record.name if by == "Name" else record.created
    return first, int(record.data.get("ModelPackageVersion", 0))


def _wanted(record: Record, params: dict[str, Any]) -> bool:
    approval = params.get("ModelApprovalStatus")
    contains = params.get("NameContains")
    before, after = params.get("CreationTimeBefore"), params.get("CreationTimeAfter")
    return (
        (approval is None or record.data.get("ModelApprovalStatus") == approval)
        and (contains is None or contains in record.name)
        and (before is None or record.created < before)
        and (after is None or record.created > after)
    )


def _tell(service: Service, record: Record, updated: list[str]) -> None:
    """Raise "SageMaker Model Package State Change" with the fields that AWS's event has."""
    data = record.data
    detail: dict[str, Any] = {
        key: data[key]
        for key in (
            "ModelPackageName",
            "ModelPackageGroupName",
            "ModelPackageVersion",
            "ModelPackageDescription",
            "InferenceSpecification",
            "ModelPackageStatusDetails",
            "CertifyForMarketplace",
            "ModelApprovalStatus",
            "ApprovalDescription",
            "MetadataProperties",
            "ModelMetrics",
            "CustomerMetadataProperties",
            "DriftCheckBaselines",
        )
        if key in data
    }
    service.runtime.emit(
        "aws.sagemaker",
        "SageMaker Model Package State Change",
        {
            **detail,
            "ModelPackageArn": record.arn,
            "ModelPackageStatus": record.status,
            "CreationTime": record.created.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "LastModifiedTime": record.updated.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "UpdatedModelPackageFields": updated,
        },
        [record.arn],
        region=service.region,
    )
