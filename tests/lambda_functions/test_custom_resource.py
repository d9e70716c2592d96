"""What the functions behind custom resources share."""

from __future__ import annotations

import io
import json
import urllib.request
from typing import Any

import custom_resource
import pytest
from botocore.exceptions import ClientError
from custom_resource import Made, answered, patiently

EVENT = {
    "RequestType": "Create",
    "RequestId": "request-1",
    "StackId": "stack-1",
    "LogicalResourceId": "Thing",
    "ResponseURL": "https://example.com/answer",
}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    def urlopen(request: urllib.request.Request, timeout: float) -> io.BytesIO:
        assert request.get_method() == "PUT"
        assert timeout > 0
        assert isinstance(request.data, bytes)
        sent.append(json.loads(request.data))
        return io.BytesIO()

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return sent


def refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "PutThing")


def test_should_answer_with_the_id_and_the_attributes(answers: list[dict[str, Any]]) -> None:
    answered(EVENT, lambda: Made(id="thing-7", attributes={"Name": "seven"}))
    assert answers == [
        {
            "Status": "SUCCESS",
            "Reason": "",
            "PhysicalResourceId": "thing-7",
            "StackId": "stack-1",
            "RequestId": "request-1",
            "LogicalResourceId": "Thing",
            "Data": {"Name": "seven"},
        }
    ]


@pytest.mark.parametrize(
    ("more", "failed_id", "expected"),
    [
        ({"PhysicalResourceId": "thing-7"}, "thing-8", "thing-7"),
        ({}, "thing-8", "thing-8"),
        ({}, None, "request-1"),
    ],
)
def test_should_report_a_failure_with_an_id_that_can_be_deleted(
    answers: list[dict[str, Any]], more: dict[str, str], failed_id: str | None, expected: str
) -> None:
    def work() -> Made:
        raise ValueError("x" * 5_000)

    with pytest.raises(ValueError, match="xxx"):
        answered({**EVENT, **more}, work, failed_id=failed_id)
    assert answers[0]["Status"] == "FAILED"
    assert answers[0]["Reason"].startswith("ValueError: xxx")
    assert len(json.dumps(answers[0])) < 4_096
    assert answers[0]["PhysicalResourceId"] == expected


def test_should_wait_for_a_role_that_is_not_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custom_resource, "PAUSE_SECONDS", 0.0)
    outcomes = [refused("AccessDenied"), refused("AccessDeniedException"), None]

    def action() -> None:
        if (error := outcomes.pop(0)) is not None:
            raise error

    patiently(action)
    assert outcomes == []


def test_should_not_wait_for_what_waiting_cannot_heal() -> None:
    def action() -> None:
        raise refused("ValidationException")

    with pytest.raises(ClientError, match="ValidationException"):
        patiently(action)


def test_should_give_up_when_it_is_refused_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custom_resource, "PATIENCE_SECONDS", -1.0)
    with pytest.raises(ClientError, match="AccessDenied"):
        patiently(lambda: (_ for _ in ()).throw(refused("AccessDenied")))
