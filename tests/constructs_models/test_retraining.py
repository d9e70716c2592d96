"""Retraining: each trigger as the workload says, one function, exact permissions, nothing lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from cdk_support import Template, only, resources, statements, synthesise_stacks
from ml_contract.load import ContractError, LoadedWorkload
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.foundation import Stakeholders
from ml_lifecycle.retraining import Retraining, RetrainingNotices
from model_support import NAME, PARAMETER, Around, flat, granted, parcels
from retrain_trigger.logic import RECONCILIATION

ALL = "retraining: {on_drift: true, on_new_data: true, every_days: 7, cooldown_hours: 3}\n"
NONE = "retraining: {on_drift: false}\n"
CHAMPION = "evaluation: {champion: {margin: 0}}\n"


def retraining(stack: cdk.Stack, workload: LoadedWorkload, **options: Any) -> Retraining:
    around = Around(stack)
    if options.pop("alarm", "alarms" not in options):
        metric = cloudwatch.Metric(namespace="MLLifecycle", metric_name="Violations")
        options["alarms"] = {"data": metric.create_alarm(stack, "Drift", threshold=1, evaluation_periods=1)}
    if options.pop("registry", False):
        options["registry"] = around.registry(workload)
    return Retraining(
        stack,
        "Retraining",
        workload=workload,
        pipeline_name=NAME,
        message_key=around.message_key,
        log_key=around.log_key,
        **options,
    )


NEW_DATA = {
    "source": ["aws.glue"],
    "detail-type": ["Glue Job State Change"],
    "detail": {"jobName": ["test-features"], "state": ["SUCCEEDED"]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workloads")


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> dict[str, Template]:
    def everything(stack: cdk.Stack) -> None:
        built = retraining(stack, parcels(folder, ALL), new_data_event=NEW_DATA)
        user = iam.Role(stack, "Person", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        built.grant_request(user)

    return synthesise_stacks(
        tmp_path_factory.mktemp("retraining"),
        {
            "Default": lambda stack: retraining(stack, parcels(folder)),
            "All": everything,
            "Champion": lambda stack: retraining(stack, parcels(folder, CHAMPION), registry=True),
            "None": lambda stack: retraining(stack, parcels(folder, NONE), alarm=False),
        },
    )


def patterns(template: Template) -> dict[str, Any]:
    return {
        rule["Properties"]["EventPattern"]["detail-type"][0]: rule["Properties"]["EventPattern"]
        for rule in resources(template, "AWS::Events::Rule").values()
    }


def test_should_train_again_on_drift_only_by_default(templates: dict[str, Template]) -> None:
    [(kind, pattern)] = patterns(templates["Default"]).items()
    assert kind == "CloudWatch Alarm State Change"
    assert pattern["source"] == ["aws.cloudwatch"]
    assert pattern["detail"] == {"state": {"value": ["ALARM"]}}
    [alarm] = pattern["resources"]
    assert flat(alarm).startswith("<Drift")
    assert list(schedules(templates["Default"])) == ["Looks for drift"]


def schedules(template: Template) -> dict[str, Template]:
    """Properties of the schedules by their descriptions."""
    found = resources(template, "AWS::Scheduler::Schedule").values()
    return {schedule["Properties"]["Description"]: schedule["Properties"] for schedule in found}


def test_should_ask_every_hour_whether_drift_was_left_unanswered(templates: dict[str, Template]) -> None:
    template = templates["Default"]
    schedule = schedules(template)["Looks for drift"]
    assert schedule["ScheduleExpression"] == "rate(1 hour)"
    assert json.loads(schedule["Target"]["Input"])["detail-type"] == RECONCILIATION
    variables = only(template, "AWS::Lambda::Function")["Environment"]["Variables"]
    assert flat(variables["DRIFT_ALARMS"]).startswith("<Drift")
    [alarm] = {
        resource
        for action, resource in granted(statements(template, "RetrainingTriggerRole"))
        if action == "cloudwatch:DescribeAlarms"
    }
    assert alarm == flat(patterns(template)["CloudWatch Alarm State Change"]["resources"][0])


def test_should_train_again_on_new_data_and_on_a_schedule_when_asked(templates: dict[str, Template]) -> None:
    assert patterns(templates["All"])["Glue Job State Change"] == NEW_DATA
    schedule = schedules(templates["All"])["Asks for a training"]
    assert schedule["ScheduleExpression"] == "rate(7 days)"
    assert json.loads(schedule["Target"]["Input"]) == {
        "source": "ml-lifecycle.schedule",
        "detail-type": "Scheduled Event",
        "time": "<aws.scheduler.scheduled-time>",
        "detail": {},
    }


def test_should_only_listen_to_requests_when_nothing_is_asked(templates: dict[str, Template]) -> None:
    assert not resources(templates["None"], "AWS::Events::Rule")
    assert not resources(templates["None"], "AWS::Scheduler::Schedule")
    assert resources(templates["None"], "AWS::Lambda::Function")


def test_should_tell_the_function_which_pipeline_and_how_often(templates: dict[str, Template]) -> None:
    function = only(templates["All"], "AWS::Lambda::Function")
    assert function["Handler"] == "retrain_trigger.handler.handler"
    variables = dict(function["Environment"]["Variables"])
    assert variables.pop("DRIFT_ALARMS")
    assert variables == {"PIPELINE_NAME": NAME, "WORKLOAD": "parcel_delay", "COOLDOWN_HOURS": "3"}


def test_should_keep_what_could_not_be_handled_or_delivered(templates: dict[str, Template]) -> None:
    template = templates["All"]
    queue = {"Fn::GetAtt": [next(iter(resources(template, "AWS::SQS::Queue"))), "Arn"]}
    assert only(template, "AWS::Lambda::Function")["DeadLetterConfig"] == {"TargetArn": queue}
    for rule in resources(template, "AWS::Events::Rule").values():
        [target] = rule["Properties"]["Targets"]
        assert target["DeadLetterConfig"] == {"Arn": queue}
        assert target["RetryPolicy"] == {"MaximumEventAgeInSeconds": 21_600, "MaximumRetryAttempts": 20}
    found = schedules(template).values()
    assert [schedule["Target"]["DeadLetterConfig"] for schedule in found] == [{"Arn": queue}] * 2
    assert only(template, "AWS::SQS::Queue")["MessageRetentionPeriod"] == 14 * 24 * 3_600


def test_should_give_the_function_its_pipeline_and_its_dead_letters_only(
    templates: dict[str, Template],
) -> None:
    pipeline = f"arn:<AWS::Partition>:sagemaker:<AWS::Region>:<AWS::AccountId>:pipeline/{NAME}"
    found = granted(statements(templates["Default"], "RetrainingTriggerRole"))
    assert {(a, r) for a, r in found if a.startswith("sagemaker:")} == {
        ("sagemaker:ListPipelineExecutions", pipeline),
        ("sagemaker:StartPipelineExecution", pipeline),
    }
    assert {a for a, _ in found if not a.startswith("sagemaker:")} == {
        "cloudwatch:DescribeAlarms",
        "kms:Decrypt",
        "kms:GenerateDataKey",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "sqs:SendMessage",
    }


def test_should_tell_the_pipeline_of_the_approved_model_where_it_asks(
    templates: dict[str, Template],
) -> None:
    found = granted(statements(templates["Champion"], "RetrainingTriggerRole"))
    versions = f"arn:<AWS::Partition>:sagemaker:<AWS::Region>:<AWS::AccountId>:model-package/{NAME}/*"
    assert ("sagemaker:DescribeModelPackage", versions) in found
    assert {r.rpartition(":")[2] for a, r in found if a == "ssm:GetParameter"} == {f"parameter{PARAMETER}"}
    function = resources(templates["Champion"], "AWS::Lambda::Function")
    [variables] = [
        f["Properties"]["Environment"]["Variables"]
        for f in function.values()
        if "COOLDOWN_HOURS" in f["Properties"].get("Environment", {}).get("Variables", {})
    ]
    assert variables["CHAMPION_PARAMETERS"] == "ChampionModel,ChampionTest"
    assert "APPROVED_PARAMETER" in variables


def test_should_refuse_a_pipeline_with_a_champion_and_no_registry(folder: Path) -> None:
    with pytest.raises(
        ValueError, match=r"registry must be given when training.parent or evaluation.champion"
    ):
        retraining(cdk.Stack(cdk.App(), "Alone"), parcels(folder, CHAMPION))


def test_should_let_only_its_own_rules_call_the_function(templates: dict[str, Template]) -> None:
    rules = set(resources(templates["All"], "AWS::Events::Rule"))
    permissions = [p["Properties"] for p in resources(templates["All"], "AWS::Lambda::Permission").values()]
    assert {p["SourceArn"]["Fn::GetAtt"][0] for p in permissions} == rules
    assert {p["Principal"] for p in permissions} == {"events.amazonaws.com"}


def test_should_let_the_schedule_call_the_function(templates: dict[str, Template]) -> None:
    found = granted(statements(templates["All"], "RetrainingScheduleRole"))
    [function] = resources(templates["All"], "AWS::Lambda::Function")
    assert ("lambda:InvokeFunction", f"<{function}.Arn>") in found


def test_should_grant_asking_for_a_training(templates: dict[str, Template]) -> None:
    assert {a for a, _ in granted(statements(templates["All"], "Person"))} == {"lambda:InvokeFunction"}


def test_should_report_everything_that_is_missing_at_once(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"alarms must hold 'data'.*; new_data_event must be given"):
        retraining(cdk.Stack(), parcels(folder, ALL), alarm=False)


# --- budget, new rows, people ---


GUARDED = """\
retraining:
  on_new_data: {minimum_records: 500}
  budget: {usd_per_month: 20}
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Template:
    def build(stack: cdk.Stack) -> None:
        lake = DataLake(stack, "OwnLake", database_prefix="own")
        key = kms.Key(stack, "Topics")
        people = Stakeholders(
            stack, "People", key=key, subscribers={"*": ("a@b.cc",), "parcel_delay": ("https://chat/x",)}
        )
        retraining(
            stack,
            parcels(folder, GUARDED),
            new_data_event=NEW_DATA,
            features=lake.features,
            artifacts=lake.artifacts,
            topic=people.topic,
            environment_name="test",
        )

    return synthesise_stacks(tmp_path_factory.mktemp("guarded"), {"Guarded": build})["Guarded"]


def trigger(template: Template) -> dict[str, Any]:
    [found] = [
        function["Properties"]
        for function in resources(template, "AWS::Lambda::Function").values()
        if function["Properties"]["Handler"] == "retrain_trigger.handler.handler"
    ]
    properties: dict[str, Any] = found
    return properties


def test_should_tell_the_function_what_a_training_is_worth_and_may_cost(guarded: Template) -> None:
    variables = trigger(guarded)["Environment"]["Variables"]

    assert variables["MINIMUM_RECORDS"] == "500"
    assert flat(variables["FEATURES_NOTE_URI"]).endswith("/parcel-delay/data/_snapshot.json")
    assert flat(variables["TRAINING_URI"]).endswith("/parcel-delay/training")
    assert (variables["BUDGET_USD"], variables["USD_PER_HOUR"]) == ("20.0", "{}")
    assert variables["ENVIRONMENT"] == "test"
    assert trigger(guarded)["Timeout"] == 300


def test_should_let_the_function_see_jobs_of_pipelines_and_tell_one_topic(guarded: Template) -> None:
    found = granted(statements(guarded, "RetrainingTriggerRole"))
    [topic] = resources(guarded, "AWS::SNS::Topic")

    described = {r.rpartition(":")[2] for a, r in found if a.startswith("sagemaker:Describe")}
    # A search and its trials have names without a prefix.
    jobs = {"training-job/pipelines-*", "processing-job/pipelines-*", "training-job/*-Tune-*"}
    assert described == jobs
    assert {r for a, r in found if a == "sns:Publish"} == {f"<{topic}>"}
    assert {a for a, _ in found if a.startswith("ssm:")} == {
        "ssm:GetParameterHistory",
        "ssm:PutParameter",
    }


def test_should_send_people_the_notices_of_their_workload_only(guarded: Template) -> None:
    subscriptions = {
        s["Properties"]["Endpoint"]: s["Properties"]
        for s in resources(guarded, "AWS::SNS::Subscription").values()
    }
    assert "FilterPolicy" not in subscriptions["a@b.cc"]
    assert subscriptions["a@b.cc"]["Protocol"] == "email"
    assert subscriptions["https://chat/x"]["FilterPolicy"] == {"workload": ["parcel_delay"]}
    assert subscriptions["https://chat/x"]["Protocol"] == "https"


def test_should_refuse_an_address_that_is_none() -> None:
    stack = cdk.Stack()
    with pytest.raises(ValueError, match="subscribers of claims must be mail addresses or https"):
        Stakeholders(stack, "People", key=kms.Key(stack, "Key"), subscribers={"claims": ("phone",)})


def test_should_count_trainings_without_looking_at_their_jobs(
    tmp_path_factory: pytest.TempPathFactory, folder: Path
) -> None:
    block = "retraining: {budget: {runs_per_month: 4}}\n"
    template = synthesise_stacks(
        tmp_path_factory.mktemp("runs"), {"Runs": lambda stack: retraining(stack, parcels(folder, block))}
    )["Runs"]

    assert trigger(template)["Environment"]["Variables"]["BUDGET_RUNS"] == "4"
    assert not [
        a for a, _ in granted(statements(template, "RetrainingTriggerRole")) if a.startswith("sagemaker:Desc")
    ]


def test_should_refuse_a_budget_of_instances_that_nobody_can_price(folder: Path) -> None:
    block = "training: {instance_type: ml.m4.16xlarge}\nretraining: {budget: {usd_per_month: 20}}\n"
    with pytest.raises(ContractError, match=r"training.instance_type: ml.m4.16xlarge has no price of \d{4}-"):
        retraining(cdk.Stack(), parcels(folder, block))


def test_should_hear_the_monitors_that_the_workload_names(
    tmp_path_factory: pytest.TempPathFactory, folder: Path
) -> None:
    def build(stack: cdk.Stack) -> None:
        metric = cloudwatch.Metric(namespace="MLLifecycle", metric_name="Violations")
        alarms = {
            kind: metric.create_alarm(stack, kind.title(), threshold=1, evaluation_periods=1)
            for kind in ("data", "quality")
        }
        block = "retraining: {on: [quality]}\nmonitoring: {quality: {}}\n"
        retraining(stack, parcels(folder, block), alarm=False, alarms=alarms)

    template = synthesise_stacks(tmp_path_factory.mktemp("kinds"), {"Kinds": build})["Kinds"]
    [pattern] = patterns(template).values()
    [alarm] = pattern["resources"]
    assert flat(alarm).startswith("<Quality")


def test_should_tell_people_of_executions_versions_and_drift(
    tmp_path_factory: pytest.TempPathFactory, folder: Path
) -> None:
    def build(stack: cdk.Stack) -> None:
        lake = DataLake(stack, "OwnLake", database_prefix="own")
        key = kms.Key(stack, "Topics")
        metric = cloudwatch.Metric(namespace="MLLifecycle", metric_name="Violations")
        RetrainingNotices(
            stack,
            "Notices",
            workload=parcels(folder),
            environment_name="test",
            topic=Stakeholders(stack, "People", key=key).topic,
            pipeline_name=NAME,
            group_name=NAME,
            alarms={"data": metric.create_alarm(stack, "Drift", threshold=1, evaluation_periods=1)},
            reports={"data": lake.artifacts.uri("parcel-delay/monitoring")},
            artifacts=lake.artifacts,
            message_key=key,
            log_key=key,
        )

    template = synthesise_stacks(tmp_path_factory.mktemp("notices"), {"Notices": build})["Notices"]
    found = patterns(template)

    assert set(found) == {
        "SageMaker Model Building Pipeline Execution Status Change",
        "SageMaker Model Package State Change",
        "CloudWatch Alarm State Change",
    }
    assert found["SageMaker Model Package State Change"]["detail"] == {
        "ModelPackageGroupName": [NAME],
        "ModelApprovalStatus": ["PendingManualApproval"],
    }
    [queue] = resources(template, "AWS::SQS::Queue")
    for rule in resources(template, "AWS::Events::Rule").values():
        [target] = rule["Properties"]["Targets"]
        assert target["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": [queue, "Arn"]}}


def test_should_want_a_report_for_each_alarm(folder: Path) -> None:
    stack = cdk.Stack()
    key = kms.Key(stack, "Key")
    with pytest.raises(ValueError, match="alarms and reports must be of the same kinds"):
        RetrainingNotices(
            stack,
            "Notices",
            workload=parcels(folder),
            environment_name="test",
            topic=Stakeholders(stack, "People", key=key).topic,
            pipeline_name=NAME,
            group_name=NAME,
            alarms={},
            reports={"data": "s3://a/b"},
            artifacts=DataLake(stack, "OwnLake", database_prefix="own").artifacts,
            message_key=key,
            log_key=key,
        )
