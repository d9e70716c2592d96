"""An update of a stack that fails half-way on purpose: CloudFormation takes back what was changed before."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from rehearsal import ministack_bridge as bridge
from rehearsal.cloudformation.faults import Failure, StackFaults
from rehearsal.server import ServerError, ServerProcess

NAME = "half-way"


def test_should_fail_a_change_as_often_as_planned() -> None:
    faults = StackFaults()
    faults.plan(Failure(stack="Serving", resource="Endpoint", times=2))
    assert not faults.take("Data", "Endpoint1")
    assert [faults.take("MyServing", "Endpoint1") for _ in range(3)] == [True, True, False]
    faults.plan(Failure(stack="a", resource="b"))
    faults.forget()
    assert not faults.left()


def _template(value: str) -> str:
    first = {
        "Type": "AWS::SSM::Parameter",
        "Properties": {"Name": f"/{NAME}/1", "Type": "String", "Value": value},
    }
    second = {
        "Type": "AWS::SSM::Parameter",
        "DependsOn": "First",
        "Properties": {"Name": f"/{NAME}/2", "Type": "String", "Value": value},
    }
    return json.dumps({"Resources": {"First": first, "Second": second}})


def _settled(client: Callable[[str], Any]) -> str:
    deadline = time.monotonic() + 30
    while True:
        stack = client("cloudformation").describe_stacks(StackName=NAME)["Stacks"][0]
        status: str = stack["StackStatus"]
        if not status.endswith("_IN_PROGRESS"):
            return status
        assert time.monotonic() < deadline, status
        time.sleep(0.1)


@pytest.mark.rehearsal
@pytest.mark.slow
def test_should_roll_back_what_was_changed_before_the_failure(
    server: ServerProcess, client: Callable[[str], Any]
) -> None:
    cloudformation, ssm = client("cloudformation"), client("ssm")

    def values() -> list[str]:
        return [ssm.get_parameter(Name=f"/{NAME}/{n}")["Parameter"]["Value"] for n in (1, 2)]

    cloudformation.create_stack(StackName=NAME, TemplateBody=_template("old"))
    assert _settled(client) == "CREATE_COMPLETE"
    server.control("POST", "/faults/stacks", {"stack": NAME, "resource": "Second"})
    cloudformation.update_stack(StackName=NAME, TemplateBody=_template("new"))
    assert _settled(client) == "UPDATE_ROLLBACK_COMPLETE"
    assert values() == ["old", "old"]
    events = cloudformation.describe_stack_events(StackName=NAME)["StackEvents"]
    reasons = {
        e["LogicalResourceId"]: e["ResourceStatusReason"]
        for e in events
        if e["ResourceStatus"] == "UPDATE_FAILED"
    }
    assert "HandlerErrorCode: InternalFailure" in reasons["Second"]
    hits = [
        e for e in server.control("GET", "/ledger?kind=fault")["entries"] if e["detail"].get("who") == NAME
    ]
    assert [(e["name"], e["detail"]["what"]) for e in hits] == [("cloudformation:Second", "failed on update")]
    # The fault is over: the same update goes through.
    cloudformation.update_stack(StackName=NAME, TemplateBody=_template("new"))
    assert _settled(client) == "UPDATE_COMPLETE"
    assert values() == ["new", "new"]
    cloudformation.delete_stack(StackName=NAME)


@pytest.mark.rehearsal
@pytest.mark.slow
def test_should_refuse_a_failure_of_nothing(server: ServerProcess) -> None:
    with pytest.raises(ServerError, match="resource must be a text"):
        server.control("POST", "/faults/stacks", {"stack": NAME})


@pytest.mark.parametrize("action", ["CreateChangeSet", "ExecuteChangeSet"])
def test_should_refuse_a_change_set_of_a_stack_that_is_being_changed(
    monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """ministack ran it beside the update: two updates of one stack at a time."""
    package = importlib.import_module("ministack.services.cloudformation")
    handlers = importlib.import_module("ministack.services.cloudformation.handlers")
    stacks = {"busy": "UPDATE_IN_PROGRESS", "new": "REVIEW_IN_PROGRESS", "calm": "UPDATE_COMPLETE"}
    monkeypatch.setattr(
        handlers, "_resolve_stack", lambda name: {"StackId": f"arn/{name}", "StackStatus": stacks[name]}
    )
    for name in ("CreateChangeSet", "ExecuteChangeSet"):
        monkeypatch.setitem(package._ACTION_HANDLERS, name, lambda _: "done")
    bridge.refuse_changes_of_busy_stacks()
    call = package._ACTION_HANDLERS[action]
    status, _, body = call({"StackName": ["busy"]})
    assert status == 400
    assert b"Stack:arn/busy is in UPDATE_IN_PROGRESS state and can not be updated." in body
    assert [call({"StackName": [name]}) for name in ("new", "calm")] == ["done", "done"]
