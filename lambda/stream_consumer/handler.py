"""Lambda entry point: ``stream_consumer.handler.handler``."""

from __future__ import annotations

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Final

import boto3
from botocore.config import Config
from function_log import log
from ml_contract.compiled import CompiledContract
from ml_contract.features.online import FeatureRecord, feature_record
from ml_contract.records.codec import RecordCodec
from record_transform.storage import Quarantine

from stream_consumer.consume import carry_out
from stream_consumer.errors import BadEventError, MisconfiguredError, TransformError
from stream_consumer.logic import plan
from stream_consumer.settings import Settings
from stream_consumer.store import OnlineStore

__all__ = ["handler"]

#: Calls at a time. PutRecord takes one record.
CALLS: Final = 16
#: Nothing new is begun in the last seconds: a function that is cut off answers nothing, and the whole batch
#: would be tried again.
RESERVE_MILLISECONDS: Final = 8_000


@cache
def _settings() -> Settings:
    return Settings.from_environment(os.environ)


@cache
def _reader() -> tuple[RecordCodec, FeatureRecord]:
    path = _settings().contract
    try:
        contract = CompiledContract.from_json(path.read_bytes())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MisconfiguredError(f"{path} is no compiled contract: {error!r}") from error
    return RecordCodec(contract), feature_record(contract)


@cache
def _services() -> tuple[OnlineStore, Quarantine]:
    settings = _settings()
    one = Config(
        # The store counts its own tries, with waits that know of each other.
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=2,
        read_timeout=5,
        max_pool_connections=CALLS,
    )
    three = Config(
        retries={"mode": "standard", "total_max_attempts": 3},
        connect_timeout=2,
        read_timeout=5,
        max_pool_connections=CALLS,
    )
    store = OnlineStore(boto3.client("sagemaker-featurestore-runtime", config=one), settings.feature_group)
    quarantine = Quarantine(
        boto3.client("s3", config=three), settings.quarantine_bucket, settings.quarantine_prefix
    )
    return store, quarantine


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CALLS, thread_name_prefix="put")


def handler(event: Any, context: Any) -> dict[str, list[dict[str, str]]]:
    """Bring the features of a batch into the online store; answer from where it must be tried again."""
    request = getattr(context, "aws_request_id", None)
    started = time.perf_counter()

    def out_of_time() -> bool:
        left = getattr(context, "get_remaining_time_in_millis", None)
        return left is not None and left() < RESERVE_MILLISECONDS

    try:
        codec, features = _reader()
        records = event.get("Records") if isinstance(event, dict) else None
        if not isinstance(records, list):
            raise BadEventError("the event has no list 'Records'; an event source mapping sends one")
        todo = plan(records, codec, features)
        outcome = carry_out(todo, *_services(), _pool(), out_of_time=out_of_time)
    except TransformError as error:
        log("ERROR", "batch failed", error=type(error).__name__, why=str(error), request=request)
        raise
    reasons = Counter(reason["code"] for _, line in todo.refused for reason in line["reasons"])
    log(
        "WARNING" if outcome.open else "INFO",
        "batch consumed",
        workload=codec.contract.name,
        received=len(records),
        put=outcome.put,
        quarantined=outcome.quarantined,
        tried_again=len(outcome.open),
        why=outcome.why,
        reasons=dict(reasons),
        milliseconds=round((time.perf_counter() - started) * 1000, 1),
        request=request,
    )
    return outcome.answer
