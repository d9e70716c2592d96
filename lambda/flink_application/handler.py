"""CloudFormation custom resource: a Flink application that runs while its stack stands.

CloudFormation makes an application and never starts it. This resource starts it after it was made, and stops
it before it is deleted; a changed application updates itself while it runs, so an update only starts one
that somebody has stopped.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.exceptions import ClientError

__all__ = ["apply", "handler"]

#: A role's policy may take some seconds to be in force after it was attached (IAM, "Eventual consistency").
_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 3.0
#: Stopping takes a snapshot first; what takes longer goes on behind CloudFormation's back.
_STOP_SECONDS = 480.0


def handler(event: Mapping[str, Any], _context: object) -> None:
    """Answer CloudFormation; a failure is reported to it, with its reason, and raised."""
    try:
        name = apply(event, boto3.client("kinesisanalyticsv2"))
    except Exception as error:
        _answer(event, "FAILED", reason=f"{type(error).__name__}: {error}")
        raise
    _answer(event, "SUCCESS", physical_id=name)


def apply(event: Mapping[str, Any], flink: Any) -> str:
    """Do what the request asks and return the resource's id. ``ResourceProperties``: ``ApplicationName``."""
    name: str = event["ResourceProperties"]["ApplicationName"]
    if event["RequestType"] == "Delete":
        _stop(flink, name)
    else:
        _start(flink, name)
    return f"running-{name}"


def _start(flink: Any, name: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            flink.start_application(ApplicationName=name)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "ResourceInUseException":  # it runs, or starts
                return
            if code != "AccessDeniedException" or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _stop(flink: Any, name: str) -> None:
    deadline = time.monotonic() + _STOP_SECONDS
    asked = False
    while time.monotonic() < deadline:
        try:
            status = flink.describe_application(ApplicationName=name)["ApplicationDetail"][
                "ApplicationStatus"
            ]
            if status == "READY":
                return
            if status == "RUNNING" and not asked:
                flink.stop_application(ApplicationName=name)
                asked = True
                continue
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                return
            raise
        time.sleep(_PAUSE_SECONDS)


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
