"""The Kafka bridge: nothing that the stream can take is lost, whatever the stream refuses."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka_bridge import handler as module
from kafka_bridge.handler import ATTEMPTS, LONGEST_KEY, IncompleteError, chunks, entries, handler

LONGEST = 1024 * 1024


class Stream:
    """Kinesis and SQS: takes or refuses by ``verdicts``, one for each record that is put."""

    def __init__(self, verdicts: Iterator[bool] | None = None) -> None:
        self.verdicts = verdicts
        self.taken: list[tuple[str, bytes]] = []
        self.requests: list[int] = []
        self.notes: list[dict[str, Any]] = []
        self.down = False

    def put_records(self, *, StreamName: str, Records: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        assert StreamName == "parcels"
        self.requests.append(len(Records))
        if self.down:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": "no"}}, "PutRecords")
        answers: list[dict[str, str]] = []
        for record in Records:
            if self.verdicts is None or next(self.verdicts, True):
                self.taken.append((record["PartitionKey"], record["Data"]))
                answers.append({"SequenceNumber": "1", "ShardId": "shard-0"})
            else:
                answers.append({"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "no"})
        return {"Records": answers, "FailedRecordCount": sum("ErrorCode" in a for a in answers)}

    def send_message(self, *, QueueUrl: str, MessageBody: str) -> None:  # noqa: N803
        assert QueueUrl == "https://queue"
        self.notes.append(json.loads(MessageBody))


def use(stream: Stream, patch: pytest.MonkeyPatch) -> Stream:
    patch.setattr(module, "_client", lambda _service: stream)
    patch.setattr(module.time, "sleep", lambda _seconds: None)
    patch.setenv("STREAM_NAME", "parcels")
    patch.setenv("LONGEST_RECORD", str(LONGEST))
    patch.setenv("DEAD_LETTERS_URL", "https://queue")
    return stream


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    return use(Stream(), monkeypatch)


def encoded(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def event(*partitions: list[tuple[bytes | None, bytes | None]]) -> dict[str, Any]:
    """A batch as Lambda brings it: key and value of each record by partition."""
    return {
        "eventSource": "aws:kafka",
        "records": {
            f"t-{number}": [
                {
                    "topic": "t",
                    "partition": number,
                    "offset": offset,
                    **({} if key is None else {"key": encoded(key)}),
                    "value": encoded(value),
                }
                for offset, (key, value) in enumerate(records)
            ]
            for number, records in enumerate(partitions)
        },
    }


def test_should_put_each_record_as_it_is_under_its_key_in_the_order_of_its_partition(stream: Stream) -> None:
    batch = event([(b"a", b"1"), (b"b", b"\xff\x00"), (b"a", b"3")], [(b"c", b"4")])
    assert handler(batch, None) == {"put": 4, "left_out": 0}
    assert stream.taken == [("a", b"1"), ("b", b"\xff\x00"), ("a", b"3"), ("c", b"4")]


def test_should_find_a_key_for_records_without_a_usable_one(stream: Stream) -> None:
    long = "ä".encode() * 300
    handler(event([(None, b"1"), (b"", b"2"), (long, b"3"), (b"\xff\xfe", b"4")]), None)
    keys = [key for key, _ in stream.taken]
    assert keys == ["t-0@0", "t-0@1", "ä" * LONGEST_KEY, "\ufffd\ufffd"]


def test_should_forward_a_record_without_a_value_as_an_empty_one(stream: Stream) -> None:
    assert handler(event([(b"gone", None)]), None) == {"put": 1, "left_out": 0}
    assert stream.taken == [("gone", b"")]


def test_should_put_again_only_what_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = use(Stream(iter([True, False, True, False, True])), monkeypatch)
    assert handler(event([(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]), None)["put"] == 3
    assert stream.requests == [3, 1, 1]
    assert sorted(stream.taken) == [("a", b"1"), ("b", b"2"), ("c", b"3")]


def test_should_raise_when_the_stream_keeps_refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = use(Stream(iter([True] + [False] * 99)), monkeypatch)
    with pytest.raises(IncompleteError, match="refused 1 of 2 records 5 times"):
        handler(event([(b"a", b"1"), (b"b", b"2")]), None)
    assert len(stream.requests) == ATTEMPTS


def test_should_let_an_error_of_the_service_bring_the_batch_again(stream: Stream) -> None:
    stream.down = True
    with pytest.raises(ClientError, match="ResourceNotFound"):
        handler(event([(b"a", b"1")]), None)


def test_should_leave_the_place_of_a_record_that_is_too_long_key_included(stream: Stream) -> None:
    fits, too_long = b"x" * (LONGEST - 1), b"x" * LONGEST
    got = handler(event([(b"k", fits), (b"k", too_long), (b"k", b"after")]), None)
    assert got == {"put": 2, "left_out": 1}
    assert [data for _, data in stream.taken] == [fits, b"after"]
    assert stream.notes == [{"message": "record too long", "place": "t-0@1", "bytes": LONGEST + 1}]


def test_should_not_lose_the_place_when_the_queue_is_away(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "QueueDoesNotExist", "Message": "no"}}, "SendMessage")

    monkeypatch.setattr(stream, "send_message", refuse)
    with pytest.raises(ClientError, match="QueueDoesNotExist"):
        handler(event([(b"k", b"x" * LONGEST)]), None)


@settings(max_examples=300, deadline=None)
@given(
    lengths=st.lists(st.sampled_from([0, 1, 1000, 400_000, LONGEST - 2]), max_size=40),
    repeat=st.integers(1, 30),
)
def test_should_make_requests_that_kinesis_takes(lengths: list[int], repeat: int) -> None:
    found = [{"Data": bytes(length), "PartitionKey": "kä"[: 1 + length % 2]} for length in lengths * repeat]
    made = list(chunks(found))
    assert [entry for chunk in made for entry in chunk] == found
    assert all(1 <= len(chunk) <= 500 for chunk in made)
    sizes = [sum(len(e["Data"]) + len(e["PartitionKey"].encode()) for e in chunk) for chunk in made]
    assert all(size <= 10 * 1024 * 1024 for size in sizes)


RECORDS = st.lists(
    st.tuples(st.none() | st.binary(max_size=8), st.none() | st.binary(max_size=20)), max_size=30
)


@settings(max_examples=1000, deadline=None)
@given(
    partitions=st.lists(RECORDS, max_size=3),
    verdicts=st.lists(st.booleans(), max_size=200),
    long_at=st.none() | st.integers(0, 29),
)
def test_should_lose_nothing_whatever_the_stream_refuses(
    partitions: list[list[tuple[bytes | None, bytes | None]]], verdicts: list[bool], long_at: int | None
) -> None:
    """Deliver the batch until it is done, as Lambda does: each record is taken or its place is kept."""
    if partitions and long_at is not None:
        partitions[0].insert(min(long_at, len(partitions[0])), (b"k", bytes(LONGEST)))
    batch = event(*partitions)
    sent = list(entries(batch))
    with pytest.MonkeyPatch.context() as patch:
        stream = use(Stream(iter(verdicts)), patch)
        for _ in range(len(verdicts) + 1):
            try:
                counts = handler(batch, None)
                break
            except IncompleteError:
                continue
        else:
            pytest.fail("a stream that takes everything at last did not end the batch")
    taken = {(key, data) for key, data in stream.taken}
    kept = {note["place"] for note in stream.notes}
    for place, entry in sent:
        assert ((entry["PartitionKey"], entry["Data"]) in taken) != (place in kept)
    assert counts["put"] + counts["left_out"] == len(sent)
    assert len(stream.taken) >= counts["put"]
