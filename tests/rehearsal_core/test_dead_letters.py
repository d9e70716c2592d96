"""What a function failed at three times: the event itself, in the queue that its template names."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from rehearsal.redrive import event_of

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]

CODE = "def handler(event, context):\n    raise ValueError('never')\n"


def template(*, allowed: bool) -> str:
    queue = {"Fn::GetAtt": ["Queue", "Arn"]}
    statement = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": queue}
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = {
        "Version": "2012-10-17",
        "Statement": [statement if allowed else {**statement, "Effect": "Deny"}],
    }
    return json.dumps(
        {
            "Resources": {
                "Queue": {"Type": "AWS::SQS::Queue"},
                "Role": {
                    "Type": "AWS::IAM::Role",
                    "Properties": {
                        "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
                        "Policies": [{"PolicyName": "send", "PolicyDocument": document}],
                    },
                },
                "Function": {
                    "Type": "AWS::Lambda::Function",
                    "Properties": {
                        "Code": {"ZipFile": CODE},
                        "Handler": "index.handler",
                        "Runtime": "python3.13",
                        "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                        "DeadLetterConfig": {"TargetArn": queue},
                    },
                },
            },
            "Outputs": {"Queue": {"Value": {"Ref": "Queue"}}, "Function": {"Value": {"Ref": "Function"}}},
        }
    )


def failed_at(
    client: Callable[[str], Any], name: str, *, allowed: bool, seconds: float
) -> list[dict[str, Any]]:
    formation = client("cloudformation")
    formation.create_stack(
        StackName=name, TemplateBody=template(allowed=allowed), Capabilities=["CAPABILITY_IAM"]
    )
    formation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    stack = formation.describe_stacks(StackName=name)["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    client("lambda").invoke(
        FunctionName=outputs["Function"], InvocationType="Event", Payload=b'{"reason": "a person"}'
    )
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found: list[dict[str, Any]] = (
            client("sqs")
            .receive_message(QueueUrl=outputs["Queue"], MessageAttributeNames=["All"], WaitTimeSeconds=1)
            .get("Messages", [])
        )
        if found:
            return found
    return []


def test_should_keep_the_event_itself_and_why_it_failed(client: Callable[[str], Any]) -> None:
    [message] = failed_at(client, "kept", allowed=True, seconds=60)

    assert json.loads(message["Body"]) == {"reason": "a person"} == event_of(message["Body"])
    attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert "never" in attributes["ErrorMessage"]
    assert attributes["ErrorCode"] == "200"


def test_should_send_as_the_functions_role(client: Callable[[str], Any]) -> None:
    assert failed_at(client, "denied", allowed=False, seconds=12) == []
