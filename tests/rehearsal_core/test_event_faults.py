"""Deliveries of EventBridge that are lost, doubled or overtaken on purpose."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rehearsal.event_faults import EventFaults
from rehearsal.server import ServerError, ServerProcess

A, B = {"detail-type": "a", "n": 1}, {"detail-type": "b", "n": 2}


def _met(faults: EventFaults, *events: dict[str, Any], target: str = "arn:queue") -> list[int]:
    arrived: list[int] = []
    for event in events:
        faults.meet(target, event, lambda n=event["n"]: arrived.append(n))  # type: ignore[misc]
    return arrived


def test_should_lose_double_and_leave_alone_in_the_order_of_the_steps() -> None:
    faults = EventFaults()
    faults.plan("a", "", ["drop", None, "twice"])

    assert _met(faults, A) == []
    assert _met(faults, A, B) == [1, 2]
    assert _met(faults, A) == [1, 1]
    assert _met(faults, A) == [1]


def test_should_touch_deliveries_to_the_named_target_only() -> None:
    faults = EventFaults()
    faults.plan("a", "function", ["drop"])

    assert _met(faults, A) == [1]
    assert _met(faults, A, target="arn:function:x") == []


def test_should_deliver_what_is_kept_back_once_when_the_plan_is_lifted() -> None:
    faults, arrived = EventFaults(), []
    faults.plan("a", "", ["hold"])
    faults.meet("arn:queue", A, lambda: arrived.append("first"))
    faults.meet("arn:queue", A, lambda: arrived.append("second"))

    assert faults.left() == [{"detail_type": "a", "target": "", "steps": [], "held": 1}]
    faults.plan("a", "", [])
    faults.forget()

    assert arrived == ["second", "first"]
    assert faults.left() == []


@pytest.fixture
def rule(client: Callable[[str], Any]) -> Iterator[Callable[[], int]]:
    """Send an event by a rule to a queue, and say how many messages have arrived."""
    events, sqs = client("events"), client("sqs")
    url = sqs.create_queue(QueueName="faulty")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allowed = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    events.put_rule(Name="faulty", EventPattern=json.dumps({"source": ["mine"]}))
    events.put_targets(Rule="faulty", Targets=[{"Id": "1", "Arn": arn}])

    def sent(number: int = 1) -> int:
        for _ in range(number):
            events.put_events(Entries=[{"Source": "mine", "DetailType": "told", "Detail": "{}"}])
        time.sleep(0.2)
        return len(sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []))

    yield sent
    events.remove_targets(Rule="faulty", Ids=["1"])
    sqs.delete_queue(QueueUrl=url)


@pytest.mark.slow
@pytest.mark.rehearsal
def test_should_meet_a_rules_delivery_and_say_so(server: ServerProcess, rule: Callable[..., int]) -> None:
    server.control("POST", "/faults/events", {"detail_type": "told", "target": "faulty", "steps": ["drop"]})
    assert rule() == 0
    server.control("POST", "/faults/events", {"detail_type": "told", "target": "faulty", "steps": ["twice"]})
    assert rule() == 2
    server.control("POST", "/faults/events", {"detail_type": "told", "target": "faulty", "steps": ["hold"]})
    assert rule() == 0
    server.control("POST", "/faults/events", {"forget": True})
    assert rule(0) == 1

    hits = [e for e in server.control("GET", "/ledger?kind=fault")["entries"] if e["name"] == "told"]
    assert [(hit["detail"]["what"], hit["detail"]["rule"]) for hit in hits] == [
        ("drop", "faulty"),
        ("twice", "faulty"),
        ("hold", "faulty"),
    ]


@pytest.mark.slow
@pytest.mark.rehearsal
def test_should_refuse_a_step_that_it_does_not_know(server: ServerProcess) -> None:
    with pytest.raises(ServerError, match="steps must be a list of drop, twice, hold and null"):
        server.control("POST", "/faults/events", {"detail_type": "told", "steps": ["late"]})
