"""CloudFormation custom resource: a random key in an object of S3, drawn once.

The key is never in a template, an answer or a log. It is not drawn again by an update, and a delete leaves
it: what was masked with it could not be joined any more.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.exceptions import ClientError
from custom_resource import Made, answered, patiently

__all__ = ["apply", "handler"]

#: As long as the digest of SHA-256 (RFC 2104, section 3: a longer key adds little, a shorter one is weaker).
KEY_BYTES = 32


def handler(event: Mapping[str, Any], _context: object) -> None:
    """Answer CloudFormation; a failure is reported to it, with its reason, and raised."""
    answered(event, lambda: Made(id=apply(event, boto3.client("s3"))))


def apply(event: Mapping[str, Any], s3: Any) -> str:
    """Draw the key unless there is one; return where it lies, which is the resource's id.

    ``ResourceProperties``: ``Bucket``, ``Object``.
    """
    if event["RequestType"] == "Delete":
        return str(event["PhysicalResourceId"])
    properties = event["ResourceProperties"]
    place = {"Bucket": properties["Bucket"], "Key": properties["Object"]}
    patiently(lambda: _draw(s3, place))
    return f"s3://{place['Bucket']}/{place['Key']}"


def _draw(s3: Any, place: Mapping[str, str]) -> None:
    try:
        s3.put_object(**place, Body=f"{secrets.token_hex(KEY_BYTES)}\n".encode(), IfNoneMatch="*")
    except ClientError as error:
        if error.response["Error"]["Code"] != "PreconditionFailed":
            raise
