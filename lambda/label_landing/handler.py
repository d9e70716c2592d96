"""Lambda entry point: ``label_landing.handler.handler``, fed by the queue of decided items.

A message is ``{"task": ..., "token": ...}``, without a token where nobody waits. The label is read from the
table of items, so that no message and no execution history holds an identifier. A batch is one commit. The
token is answered after the commit: an item is closed when its label is in the table, not before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from function_log import log
from lake_files.iceberg import glue_catalog

from label_landing.errors import BadEventError, LandingError, MisconfiguredError, TransientError
from label_landing.settings import Settings
from label_landing.table import LabelTable

__all__ = ["handler", "land"]

_CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=3, read_timeout=10)
#: A token that nobody waits for any more (SendTaskSuccess, Errors).
_GONE = frozenset({"TaskTimedOut", "TaskDoesNotExist", "InvalidToken"})


def land(
    records: Sequence[Mapping[str, Any]], items: Any, labels: LabelTable, stepfunctions: Any
) -> tuple[list[str], dict[str, Any]]:
    """Append the labels of a batch, then answer the tokens.

    Returns the ids of the messages that must come again, and what was counted.
    """
    failed: list[str] = []
    rows: dict[str, dict[str, Any]] = {}
    tokens: list[tuple[str, str, str | None]] = []
    for record in records:
        try:
            task, token = _message(record)
            rows[task] = rows.get(task) or _label(items, task)
            tokens.append((record["messageId"], task, token))
        except BadEventError as error:
            log("ERROR", "message refused", correlation_id=record.get("messageId"), why=str(error))
            failed.append(str(record.get("messageId")))
    new, snapshot = labels.append(list(rows.values())) if rows else (0, None)
    for message, task, token in tokens:
        if token is None:
            continue
        try:
            stepfunctions.send_task_success(
                taskToken=token, output=json.dumps({"task": task, "snapshot": snapshot})
            )
        except ClientError as error:
            if error.response["Error"]["Code"] not in _GONE:
                log("ERROR", "not answered", correlation_id=message, why=str(error))
                failed.append(message)
    return failed, {"received": len(records), "landed": new, "snapshot": snapshot, "failed": len(failed)}


def _message(record: Mapping[str, Any]) -> tuple[str, str | None]:
    try:
        body = json.loads(record["body"])
        token = body.get("token")
        return str(body["task"]), None if token is None else str(token)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadEventError(f"the body must hold a task: {error!r}") from error


def _label(items: Any, task: str) -> dict[str, Any]:
    found = items.get_item(Key={"task": task}, ConsistentRead=True).get("Item")
    if found is None or "decision" not in found:
        raise BadEventError(f"item {task} is {'not there' if found is None else 'not decided'}")
    return {
        **json.loads(found["decision"]),
        "identifier": found["identifier"],
        "origin": found["origin"],
        "task": task,
        "inference_id": found.get("inference_id"),
    }


@cache
def _clients() -> tuple[Any, Any]:
    return boto3.resource("dynamodb", config=_CONFIG), boto3.client("stepfunctions", config=_CONFIG)


@cache
def _labels(settings: Settings) -> LabelTable:
    return LabelTable(glue_catalog(boto3.client("glue", config=_CONFIG)), settings.labels)


def handler(event: Any, context: object) -> dict[str, list[dict[str, str]]]:
    """Land a batch of SQS messages; answer with those that failed (ReportBatchItemFailures)."""
    request = getattr(context, "aws_request_id", None)
    try:
        records = event.get("Records") if isinstance(event, Mapping) else None
        if not isinstance(records, list):
            raise BadEventError("the event has no list 'Records'; SQS sends one")
        settings = Settings.from_environment(os.environ)
        dynamodb, stepfunctions = _clients()
        failed, counts = _land(records, dynamodb.Table(settings.items), settings, stepfunctions)
    except LandingError as error:
        log("ERROR", "batch failed", error=type(error).__name__, why=str(error), request=request)
        raise
    log("INFO", "landed", request=request, **counts)
    return {"batchItemFailures": [{"itemIdentifier": message} for message in failed]}


def _land(
    records: Sequence[Mapping[str, Any]], items: Any, settings: Settings, stepfunctions: Any
) -> tuple[list[str], dict[str, Any]]:
    try:
        return land(records, items, _labels(settings), stepfunctions)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
            raise TransientError(str(error)) from error
        raise MisconfiguredError(str(error)) from error
    except (BotoCoreError, OSError) as error:
        raise TransientError(str(error)) from error
