"""Lambda entry point ``kafka_bridge.handler.handler``: records of a Kafka topic to a Kinesis stream.

An event source mapping of the cluster calls it with a batch. Every record is put as it is, under its Kafka
key; from there on all is as if it had been sent to the stream. A batch is done when the stream has taken
all of it: otherwise the function raises, Lambda brings the batch again from its first offset, and what was
put twice is a duplicate that the batch run drops. A record that Kinesis can never take (longer than a
record may be) would hold its partition for ever: its place in the topic goes to a queue, where somebody finds
it while the topic still has the record, and the batch goes on.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import boto3
from botocore.config import Config

__all__ = ["Entry", "IncompleteError", "chunks", "entries", "handler"]

log = logging.getLogger()
log.setLevel(logging.INFO)

#: Amazon Kinesis Data Streams, PutRecords: 500 records and 10 MiB a request, partition keys included.
MOST_RECORDS = 500
MOST_BYTES = 10 * 1024 * 1024
#: Characters of a partition key.
LONGEST_KEY = 256
ATTEMPTS = 5
_PAUSE_SECONDS = 0.2

Entry = dict[str, Any]


class IncompleteError(RuntimeError):
    """The stream did not take every record of the batch; Lambda brings the batch again."""


@cache
def _client(service: str) -> Any:
    settings = Config(
        retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=2, read_timeout=10
    )
    make: Any = boto3.client
    return make(service, config=settings)


def handler(event: Mapping[str, Any], _context: object) -> dict[str, int]:
    """Put the records of a batch; raise when the stream has not taken all that it can take."""
    longest = int(os.environ["LONGEST_RECORD"])
    stream = os.environ["STREAM_NAME"]
    put = left_out = 0
    kept: list[Entry] = []
    for place, entry in entries(event):
        # A record's length is that of its data and its key together.
        length = _length(entry)
        if length > longest:
            left_out += 1
            _set_aside(place, length)
        else:
            kept.append(entry)
    for chunk in chunks(kept):
        put += _put(stream, chunk)
    log.info(json.dumps({"message": "forwarded", "put": put, "left_out": left_out}))
    return {"put": put, "left_out": left_out}


def entries(event: Mapping[str, Any]) -> Iterator[tuple[str, Entry]]:
    """Every record of the event with its place (topic, partition, offset), in the order of its partition."""
    for partition in event["records"].values():
        for record in partition:
            place = f"{record['topic']}-{record['partition']}@{record['offset']}"
            data = base64.b64decode(record.get("value") or "")
            key = base64.b64decode(record.get("key") or "").decode("utf-8", "replace")
            # Without a key any shard will do; the place spreads them.
            yield place, {"Data": data, "PartitionKey": (key or place)[:LONGEST_KEY]}


def chunks(found: list[Entry]) -> Iterator[list[Entry]]:
    """The entries in requests that PutRecords takes."""
    chunk: list[Entry] = []
    size = 0
    for entry in found:
        length = _length(entry)
        if chunk and (len(chunk) == MOST_RECORDS or size + length > MOST_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(entry)
        size += length
    if chunk:
        yield chunk


def _length(entry: Entry) -> int:
    return len(entry["Data"]) + len(entry["PartitionKey"].encode())


def _set_aside(place: str, length: int) -> None:
    note = json.dumps({"message": "record too long", "place": place, "bytes": length})
    log.error(note)
    _client("sqs").send_message(QueueUrl=os.environ["DEAD_LETTERS_URL"], MessageBody=note)


def _put(stream: str, chunk: list[Entry]) -> int:
    """Put until all are taken; the stream may take a part of a request (PutRecords, FailedRecordCount)."""
    open_ = chunk
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS * 2**attempt)
        answer = _client("kinesis").put_records(StreamName=stream, Records=open_)
        open_ = [e for e, r in zip(open_, answer["Records"], strict=True) if "ErrorCode" in r]
        if not open_:
            return len(chunk)
    raise IncompleteError(f"{stream} refused {len(open_)} of {len(chunk)} records {ATTEMPTS} times")
