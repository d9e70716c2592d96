"""Rows of the features zone as records of a Feature Store feature group."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from itertools import islice
from typing import Any

#: Parallel calls of one Spark task; a task is one core.
CALLS = 8
#: PutRecord takes one record; so many are in flight as one batch of work.
BATCH = 200
ATTEMPTS = 8
#: Errors that a repetition may heal. ValidationError and AccessForbidden stay what they are.
TRANSIENT = frozenset(
    {
        "InternalFailure",
        "InternalServerError",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
FIRST_WAIT_SECONDS = 0.05
LONGEST_WAIT_SECONDS = 5.0


@dataclass(frozen=True)
class Failure:
    """A record that the Feature Store did not take."""

    identifier: str
    code: str
    message: str


def record(row: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row as PutRecord wants it: every value as text, what is missing left out."""
    return [
        {"FeatureName": name, "ValueAsString": as_text(value)}
        for name, value in row.items()
        if value is not None and not (isinstance(value, float) and math.isnan(value))
    ]


def as_text(value: object) -> str:
    """A value as the Feature Store's text: shortest exact number, ISO 8601 time in UTC, 0 or 1 for a bool."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float):
        if math.isinf(value):
            raise ValueError(f"a feature must be a finite number, got {value}")
        return repr(value)
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, date):
        return value.strftime("%Y-%m-%dT00:00:00Z")
    return str(value)


def put_all(
    client: Any,
    feature_group: str,
    rows: Iterable[Mapping[str, Any]],
    identifier: str,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[int, list[Failure]]:
    """Put every row; returns how many were taken and each one that was not."""
    taken = 0
    failures: list[Failure] = []

    def put(row: Mapping[str, Any]) -> Failure | None:
        return _put(client, feature_group, row, str(row[identifier]), sleep)

    with ThreadPoolExecutor(CALLS) as pool:
        for batch in _batches(iter(rows)):
            for failure in pool.map(put, batch):
                if failure is None:
                    taken += 1
                else:
                    failures.append(failure)
    return taken, failures


def _batches(rows: Iterator[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    while batch := list(islice(rows, BATCH)):
        yield batch


def _put(
    client: Any, feature_group: str, row: Mapping[str, Any], identifier: str, sleep: Callable[[float], None]
) -> Failure | None:
    from botocore.exceptions import BotoCoreError, ClientError

    wait = FIRST_WAIT_SECONDS
    for attempt in range(1, ATTEMPTS + 1):
        try:
            client.put_record(FeatureGroupName=feature_group, Record=record(row))
        except ClientError as error:
            code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
            if code not in TRANSIENT or attempt == ATTEMPTS:
                return Failure(identifier, code, message)
        except (BotoCoreError, ValueError) as error:
            # No answer came (retried), or the row itself cannot be a record (not retried).
            if isinstance(error, ValueError) or attempt == ATTEMPTS:
                return Failure(identifier, type(error).__name__, str(error))
        else:
            return None
        sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)
    raise AssertionError("the last attempt returns")
