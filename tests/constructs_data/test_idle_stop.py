"""What stops unused: exact rights, conditions that CloudFormation owns; a budget that denies once spent."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from cdk_support import Template, synthesise_stacks
from ml_lifecycle.cost import IdleStop, RunState
from ml_lifecycle.foundation import MonthlyBudget

from environments import BudgetAction, Cost, Environment

NAME = "/ml-lifecycle/dev/parcels/run-state"


def _idle(stack: cdk.Stack) -> IdleStop:
    state = RunState(stack, "State", name=NAME, log_key=kms.Key(stack, "LogKey"))
    return IdleStop(
        stack,
        "Idle",
        workload="parcels",
        environment_name="dev",
        state=state,
        stacks=["Dev-ParcelsServing"],
        endpoint_name="dev-parcels",
        after_hours=72,
        message_key=kms.Key(stack, "Key"),
        log_key=kms.Key(stack, "Logs"),
        topic=sns.Topic(stack, "Topic"),
        read=["/ml-lifecycle/dev/parcels/approved-model-package"],
    )


def _narrowed(stack: cdk.Stack) -> None:
    state = RunState(stack, "State", name=NAME, log_key=kms.Key(stack, "LogKey"))
    approved = cdk.CfnCondition(stack, "IsApproved", expression=cdk.Fn.condition_equals("a", "a"))
    state.narrow(approved)
    assert state.condition(stack) is state.condition(stack)
    cdk.CfnResource(stack, "Endpoint", type="AWS::SNS::Topic").cfn_options.condition = approved


def _budget(stack: cdk.Stack) -> None:
    MonthlyBudget(
        stack,
        "Budget",
        limit_usd=100,
        tag_key="team",
        tag_value="ml",
        topic=sns.Topic(stack, "Topic"),
        deny_roles=["analysts"],
    )


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    return synthesise_stacks(
        tmp_path_factory.mktemp("idle"), {"Idle": _idle, "Narrow": _narrowed, "Budget": _budget}
    )


def of_type(template: Template, kind: str) -> list[dict[str, Any]]:
    return [r["Properties"] for r in template["Resources"].values() if r["Type"] == kind]


def rights(template: Template, role: str) -> dict[str, list[Any]]:
    """Resources that each action of a role's policy is granted on."""
    found: dict[str, list[Any]] = {}
    for policy in of_type(template, "AWS::IAM::Policy"):
        if any(role in str(r) for r in policy["Roles"]):
            for statement in policy["PolicyDocument"]["Statement"]:
                names = statement["Action"]
                for action in [names] if isinstance(names, str) else names:
                    found.setdefault(action, []).append(statement["Resource"])
    return found


def test_should_start_as_running_and_go_with_its_stack(templates: dict[str, Template]) -> None:
    (parameter,) = of_type(templates["Idle"], "Custom::RunState")
    assert (parameter["Name"], parameter["InitialValue"], parameter["OnDelete"]) == (
        NAME,
        "running",
        "delete",
    )
    with pytest.raises(ValueError, match="name must be a path that starts with a slash, got 'x'"):
        RunState(cdk.Stack(), "S", name="x", log_key=kms.Key(cdk.Stack(), "K"))


def test_should_look_every_hour_and_change_nothing_but_the_stacks_it_names(
    templates: dict[str, Template],
) -> None:
    template = templates["Idle"]
    (schedule,) = of_type(template, "AWS::Scheduler::Schedule")
    assert schedule["ScheduleExpression"] == "cron(35 * * * ? *)"
    granted = rights(template, "IdleFunctionRole")
    assert set(granted) == {
        "cloudformation:DescribeStacks",
        "cloudformation:UpdateStack",
        "cloudwatch:GetMetricStatistics",
        "kms:Decrypt",
        "kms:GenerateDataKey",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "sagemaker:DescribeEndpoint",
        "sns:Publish",
        "sqs:SendMessage",
        "ssm:GetParameter",
        "ssm:GetParameters",
        "ssm:PutParameter",
    }
    assert "stack/Dev-ParcelsServing/*" in str(granted["cloudformation:UpdateStack"])
    read = str(granted["ssm:GetParameters"])
    for name in ("approved-model-package", "run-state", "cdk-bootstrap/hnb659fds/version"):
        assert name in read
    # It writes its own state and no approval.
    assert "approved-model-package" not in str(granted["ssm:PutParameter"])
    told = sorted(alarm["AlarmDescription"] for alarm in of_type(template, "AWS::CloudWatch::Alarm"))
    assert len(told) == 2
    for page in ("function-fails", "dead-letters"):
        assert any(text.endswith(f"Runbook: docs/runbooks/{page}.md") for text in told)


def test_should_hold_a_condition_only_while_it_runs(templates: dict[str, Template]) -> None:
    template = templates["Narrow"]
    assert template["Parameters"]["RunState"]["Default"] == NAME
    assert template["Conditions"]["IsRunning"] == {"Fn::Equals": [{"Ref": "RunState"}, "running"]}
    assert template["Conditions"]["IsApproved"] == {
        "Fn::And": [{"Fn::Equals": ["a", "a"]}, {"Condition": "IsRunning"}]
    }


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"after_hours": 0}, "after_hours must be between 1 and 720, got 0"),
        ({"stacks": []}, "stacks must name at least one stack"),
        ({"endpoint_name": None}, "endpoint_name or streams must be given"),
    ],
)
def test_should_refuse_what_would_stop_nothing_or_anything(changes: dict[str, Any], why: str) -> None:
    stack = cdk.Stack()
    key = kms.Key(stack, "Key")
    arguments: dict[str, Any] = {
        "workload": "parcels",
        "environment_name": "dev",
        "state": RunState(stack, "State", name=NAME, log_key=key),
        "stacks": ["Serving"],
        "endpoint_name": "e",
        "after_hours": 1,
        "message_key": key,
        "log_key": key,
        "topic": sns.Topic(stack, "Topic"),
    }
    with pytest.raises(ValueError, match=why):
        IdleStop(stack, "Idle", **arguments | changes)


def test_should_ask_before_a_spent_budget_denies(templates: dict[str, Template]) -> None:
    template = templates["Budget"]
    (action,) = of_type(template, "AWS::Budgets::BudgetsAction")
    assert action["ApprovalModel"] == "MANUAL"
    assert action["ActionThreshold"] == {"Type": "PERCENTAGE", "Value": 100}
    assert action["Definition"]["IamActionDefinition"]["Roles"] == ["analysts"]
    (policy,) = of_type(template, "AWS::IAM::ManagedPolicy")
    assert {s["Effect"] for s in policy["PolicyDocument"]["Statement"]} == {"Deny"}
    granted = rights(template, "ActionRole")
    assert set(granted) == {"iam:AttachRolePolicy", "iam:DetachRolePolicy"}
    assert "role/analysts" in str(granted)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"production": True, "cost": Cost(small_streams=True)}, "do not go with production"),
        ({"production": True, "cost": Cost(stop_idle_after_hours=1)}, "do not go with production"),
        ({"cost": Cost(budget_action=BudgetAction(roles=("a",)))}, "cost.budget_action goes with budget_usd"),
    ],
)
def test_should_refuse_an_environment_that_contradicts_itself(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Environment(name="test", **changes)


def test_should_refuse_hours_and_roles_that_aws_does_not_know() -> None:
    with pytest.raises(ValueError, match="stop_idle_after_hours must be between 1 and 720 or None, got 721"):
        Cost(stop_idle_after_hours=721)
    with pytest.raises(ValueError, match="roles must hold 1 to 100 names of roles, got 0"):
        BudgetAction(roles=())
    assert Cost() == Cost(stop_idle_after_hours=None, small_streams=False, budget_action=None)


def test_should_stop_in_development_and_never_in_production(assembly: Any) -> None:
    template = assembly.template("Dev/ClaimsFraudServing")
    assert "RunState" in template["Parameters"]
    production = assembly.template("Prod/ClaimsFraudServing")
    assert "RunState" not in production["Parameters"]
