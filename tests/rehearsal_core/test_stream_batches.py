"""What an event source mapping does with the batches of a shard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rehearsal.stream_batches import (
    EXHAUSTED,
    TOO_LARGE,
    TOO_OLD,
    GivenUp,
    Record,
    Result,
    Rules,
    batches,
    carry,
    event_of,
    size_in_event,
)

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def records(number: int, **changes: Any) -> list[Record]:
    return [Record(str(i), "k", b"x", changes.get("arrival", NOON)) for i in range(1, number + 1)]


class Function:
    """A function that fails as told, and remembers what it was asked."""

    def __init__(self, *results: Result) -> None:
        self.results = list(results)
        self.asked: list[str] = []
        self.given_up: list[GivenUp] = []

    def invoke(self, part: Sequence[Record]) -> Result:
        self.asked.append(",".join(record.sequence_number for record in part))
        return self.results.pop(0) if self.results else Result(answer={"batchItemFailures": []})

    def carry(self, batch: Sequence[Record], rules: Rules, *, size: int = 1) -> None:
        carry(
            batch,
            rules,
            size_of=lambda _record: size,
            invoke=self.invoke,
            give_up=self.given_up.append,
            now=lambda: NOON + timedelta(seconds=100),
        )


def open_from(number: int) -> Result:
    return Result(answer={"batchItemFailures": [{"itemIdentifier": str(number)}]})


ERROR = Result(error="it broke")


@pytest.mark.parametrize("answer", [None, {}, {"batchItemFailures": []}, "done"])
def test_should_take_an_answer_without_failures_for_success(answer: Any) -> None:
    function = Function(Result(answer=answer))
    function.carry(records(3), Rules(partial=True))
    assert function.asked == ["1,2,3"]


def test_should_try_again_from_the_lowest_number_that_is_named() -> None:
    failures = [{"itemIdentifier": "4"}, {"itemIdentifier": "2"}]
    function = Function(Result(answer={"batchItemFailures": failures}))
    function.carry(records(5), Rules(partial=True))
    assert function.asked == ["1,2,3,4,5", "2,3,4,5"]


@pytest.mark.parametrize(
    "answer",
    [
        {"batchItemFailures": [{"itemIdentifier": ""}]},
        {"batchItemFailures": [{"itemIdentifier": None}]},
        {"batchItemFailures": [{"identifier": "2"}]},
        {"batchItemFailures": [{"itemIdentifier": "77"}]},
        {"batchitemfailures": []},
    ],
)
def test_should_take_a_failure_that_names_nothing_for_the_whole_batch(answer: Any) -> None:
    function = Function(Result(answer=answer))
    function.carry(records(3), Rules(partial=True))
    assert function.asked == ["1,2,3", "1,2,3"]


def test_should_ignore_named_failures_where_they_are_not_asked_for() -> None:
    function = Function(open_from(2))
    function.carry(records(3), Rules(partial=False))
    assert function.asked == ["1,2,3"]


def test_should_halve_a_batch_that_fails_without_using_up_a_try() -> None:
    function = Function(ERROR, ERROR, Result(), ERROR, ERROR)
    function.carry(records(4), Rules(bisect=True, retries=1, partial=True))
    # The whole, its first half, that half's halves: the second of them is tried twice, as often as it may be.
    assert function.asked == ["1,2,3,4", "1,2", "1", "2", "2", "3,4"]
    (given,) = function.given_up
    assert ([r.sequence_number for r in given.records], given.condition) == (["2"], EXHAUSTED)


def test_should_give_up_the_rest_of_a_batch_after_its_tries() -> None:
    function = Function(open_from(2), open_from(3), open_from(3))
    function.carry(records(3), Rules(retries=2, partial=True))
    assert function.asked == ["1,2,3", "2,3", "3"]
    (given,) = function.given_up
    assert [r.sequence_number for r in given.records] == ["3"]
    assert given.tries == 3


def test_should_give_up_what_is_too_old_before_it_is_asked() -> None:
    old = Record("1", "k", b"x", NOON - timedelta(seconds=500))
    function = Function()
    function.carry([old, *records(3)[1:]], Rules(maximum_age_seconds=300))
    assert function.asked == ["2,3"]
    assert [(g.records, g.condition) for g in function.given_up] == [((old,), TOO_OLD)]


def test_should_give_up_a_record_that_no_invocation_holds_and_ask_for_the_others() -> None:
    long = Record("2", "k", b"x" * 100, NOON)
    todo = [*records(1), long, Record("3", "k", b"x", NOON)]
    function = Function()
    for batch in batches(todo, Rules(payload_bytes=50), lambda record: len(record.data)):
        carry(
            batch,
            Rules(payload_bytes=50),
            size_of=lambda record: len(record.data),
            invoke=function.invoke,
            give_up=function.given_up.append,
            now=lambda: NOON,
        )
    assert function.asked == ["1", "3"]
    assert [(g.records, g.condition) for g in function.given_up] == [((long,), TOO_LARGE)]


def test_should_divide_by_count_and_by_bytes() -> None:
    found = batches(records(7), Rules(batch_size=3, payload_bytes=25), lambda _record: 10)
    assert [len(batch) for batch in found] == [2, 2, 2, 1]
    found = batches(records(7), Rules(batch_size=3), lambda _record: 10)
    assert [len(batch) for batch in found] == [3, 3, 1]


def test_should_never_make_an_event_longer_than_it_reckons() -> None:
    record = Record("49665" * 11, "ké" * 60, b"\x00\xff" * 5_000, NOON)
    event = event_of(
        [record],
        shard="shardId-000000000000",
        stream_arn="arn:aws:kinesis:eu-central-1:123456789012:stream/" + "s" * 128,
        region="eu-central-1",
        role="arn:aws:iam::123456789012:role/" + "r" * 64,
    )
    assert len(json.dumps(event["Records"][0])) <= size_in_event(record)
