"""Lambda entry point: ``record_transform.handler.handler``."""

from __future__ import annotations

import os
import time
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from function_log import log
from ml_contract.compiled import CompiledContract
from ml_contract.records.codec import RecordCodec

from record_transform.errors import BadEventError, MisconfiguredError, TransformError
from record_transform.logic import transform
from record_transform.settings import Settings
from record_transform.storage import Quarantine

__all__ = ["handler"]

#: Ids of refused records that one line names.
MOST_IDS = 20


@cache
def _codec() -> RecordCodec:
    settings = Settings.from_environment(os.environ)
    try:
        return RecordCodec(CompiledContract.from_json(settings.contract.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MisconfiguredError(f"{settings.contract} is no compiled contract: {error!r}") from error


@cache
def _quarantine() -> Quarantine:
    settings = Settings.from_environment(os.environ)
    # Well within the function's timeout: what is left over is Firehose's to try again.
    config = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=3, read_timeout=10)
    client = boto3.client("s3", config=config)
    return Quarantine(client, settings.quarantine_bucket, settings.quarantine_prefix)


def handler(event: Any, context: object) -> dict[str, list[dict[str, str]]]:
    """Answer a Firehose batch. Refused records are in the quarantine before the answer says ``Dropped``."""
    request = getattr(context, "aws_request_id", None)
    started = time.perf_counter()
    try:
        codec = _codec()
        records = event.get("records") if isinstance(event, dict) else None
        if not isinstance(records, list):
            raise BadEventError("the event has no list 'records'; Firehose sends one")
        batch = transform(records, codec)
        where = (
            _quarantine().write(batch.quarantine_key, batch.quarantine_lines) if batch.quarantine else None
        )
    except TransformError as error:
        log("ERROR", "batch failed", error=type(error).__name__, why=str(error), request=request)
        raise
    log(
        "WARNING" if batch.too_long else "INFO",
        "batch transformed",
        workload=codec.contract.name,
        received=len(records),
        delivered=batch.delivered,
        quarantined=len(batch.quarantine),
        too_long_for_answer=batch.too_long,
        reasons=dict(batch.reasons),
        # Their ids, by which the quarantine's lines are found; a line of a log is no list of thousands.
        refused=[line["record_id"] for line in batch.quarantine[:MOST_IDS]],
        quarantine=where,
        milliseconds=round((time.perf_counter() - started) * 1000, 1),
        request=request,
    )
    return {"records": batch.records}
