"""CloudFormation custom resource: the approved version's ``model.tar.gz``, by its number, in one folder.

SageMaker hands a model to the containers of a model package. A multi-model endpoint, a Lambda function and an
ECS task are told a place instead: ``<prefix><version>.tar.gz``. Every version has a name of its own, since
SageMaker keeps a model by its name and would not see that another one stands there now.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import boto3
from custom_resource import Made, answered, patiently

__all__ = ["handler"]

_MODEL = re.compile(r"(\d+)\.tar\.gz")
#: The variable that a package's container has when its threshold was chosen from costs.
_THRESHOLD = "DECISION_THRESHOLD"


def handler(event: Mapping[str, Any], _context: object) -> None:
    """Answer CloudFormation; a failure is reported to it, with its reason, and raised."""
    answered(event, lambda: apply(event, boto3.client("sagemaker"), boto3.client("s3")))


def apply(event: Mapping[str, Any], sagemaker: Any, s3: Any) -> Made:
    """Do what the request asks.

    ``ResourceProperties``: ``ModelPackage`` (ARN), ``Bucket``, ``Prefix`` (ends with a slash), ``Keep``
    (how many versions stay, the approved one and the one before included). Attributes: ``Uri``, ``Target``
    (``3.tar.gz``), ``Version``, ``DecisionThreshold`` (a number, or ``none``).

    Raises:
        ValueError: a package whose containers name no model data.
    """
    properties = event["ResourceProperties"]
    bucket, prefix = str(properties["Bucket"]), str(properties["Prefix"])
    resource_id = f"s3://{bucket}/{prefix}"
    if event["RequestType"] == "Delete":
        patiently(lambda: _remove(s3, bucket, [key for _, key in _standing(s3, bucket, prefix)]))
        return Made(id=resource_id)
    package = str(properties["ModelPackage"])
    version = _version(package)
    target = f"{version}.tar.gz"
    container: dict[str, Any] = {}
    patiently(lambda: container.update(_shelve(package, sagemaker, s3, bucket, f"{prefix}{target}")))
    # What was approved until now still answers while traffic moves, and again when the rollout fails.
    before = event.get("OldResourceProperties", {}).get("ModelPackage")
    needed = {version} if before is None else {version, _version(str(before))}
    standing = _standing(s3, bucket, prefix)
    others = [number for number, _ in standing if number not in needed]
    room = max(0, int(properties["Keep"]) - len(needed))
    kept = needed | set(others[len(others) - room :])
    _remove(s3, bucket, [key for number, key in standing if number not in kept])
    return Made(
        id=resource_id,
        attributes={
            "Uri": f"{resource_id}{target}",
            "Target": target,
            "Version": str(version),
            # SageMaker gives a package's containers their environment; who takes the file is told here.
            "DecisionThreshold": container.get("Environment", {}).get(_THRESHOLD, "none"),
        },
    )


def _version(package: str) -> int:
    return int(package.rsplit("/", 1)[1])


def _shelve(package: str, sagemaker: Any, s3: Any, bucket: str, key: str) -> dict[str, Any]:
    """Copy the package's model and return the container that the package describes."""
    containers: list[dict[str, Any]] = sagemaker.describe_model_package(ModelPackageName=package)[
        "InferenceSpecification"
    ]["Containers"]
    uri = containers[0].get("ModelDataUrl")
    if not uri:
        raise ValueError(f"{package} names no model data (InferenceSpecification.Containers[0].ModelDataUrl)")
    source, _, path = uri.removeprefix("s3://").partition("/")
    s3.copy({"Bucket": source, "Key": path}, bucket, key)
    return containers[0]


def _standing(s3: Any, bucket: str, prefix: str) -> list[tuple[int, str]]:
    """Versions in the folder with their keys, the oldest first; what is no model is left alone."""
    found = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", ()):
            name = _MODEL.fullmatch(item["Key"].removeprefix(prefix))
            if name is not None:
                found.append((int(name[1]), str(item["Key"])))
    return sorted(found)


def _remove(s3: Any, bucket: str, keys: list[str]) -> None:
    for key in keys:
        s3.delete_object(Bucket=bucket, Key=key)
