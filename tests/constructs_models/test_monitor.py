"""The monitor: two engines with the same image and results, alarms for drift and for no verdict."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from cdk_support import Template, only, resources, statements, synthesise_stacks
from ml_contract.load import ContractError, LoadedWorkload
from ml_lifecycle.monitoring import ModelMonitor
from ml_lifecycle.training import service_model
from model_support import NAME, PARAMETER, Around, flat, granted, parcels

JOBS = "arn:<AWS::Partition>:sagemaker:<AWS::Region>:<AWS::AccountId>:processing-job/test-parcel-delay-*"
SLOW = """
monitoring: {every_hours: 6, instance_type: ml.m5.xlarge, alarm_after_violations: 3, minimum_records: 7}
"""


def monitor(stack: cdk.Stack, workload: LoadedWorkload, **options: Any) -> ModelMonitor:
    around = Around(stack)
    if options.pop("vpc", False):
        options["network"] = around.network()
    return ModelMonitor(
        stack,
        "Monitor",
        workload=workload,
        environment_name="test",
        endpoint_name=NAME,
        registry=around.registry(workload),
        artifacts=around.lake.artifacts,
        volume_key=around.data_key,
        message_key=around.message_key,
        **options,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workloads")


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> dict[str, Template]:
    def everything(stack: cdk.Stack) -> None:
        built = monitor(stack, parcels(folder))
        reader = iam.Role(stack, "Reader", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        built.grant_read_reports(reader)
        built.on_run_failed("Failed", target=targets.SnsTopic(sns.Topic(stack, "Topic")))

    def managed(stack: cdk.Stack) -> None:
        condition = cdk.CfnCondition(
            stack, "IsApproved", expression=cdk.Fn.condition_equals(cdk.Aws.REGION, "x")
        )
        monitor(stack, parcels(folder), engine="model_monitor", condition=condition)

    return synthesise_stacks(
        tmp_path_factory.mktemp("monitoring"),
        {
            "Default": everything,
            "Slow": lambda stack: monitor(stack, parcels(folder, SLOW), vpc=True, volume_gb=50),
            "Managed": managed,
            "ManagedSlow": lambda stack: monitor(stack, parcels(folder, SLOW), engine="model_monitor"),
        },
    )


def schedules(template: Template) -> list[Template]:
    """Properties of the schedules of jobs; the registry, which stands beside the monitor, has its own."""
    return [
        s["Properties"]
        for s in resources(template, "AWS::Scheduler::Schedule").values()
        if "createProcessingJob" in flat(s["Properties"]["Target"]["Arn"])
    ]


def run(template: Template) -> dict[str, Any]:
    """Request that the schedule makes, references as text."""
    [schedule] = schedules(template)
    request: dict[str, Any] = json.loads(flat(schedule["Target"]["Input"]))
    return request


def test_should_run_every_hour_after_the_hour_by_default(templates: dict[str, Template]) -> None:
    [schedule] = schedules(templates["Default"])
    assert schedule["ScheduleExpression"] == "cron(20 * * * ? *)"
    assert schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}
    assert flat(schedule["Target"]["Arn"]) == (
        "arn:<AWS::Partition>:scheduler:::aws-sdk:sagemaker:createProcessingJob"
    )
    assert flat(schedule["Target"]["DeadLetterConfig"]["Arn"]).startswith("<MonitorDeadLetters")
    [slow] = schedules(templates["Slow"])
    assert slow["ScheduleExpression"] == "cron(20 0/6 * * ? *)"


def test_should_ask_for_a_job_that_sagemaker_takes(templates: dict[str, Template]) -> None:
    for name in ("Default", "Slow"):
        request = run(templates[name])
        assert request["ProcessingJobName"] == "test-parcel-delay-<aws.scheduler.execution-id>"
        request["ProcessingJobName"] = "test-parcel-delay-" + "0" * 36
        text = re.sub(r"<[^>]*>", "0", json.dumps(request))
        plain = json.loads(text)
        plain["RoleArn"] = "arn:aws:iam::000000000000:role/monitor"
        assert service_model.problems("CreateProcessingJob", plain) == []


def test_should_tell_the_run_what_to_judge(templates: dict[str, Template]) -> None:
    request = run(templates["Default"])
    environment = request["Environment"]
    for name, end in (("CAPTURE_URI", "capture"), ("REPORTS_URI", "monitoring")):
        assert environment.pop(name).endswith(f"/parcel-delay/{end}")
    assert environment == {
        "APPROVED_MODEL_PARAMETER": PARAMETER,
        "ENDPOINT_NAME": NAME,
        "ENVIRONMENT": "test",
        "KIND": "data",
        "SCHEDULED_TIME": "<aws.scheduler.scheduled-time>",
        "WINDOW_HOURS": "1",
        "WORKLOAD": "parcel_delay",
    }
    [contract] = request["ProcessingInputs"]
    assert contract["S3Input"]["LocalPath"] == "/opt/ml/processing/input/contract"
    [report] = request["ProcessingOutputConfig"]["Outputs"]
    assert report["S3Output"]["LocalPath"] == "/opt/ml/processing/output/report"
    assert report["S3Output"]["S3Uri"].endswith("/parcel-delay/monitoring/<aws.scheduler.execution-id>")
    assert run(templates["Slow"])["Environment"]["WINDOW_HOURS"] == "6"


def test_should_run_where_it_is_placed_and_as_large_as_told(templates: dict[str, Template]) -> None:
    default, slow = run(templates["Default"]), run(templates["Slow"])
    assert default["NetworkConfig"] == {
        "EnableInterContainerTrafficEncryption": True,
        "EnableNetworkIsolation": False,
    }
    assert set(slow["NetworkConfig"]["VpcConfig"]) == {"Subnets", "SecurityGroupIds"}
    cluster = slow["ProcessingResources"]["ClusterConfig"]
    assert (cluster["InstanceType"], cluster["VolumeSizeInGB"]) == ("ml.m5.xlarge", 50)
    assert default["ProcessingResources"]["ClusterConfig"]["VolumeSizeInGB"] == 30
    assert default["StoppingCondition"] == {"MaxRuntimeInSeconds": 3_600}


def test_should_let_the_schedule_start_its_own_jobs_as_one_role(templates: dict[str, Template]) -> None:
    found = statements(templates["Default"], "MonitorScheduleRole")
    jobs = {(a, r) for a, r in granted(found) if a.startswith("sagemaker:")}
    assert jobs == {("sagemaker:AddTags", JOBS), ("sagemaker:CreateProcessingJob", JOBS)}
    [passing] = [s for s in found if s["Action"] == "iam:PassRole"]
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    assert flat(passing["Resource"]).startswith("<MonitorRole")


def test_should_let_the_run_read_captures_and_baselines_and_write_reports(
    templates: dict[str, Template],
) -> None:
    found = granted(statements(templates["Default"], "MonitorRole"))
    reads = {r.rsplit(">", 1)[1] for a, r in found if a == "s3:GetObject"}
    assert {"/parcel-delay/capture/*", "/parcel-delay/training/*"} <= reads
    writes = {r.rsplit(">", 1)[1] for a, r in found if a == "s3:PutObject"}
    assert writes == {"/parcel-delay/monitoring/*"}
    calls = {a for a, _ in found if a.split(":")[0] in ("sagemaker", "ssm")}
    assert calls == {"sagemaker:DescribeModelPackage", "ssm:GetParameter"}
    [metrics] = [
        s
        for s in statements(templates["Default"], "MonitorRole")
        if "cloudwatch:PutMetricData" in s["Action"]
    ]
    assert metrics["Condition"] == {"StringEquals": {"cloudwatch:namespace": ["MLLifecycle"]}}


@pytest.mark.parametrize("stack", ["Default", "Managed"])
def test_should_alarm_on_drift_and_on_no_verdict_whatever_the_engine(
    templates: dict[str, Template], stack: str
) -> None:
    alarms = {
        alarm["Properties"]["MetricName"]: alarm["Properties"]
        for alarm in resources(templates[stack], "AWS::CloudWatch::Alarm").values()
        if alarm["Properties"]["Namespace"] == "MLLifecycle"
    }
    assert set(alarms) == {"Violations", "Unjudged"}
    for alarm in alarms.values():
        assert {d["Name"]: d["Value"] for d in alarm["Dimensions"]} == {
            "Environment": "test",
            "Workload": "parcel_delay",
        }
        assert (alarm["Period"], alarm["EvaluationPeriods"], alarm["Threshold"]) == (3_600, 1, 1)
        assert alarm["ComparisonOperator"] == "GreaterThanOrEqualToThreshold"
    assert alarms["Violations"]["TreatMissingData"] == "notBreaching"
    assert alarms["Unjudged"]["TreatMissingData"] == "missing"


def test_should_alarm_as_the_workload_says(templates: dict[str, Template]) -> None:
    alarms = {
        alarm["Properties"]["MetricName"]: alarm["Properties"]
        for alarm in resources(templates["Slow"], "AWS::CloudWatch::Alarm").values()
    }
    assert (alarms["Violations"]["Threshold"], alarms["Violations"]["Period"]) == (3, 6 * 3_600)
    assert "fewer than 7 records" in alarms["Unjudged"]["AlarmDescription"]


def test_should_run_by_model_monitor_under_the_condition(templates: dict[str, Template]) -> None:
    template = templates["Managed"]
    assert not schedules(template)
    [definition] = resources(template, "AWS::SageMaker::DataQualityJobDefinition").values()
    [schedule] = resources(template, "AWS::SageMaker::MonitoringSchedule").values()
    assert definition["Condition"] == schedule["Condition"] == "IsApproved"
    config = schedule["Properties"]["MonitoringScheduleConfig"]
    assert config["MonitoringType"] == "DataQuality"
    assert config["ScheduleConfig"] == {"ScheduleExpression": "cron(0 * ? * * *)"}
    assert config["MonitoringJobDefinitionName"] == definition["Properties"]["JobDefinitionName"]
    specification = definition["Properties"]["DataQualityAppSpecification"]
    assert specification["Environment"]["APPROVED_MODEL_PARAMETER"] == PARAMETER
    assert definition["Properties"]["DataQualityJobInput"]["EndpointInput"]["EndpointName"] == NAME


def test_should_name_a_job_definition_by_its_content(templates: dict[str, Template]) -> None:
    kind = "AWS::SageMaker::DataQualityJobDefinition"
    first = only(templates["Managed"], kind)["JobDefinitionName"]
    other = only(templates["ManagedSlow"], kind)["JobDefinitionName"]
    assert re.fullmatch(r"test-parcel-delay-[0-9a-f]{8}", first)
    assert re.fullmatch(r"test-parcel-delay-[0-9a-f]{8}", other)
    assert first != other
    expression = only(templates["ManagedSlow"], "AWS::SageMaker::MonitoringSchedule")[
        "MonitoringScheduleConfig"
    ]["ScheduleConfig"]
    assert expression == {
        "ScheduleExpression": "cron(0 0/6 ? * * *)",
        "DataAnalysisStartTime": "-PT6H",
        "DataAnalysisEndTime": "-PT0H",
    }


def test_should_tell_of_a_failed_run_and_grant_reading_reports(templates: dict[str, Template]) -> None:
    rules = resources(templates["Default"], "AWS::Events::Rule")
    failed = next(r["Properties"] for name, r in rules.items() if name.startswith("MonitorFailed"))
    assert failed["EventPattern"]["detail"] == {
        "ProcessingJobName": [{"prefix": "test-parcel-delay-"}],
        "ProcessingJobStatus": ["Failed"],
    }
    reads = {r for a, r in granted(statements(templates["Default"], "Reader")) if a == "s3:GetObject"}
    assert [r.rsplit(">", 1)[1] for r in reads] == ["/parcel-delay/monitoring/*"]


def test_should_refuse_an_instance_type_for_another_purpose(folder: Path) -> None:
    workload = parcels(folder, "monitoring: {instance_type: ml.c7g.large}\n")
    with pytest.raises(
        ContractError, match=r"monitoring\.instance_type: 'ml\.c7g\.large' is no instance type"
    ):
        monitor(cdk.Stack(), workload)


def test_should_refuse_a_request_that_sagemaker_would_refuse(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"VolumeSizeInGB: must be between 1 and 16384, got 0"):
        monitor(cdk.Stack(cdk.App(), "S"), parcels(folder), volume_gb=0)
