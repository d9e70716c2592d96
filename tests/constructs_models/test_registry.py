"""The registry: group, approval parameter, promotion; exact events and exact permissions."""

from __future__ import annotations

import json
from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from cdk_support import Template, only, resources, statements, synthesise_stacks
from ml_lifecycle.registry import ApprovalParameter
from model_promotion.cloud import Event
from model_promotion.reconciliation import RECONCILIATION
from model_support import NAME, PARAMETER, Around, flat, granted, parcels

HERE = "<AWS::Region>:<AWS::AccountId>"
PARAMETER_ARN = f"arn:<AWS::Partition>:ssm:{HERE}:parameter{PARAMETER}"
VERSIONS = f"arn:<AWS::Partition>:sagemaker:{HERE}:model-package/{NAME}/*"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workloads")


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> dict[str, Template]:
    def everything(stack: cdk.Stack) -> None:
        registry = Around(stack).registry(parcels(folder))
        user = iam.ServicePrincipal("lambda.amazonaws.com")
        registry.grant_approve(iam.Role(stack, "Approver", assumed_by=user))
        registry.grant_read(iam.Role(stack, "Reader", assumed_by=user))
        registry.on_version_registered("Waiting", target=targets.SnsTopic(sns.Topic(stack, "Topic")))

    def tagged(stack: cdk.Stack) -> None:
        registry = Around(stack).registry(parcels(folder), removal_policy=cdk.RemovalPolicy.DESTROY)
        cdk.Tags.of(stack).add("cost-centre", "42")
        assert registry.approval_parameter_name == PARAMETER

    return synthesise_stacks(
        tmp_path_factory.mktemp("registry"), {"Default": everything, "Destroyable": tagged}
    )


def test_should_retain_the_group(templates: dict[str, Template]) -> None:
    [group] = resources(templates["Default"], "AWS::SageMaker::ModelPackageGroup").values()
    assert group["Properties"]["ModelPackageGroupName"] == NAME
    assert group["DeletionPolicy"] == group["UpdateReplacePolicy"] == "Retain"


def test_should_create_the_parameter_by_a_resource_that_a_deploy_never_writes_again(
    templates: dict[str, Template],
) -> None:
    for template in templates.values():
        assert resources(template, "AWS::SSM::Parameter") == {}
    resource = only(templates["Default"], "Custom::ApprovalParameter")
    assert {k: v for k, v in resource.items() if k not in ("ServiceToken", "ServiceTimeout")} == {
        "Name": PARAMETER,
        "InitialValue": "none",
        "OnDelete": "keep",
    }


def test_should_not_change_the_parameter_with_a_tag_of_the_stack(templates: dict[str, Template]) -> None:
    plain = only(templates["Default"], "Custom::ApprovalParameter")
    tagged = only(templates["Destroyable"], "Custom::ApprovalParameter")
    assert tagged | {"OnDelete": "keep"} == plain


def test_should_delete_group_and_parameter_only_with_consent(templates: dict[str, Template]) -> None:
    template = templates["Destroyable"]
    assert only(template, "Custom::ApprovalParameter")["OnDelete"] == "delete"
    [group] = resources(template, "AWS::SageMaker::ModelPackageGroup").values()
    assert group["DeletionPolicy"] == "Delete"
    may_delete = {a for a, _ in granted(statements(template, "RegistryApprovalFunctionRole"))}
    assert "ssm:DeleteParameter" in may_delete


def test_should_let_the_parameters_function_create_one_parameter(templates: dict[str, Template]) -> None:
    found = granted(statements(templates["Default"], "RegistryApprovalFunctionRole"))
    assert {(a, r) for a, r in found if not a.startswith("logs:")} == {("ssm:PutParameter", PARAMETER_ARN)}
    [put] = [
        s
        for s in statements(templates["Default"], "RegistryApprovalFunctionRole")
        if s["Action"] == "ssm:PutParameter"
    ]
    assert put["Condition"] == {"StringNotEqualsIgnoreCase": {"ssm:Overwrite": "true"}}


def test_should_wait_for_the_functions_policy(templates: dict[str, Template]) -> None:
    [resource] = resources(templates["Default"], "Custom::ApprovalParameter").values()
    assert any("DefaultPolicy" in name for name in resource["DependsOn"])


def test_should_hear_of_approvals_and_of_rollbacks(templates: dict[str, Template]) -> None:
    rules = {
        name: rule["Properties"]
        for name, rule in resources(templates["Default"], "AWS::Events::Rule").items()
    }
    approved = next(rule for name, rule in rules.items() if name.startswith("RegistryApproved"))
    assert approved["EventPattern"] == {
        "source": ["aws.sagemaker"],
        "detail-type": ["SageMaker Model Package State Change"],
        "detail": {"ModelPackageGroupName": [NAME], "ModelApprovalStatus": ["Approved"]},
    }
    rolled = next(rule for name, rule in rules.items() if name.startswith("RegistryRolledBack"))
    detail = rolled["EventPattern"]["detail"]
    assert rolled["EventPattern"]["source"] == ["aws.cloudformation"]
    assert rolled["EventPattern"]["detail-type"] == ["CloudFormation Stack Status Change"]
    assert detail["status-details"] == {"status": ["UPDATE_ROLLBACK_COMPLETE"]}
    # The slash keeps a stack whose name only begins alike from being taken for it.
    assert flat(detail["stack-id"][0]["prefix"]) == (
        f"arn:<AWS::Partition>:cloudformation:{HERE}:stack/Test-ParcelDelayServing/"
    )
    for rule in (approved, rolled):
        [target] = rule["Targets"]
        assert flat(target["Arn"]).startswith("<RegistryEvents")
        assert flat(target["DeadLetterConfig"]["Arn"]).startswith("<RegistryDeadLetters")


def test_should_take_messages_of_these_two_rules_only(templates: dict[str, Template]) -> None:
    for policy in resources(templates["Default"], "AWS::SQS::QueuePolicy").values():
        allowed = [s for s in policy["Properties"]["PolicyDocument"]["Statement"] if s["Effect"] == "Allow"]
        [statement] = allowed
        assert statement["Principal"] == {"Service": "events.amazonaws.com"}
        arns = statement["Condition"]["ArnEquals"]["aws:SourceArn"]
        assert [arn["Fn::GetAtt"][0].rstrip("0123456789ABCDEF") for arn in arns] == [
            "RegistryApprove" + "d",
            "RegistryRolledBack",
        ]


def test_should_keep_trying_for_a_day_and_then_keep_the_message(templates: dict[str, Template]) -> None:
    queues = resources(templates["Default"], "AWS::SQS::Queue")
    events = next(q["Properties"] for name, q in queues.items() if name.startswith("RegistryEvents"))
    tries = events["RedrivePolicy"]["maxReceiveCount"]
    assert tries * events["VisibilityTimeout"] == 24 * 3_600
    function = next(
        f["Properties"]
        for name, f in resources(templates["Default"], "AWS::Lambda::Function").items()
        if name.startswith("RegistryPromotion")
    )
    assert events["VisibilityTimeout"] >= 6 * function["Timeout"]
    for queue in queues.values():
        assert queue["Properties"]["MessageRetentionPeriod"] == 14 * 24 * 3_600
        assert "KmsMasterKeyId" in queue["Properties"]


def test_should_tell_the_promotion_what_to_check_and_what_to_update(templates: dict[str, Template]) -> None:
    function = next(
        f["Properties"]
        for name, f in resources(templates["Default"], "AWS::Lambda::Function").items()
        if name.startswith("RegistryPromotion")
    )
    assert function["Runtime"] == "python3.13"
    assert function["Handler"] == "model_promotion.handler.handler"
    assert function["Environment"]["Variables"] == {
        "PARAMETER_NAME": PARAMETER,
        "SERVING_STACK_NAME": "Test-ParcelDelayServing",
        "MODEL_PACKAGE_GROUP_NAME": NAME,
        "ACCEPT_METRIC": "rmse",
        "ACCEPT_AT_MOST": "30.0",
    }
    mapping = only(templates["Default"], "AWS::Lambda::EventSourceMapping")
    assert mapping["BatchSize"] == 1
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_should_give_the_promotion_exactly_what_it_needs(templates: dict[str, Template]) -> None:
    found = {
        (action, resource)
        for action, resource in granted(statements(templates["Default"], "RegistryPromotionRole"))
        if action.split(":")[0] in ("sagemaker", "ssm", "cloudformation", "iam")
    }
    stack = f"arn:<AWS::Partition>:cloudformation:{HERE}:stack/Test-ParcelDelayServing/*"
    assert found == {
        ("sagemaker:DescribeModelPackage", VERSIONS),
        ("sagemaker:ListModelPackages", "*"),
        ("sagemaker:UpdateModelPackage", VERSIONS),
        ("ssm:GetParameterHistory", PARAMETER_ARN),
        ("ssm:GetParameters", PARAMETER_ARN),
        ("ssm:PutParameter", PARAMETER_ARN),
        ("ssm:GetParameters", f"arn:<AWS::Partition>:ssm:{HERE}:parameter/cdk-bootstrap/hnb659fds/version"),
        ("cloudformation:DescribeStackEvents", stack),
        ("cloudformation:DescribeStacks", stack),
        ("cloudformation:UpdateStack", stack),
    }
    objects = {
        resource
        for action, resource in granted(statements(templates["Default"], "RegistryPromotionRole"))
        if action == "s3:GetObject"
    }
    assert [r.rsplit(">", 1)[1] for r in objects] == ["/parcel-delay/training/*"]


def test_should_ask_every_hour_what_no_event_has_told_of(templates: dict[str, Template]) -> None:
    template = templates["Default"]
    schedule = only(template, "AWS::Scheduler::Schedule")
    assert schedule["ScheduleExpression"] == "rate(1 hour)"
    assert schedule["Target"]["Arn"] == {"Fn::GetAtt": [_id_of(template, "RegistryEvents"), "Arn"]}
    event = Event.parse(json.loads(schedule["Target"]["Input"]) | {"time": "2026-11-21T12:00:00Z"})
    assert event.kind == RECONCILIATION
    actions = {action for action, _ in granted(statements(template, "RegistryReconciliationRole"))}
    assert actions == {"sqs:SendMessage", "kms:Decrypt", "kms:GenerateDataKey"}


def _id_of(template: Template, beginning: str) -> str:
    (found,) = (name for name in resources(template, "AWS::SQS::Queue") if name.startswith(beginning))
    return found


def test_should_grant_approving_and_reading(templates: dict[str, Template]) -> None:
    assert granted(statements(templates["Default"], "Approver")) == {
        ("sagemaker:ListModelPackages", "*"),
        ("sagemaker:DescribeModelPackage", VERSIONS),
        ("sagemaker:UpdateModelPackage", VERSIONS),
    }
    assert granted(statements(templates["Default"], "Reader")) == {
        ("sagemaker:DescribeModelPackage", VERSIONS),
        ("ssm:GetParameter", PARAMETER_ARN),
    }


def test_should_tell_of_a_version_that_waits(templates: dict[str, Template]) -> None:
    rules = resources(templates["Default"], "AWS::Events::Rule")
    waiting = next(r["Properties"] for name, r in rules.items() if name.startswith("RegistryWaiting"))
    assert waiting["EventPattern"]["detail"] == {
        "ModelPackageGroupName": [NAME],
        "ModelApprovalStatus": ["PendingManualApproval"],
    }


def test_should_refuse_a_parameter_that_is_no_path() -> None:
    stack = cdk.Stack()
    with pytest.raises(ValueError, match="name must be a path that starts with a slash, got 'approved'"):
        ApprovalParameter(stack, "Approval", name="approved", log_key=Around(cdk.Stack()).log_key)
