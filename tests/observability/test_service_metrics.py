"""What services publish about themselves in the rehearsal."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from rehearsal import ministack_bridge as bridge
from rehearsal.control import ControlError
from rehearsal.executors import service_metrics


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was published."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(bridge, "put_metric", lambda **given: found.append(given))
    return found


NOW = datetime(2026, 11, 20, 12, 2, tzinfo=UTC)
RUNTIME: Any = SimpleNamespace(
    account="000000000000", region="us-east-1", clock=SimpleNamespace(timestamp=NOW.timestamp)
)
ALARM = {
    "MetricName": "ApproximateNumberOfMessagesVisible",
    "Dimensions": [{"Name": "QueueName", "Value": "given-up"}],
}


def test_should_tell_what_waits_in_watched_queues_and_once_that_nothing_does(
    monkeypatch: pytest.MonkeyPatch, published: list[dict[str, Any]]
) -> None:
    depths = {"given-up": 0, "other": 7}
    monkeypatch.setattr(bridge, "metric_alarms", lambda: [("a", "r", ALARM)])
    monkeypatch.setattr(bridge, "waiting_messages", lambda: dict(depths))
    source = service_metrics.WaitingMessages(RUNTIME)
    assert source.next_due(NOW) == ()

    depths["given-up"] = 2
    (due,) = source.next_due(NOW)
    assert due.when == NOW + timedelta(minutes=3)
    due.run()
    depths["given-up"] = 0
    (again,) = source.next_due(due.when)
    again.run()
    assert source.next_due(again.when) == ()
    assert [(p["dimensions"], p["values"]) for p in published] == [
        ({"QueueName": "given-up"}, [2.0]),
        ({"QueueName": "given-up"}, [0.0]),
    ]
    # An alarm that looks at 12:05 sees the minutes before.
    assert published[0]["timestamp"] < due.when.timestamp()


def test_should_publish_values_of_a_service_one_a_period(published: list[dict[str, Any]]) -> None:
    body = {"namespace": "AWS/SQS", "name": "Depth", "dimensions": {"Q": "x"}, "values": [1, 2]}
    assert service_metrics.publish(RUNTIME, {**body, "apart_seconds": 300}) == {"published": 2}
    assert [(NOW.timestamp() - p["timestamp"], p["values"]) for p in published] == [(1, [2]), (301, [1])]


@pytest.mark.parametrize("missing", ["namespace", "name", "values"])
def test_should_refuse_a_metric_without_name_or_value(missing: str, published: list[dict[str, Any]]) -> None:
    body: dict[str, Any] = {"namespace": "N", "name": "M", "values": [1]}
    del body[missing]
    with pytest.raises(ControlError, match=missing):
        service_metrics.publish(RUNTIME, body)
    assert published == []


def test_should_count_messages_that_can_be_received(monkeypatch: pytest.MonkeyPatch) -> None:
    from ministack.services import sqs

    arn = "arn:aws:sqs:us-east-1:000000000000:given-up"
    messages = [{"visible_at": time.time() - 1}, {"visible_at": time.time() + 60}]
    queue = {"attributes": {"QueueArn": arn}, "messages": messages}
    monkeypatch.setattr(sqs._queues, "_data", {"q": queue})
    assert bridge.waiting_messages() == {"given-up": 1}
