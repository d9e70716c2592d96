"""Lambda entry point: ``model_promotion.handler.handler``, for one batch of the promotion queue."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from function_log import log
from lifecycle_notice import publish

from model_promotion.aws import AwsCloud
from model_promotion.errors import BadMessageError, MisconfiguredError, PromotionError, TransientError
from model_promotion.logic import Cloud, Event, Outcome, handle
from model_promotion.notices import notice_of
from model_promotion.settings import Settings
from model_promotion.untold import left_untold

__all__ = ["handler"]

LATEST = datetime.max.replace(tzinfo=UTC)


@cache
def _sns() -> Any:
    return boto3.client("sns")


@cache
def _cloud(settings: Settings) -> Cloud:
    # The function's own retries end well before its timeout; what is left over is the queue's to try again.
    config = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=3, read_timeout=10)
    return AwsCloud(
        sagemaker=boto3.client("sagemaker", config=config),
        ssm=boto3.client("ssm", config=config),
        s3=boto3.client("s3", config=config),
        cloudformation=boto3.client("cloudformation", config=config),
        # Clients cost time at a cold start.
        cloudwatch=None if settings.challenger is None else boto3.client("cloudwatch", config=config),
        scheduler=None if settings.challenger is None else boto3.client("scheduler", config=config),
        stack_name=settings.stack_name,
        test=settings.challenger,
    )


def handler(event: Mapping[str, Any], context: object) -> dict[str, list[dict[str, str]]]:
    """Handle each message, the earliest event first; report those to be seen again as batch item failures."""
    request = getattr(context, "aws_request_id", None)
    try:
        settings = Settings.from_environment(os.environ)
    except MisconfiguredError as error:
        log("ERROR", "cannot start", error=type(error).__name__, why=str(error), request=request)
        raise
    failures = []
    for message_id, parsed, again in sorted(
        ((record["messageId"], _parse(record["body"]), _seen_before(record)) for record in event["Records"]),
        key=lambda item: item[1].time if isinstance(item[1], Event) else LATEST,
    ):
        fields: dict[str, object] = {
            "message_id": message_id,
            "request": request,
            "stack": settings.stack_name,
        }
        try:
            if isinstance(parsed, BadMessageError):
                raise parsed
            outcome = handle(parsed, _cloud(settings), settings)
        except PromotionError as error:
            level = "WARNING" if isinstance(error, TransientError) else "ERROR"
            log(level, "not handled", error=type(error).__name__, why=str(error), **fields)
            failures.append({"itemIdentifier": message_id})
        else:
            log(
                "INFO",
                outcome.action,
                why=outcome.why,
                package=outcome.package,
                event_id=parsed.id,
                **outcome.fields,
                **fields,
            )
            _tell(outcome, parsed, settings, fields, again=again)
    return {"batchItemFailures": failures}


def _seen_before(record: Mapping[str, Any]) -> bool:
    return int(record.get("attributes", {}).get("ApproximateReceiveCount", 1)) > 1


def _tell(
    outcome: Outcome, event: Event, settings: Settings, fields: Mapping[str, object], *, again: bool
) -> None:
    """Tell people of an outcome; of one seen ``again``, what an attempt did that ended before it could tell.

    What was done stays done: a notice that fails is logged, not tried again.
    """
    telling = settings.telling
    if telling is None:
        return
    try:
        cloud = _cloud(settings)
        if again and outcome.action == "ignored":
            outcome = left_untold(event, cloud, settings) or outcome
        notice = notice_of(outcome, event, cloud, settings, telling)
        if notice is not None:
            publish(_sns(), telling.topic_arn, notice)
    except (PromotionError, ClientError, BotoCoreError) as error:
        log("ERROR", "nobody was told", error=type(error).__name__, why=str(error), **fields)


def _parse(body: str) -> Event | BadMessageError:
    try:
        return Event.parse(json.loads(body))
    except ValueError:
        return BadMessageError(f"the message is no JSON: {body[:200]!r}")
    except BadMessageError as error:
        return error
