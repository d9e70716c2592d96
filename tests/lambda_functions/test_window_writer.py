"""The writer of windows: the newest row of each key, and from where a busy store is tried again."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from window_writer import handler as module
from window_writer.handler import RowError, feature_values, newest


def record(number: int, row: Any) -> dict[str, Any]:
    body = row if isinstance(row, bytes) else json.dumps(row).encode()
    return {"kinesis": {"sequenceNumber": str(number), "data": base64.b64encode(body).decode()}}


def row(key: str, hour: int, value: float | None = 1.5) -> dict[str, Any]:
    return {"region": key, "at": f"2026-03-01T{hour:02d}:00:00Z", "calls_24h": value}


class Store:
    """A feature store that keeps the newest event time and fails when told to."""

    def __init__(
        self, *, failing_at: int | None = None, code: str = "ThrottlingException", status: int = 400
    ) -> None:
        self.rows: dict[str, dict[str, str]] = {}
        self.calls = 0
        self.failing_at, self.code, self.status = failing_at, code, status

    def put_record(self, *, FeatureGroupName: str, Record: list[dict[str, str]]) -> None:  # noqa: N803
        assert FeatureGroupName == "group"
        self.calls += 1
        if self.calls == self.failing_at:
            raise ClientError(
                {
                    "Error": {"Code": self.code, "Message": "no"},
                    "ResponseMetadata": {"HTTPStatusCode": self.status},
                },  # type: ignore[typeddict-item]
                "PutRecord",
            )
        values = {v["FeatureName"]: v["ValueAsString"] for v in Record}
        stands = self.rows.get(values["region"])
        if stands is None or stands["at"] <= values["at"]:
            self.rows[values["region"]] = values


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("FEATURE_GROUP_NAME", "group"),
        ("KEY_FEATURE", "region"),
        ("EVENT_TIME_FEATURE", "at"),
    ):
        monkeypatch.setenv(name, value)


def answered(monkeypatch: pytest.MonkeyPatch, store: Store, records: list[dict[str, Any]]) -> Any:
    monkeypatch.setattr(module, "_store", lambda: store)
    return module.handler({"Records": records}, None)


@pytest.mark.usefixtures("environment")
def test_should_put_the_newest_row_of_each_key_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    rows = [
        record(1, row("north", 3)),
        record(2, row("south", 1)),
        record(3, row("north", 5)),
        record(4, row("north", 4)),
    ]
    assert answered(monkeypatch, store, rows) == {"batchItemFailures": []}
    assert store.calls == 2
    assert {k: v["at"] for k, v in store.rows.items()} == {
        "north": "2026-03-01T05:00:00Z",
        "south": "2026-03-01T01:00:00Z",
    }


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(("code", "status"), [("ThrottlingException", 400), ("Odd", 503)])
def test_should_be_tried_again_from_the_first_row_that_is_open(
    monkeypatch: pytest.MonkeyPatch, code: str, status: int
) -> None:
    rows = [record(1, row("north", 3)), record(2, row("south", 1)), record(3, row("south", 2))]
    answer = answered(monkeypatch, Store(failing_at=2, code=code, status=status), rows)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "2"}]}


@pytest.mark.usefixtures("environment")
def test_should_raise_what_no_retry_can_help(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClientError, match="ValidationError"):
        answered(monkeypatch, Store(failing_at=1, code="ValidationError"), [record(1, row("north", 3))])


@pytest.mark.parametrize("body", [b"{", {"region": "north"}, {"at": "x"}, [1]])
def test_should_name_the_record_that_is_no_row(body: Any) -> None:
    with pytest.raises(RowError, match="record 7"):
        newest([record(7, body)], "region", "at")


def test_should_write_values_as_texts_and_leave_out_what_is_missing() -> None:
    assert feature_values({"region": "north", "n": 3, "mean": 0.1, "none": None}) == [
        {"FeatureName": "region", "ValueAsString": "north"},
        {"FeatureName": "n", "ValueAsString": "3"},
        {"FeatureName": "mean", "ValueAsString": "0.1"},
    ]


@settings(max_examples=300)
@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 23)), min_size=1, max_size=30),
    failing_at=st.none() | st.integers(1, 6),
    again=st.booleans(),
)
def test_should_end_with_the_newest_row_whatever_fails_and_comes_again(
    rows: list[tuple[str, int]], failing_at: int | None, again: bool
) -> None:
    store = Store(failing_at=failing_at)
    records = [record(i, row(key, hour)) for i, (key, hour) in enumerate(rows)]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("FEATURE_GROUP_NAME", "group"),
            ("KEY_FEATURE", "region"),
            ("EVENT_TIME_FEATURE", "at"),
        ):
            patch.setenv(name, value)
        answer = answered(patch, store, records)
        while answer["batchItemFailures"]:
            start = int(answer["batchItemFailures"][0]["itemIdentifier"])
            answer = answered(patch, store, records[start:])
        if again:
            answered(patch, store, records[: len(records) // 2])
    expected: dict[str, str] = {}
    for key, hour in rows:
        at = row(key, hour)["at"]
        expected[key] = max(expected.get(key, ""), at)
    assert {k: v["at"] for k, v in store.rows.items()} == expected
