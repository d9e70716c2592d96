"""Rows of the features zone as records of a Feature Store feature group.

The online store takes a record only when its event time is *greater* than that of the record it has; another
version of the same event would reach the offline store alone (PutRecord). Such a record is taken out of the
online store first, so that a correction, or a feature that was added, shows there too. In between a reader
finds none.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any

#: Parallel calls of one Spark task; a task is one core.
CALLS = 8
#: PutRecord takes one record; so many are in flight as one batch of work.
BATCH = 200
#: Records that BatchGetRecord takes of one group.
LOOKED_AT = 100
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
    event_time: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[int, list[Failure]]:
    """Put every row; returns how many were taken and each one that was not.

    ``event_time`` names that column where the group has an online store: records that are there with the same
    event time and other values are replaced. Without it every row is only put.
    """
    taken = 0
    failures: list[Failure] = []

    with ThreadPoolExecutor(CALLS) as pool:
        for batch in _batches(iter(rows)):
            there: set[str] = set()
            if event_time is not None:
                try:
                    there = _outdated(client, feature_group, batch, identifier, event_time, sleep)
                except _RefusedError as error:
                    failures += [Failure(str(row[identifier]), error.code, error.message) for row in batch]
                    continue

            def put(row: Mapping[str, Any], there: set[str] = there) -> Failure | None:
                name = str(row[identifier])
                try:
                    if name in there:
                        _take_out(client, feature_group, name, str(row[str(event_time)]), sleep)
                    fields = record(row)
                    _patiently(
                        lambda: client.put_record(FeatureGroupName=feature_group, Record=fields), sleep
                    )
                except _RefusedError as error:
                    return Failure(name, error.code, error.message)
                except ValueError as error:
                    # The row itself cannot be a record.
                    return Failure(name, type(error).__name__, str(error))
                return None

            for failure in pool.map(put, batch):
                if failure is None:
                    taken += 1
                else:
                    failures.append(failure)
    return taken, failures


def _batches(rows: Iterator[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    while batch := list(islice(rows, BATCH)):
        yield batch


class _RefusedError(Exception):
    """A call that was refused, or whose repetitions are used up."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


def _outdated(  # noqa: PLR0917 - one call, told everything
    client: Any,
    feature_group: str,
    rows: list[Mapping[str, Any]],
    identifier: str,
    event_time: str,
    sleep: Callable[[float], None],
) -> set[str]:
    """Identifiers whose record in the online store has the event time of their row, and other values."""
    wanted = {str(row[identifier]): row for row in rows}
    found: set[str] = set()
    for start in range(0, len(wanted), LOOKED_AT):
        left = sorted(wanted)[start : start + LOOKED_AT]
        while left:
            answer = _patiently(partial(_look, client, feature_group, left), sleep)
            for error in answer["Errors"]:
                raise _RefusedError(error["ErrorCode"], error["ErrorMessage"])
            for one in answer["Records"]:
                name = one["RecordIdentifierValueAsString"]
                stored = {f["FeatureName"]: f["ValueAsString"] for f in one["Record"]}
                if stored.get(event_time) == as_text(wanted[name][event_time]) and stored != _texts(
                    wanted[name]
                ):
                    found.add(name)
            left = [
                name
                for item in answer["UnprocessedIdentifiers"]
                for name in item["RecordIdentifiersValueAsString"]
            ]
    return found


def _look(client: Any, feature_group: str, identifiers: list[str]) -> Any:
    return client.batch_get_record(
        Identifiers=[{"FeatureGroupName": feature_group, "RecordIdentifiersValueAsString": identifiers}]
    )


def _texts(row: Mapping[str, Any]) -> dict[str, str]:
    try:
        return {item["FeatureName"]: item["ValueAsString"] for item in record(row)}
    except ValueError:
        return {}  # what is wrong with the row shows when it is put


def _take_out(
    client: Any, feature_group: str, identifier: str, moment: str, sleep: Callable[[float], None]
) -> None:
    """Remove a record from the online store for good; the offline store keeps all of its history."""
    # A deletion must be later than the record (DeleteRecord). Nothing of it is kept: no mark, no time.
    later = datetime.fromisoformat(moment.replace("Z", "+00:00")).astimezone(UTC) + timedelta(seconds=1)
    _patiently(
        lambda: client.delete_record(
            FeatureGroupName=feature_group,
            RecordIdentifierValueAsString=identifier,
            EventTime=as_text(later),
            TargetStores=["OnlineStore"],
            DeletionMode="HardDelete",
        ),
        sleep,
    )


def _patiently(call: Callable[[], Any], sleep: Callable[[float], None]) -> Any:
    """Make a call, again while it fails for a reason that passes.

    :raises _RefusedError: it was refused, or no attempt is left
    """
    from botocore.exceptions import BotoCoreError, ClientError

    wait = FIRST_WAIT_SECONDS
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call()
        except ClientError as error:
            code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
            if code not in TRANSIENT or attempt == ATTEMPTS:
                raise _RefusedError(code, message) from error
        except BotoCoreError as error:
            # No answer came.
            if attempt == ATTEMPTS:
                raise _RefusedError(type(error).__name__, str(error)) from error
        sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)
    raise AssertionError("the last attempt returns or raises")


def has_online_store(client: Any, feature_group: str) -> bool:
    """Whether records of the group can be read one by one. ``client`` is SageMaker's own."""
    found = client.describe_feature_group(FeatureGroupName=feature_group)
    return bool((found.get("OnlineStoreConfig") or {}).get("EnableOnlineStore"))
