"""State machines act as their role, wait by the rehearsal's clock, and are started by events."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from rehearsal.server import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]

ACCOUNT = "123456789012"


def _role(client: Callable[[str], Any], name: str, service: str, statements: list[dict[str, Any]]) -> str:
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"},
        ],
    }
    role = client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    if statements:
        document = {"Version": "2012-10-17", "Statement": statements}
        client("iam").put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=json.dumps(document))
    return str(role)


def _machine(client: Callable[[str], Any], name: str, states: dict[str, Any], role: str) -> str:
    definition = {"StartAt": next(iter(states)), "States": states}
    arn = client("stepfunctions").create_state_machine(
        name=name, definition=json.dumps(definition), roleArn=role
    )["stateMachineArn"]
    return str(arn)


def _ended(client: Callable[[str], Any], execution: str) -> dict[str, Any]:
    for _ in range(100):
        found: dict[str, Any] = client("stepfunctions").describe_execution(executionArn=execution)
        if found["status"] != "RUNNING":
            return found
        time.sleep(0.1)
    raise AssertionError("the execution does not end")


def _queue(client: Callable[[str], Any], name: str) -> tuple[str, str]:
    url = client("sqs").create_queue(QueueName=name)["QueueUrl"]
    return url, f"arn:aws:sqs:{client('sqs').meta.region_name}:{ACCOUNT}:{name}"


def _sending(url: str) -> dict[str, Any]:
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::sqs:sendMessage",
        "Parameters": {"QueueUrl": url, "MessageBody": "done"},
        "End": True,
    }


def test_should_let_a_task_do_what_the_role_may(client: Callable[[str], Any]) -> None:
    url, arn = _queue(client, "open")
    statement = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": arn}
    role = _role(client, "may-send", "states.amazonaws.com", [statement])
    machine = _machine(client, "sends", {"Send": _sending(url)}, role)
    started = client("stepfunctions").start_execution(stateMachineArn=machine)["executionArn"]
    assert _ended(client, started)["status"] == "SUCCEEDED"


def test_should_refuse_a_task_that_the_role_may_not_do(
    client: Callable[[str], Any], server: ServerProcess
) -> None:
    url, _ = _queue(client, "closed")
    machine = _machine(
        client, "may-not", {"Send": _sending(url)}, _role(client, "may-not", "states.amazonaws.com", [])
    )
    started = client("stepfunctions").start_execution(stateMachineArn=machine)["executionArn"]
    found = _ended(client, started)
    assert (found["status"], found["error"]) == ("FAILED", "States.Permissions")
    assert "is not authorized to perform: sqs:SendMessage" in found["cause"]
    entries = server.control("GET", "/ledger?kind=state-machine&outcome=failed")["entries"]
    assert [e["name"] for e in entries] == ["may-not"]


def test_should_wait_until_the_clock_has_gone_so_far(
    client: Callable[[str], Any], server: ServerProcess
) -> None:
    states = {"Wait": {"Type": "Wait", "Seconds": 3600, "Next": "Done"}, "Done": {"Type": "Succeed"}}
    machine = _machine(client, "waits", states, _role(client, "waits", "states.amazonaws.com", []))
    started = client("stepfunctions").start_execution(stateMachineArn=machine)["executionArn"]
    time.sleep(0.5)
    assert client("stepfunctions").describe_execution(executionArn=started)["status"] == "RUNNING"
    server.control("POST", "/clock/advance", {"hours": 1, "minutes": 1})
    assert _ended(client, started)["status"] == "SUCCEEDED"


@pytest.mark.parametrize("may", [True, False])
def test_should_start_by_an_event_as_the_targets_role(
    client: Callable[[str], Any], server: ServerProcess, may: bool
) -> None:
    name = f"started-{may}".lower()
    machine = _machine(
        client,
        name,
        {"Done": {"Type": "Succeed"}},
        _role(client, f"{name}-own", "states.amazonaws.com", []),
    )
    statement = {"Effect": "Allow", "Action": "states:StartExecution", "Resource": machine}
    role = _role(client, f"{name}-rule", "events.amazonaws.com", [statement] if may else [])
    events = client("events")
    events.put_rule(Name=name, EventPattern=json.dumps({"source": [name]}))
    events.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": machine, "RoleArn": role}])
    events.put_events(Entries=[{"Source": name, "DetailType": "t", "Detail": '{"n": 1}'}])
    server.control("GET", "/idle?timeout_seconds=20")
    found = client("stepfunctions").list_executions(stateMachineArn=machine)["executions"]
    assert len(found) == int(may)
    if may:
        described = _ended(client, found[0]["executionArn"])
        assert json.loads(described["input"])["detail"] == {"n": 1}


def test_should_let_only_who_may_answer_this_state_machine_answer_it(
    client: Callable[[str], Any], server: ServerProcess
) -> None:
    import boto3.session

    url, arn = _queue(client, "asks")
    send = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": arn}
    role = _role(client, "asks", "states.amazonaws.com", [send])
    asking = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
        "Parameters": {"QueueUrl": url, "MessageBody": {"token.$": "$$.Task.Token"}},
        "End": True,
    }
    machine = _machine(client, "waits-for-an-answer", {"Ask": asking}, role)
    started = client("stepfunctions").start_execution(stateMachineArn=machine)["executionArn"]
    message = client("sqs").receive_message(QueueUrl=url, WaitTimeSeconds=10)["Messages"][0]
    token = json.loads(message["Body"])["token"]

    def as_one_who_may_answer(name: str, resource: str) -> Any:
        answer = {"Effect": "Allow", "Action": "states:SendTaskSuccess", "Resource": resource}
        given = client("sts").assume_role(
            RoleArn=_role(client, name, "lambda.amazonaws.com", [answer]), RoleSessionName="test"
        )["Credentials"]
        session: Any = boto3.session.Session()
        return session.client(
            "stepfunctions",
            endpoint_url=server.endpoint,
            region_name=server.region,
            aws_access_key_id=given["AccessKeyId"],
            aws_secret_access_key=given["SecretAccessKey"],
            aws_session_token=given["SessionToken"],
        )

    other = as_one_who_may_answer("answers-another", f"{machine}-of-somebody-else")
    with pytest.raises(
        other.exceptions.ClientError, match=r"SendTaskSuccess on resource: .*:waits-for-an-answer "
    ):
        other.send_task_success(taskToken=token, output="{}")
    as_one_who_may_answer("answers", machine).send_task_success(taskToken=token, output='{"said": 1}')
    found = _ended(client, started)
    assert (found["status"], json.loads(found["output"])) == ("SUCCEEDED", {"said": 1})
