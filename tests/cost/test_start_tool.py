"""Waking up what was stopped: the function that the stack names is asked, and its answer told."""

from __future__ import annotations

import io
import json
from typing import Any

import boto3
import pytest

from tools import start


class Aws:
    """CloudFormation with one stack and Lambda with one function."""

    def __init__(self, outputs: list[dict[str, str]], error: bool = False) -> None:
        self.outputs, self.error = outputs, error
        self.asked: list[dict[str, Any]] = []

    def client(self, service: str) -> Aws:
        assert service in ("cloudformation", "lambda")
        return self

    def describe_stacks(self, **request: str) -> dict[str, Any]:
        assert request == {"StackName": "Dev-ParcelDelayOperations"}
        return {"Stacks": [{"Outputs": self.outputs}]}

    def invoke(self, **request: Any) -> dict[str, Any]:
        self.asked.append(json.loads(request["Payload"]) | {"function": request["FunctionName"]})
        return {"Payload": io.BytesIO(b'{"action": "started"}')} | (
            {"FunctionError": "Unhandled"} if self.error else {}
        )


IDLE = [{"OutputKey": "IdleFunctionName", "OutputValue": "idle"}]


@pytest.mark.parametrize(("more", "action"), [([], "start"), (["--stop"], "stop")])
def test_should_ask_the_function_that_the_stack_names(
    more: list[str], action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws = Aws(IDLE)
    monkeypatch.setattr(boto3, "client", aws.client)
    assert start.main(["dev", "parcel_delay", *more]) == 0
    assert aws.asked == [{"action": action, "function": "idle"}]


def test_should_fail_with_the_function_and_where_nothing_stops(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(boto3, "client", Aws(IDLE, error=True).client)
    assert start.main(["dev", "parcel_delay"]) == 1
    monkeypatch.setattr(boto3, "client", Aws([]).client)
    assert start.main(["dev", "parcel_delay"]) == 2
    assert "has no cost.stop_idle_after_hours" in capsys.readouterr().err
