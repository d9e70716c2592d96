"""Lambda entry point: ``retraining_notices.handler.handler``, for an event of EventBridge."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from function_log import log
from lifecycle_notice import publish

from retraining_notices.aws import AwsSources
from retraining_notices.logic import BadEventError, Sources, notice_of
from retraining_notices.settings import MisconfiguredError, Settings

__all__ = ["handler"]


@cache
def _clients() -> tuple[Sources, Any]:
    config = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=3, read_timeout=10)
    sources = AwsSources(
        sagemaker=boto3.client("sagemaker", config=config), s3=boto3.client("s3", config=config)
    )
    return sources, boto3.client("sns", config=config)


def handler(event: object, context: object) -> dict[str, object]:
    """Tell people what the event says; what was said is returned and logged."""
    request = getattr(context, "aws_request_id", None)
    try:
        settings = Settings.from_environment(os.environ)
        sources, sns = _clients()
        notice = notice_of(event, sources, settings)
    except (BadEventError, MisconfiguredError) as error:
        log("ERROR", "cannot tell", error=type(error).__name__, why=str(error), request=request)
        raise
    if notice is None:
        return {"told": False}
    publish(sns, settings.topic_arn, notice)
    log(
        "INFO",
        "told",
        notice=notice.kind,
        workload=settings.workload,
        correlation_id=notice.correlation_id,
        request=request,
    )
    return {"told": True, **notice.document()}
