"""Handing dead letters to their function again: each once, what Lambda does not take stays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from rehearsal.redrive import RedriveError, event_of, redrive


class FakeSqs:
    """A queue that hides what was received."""

    def __init__(self, *bodies: str) -> None:
        self.waiting = [
            {"MessageId": str(n), "ReceiptHandle": f"r{n}", "Body": b} for n, b in enumerate(bodies)
        ]
        self.deleted: list[str] = []
        self.asked: list[int] = []

    def receive_message(self, **request: Any) -> Mapping[str, Any]:
        most = request["MaxNumberOfMessages"]
        self.asked.append(most)
        taken, self.waiting = self.waiting[:most], self.waiting[most:]
        return {"Messages": taken} if taken else {}

    def delete_message(self, **request: Any) -> None:
        self.deleted.append(request["ReceiptHandle"])


class FakeLambda:
    def __init__(self, *, status: int = 202) -> None:
        self.status = status
        self.events: list[Any] = []

    def invoke(self, **request: Any) -> Mapping[str, Any]:
        assert request["InvocationType"] == "Event"
        self.events.append(json.loads(request["Payload"]))
        return {"StatusCode": self.status}


def test_should_hand_over_every_event_once_and_delete_it() -> None:
    sqs, function = FakeSqs(*(json.dumps({"n": n}) for n in range(12))), FakeLambda()

    done = redrive(sqs, function, queue_url="q", function="f")

    assert done.events == 12
    assert [event["n"] for event in function.events] == list(range(12))
    assert sqs.deleted == [f"r{n}" for n in range(12)]


def test_should_stop_at_as_many_as_were_asked_for() -> None:
    sqs, function = FakeSqs(*("{}" for _ in range(15))), FakeLambda()

    assert redrive(sqs, function, queue_url="q", function="f", most=11).events == 11
    assert sqs.asked == [10, 1]
    assert len(sqs.waiting) == 4


def test_should_leave_what_lambda_does_not_take() -> None:
    sqs = FakeSqs("{}")
    with pytest.raises(RedriveError, match="f did not take 0: 500"):
        redrive(sqs, FakeLambda(status=500), queue_url="q", function="f")
    assert sqs.deleted == []


def test_should_leave_what_is_no_event() -> None:
    sqs = FakeSqs("not json")
    with pytest.raises(RedriveError, match="the message is no JSON: 'not json'"):
        redrive(sqs, FakeLambda(), queue_url="q", function="f")
    assert sqs.deleted == []


def test_should_open_the_envelope_of_a_destination_only() -> None:
    envelope = {"requestContext": {"condition": "RetriesExhausted"}, "requestPayload": {"reason": "r"}}

    assert event_of(json.dumps(envelope)) == {"reason": "r"}
    assert event_of('{"requestPayload": 1}') == {"requestPayload": 1}
