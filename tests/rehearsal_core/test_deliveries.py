"""What one service may do to another is decided by the policies that are deployed."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

from rehearsal.server import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]

RULE = "arn:aws:events:us-east-1:123456789012:rule/made"


def _queue(client: Callable[[str], Any], name: str, policy: dict[str, Any] | None) -> tuple[str, str]:
    sqs = client("sqs")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    if policy is not None:
        document = {"Version": "2012-10-17", "Statement": [{**policy, "Resource": arn}]}
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(document)})
    return url, arn


def _sent(client: Callable[[str], Any], queue: str, arn: str) -> int:
    """Send an event to a queue by a rule; return how many messages arrived."""
    events = client("events")
    events.put_rule(Name="made", EventPattern=json.dumps({"source": ["mine"]}))
    events.put_targets(Rule="made", Targets=[{"Id": "1", "Arn": arn}])
    events.put_events(Entries=[{"Source": "mine", "DetailType": "t", "Detail": "{}"}])
    time.sleep(0.3)
    found = client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10)
    events.remove_targets(Rule="made", Ids=["1"])
    return len(found.get("Messages", []))


def test_should_drop_an_event_for_a_queue_without_a_policy(
    server: ServerProcess, client: Callable[[str], Any]
) -> None:
    assert _sent(client, *_queue(client, "closed", None)) == 0
    (entry,) = [
        e
        for e in server.control("GET", "/ledger?kind=eventbridge")["entries"]
        if "closed" in e["detail"]["target"]
    ]
    assert entry["outcome"] == "failed"
    assert "does not let events.amazonaws.com sqs:SendMessage" in entry["why"]


def test_should_deliver_an_event_that_the_queues_policy_lets_in(client: Callable[[str], Any]) -> None:
    policy = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Condition": {"ArnEquals": {"aws:SourceArn": RULE}},
    }
    assert _sent(client, *_queue(client, "open", policy)) == 1


def test_should_drop_an_event_of_a_rule_that_the_policy_does_not_name(client: Callable[[str], Any]) -> None:
    policy = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Condition": {"ArnEquals": {"aws:SourceArn": f"{RULE}-other"}},
    }
    assert _sent(client, *_queue(client, "other", policy)) == 0


def test_should_drop_an_event_that_the_key_of_a_queue_keeps_out(
    server: ServerProcess, client: Callable[[str], Any]
) -> None:
    policy = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
    }
    queue, arn = _queue(client, "encrypted", policy)
    key = client("kms").create_key()["KeyMetadata"]["KeyId"]
    client("sqs").set_queue_attributes(QueueUrl=queue, Attributes={"KmsMasterKeyId": key})
    assert _sent(client, queue, arn) == 0
    entries = server.control("GET", "/ledger?kind=eventbridge")["entries"]
    assert any(
        f"key/{key} does not let events.amazonaws.com kms:GenerateDataKey" in e["why"] for e in entries
    )


def test_should_refuse_an_event_source_that_the_functions_role_may_not_read(
    client: Callable[[str], Any],
) -> None:
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    template = {
        "Resources": {
            "Queue": {"Type": "AWS::SQS::Queue"},
            "Role": {
                "Type": "AWS::IAM::Role",
                "Properties": {"AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]}},
            },
            "Function": {
                "Type": "AWS::Lambda::Function",
                "Properties": {
                    "Runtime": "python3.13",
                    "Handler": "index.handler",
                    "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                    "Code": {"ZipFile": "def handler(event, context): return 1"},
                },
            },
            "Mapping": {
                "Type": "AWS::Lambda::EventSourceMapping",
                "Properties": {
                    "FunctionName": {"Ref": "Function"},
                    "EventSourceArn": {"Fn::GetAtt": ["Queue", "Arn"]},
                },
            },
        }
    }
    cloudformation = client("cloudformation")
    cloudformation.create_stack(
        StackName="unreadable", TemplateBody=json.dumps(template), Capabilities=["CAPABILITY_IAM"]
    )
    for _ in range(200):
        status = cloudformation.describe_stacks(StackName="unreadable")["Stacks"][0]["StackStatus"]
        if not status.endswith("IN_PROGRESS"):
            break
        time.sleep(0.1)
    assert status == "ROLLBACK_COMPLETE"
    reasons = [
        event.get("ResourceStatusReason", "")
        for event in cloudformation.describe_stack_events(StackName="unreadable")["StackEvents"]
    ]
    assert any("does not have permissions to call ReceiveMessage on SQS" in reason for reason in reasons)


def test_should_invoke_a_function_only_with_its_permission(
    server: ServerProcess, client: Callable[[str], Any]
) -> None:
    role = client("iam").create_role(RoleName="called", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("f.py", "def handler(event, context):\n    return 1\n")
    functions, events = client("lambda"), client("events")
    arn = functions.create_function(
        FunctionName="called",
        Runtime="python3.13",
        Role=role,
        Handler="f.handler",
        Code={"ZipFile": data.getvalue()},
    )["FunctionArn"]
    rule = events.put_rule(Name="calls", EventPattern=json.dumps({"source": ["calls"]}))["RuleArn"]
    events.put_targets(Rule="calls", Targets=[{"Id": "1", "Arn": arn}])

    def ran() -> int:
        events.put_events(Entries=[{"Source": "calls", "DetailType": "t", "Detail": "{}"}])
        time.sleep(1.5)
        return len(server.control("GET", "/ledger?kind=lambda&outcome=ran")["entries"])

    assert ran() == 0
    functions.add_permission(
        FunctionName="called",
        StatementId="events",
        Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com",
        SourceArn=rule,
    )
    assert ran() == 1
