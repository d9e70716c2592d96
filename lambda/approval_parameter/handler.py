"""CloudFormation custom resource: a parameter that is created once and belongs to promotions from then on.

``AWS::SSM::Parameter`` would do but for one thing: any later update of that resource, be it a tag, writes the
template's value again, and the endpoint that serves the approved model would be deleted with it. This
resource creates the parameter when it does not exist, leaves it alone on every update, and deletes it only
where its data may be deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import boto3
from botocore.exceptions import ClientError
from custom_resource import Made, answered, patiently

__all__ = ["handler"]


def handler(event: Mapping[str, Any], _context: object) -> None:
    """Answer CloudFormation; a failure is reported to it, with its reason, and raised."""
    answered(
        event,
        lambda: Made(id=apply(event, boto3.client("ssm"))),
        failed_id=event.get("ResourceProperties", {}).get("Name"),
    )


def apply(event: Mapping[str, Any], ssm: Any) -> str:
    """Do what the request asks and return the parameter's name, which is the resource's id.

    ``ResourceProperties``: ``Name``, ``InitialValue``, ``OnDelete`` (``keep`` or ``delete``).
    """
    properties = event["ResourceProperties"]
    name: str = properties["Name"]
    if event["RequestType"] == "Delete":
        if properties["OnDelete"] == "delete":
            patiently(lambda: _delete(ssm, event["PhysicalResourceId"]))
        return str(event["PhysicalResourceId"])
    patiently(lambda: _create(ssm, name, properties["InitialValue"]))
    return name


def _create(ssm: Any, name: str, value: str) -> None:
    try:
        ssm.put_parameter(Name=name, Value=value, Type="String", Overwrite=False)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ParameterAlreadyExists":
            raise


def _delete(ssm: Any, name: str) -> None:
    try:
        ssm.delete_parameter(Name=name)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ParameterNotFound":
            raise
