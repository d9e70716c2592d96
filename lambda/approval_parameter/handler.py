"""CloudFormation custom resource: a parameter that is created once and belongs to promotions from then on.

``AWS::SSM::Parameter`` would do but for one thing: any later update of that resource, be it a tag, writes the
template's value again, and the endpoint that serves the approved model would be deleted with it. This
resource creates the parameter when it does not exist, leaves it alone on every update, and deletes it only
where its data may be deleted.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.exceptions import ClientError

__all__ = ["handler"]

#: A role's policy may take some seconds to be in force after it was attached (IAM, "Eventual consistency").
_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 3.0


def handler(event: Mapping[str, Any], _context: object) -> None:
    """Answer CloudFormation; a failure is reported to it, with its reason, and raised."""
    try:
        name = apply(event, boto3.client("ssm"))
    except Exception as error:
        _answer(event, "FAILED", reason=f"{type(error).__name__}: {error}")
        raise
    _answer(event, "SUCCESS", physical_id=name)


def apply(event: Mapping[str, Any], ssm: Any) -> str:
    """Do what the request asks and return the parameter's name, which is the resource's id.

    ``ResourceProperties``: ``Name``, ``InitialValue``, ``OnDelete`` (``keep`` or ``delete``).
    """
    properties = event["ResourceProperties"]
    name: str = properties["Name"]
    if event["RequestType"] == "Delete":
        if properties["OnDelete"] == "delete":
            _patiently(lambda: _delete(ssm, event["PhysicalResourceId"]))
        return str(event["PhysicalResourceId"])
    _patiently(lambda: _create(ssm, name, properties["InitialValue"]))
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


def _patiently(action: Any) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            action()
        except ClientError as error:
            if error.response["Error"]["Code"] != "AccessDeniedException" or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _answer(
    event: Mapping[str, Any], status: str, *, physical_id: str | None = None, reason: str = ""
) -> None:
    body = {
        "Status": status,
        "Reason": reason[:1_024],
        # A create that failed is answered by a delete of this id.
        "PhysicalResourceId": physical_id
        or event.get("PhysicalResourceId")
        or event.get("ResourceProperties", {}).get("Name", event["RequestId"]),
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
    }
    # The URL is a signed one of CloudFormation's own bucket, which refuses a content type.
    request = urllib.request.Request(  # noqa: S310
        event["ResponseURL"], data=json.dumps(body).encode(), method="PUT", headers={"Content-Type": ""}
    )
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310
        pass
