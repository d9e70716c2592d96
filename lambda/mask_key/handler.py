"""CloudFormation custom resource: a random key in an object of S3, drawn once.

The key is never in a template, an answer or a log. It is not drawn again by an update, and a delete leaves
it: what was masked with it could not be joined any more.
"""

from __future__ import annotations

import json
import secrets
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import boto3
from botocore.exceptions import ClientError

__all__ = ["apply", "handler"]

#: As long as the digest of SHA-256 (RFC 2104, section 3: a longer key adds little, a shorter one is weaker).
KEY_BYTES = 32
#: A role's policy may take some seconds to be in force after it was attached (IAM, "Eventual consistency").
_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 3.0


def handler(event: Mapping[str, Any], _context: object) -> None:
    """Answer CloudFormation; a failure is reported to it, with its reason, and raised."""
    try:
        uri = apply(event, boto3.client("s3"))
    except Exception as error:
        _answer(event, "FAILED", reason=f"{type(error).__name__}: {error}")
        raise
    _answer(event, "SUCCESS", physical_id=uri)


def apply(event: Mapping[str, Any], s3: Any) -> str:
    """Draw the key unless there is one; return where it lies, which is the resource's id.

    ``ResourceProperties``: ``Bucket``, ``Object``.
    """
    if event["RequestType"] == "Delete":
        return str(event["PhysicalResourceId"])
    properties = event["ResourceProperties"]
    place = {"Bucket": properties["Bucket"], "Key": properties["Object"]}
    _patiently(lambda: _draw(s3, place))
    return f"s3://{place['Bucket']}/{place['Key']}"


def _draw(s3: Any, place: Mapping[str, str]) -> None:
    try:
        s3.put_object(**place, Body=f"{secrets.token_hex(KEY_BYTES)}\n".encode(), IfNoneMatch="*")
    except ClientError as error:
        if error.response["Error"]["Code"] != "PreconditionFailed":
            raise


def _patiently(action: Callable[[], None]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            action()
        except ClientError as error:
            if error.response["Error"]["Code"] != "AccessDenied" or time.monotonic() > deadline:
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
        "PhysicalResourceId": physical_id or event.get("PhysicalResourceId") or event["RequestId"],
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
