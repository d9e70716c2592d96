"""Where the ends of challengers' tests are planned: what may be made there, by whom, and what that may do."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from ml_lifecycle.registry.trials import TrialSchedules


@pytest.fixture(scope="module")
def statements() -> dict[str, list[dict[str, Any]]]:
    """Statements of the inline policies by their action, or the first of them."""
    stack = cdk.Stack(cdk.App(), "Stack")
    key = kms.Key.from_key_arn(stack, "Key", "arn:aws:kms:us-east-1:111122223333:key/1")
    queue = sqs.Queue(stack, "Queue", encryption=sqs.QueueEncryption.KMS, encryption_master_key=key)
    function = lambda_.Function(
        stack,
        "Function",
        runtime=lambda_.Runtime.PYTHON_3_13,
        handler="index.handler",
        code=lambda_.Code.from_inline("def handler(event, context): ..."),
    )
    trials = TrialSchedules(stack, "Trials", name="dev-claims-tests", queue=queue)
    trials.grant_plan(function)
    assert set(trials.environment()) == {
        "SCHEDULE_GROUP",
        "SCHEDULE_PREFIX",
        "SCHEDULE_ROLE_ARN",
        "QUEUE_ARN",
    }
    template = assertions.Template.from_stack(stack)
    template.has_resource_properties("AWS::Scheduler::ScheduleGroup", {"Name": "dev-claims-tests"})
    found: dict[str, list[dict[str, Any]]] = {}
    for policy in template.find_resources("AWS::IAM::Policy").values():
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
            actions = statement["Action"]
            found.setdefault(actions if isinstance(actions, str) else actions[0], []).append(statement)
    return found


def test_should_let_the_function_make_schedules_of_the_group_only(
    statements: dict[str, list[dict[str, Any]]],
) -> None:
    (statement,) = statements["scheduler:CreateSchedule"]

    assert str(statement["Resource"]).count(":schedule/dev-claims-tests/test-*") == 1


def test_should_let_the_function_hand_the_role_to_scheduler_only(
    statements: dict[str, list[dict[str, Any]]],
) -> None:
    (statement,) = statements["iam:PassRole"]

    assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "scheduler.amazonaws.com"}}
    assert "Fn::GetAtt" in statement["Resource"]


def test_should_let_a_schedule_send_a_message_and_nothing_else(
    statements: dict[str, list[dict[str, Any]]],
) -> None:
    assert set(statements) == {"scheduler:CreateSchedule", "iam:PassRole", "sqs:SendMessage", "kms:Decrypt"}
    (use,) = statements["kms:Decrypt"]
    assert use["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert use["Resource"] == "arn:aws:kms:us-east-1:111122223333:key/1"


def test_should_refuse_a_name_that_scheduler_would_refuse() -> None:
    stack = cdk.Stack(cdk.App(), "Stack")

    with pytest.raises(ValueError, match="at most 64 characters, got 65"):
        TrialSchedules(stack, "Trials", name="x" * 65, queue=sqs.Queue(stack, "Queue"))
