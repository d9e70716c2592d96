"""Lambda entry point: ``batch_landing.handler.handler``. The state machine names the task."""

from __future__ import annotations

import datetime as dt
import os
import time
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from function_log import log
from ml_contract.records.codec import RecordCodec

from batch_landing.errors import BadEventError, LandingError, told_apart
from batch_landing.logic import Landing
from batch_landing.settings import Settings
from batch_landing.storage import Store

__all__ = ["handler"]

NAMESPACE = "MLLifecycle/Sources"
_CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=3, read_timeout=30)


@cache
def _settings() -> Settings:
    return Settings.from_environment(os.environ)


@cache
def _landing() -> Landing:
    settings = _settings()
    s3 = boto3.client("s3", config=_CONFIG)
    return Landing(
        settings,
        Store(s3, settings.drop_bucket),
        Store(s3, settings.raw_bucket),
        RecordCodec(settings.contract),
        lambda: dt.datetime.now(dt.UTC),
    )


@cache
def _cloudwatch() -> Any:
    return boto3.client("cloudwatch", config=_CONFIG)


def handler(event: Any, context: object) -> dict[str, Any]:
    """Do one task of a batch: ``check``, ``land`` or ``finish``."""
    request = getattr(context, "aws_request_id", None)
    started = time.perf_counter()
    task = event.get("task") if isinstance(event, dict) else None
    try:
        if task == "check":
            answer = _landing().check(event)
        elif task == "land":
            answer = _landing().land(event)
        elif task == "finish":
            answer = _landing().finish(event)
            _measure(answer)
        else:
            raise BadEventError(f"task must be check, land or finish, got {task!r}")
    except LandingError as error:
        log("ERROR", "task failed", task=task, error=type(error).__name__, why=str(error), request=request)
        raise
    shown = {
        k: answer[k]
        for k in ("batch", "source", "outcome", "status", "read", "delivered", "quarantined", "reason")
        if k in answer
    }
    log(
        "WARNING" if answer.get("outcome") in ("refused", "incomplete", "failed") else "INFO",
        "task done",
        task=task,
        milliseconds=round((time.perf_counter() - started) * 1000, 1),
        request=request,
        **shown,
    )
    return answer


def _measure(batch: dict[str, Any]) -> None:
    """Tell CloudWatch of a batch. A repeated or refused one is not fresh: it brings nothing new."""
    settings = _settings()
    dimensions = [
        {"Name": "Environment", "Value": settings.environment},
        {"Name": "Workload", "Value": batch["workload"]},
        {"Name": "Source", "Value": batch["source"]},
    ]
    values = {
        "Batches": float(batch["outcome"] == "landed"),
        "RecordsDelivered": float(batch["delivered"]),
        "RecordsQuarantined": float(batch["quarantined"]),
    }
    try:
        _cloudwatch().put_metric_data(
            Namespace=NAMESPACE,
            MetricData=[
                {"MetricName": name, "Dimensions": dimensions, "Value": value, "Unit": "Count"}
                for name, value in values.items()
            ],
        )
    except (ClientError, BotoCoreError) as error:
        raise told_apart(error) from error
