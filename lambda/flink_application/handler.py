"""CloudFormation custom resource: a Flink application that runs while its stack stands.

CloudFormation makes an application and never starts it. This resource starts it after it was made, and stops
it before it is deleted; a changed application updates itself while it runs, so an update only starts one
that somebody has stopped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.exceptions import ClientError
from custom_resource import Made, answered, patiently

__all__ = ["apply", "handler"]

_PAUSE_SECONDS = 3.0
#: Stopping takes a snapshot first; what takes longer goes on behind CloudFormation's back.
_STOP_SECONDS = 480.0


def handler(event: Mapping[str, Any], _context: object) -> None:
    """Answer CloudFormation; a failure is reported to it, with its reason, and raised."""
    answered(event, lambda: Made(id=apply(event, boto3.client("kinesisanalyticsv2"))))


def apply(event: Mapping[str, Any], flink: Any) -> str:
    """Do what the request asks and return the resource's id. ``ResourceProperties``: ``ApplicationName``."""
    name: str = event["ResourceProperties"]["ApplicationName"]
    if event["RequestType"] == "Delete":
        _stop(flink, name)
    else:
        patiently(lambda: _start(flink, name))
    return f"running-{name}"


def _start(flink: Any, name: str) -> None:
    try:
        flink.start_application(ApplicationName=name)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceInUseException":  # it runs, or starts
            raise


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
