"""Rows into the Feature Store: nothing is lost, nothing is invented."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from threading import Lock
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from build_features.ingest import ATTEMPTS, LONGEST_WAIT_SECONDS, as_text, put_all, record


class Store:
    """Takes records; answers the errors that a test gave for an identifier first."""

    def __init__(self, errors: dict[str, list[Exception]] | None = None) -> None:
        self.errors = errors or {}
        self.taken: list[dict[str, str]] = []
        self.calls = 0
        self._lock = Lock()

    def put_record(self, *, FeatureGroupName: str, Record: list[dict[str, str]]) -> dict[str, Any]:  # noqa: N803
        values = {item["FeatureName"]: item["ValueAsString"] for item in Record}
        with self._lock:
            self.calls += 1
            waiting = self.errors.get(values["id"])
            if waiting:
                raise waiting.pop(0)
            self.taken.append(values)
        return {}


def error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "PutRecord")


def no_wait(_: float) -> None:
    return None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (0.1, "0.1"),
        (1e20, "1e+20"),
        (True, "1"),
        ("a b", "a b"),
        (date(2025, 1, 2), "2025-01-02T00:00:00Z"),
        (datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC), "2025-01-02T03:04:05Z"),
    ],
)
def test_should_write_a_value_as_text(value: object, text: str) -> None:
    assert as_text(value) == text


def test_should_refuse_a_number_that_is_not_finite() -> None:
    with pytest.raises(ValueError, match="finite number, got inf"):
        as_text(math.inf)


def test_should_leave_missing_values_out_of_a_record() -> None:
    assert record({"id": "a", "x": None, "y": math.nan, "z": 0.0}) == [
        {"FeatureName": "id", "ValueAsString": "a"},
        {"FeatureName": "z", "ValueAsString": "0.0"},
    ]


def test_should_put_every_row_once() -> None:
    store = Store()
    taken, failures = put_all(store, "group", [{"id": str(n)} for n in range(450)], "id", sleep=no_wait)
    assert (taken, failures) == (450, [])
    assert sorted(int(values["id"]) for values in store.taken) == list(range(450))


def test_should_repeat_a_throttled_record_with_growing_waits() -> None:
    waits: list[float] = []
    unreachable = EndpointConnectionError(endpoint_url="http://x")
    store = Store({"a": [error("ThrottlingException"), error("ServiceUnavailable"), unreachable]})
    taken, failures = put_all(store, "group", [{"id": "a"}], "id", sleep=waits.append)
    assert (taken, failures) == (1, [])
    assert waits == [0.05, 0.1, 0.2]


def test_should_report_a_record_that_is_refused_and_go_on() -> None:
    store = Store({"b": [error("ValidationError")]})
    taken, failures = put_all(store, "group", [{"id": "a"}, {"id": "b"}, {"id": "c"}], "id", sleep=no_wait)
    assert taken == 2
    assert [(one.identifier, one.code) for one in failures] == [("b", "ValidationError")]
    assert store.calls == 3, "a refusal is not repeated"


def test_should_report_a_record_that_cannot_be_one() -> None:
    taken, failures = put_all(Store(), "group", [{"id": "a", "x": math.inf}], "id", sleep=no_wait)
    assert taken == 0
    assert failures[0].code == "ValueError"


def test_should_give_up_after_its_attempts() -> None:
    waits: list[float] = []
    store = Store({"a": [error("ThrottlingException")] * 100})
    taken, failures = put_all(store, "group", [{"id": "a"}], "id", sleep=waits.append)
    assert taken == 0
    assert failures[0].code == "ThrottlingException"
    assert store.calls == ATTEMPTS
    assert max(waits) <= LONGEST_WAIT_SECONDS


class OnlineStore(Store):
    """Takes a record only when its event time is greater, as the service does."""

    def __init__(self) -> None:
        super().__init__()
        self.online: dict[str, dict[str, str]] = {}
        self.deleted: list[dict[str, Any]] = []
        self.unprocessed = 0

    def put_record(self, *, FeatureGroupName: str, Record: list[dict[str, str]]) -> dict[str, Any]:  # noqa: N803
        super().put_record(FeatureGroupName=FeatureGroupName, Record=Record)
        values = {item["FeatureName"]: item["ValueAsString"] for item in Record}
        there = self.online.get(values["id"])
        if there is None or there["at"] < values["at"]:
            self.online[values["id"]] = values
        return {}

    def batch_get_record(self, *, Identifiers: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        [asked] = Identifiers
        names = asked["RecordIdentifiersValueAsString"]
        assert len(names) <= 100
        late = names[1:] if self.unprocessed else []
        self.unprocessed = max(0, self.unprocessed - 1)
        return {
            "Records": [
                {
                    "RecordIdentifierValueAsString": name,
                    "Record": [
                        {"FeatureName": key, "ValueAsString": value}
                        for key, value in self.online[name].items()
                    ],
                }
                for name in names
                if name in self.online and name not in late
            ],
            "Errors": [],
            "UnprocessedIdentifiers": [{**asked, "RecordIdentifiersValueAsString": late}] if late else [],
        }

    def delete_record(self, **request: Any) -> dict[str, Any]:
        there = self.online[request["RecordIdentifierValueAsString"]]
        assert request["EventTime"] > there["at"], "a deletion must be later than the record"
        del self.online[request["RecordIdentifierValueAsString"]]
        self.deleted.append(request)
        return {}


MORNING, EVENING = "2025-01-01T08:00:00Z", "2025-01-01T20:00:00Z"


def test_should_replace_a_record_of_the_same_event_in_the_online_store() -> None:
    store = OnlineStore()
    first = [{"id": str(n), "at": MORNING, "x": 1} for n in range(250)]
    assert put_all(store, "group", first, "id", event_time="at", sleep=no_wait) == (250, [])
    assert store.deleted == []
    store.unprocessed = 2
    again = [
        {"id": "0", "at": MORNING, "x": 1},
        {"id": "1", "at": MORNING, "x": 2},
        {"id": "2", "at": EVENING, "x": 2},
        {"id": "new", "at": MORNING},
    ]
    assert put_all(store, "group", again, "id", event_time="at", sleep=no_wait) == (4, [])
    assert (store.online["1"]["x"], store.online["2"]["x"]) == ("2", "2")
    # A newer event needs no deletion, nor does one that is new or the same; the offline store keeps all.
    assert [(d["RecordIdentifierValueAsString"], d["TargetStores"]) for d in store.deleted] == [
        ("1", ["OnlineStore"])
    ]


def test_should_not_touch_a_record_that_is_newer_than_the_row() -> None:
    store = OnlineStore()
    put_all(store, "group", [{"id": "1", "at": EVENING, "x": 2}], "id", event_time="at", sleep=no_wait)
    put_all(store, "group", [{"id": "1", "at": MORNING, "x": 1}], "id", event_time="at", sleep=no_wait)
    assert (store.online["1"]["x"], store.deleted, len(store.taken)) == ("2", [], 2)
