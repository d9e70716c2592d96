"""Lambda entry point: ``retrain_trigger.handler.handler``."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from function_log import log
from function_log.spans import traced
from lifecycle_notice import Notice, publish

from retrain_trigger.aws import SageMakerPipelines
from retrain_trigger.errors import RetrainError
from retrain_trigger.logic import Refusal, retrain
from retrain_trigger.settings import Settings

__all__ = ["handler"]


def _client(service: str) -> Any:
    # The function's own retries end well before its timeout; what is left over is Lambda's to try again.
    config = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=3, read_timeout=10)
    return boto3.client(service, config=config)  # type: ignore[call-overload]


@cache
def _pipelines(counts_rows: bool, sees_alarms: bool) -> SageMakerPipelines:
    # Clients cost time at a cold start.
    return SageMakerPipelines(
        _client("sagemaker"),
        _client("ssm"),
        _client("s3") if counts_rows else None,
        _client("cloudwatch") if sees_alarms else None,
    )


@traced("retrain")
def handler(event: object, context: object) -> dict[str, object]:
    """Start the training pipeline if the event calls for it; what was decided is returned and logged."""
    request = getattr(context, "aws_request_id", None)
    try:
        settings = Settings.from_environment(os.environ)
        pipelines = _pipelines(settings.new_data is not None, bool(settings.drift_alarms))
        now = datetime.now(UTC)
        result = retrain(event, pipelines, settings, now=now)
        refusal = result.pop("refusal", None)
        if isinstance(refusal, Refusal):
            result["told"] = _told(refusal, pipelines, settings, request=str(request), now=now)
    except RetrainError as error:
        log("ERROR", "cannot decide", error=type(error).__name__, why=str(error), request=request)
        raise
    log(
        "INFO",
        "decided",
        workload=settings.workload,
        pipeline=settings.pipeline_name,
        correlation_id=result.get("execution"),
        request=request,
        **result,
    )
    return result


def _told(
    refusal: Refusal, pipelines: SageMakerPipelines, settings: Settings, *, request: str, now: datetime
) -> bool:
    """Tell people that the budget is used up, once a month; whether this call did."""
    telling, budget, spent = settings.telling, settings.budget, refusal.spent
    if telling is None or budget is None:
        return False
    # Another limit is another thing to say.
    said = f"{spent.month}: {budget.usd or budget.runs} {'USD' if budget.runs is None else 'runs'}"
    if not pipelines.is_to_say(telling.told_parameter, said, request, now=now):
        return False
    in_usd = budget.usd is not None
    publish(
        _client("sns"),
        telling.topic_arn,
        Notice(
            kind="retraining.refused",
            workload=settings.workload,
            environment=telling.environment,
            title="no training: the budget of the month is used up",
            why=f"{refusal.why} (asked for: {refusal.reason})",
            time=refusal.time.isoformat(),
            correlation_id=f"{settings.pipeline_name} {spent.month}",
            numbers={
                "month": spent.month,
                "trainings": spent.runs,
                "budget of trainings": budget.runs,
                "spent USD": round(spent.usd, 6) if in_usd else None,
                "budget USD": budget.usd,
                "dearest training USD": round(spent.dearest_usd, 6) if in_usd else None,
                "prices of": spent.prices_of if in_usd else None,
            },
            links={"pipeline": settings.pipeline_name},
        ),
    )
    pipelines.said(telling.told_parameter, said)
    return True
