"""How Lambda's event source mapping treats the batches of one shard. Pure: no AWS in here.

Lambda Developer Guide, "Process Amazon Kinesis Data Streams records with Lambda": batches in order, tried
again from the lowest sequence number that the function names, halved when the function fails, given up after
so many tries or at such an age. Where the guide is silent this is the stricter reading: a batch that got on a
little has used up a try all the same.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

__all__ = ["GivenUp", "Record", "Result", "Rules", "batches", "carry", "event_of"]

#: A synchronous invocation takes so much (Lambda quotas, "Invocation payload").
PAYLOAD_BYTES = 6 * 1024 * 1024
#: Why records were given up. The first is the guide's; the guide shows no word for the others.
EXHAUSTED = "RetryAttemptsExhausted"
TOO_OLD = "MaximumRecordAgeExceeded"
TOO_LARGE = "PayloadSizeLimitExceeded"


@dataclass(frozen=True)
class Record:
    """A record of a shard."""

    sequence_number: str
    partition_key: str
    data: bytes
    #: On the clock that ages are measured by.
    arrival: datetime


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The settings of a mapping. None stands for no bound."""

    batch_size: int = 100
    retries: int | None = None
    maximum_age_seconds: int | None = None
    bisect: bool = False
    partial: bool = False
    payload_bytes: int = PAYLOAD_BYTES


@dataclass(frozen=True)
class Result:
    """What an invocation ended with: its answer, or the error it failed with."""

    answer: Any = None
    error: str | None = None


@dataclass(frozen=True)
class GivenUp:
    """Records that are not tried again."""

    records: tuple[Record, ...]
    condition: str
    tries: int
    error: str


@dataclass(frozen=True)
class _Work:
    records: tuple[Record, ...]
    tries: int = 0


def batches(
    records: Sequence[Record], rules: Rules, size_of: Callable[[Record], int]
) -> Iterator[tuple[Record, ...]]:
    """Divide records as they are handed to the function: so many, and so many bytes of event.

    A record that alone is too long for an event is a batch of its own.
    """
    batch: list[Record] = []
    held = 0
    for record in records:
        size = size_of(record)
        if batch and (len(batch) == rules.batch_size or held + size > rules.payload_bytes):
            yield tuple(batch)
            batch, held = [], 0
        batch.append(record)
        held += size
    if batch:
        yield tuple(batch)


def carry(
    batch: Sequence[Record],
    rules: Rules,
    *,
    size_of: Callable[[Record], int],
    invoke: Callable[[Sequence[Record]], Result],
    give_up: Callable[[GivenUp], None],
    now: Callable[[], datetime],
    pause: Callable[[int], None] = lambda _tries: None,
) -> None:
    """Carry one batch to its end: every record was answered for, or given up.

    ``pause(tries)`` is called before a batch is tried again.
    """
    todo = deque([_Work(tuple(batch))])
    while todo:
        work = todo.popleft()
        if not work.records:
            continue
        if sum(size_of(record) for record in work.records) > rules.payload_bytes:
            if len(work.records) == 1:
                text = f"the record alone is longer than an invocation takes, {rules.payload_bytes} bytes"
                give_up(GivenUp(work.records, TOO_LARGE, work.tries, text))
                continue
            todo.extendleft(reversed(_halves(work)))
            continue
        work = _without_old(work, rules, give_up, now)
        if not work.records:
            continue
        result = invoke(work.records)
        left = _left(work.records, result, rules)
        if not left:
            continue
        failed = result.error is not None or len(left) == len(work.records)
        error = result.error or "the function reported failed records"
        if failed and rules.bisect and len(left) > 1:
            # Halving does not use up a try.
            todo.extendleft(reversed(_halves(work)))
            continue
        work = replace(work, records=left, tries=work.tries + 1)
        if rules.retries is not None and work.tries > rules.retries:
            give_up(GivenUp(work.records, EXHAUSTED, work.tries, error))
            continue
        pause(work.tries)
        todo.appendleft(work)


def _halves(work: _Work) -> list[_Work]:
    middle = (len(work.records) + 1) // 2
    return [replace(work, records=part) for part in (work.records[:middle], work.records[middle:])]


def _without_old(
    work: _Work, rules: Rules, give_up: Callable[[GivenUp], None], now: Callable[[], datetime]
) -> _Work:
    if rules.maximum_age_seconds is None:
        return work
    moment, most = now(), rules.maximum_age_seconds
    old = tuple(r for r in work.records if (moment - r.arrival).total_seconds() > most)
    if old:
        give_up(GivenUp(old, TOO_OLD, work.tries, f"older than {most} seconds"))
    return replace(work, records=tuple(r for r in work.records if r not in set(old)))


def _left(records: tuple[Record, ...], result: Result, rules: Rules) -> tuple[Record, ...]:
    """Return the records to try again after an invocation.

    "Configuring partial batch response": no failure named is success, one without a usable identifier is the
    failure of the whole batch, and else everything from the lowest sequence number on is tried again.
    """
    if result.error is not None:
        return records
    if not rules.partial or not isinstance(result.answer, Mapping):
        return ()
    failures = result.answer.get("batchItemFailures")
    if not failures:
        # A misspelt key is a complete failure, an empty answer a success.
        return () if failures is not None or not result.answer else records
    known = {record.sequence_number: at for at, record in enumerate(records)}
    positions = []
    for failure in failures:
        number = failure.get("itemIdentifier") if isinstance(failure, Mapping) else None
        if number not in known:
            return records
        positions.append(known[number])
    return records[min(positions) :]


def event_of(
    records: Sequence[Record], *, shard: str, stream_arn: str, region: str, role: str
) -> dict[str, Any]:
    """Build the event that the function is invoked with."""
    return {
        "Records": [
            {
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": record.partition_key,
                    "sequenceNumber": record.sequence_number,
                    "data": base64.b64encode(record.data).decode(),
                    "approximateArrivalTimestamp": round(record.arrival.timestamp(), 3),
                },
                "eventSource": "aws:kinesis",
                "eventVersion": "1.0",
                "eventID": f"{shard}:{record.sequence_number}",
                "eventName": "aws:kinesis:record",
                "invokeIdentityArn": role,
                "awsRegion": region,
                "eventSourceARN": stream_arn,
            }
            for record in records
        ]
    }


def size_in_event(record: Record) -> int:
    """Bytes that a record takes in the event: its data in base64 and what stands around it."""
    around = len(json.dumps(record.partition_key)) + 800
    return 4 * ((len(record.data) + 2) // 3) + around
