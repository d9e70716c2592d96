"""Checks that read templates only: each catches what is wrong and lets pass what is right."""

from __future__ import annotations

import json
from typing import Any

import pytest
from verify_support import Mini

from verify.release import digest

Json = Any


def rule(pattern: Json) -> Json:
    return {"EventPattern": pattern, "Targets": []}


APPROVED = {
    "source": ["aws.sagemaker"],
    "detail-type": ["SageMaker Model Package State Change"],
    "detail": {"ModelApprovalStatus": ["Approved"], "ModelPackageGroupName": ["dev-some"]},
}


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ({"source": ["aws.sagemakr"]}, "no event"),
        ({"detail-type": ["SageMaker Model Package Status Change"]}, "no event"),
        ({"detail": {"ModelApprovalState": ["Approved"]}}, "has no detail.ModelApprovalState"),
        ({"detail": {"ModelApprovalStatus": ["APPROVED"]}}, "never 'APPROVED'"),
        ({"detail": {"ModelApprovalStatus": [{"prefix": "approved"}]}}, "never {'prefix': 'approved'}"),
        ({"detail": {"ModelApprovalStatus": [{"anything-butt": "Rejected"}]}}, "anything-butt"),
        ({"detail": {"$or": [{"ModelApprovalState": ["x"]}]}}, "has no detail.ModelApprovalState"),
        ({"source": []}, "without a source"),
        ({"details": {}}, "no event has details"),
        ({"source": ["some.of-ours"]}, "nobody sends"),
    ],
)
def test_should_catch_a_pattern_that_no_event_matches(mini: Mini, change: Json, value: str) -> None:
    mini.add("Rule", "AWS::Events::Rule", rule(APPROVED | change))
    assert any(value in finding.value for finding in mini.found("events")), mini.found("events")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"detail": {"ModelApprovalStatus": [{"anything-but": ["Rejected"]}]}},
        {"detail": {"ModelApprovalStatus": [{"prefix": "App"}]}},
        {
            "source": ["aws.s3"],
            "detail-type": ["AWS API Call via CloudTrail"],
            "detail": {"eventName": ["DeleteBucket"], "requestParameters": {"bucketName": ["b"]}},
        },
    ],
)
def test_should_let_a_pattern_pass_that_an_event_matches(mini: Mini, change: Json) -> None:
    mini.add("Rule", "AWS::Events::Rule", rule(APPROVED | change))
    assert mini.found("events") == []


@pytest.mark.parametrize(("settings", "count"), [({}, 1), ({"EventBridgeConfiguration": {}}, 0)])
def test_should_catch_a_rule_on_a_bucket_that_tells_nobody(mini: Mini, settings: Json, count: int) -> None:
    mini.add("Bucket", "AWS::S3::Bucket", {"NotificationConfiguration": settings})
    pattern = {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {"bucket": {"name": [{"Ref": "Bucket"}]}},
    }
    mini.add("Rule", "AWS::Events::Rule", rule(pattern))
    found = mini.found("events")
    assert [finding.value for finding in found] == [
        "bucket Dev/Main Bucket tells EventBridge nothing"
    ] * count


def machine(resource: str, parameters: Json) -> Json:
    definition = {
        "StartAt": "Do",
        "States": {"Do": {"Type": "Task", "Resource": resource, "Parameters": parameters, "End": True}},
    }
    return {"DefinitionString": json.dumps(definition), "RoleArn": {"Fn::GetAtt": ["Role", "Arn"]}}


SDK = "arn:${AWS::Partition}:states:::aws-sdk:sagemaker:"


@pytest.mark.parametrize(
    ("resource", "parameters", "value"),
    [
        (f"{SDK}startPipelineExecutions", {}, "no operation startPipelineExecutions"),
        (f"{SDK}startPipelineExecution", {"Pipeline": "p"}, "Pipeline is no parameter"),
        (f"{SDK}startPipelineExecution", {}, "PipelineName is missing"),
        (f"{SDK}startPipelineExecution", {"PipelineName": 7}, "StartPipelineExecution: 7"),
        (
            f"{SDK}updateModelPackage",
            {
                "ModelPackageArn": "arn:aws:sagemaker:eu-west-1:1:model-package/a",
                "ModelApprovalStatus": "approved",
            },
            "'approved'",
        ),
        (
            "arn:aws:states:::sqs:sendMessage",
            {"QueueURL": "u", "MessageBody": {"a": 1}},
            "QueueURL is no parameter",
        ),
    ],
)
def test_should_catch_a_call_that_the_model_refuses(
    mini: Mini, resource: str, parameters: Json, value: str
) -> None:
    mini.add("Machine", "AWS::StepFunctions::StateMachine", machine(resource, parameters))
    assert any(value in finding.value for finding in mini.found("parameters")), mini.found("parameters")


@pytest.mark.parametrize(
    ("resource", "parameters"),
    [
        (f"{SDK}startPipelineExecution", {"PipelineName.$": "$.name"}),
        (f"{SDK}startPipelineExecution", {"PipelineName": "some"}),
        ("arn:aws:states:::sqs:sendMessage", {"QueueUrl": "u", "MessageBody": {"a": 1}}),
        ("arn:aws:states:::lambda:invoke.waitForTaskToken", {"FunctionName": "f", "Payload": {"a.$": "$"}}),
        (
            "arn:aws:states:::emr-serverless:startJobRun.sync",
            {"ApplicationId": "0", "ExecutionRoleArn.$": "$.r"},
        ),
    ],
)
def test_should_let_a_call_pass_that_the_model_takes(mini: Mini, resource: str, parameters: Json) -> None:
    mini.add("Machine", "AWS::StepFunctions::StateMachine", machine(resource, parameters))
    assert mini.found("parameters") == []


def test_should_read_the_steps_of_a_pipeline_and_the_input_of_a_schedule(mini: Mini) -> None:
    steps = [
        {
            "Name": "Train",
            "Type": "Training",
            "Arguments": {
                "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "Files"},
                "RoleArn": {"Get": "Parameters.Role"},
                "OutputDataConfig": {"S3OutputPath": {"Std:Join": {"On": "/", "Values": ["s3:/", "b"]}}},
                "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
                "StoppingCondition": {"MaxRuntimeInSecond": 60},
            },
        }
    ]
    body = json.dumps({"Version": "2020-12-01", "Steps": steps})
    mini.add("Pipeline", "AWS::SageMaker::Pipeline", {"PipelineDefinition": {"PipelineDefinitionBody": body}})
    mini.add(
        "Schedule",
        "AWS::Scheduler::Schedule",
        {
            "Target": {
                "Arn": {"Fn::Sub": "arn:${AWS::Partition}:scheduler:::aws-sdk:glue:startJobRun"},
                "Input": '{"JobsName": "x"}',
            }
        },
    )
    values = sorted(finding.value for finding in mini.found("parameters"))
    assert values == [
        "CreateTrainingJob: 'Files'",
        "CreateTrainingJob: MaxRuntimeInSecond is no parameter",
        "StartJobRun: JobName is missing",
        "StartJobRun: JobsName is no parameter",
    ]


@pytest.mark.parametrize(("depends", "count"), [([], 1), (["RolePolicy"], 0)])
def test_should_catch_a_role_that_is_used_before_its_policy(mini: Mini, depends: Json, count: int) -> None:
    mini.role("Role", ("s3:GetObject",))
    role = {"Fn::GetAtt": ["Role", "Arn"]}
    mini.add("Model", "AWS::SageMaker::Model", {"ExecutionRoleArn": role}, DependsOn=depends)
    found = mini.found("attached")
    assert [finding.allowed for finding in found] == ["DependsOn RolePolicy"] * count


def test_should_wait_for_a_custom_resources_role_through_other_resources(mini: Mini) -> None:
    mini.function("def handler(event, context): ...", actions=("s3:PutObject",))
    mini.add("Custom", "Custom::Thing", {"ServiceToken": {"Fn::GetAtt": ["Function", "Arn"]}})
    assert [finding.place for finding in mini.found("attached")] == ["Dev/Main Custom: ServiceToken"]
    mini.resources["Function"]["DependsOn"] = "FunctionRolePolicy"
    assert mini.found("attached") == []


def test_should_not_ask_for_an_order_that_goes_round_in_a_circle(mini: Mini) -> None:
    mini.role("Role", ("s3:GetObject",))
    mini.resources["RolePolicy"]["Properties"]["PolicyDocument"]["Statement"][0]["Resource"] = {
        "Ref": "Model"
    }
    mini.add("Model", "AWS::SageMaker::Model", {"ExecutionRoleArn": {"Fn::GetAtt": ["Role", "Arn"]}})
    assert mini.found("attached") == []


@pytest.mark.parametrize(
    ("name", "severities"),
    [("monitor", ["error"]), ("monitor-1a2b3c4d", []), (None, [])],
)
def test_should_catch_a_fixed_name_of_what_is_immutable(
    mini: Mini, name: str | None, severities: list[str]
) -> None:
    named = {} if name is None else {"EndpointConfigName": name}
    mini.add("Config", "AWS::SageMaker::EndpointConfig", {"ProductionVariants": [{}], **named})
    assert [finding.severity for finding in mini.found("names")] == severities


@pytest.mark.parametrize(
    ("kind", "properties", "value"),
    [
        (
            "AWS::KinesisAnalytics::Application",
            {},
            "Kinesis Data Analytics for SQL is retired since 2026-01-27",
        ),
        ("AWS::SageMaker::DeviceFleet", {}, "Edge Manager is retired"),
        ("AWS::Lambda::Function", {"Runtime": "python3.8", "Code": {}}, "python3.8 can make nothing new"),
        ("AWS::Glue::Job", {"GlueVersion": "2.0"}, "2.0 can make nothing new"),
        ("AWS::SageMaker::MonitoringSchedule", {}, "Model Monitor is closed since 2026-07-30"),
    ],
)
def test_should_catch_what_is_retired_or_closed(mini: Mini, kind: str, properties: Json, value: str) -> None:
    mini.add("Thing", kind, properties)
    assert any(value in finding.value for finding in mini.found("availability"))


def test_should_catch_what_a_region_does_not_have(mini: Mini) -> None:
    mini.region = "ap-east-2"
    mini.add("Tracking", "AWS::Glue::TableOptimizer")
    mini.add("Bucket", "AWS::S3::Bucket")
    mini.add(
        "Machine",
        "AWS::StepFunctions::StateMachine",
        machine("arn:aws:states:::aws-sdk:forecast:listDatasets", {}),
    )
    assert sorted(finding.value for finding in mini.found("availability")) == [
        "CloudFormation has no AWS::Glue::TableOptimizer in ap-east-2",
        "forecast (listDatasets) is not in ap-east-2",
    ]
    mini.region = "us-east-1"
    assert mini.found("availability") == []
    mini.region = "eu-nowhere-1"
    assert [finding.value for finding in mini.found("availability")] == ["eu-nowhere-1 is no region"]


def dashboard(count: int) -> Json:
    return {"DashboardBody": json.dumps({"widgets": [{"type": "text", "properties": {}}] * count})}


@pytest.mark.parametrize(
    ("kind", "good", "bad", "what"),
    [
        ("AWS::Events::Rule", {"Targets": [{}] * 5}, {"Targets": [{}] * 6}, "6 targets of a rule"),
        ("AWS::CloudWatch::Dashboard", dashboard(500), dashboard(501), "501 widgets"),
        (
            "AWS::Lambda::Function",
            {"Code": {}, "Environment": {"Variables": {"X": "x" * 4000}}},
            {"Code": {}, "Environment": {"Variables": {"X": "x" * 4200}}},
            "environment variables",
        ),
        (
            "AWS::CloudWatch::Alarm",
            {"AlarmActions": ["a"] * 5},
            {"AlarmActions": ["a"] * 6},
            "6 actions of an alarm",
        ),
        (
            "AWS::IAM::ManagedPolicy",
            {"PolicyDocument": {"Statement": [{"Resource": "a" * 6000}]}},
            {"PolicyDocument": {"Statement": [{"Resource": "a" * 6200}]}},
            "characters of a managed policy",
        ),
        (
            "AWS::CodePipeline::Pipeline",
            {"Stages": [{"Actions": [{}] * 50}] * 10},
            {"Stages": [{"Actions": [{}] * 42}] * 12},
            "504 actions of a CodePipeline",
        ),
        (
            "AWS::CodePipeline::Pipeline",
            {"Stages": [{"Actions": [{}]}] * 50},
            {"Stages": [{"Actions": [{}]}] * 51},
            "51 stages of a CodePipeline",
        ),
    ],
)
def test_should_catch_what_is_over_a_quota(mini: Mini, kind: str, good: Json, bad: Json, what: str) -> None:
    mini.add("Thing", kind, good)
    assert mini.found("quotas") == []
    mini.add("Thing", kind, bad)
    (finding,) = mini.found("quotas")
    assert what in finding.value


def test_should_count_the_policies_of_a_role_together_and_the_resources_of_a_stack(mini: Mini) -> None:
    mini.role("Role", tuple(f"s3:Action{number:04}" for number in range(700)))
    for number in range(499):
        mini.add(f"Topic{number}", "AWS::SNS::Topic")
    values = sorted(finding.value for finding in mini.found("quotas"))
    assert len(values) == 2
    assert values[0].endswith("characters of all inline policies of a role")
    assert values[1] == "501 resources in a stack"


def test_should_say_a_word_before_a_quota_is_reached_that_can_be_raised(mini: Mini) -> None:
    for number in range(240):
        mini.add(f"Rule{number}", "AWS::Events::Rule", {"ScheduleExpression": "rate(1 day)", "Targets": []})
    (finding,) = mini.found("quotas")
    assert (finding.severity, finding.value) == ("warning", "240 rules on an event bus")


def test_should_catch_more_saved_queries_than_a_region_keeps(mini: Mini) -> None:
    # In one stack that is over another quota as well.
    for number in range(1_001):
        mini.add(f"Query{number}", "AWS::Logs::QueryDefinition")
    found = {finding.value: finding.severity for finding in mini.found("quotas")}
    assert found["1001 saved queries of Logs Insights in a region"] == "error"


def test_should_hold_what_holds_data_against_the_last_release(mini: Mini) -> None:
    stream = {"StreamName": "records", "Name": "records", "ShardCount": 1}
    mini.add("Stream", "AWS::Kinesis::Stream", stream, DeletionPolicy="Retain")
    mini.add("Group", "AWS::SageMaker::ModelPackageGroup", {"ModelPackageGroupName": "models"})
    release = digest(mini.context().assembly)
    assert mini.found("create-only", release) == []
    assert mini.found("create-only", None) == []

    mini.add("Stream", "AWS::Kinesis::Stream", stream | {"Name": "others"})
    del mini.resources["Group"]
    found = {finding.place: finding.value for finding in mini.found("create-only", release)}
    assert found == {
        "Dev/Main Stream: Name": '"others": this replaces the AWS::Kinesis::Stream, and its data is lost',
        "Dev/Main Stream: DeletionPolicy": "Delete",
        "Dev/Main Group": "AWS::SageMaker::ModelPackageGroup of the last release is gone",
    }


def test_should_count_tags_where_a_service_cannot_change_them(mini: Mini) -> None:
    tags = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]
    mini.add("Group", "AWS::SageMaker::FeatureGroup", {"FeatureGroupName": "g", "Tags": tags})
    release = digest(mini.context().assembly)
    # Their order means nothing, what they say does.
    mini.add("Group", "AWS::SageMaker::FeatureGroup", {"FeatureGroupName": "g", "Tags": tags[::-1]})
    assert mini.found("create-only", release) == []
    mini.add("Group", "AWS::SageMaker::FeatureGroup", {"FeatureGroupName": "g", "Tags": tags[:1]})
    assert [finding.place for finding in mini.found("create-only", release)] == ["Dev/Main Group: Tags"]
