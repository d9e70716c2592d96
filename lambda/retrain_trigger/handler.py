"""Lambda entry point: ``retrain_trigger.handler.handler``."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import cache

import boto3
from botocore.config import Config
from function_log import log

from retrain_trigger.aws import SageMakerPipelines
from retrain_trigger.errors import RetrainError
from retrain_trigger.logic import Pipelines, retrain
from retrain_trigger.settings import Settings

__all__ = ["handler"]


@cache
def _pipelines() -> Pipelines:
    # The function's own retries end well before its timeout; what is left over is Lambda's to try again.
    config = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=3, read_timeout=10)
    return SageMakerPipelines(boto3.client("sagemaker", config=config), boto3.client("ssm", config=config))


def handler(event: object, context: object) -> dict[str, object]:
    """Start the training pipeline if the event calls for it; what was decided is returned and logged."""
    request = getattr(context, "aws_request_id", None)
    try:
        settings = Settings.from_environment(os.environ)
        result = retrain(event, _pipelines(), settings, now=datetime.now(UTC))
    except RetrainError as error:
        log("ERROR", "cannot decide", error=type(error).__name__, why=str(error), request=request)
        raise
    log(
        "INFO",
        "decided",
        workload=settings.workload,
        pipeline=settings.pipeline_name,
        request=request,
        **result,
    )
    return result
