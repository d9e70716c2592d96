"""Lambda entry point ``window_writer.handler.handler``: rows of the window job to the feature store.

An event source mapping of the windows' stream calls it. A row is put as it stands; the store keeps the
newest event time of a key, so a row that comes again or late changes nothing (Feature Store, "Ingest data
with PutRecord"). A row that cannot be put now is where the batch is tried again
(``ReportBatchItemFailures``); one that the store refuses for good raises, and Lambda keeps the batch aside
after its tries.
"""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

__all__ = ["RowError", "feature_values", "handler", "newest"]

log = logging.getLogger()
log.setLevel(logging.INFO)

#: Codes after which the same call may succeed.
_PASSING = frozenset(
    {"ThrottlingException", "Throttling", "InternalFailure", "ServiceUnavailable", "TooManyRequestsException"}
)


class RowError(ValueError):
    """A record of the stream that is no row of the window job."""


@cache
def _store() -> Any:
    settings = Config(
        retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=2, read_timeout=5
    )
    return boto3.client("sagemaker-featurestore-runtime", config=settings)


def handler(event: Mapping[str, Any], _context: object) -> dict[str, list[dict[str, str]]]:
    """Put the newest row of each key of a batch; return from where it has to be tried again, if at all."""
    key, event_time = os.environ["KEY_FEATURE"], os.environ["EVENT_TIME_FEATURE"]
    rows = newest(event["Records"], key, event_time)
    put = 0
    for sequence_number, row in rows:
        try:
            _store().put_record(FeatureGroupName=os.environ["FEATURE_GROUP_NAME"], Record=feature_values(row))
        except (ConnectionError, HTTPClientError) as error:
            return _again(sequence_number, put, error)
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if error.response["Error"]["Code"] in _PASSING or status >= 500:
                return _again(sequence_number, put, error)
            raise
        put += 1
    log.info(json.dumps({"message": "windows put", "rows": len(event["Records"]), "keys": put}))
    return {"batchItemFailures": []}


def _again(sequence_number: str, put: int, error: Exception) -> dict[str, list[dict[str, str]]]:
    log.warning(json.dumps({"message": "the feature store is busy", "put": put, "error": str(error)}))
    return {"batchItemFailures": [{"itemIdentifier": sequence_number}]}


def newest(records: list[Mapping[str, Any]], key: str, event_time: str) -> list[tuple[str, dict[str, Any]]]:
    """The newest row of each key, with the sequence number of the key's first row, in their order.

    Trying again from there repeats every row of the keys that are still open.

    Raises:
        RowError: a record that is no JSON object with a key and an event time.
    """
    first: dict[Any, str] = {}
    rows: dict[Any, dict[str, Any]] = {}
    for record in records:
        number = record["kinesis"]["sequenceNumber"]
        try:
            row = json.loads(base64.b64decode(record["kinesis"]["data"]))
        except ValueError as error:
            raise RowError(f"record {number} is not JSON: {error}") from error
        if not isinstance(row, dict) or row.get(key) is None or row.get(event_time) is None:
            raise RowError(f"record {number} has no {key} or no {event_time}")
        first.setdefault(row[key], number)
        # Texts of the same form: UTC, to the second.
        if row[key] not in rows or rows[row[key]][event_time] <= row[event_time]:
            rows[row[key]] = row
    return sorted(((first[k], row) for k, row in rows.items()), key=lambda pair: int(pair[0]))


def feature_values(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """A row as PutRecord takes it; what has no value is left out."""
    return [
        {"FeatureName": name, "ValueAsString": repr(value) if isinstance(value, float) else str(value)}
        for name, value in row.items()
        if value is not None
    ]
