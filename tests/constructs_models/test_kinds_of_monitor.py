"""The monitors of model quality, bias and attribution: each by either engine, apart from one another."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from cdk_support import Template, only, resources, statements, synthesise_stacks
from ml_contract.load import LoadedWorkload
from ml_lifecycle.data_lake import IcebergTable
from ml_lifecycle.monitoring import KINDS, GroundTruth, Kind, ModelDashboard, ModelMonitor, ShownModel
from ml_lifecycle.monitoring.kinds import short_name
from ml_lifecycle.training import service_model
from model_support import NAME, PARAMETER, Around, flat, granted, parcels

BLOCKS = """
evaluation:
  bias:
    facets: {carrier: {disadvantaged: [north]}, weight_kg: {above: 20}}
    favourable_above: 10
    limits: {DPPL: 0.2}
  explain: {}
monitoring:
  quality: {delay_hours: 6, every_hours: 12, minimum_labels: 33}
  bias: {every_hours: 1}
  attribution: {}
"""
KINDS_WITH_BLOCKS: tuple[Kind, ...] = ("quality", "bias", "attribution")
OPERATIONS = {
    "AWS::SageMaker::ModelQualityJobDefinition": "CreateModelQualityJobDefinition",
    "AWS::SageMaker::ModelBiasJobDefinition": "CreateModelBiasJobDefinition",
    "AWS::SageMaker::ModelExplainabilityJobDefinition": "CreateModelExplainabilityJobDefinition",
}


def monitors(stack: cdk.Stack, workload: LoadedWorkload, **options: Any) -> dict[Kind, ModelMonitor]:
    around = Around(stack)
    registry = around.registry(workload)
    found: dict[Kind, ModelMonitor] = {}
    for kind in KINDS:
        found[kind] = ModelMonitor(
            stack,
            f"{kind.title()}Monitor",
            kind=kind,
            workload=workload,
            environment_name="test",
            endpoint_name=NAME,
            registry=registry,
            artifacts=around.lake.artifacts,
            volume_key=around.data_key,
            message_key=around.message_key,
            image=found["data"].image if found else None,
            alarm_topic=sns.Topic.from_topic_arn(
                stack, f"{kind}Topic", "arn:aws:sns:us-east-1:123456789012:notices"
            ),
            **options,
        )
    return found


def ground_truth(stack: cdk.Stack, workload: LoadedWorkload, **options: Any) -> GroundTruth:
    around = Around(stack)

    def table(name: str) -> IcebergTable:
        return IcebergTable(
            stack,
            name.title(),
            zone=around.lake.curated,
            name=name,
            columns=[("parcel", "string")],
            prefix=f"{name}/",
            log_key=around.log_key,
        )

    if options.pop("people", False):
        options["labels"] = table("labels")
    return GroundTruth(
        stack,
        "GroundTruth",
        contract=workload.compiled,
        curated_table=table("parcels"),
        artifacts=around.lake.artifacts,
        message_key=around.message_key,
        log_key=kms.Key(stack, "Logs"),
        **options,
    )


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    workload = parcels(tmp_path_factory.mktemp("kinds"), BLOCKS)
    event = {"source": ["aws.glue"], "detail": {"jobName": ["build"]}}
    return synthesise_stacks(
        tmp_path_factory.mktemp("monitor-kinds"),
        {
            "Own": lambda stack: monitors(stack, workload),
            "Managed": lambda stack: monitors(stack, workload, engine="model_monitor"),
            "Labels": lambda stack: ground_truth(stack, workload, started_by=event),
            "People": lambda stack: ground_truth(stack, workload, people=True, every_hours=12),
        },
    )


def requests(template: Template) -> dict[str, dict[str, Any]]:
    """The requests of the schedules by kind, each with its schedule's expression."""
    found = {}
    for schedule in resources(template, "AWS::Scheduler::Schedule").values():
        request = json.loads(flat(schedule["Properties"]["Target"]["Input"]))
        if "ProcessingJobName" in request:
            request["expression"] = schedule["Properties"]["ScheduleExpression"]
            found[request["Environment"]["KIND"]] = request
    return found


def test_should_run_each_kind_at_its_own_hours_and_minute(templates: dict[str, Template]) -> None:
    assert {kind: request["expression"] for kind, request in requests(templates["Own"]).items()} == {
        "data": "cron(20 * * * ? *)",
        "quality": "cron(25 0/12 * * ? *)",
        "bias": "cron(30 * * * ? *)",
        "attribution": "cron(35 0 * * ? *)",
    }


def test_should_tell_each_kind_its_window_its_folder_and_where_labels_lie(
    templates: dict[str, Template],
) -> None:
    for kind, request in requests(templates["Own"]).items():
        environment, folder = request["Environment"], "monitoring" if kind == "data" else f"monitoring-{kind}"
        assert environment["REPORTS_URI"].endswith(f"/parcel-delay/{folder}")
        [output] = request["ProcessingOutputConfig"]["Outputs"]
        assert f"/parcel-delay/{folder}/<" in output["S3Output"]["S3Uri"]
        assert ("GROUND_TRUTH_URI" in environment) == (kind in ("quality", "bias"))
        assert environment["APPROVED_MODEL_PARAMETER"] == PARAMETER
    assert requests(templates["Own"])["quality"]["Environment"]["WINDOW_HOURS"] == "12"


def test_should_name_jobs_so_that_no_kind_is_taken_for_another(templates: dict[str, Template]) -> None:
    prefixes = {kind: r["ProcessingJobName"].split("<")[0] for kind, r in requests(templates["Own"]).items()}
    assert len(set(prefixes.values())) == 4
    for kind, prefix in prefixes.items():
        others = [other for k, other in prefixes.items() if k != kind]
        assert not any(other.startswith(prefix) for other in others)
        assert len(prefix) - 1 <= 26


def test_should_cut_a_long_name_and_keep_two_of_a_beginning_apart() -> None:
    first, second = (short_name(f"quality-production-parcel-delay-{end}", 26) for end in ("north", "south"))
    assert first != second
    assert len(first) == len(second) == 26
    assert short_name("bias-dev", 26) == "bias-dev"


@pytest.mark.parametrize("kind", KINDS_WITH_BLOCKS)
def test_should_let_a_kind_write_its_own_reports_only(templates: dict[str, Template], kind: Kind) -> None:
    found = granted(statements(templates["Own"], f"{kind.title()}MonitorRole"))
    writes = {r.rsplit(">", 1)[1] for a, r in found if a == "s3:PutObject"}
    assert writes == {f"/parcel-delay/monitoring-{kind}/*"}
    reads = {r.rsplit(">", 1)[1] for a, r in found if a == "s3:GetObject"}
    assert ("/parcel-delay/ground-truth/*" in reads) == (kind != "attribution")
    assert "/parcel-delay/capture/*" in reads


@pytest.mark.parametrize("engine", ["Own", "Managed"])
def test_should_alarm_by_metrics_of_the_kind_and_tell_also_when_no_run_tells(
    templates: dict[str, Template], engine: str
) -> None:
    alarms = {
        alarm["Properties"]["MetricName"]: alarm["Properties"]
        for alarm in resources(templates[engine], "AWS::CloudWatch::Alarm").values()
        if alarm["Properties"]["Namespace"] == "MLLifecycle"
    }
    prefixes = ("", "Quality", "Bias", "Attribution")
    assert set(alarms) == {f"{prefix}{name}" for prefix in prefixes for name in ("Violations", "Unjudged")}
    topic = ["arn:aws:sns:us-east-1:123456789012:notices"]
    for name, alarm in alarms.items():
        assert alarm["AlarmActions"] == alarm["OKActions"] == topic
        assert alarm.get("InsufficientDataActions") == (topic if name.endswith("Unjudged") else None)
    assert alarms["QualityViolations"]["Period"] == 12 * 3_600
    assert "fewer than 33 labels" in alarms["QualityUnjudged"]["AlarmDescription"]
    for kind in KINDS_WITH_BLOCKS:
        text = alarms[f"{kind.title()}Violations"]["AlarmDescription"]
        assert text.endswith(f"Runbook: docs/runbooks/{kind}.md")


def test_should_alarm_when_a_run_could_not_be_started(templates: dict[str, Template]) -> None:
    found = [
        alarm["Properties"]
        for alarm in resources(templates["Own"], "AWS::CloudWatch::Alarm").values()
        if alarm["Properties"]["MetricName"] == "ApproximateNumberOfMessagesVisible"
        and "monitoring run" in flat(alarm["Properties"]["AlarmDescription"])
    ]
    assert len(found) == 4
    assert all(alarm["AlarmActions"] for alarm in found)


@pytest.mark.parametrize("kind", OPERATIONS)
def test_should_ask_model_monitor_for_what_it_takes(templates: dict[str, Template], kind: str) -> None:
    plain = json.loads(re.sub(r"<[^>]*>", "0", json.dumps(flattened(only(templates["Managed"], kind)))))
    plain["RoleArn"] = "arn:aws:iam::000000000000:role/monitor"
    assert service_model.problems(OPERATIONS[kind], plain) == []


def flattened(node: Any) -> Any:
    """The template's values with references as text; structures stay."""
    if isinstance(node, list):
        return [flattened(item) for item in node]
    if isinstance(node, dict):
        if len(node) == 1 and next(iter(node)).startswith(("Fn::", "Ref")):
            return flat(node)
        return {key: flattened(value) for key, value in node.items()}
    return node


def test_should_wait_for_labels_and_leave_time_to_merge_them(templates: dict[str, Template]) -> None:
    template = templates["Managed"]
    for kind, every in (("Quality", 12), ("Bias", 1)):
        definition = only(template, f"AWS::SageMaker::Model{kind}JobDefinition")
        given = definition[f"Model{kind}JobInput"]
        assert given["EndpointInput"]["StartTimeOffset"] == "-PT6H"
        assert given["EndpointInput"]["EndTimeOffset"] == "-PT6H"
        assert flat(given["GroundTruthS3Input"]["S3Uri"]).endswith("/parcel-delay/ground-truth")
        # "No more than 1800" for an hourly job: the merge has the other half.
        assert definition["StoppingCondition"] == {"MaxRuntimeInSeconds": 1_800}
        schedules = [
            s["Properties"] for s in resources(template, "AWS::SageMaker::MonitoringSchedule").values()
        ]
        [config] = [
            s["MonitoringScheduleConfig"]
            for s in schedules
            if s["MonitoringScheduleConfig"]["MonitoringType"] == f"Model{kind}"
        ]
        window = config["ScheduleConfig"].get("DataAnalysisStartTime")
        assert window == (None if every == 1 else f"-PT{every}H")
    specification = only(template, "AWS::SageMaker::ModelQualityJobDefinition")[
        "ModelQualityAppSpecification"
    ]
    assert specification["ProblemType"] == "Regression"


def test_should_say_in_clarifys_words_what_is_analysed(tmp_path: Path) -> None:
    from ml_lifecycle.monitoring.managed_engine import analysis

    contract = parcels(tmp_path, BLOCKS).compiled
    found = analysis(contract, "bias")
    assert found["label"] == "minutes_late"
    assert found["label_values_or_threshold"] == [10]
    assert found["facet"] == [
        {"name_or_index": "carrier", "value_or_threshold": ["north"]},
        {"name_or_index": "weight_kg", "value_or_threshold": [20]},
    ]
    assert list(analysis(contract, "attribution")["methods"]) == ["shap"]


def test_should_refuse_a_kind_that_is_not_switched_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"monitoring\.quality must be given for its monitor, got null"):
        monitors(cdk.Stack(cdk.App(), "S"), parcels(tmp_path))


def test_should_collect_labels_when_curated_records_are_new(templates: dict[str, Template]) -> None:
    template = templates["Labels"]
    [rule] = resources(template, "AWS::Events::Rule").values()
    assert rule["Properties"]["EventPattern"]["source"] == ["aws.glue"]
    assert rule["Properties"]["Targets"][0]["DeadLetterConfig"]
    assert not resources(template, "AWS::Scheduler::Schedule")
    environment = next(
        f["Properties"]["Environment"]["Variables"]
        for f in resources(template, "AWS::Lambda::Function").values()
        if "GROUND_TRUTH_URI" in f["Properties"].get("Environment", {}).get("Variables", {})
    )
    assert environment["IDENTIFIER"] == "parcel"
    assert environment["LABEL"] == "minutes_late"
    assert environment["LOOKBACK_HOURS"] == "72"
    assert "LABELS_TABLE" not in environment
    found = granted(statements(template, "GroundTruthRole"))
    assert {r.rsplit(">", 1)[1] for a, r in found if a == "s3:PutObject"} == {"/parcel-delay/ground-truth/*"}
    assert {r.rsplit(">", 1)[1] for a, r in found if a == "s3:GetObject"} == {
        "/parcel-delay/ground-truth/*",
        "/parcels/*",
    }


def test_should_look_for_what_people_said_before_the_monitors_run(templates: dict[str, Template]) -> None:
    schedule = only(templates["People"], "AWS::Scheduler::Schedule")
    assert schedule["ScheduleExpression"] == "cron(5 0/12 * * ? *)"
    assert "scheduled-time" in schedule["Target"]["Input"]


def test_should_refuse_ground_truth_that_nothing_would_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing would start it") as error:
        ground_truth(cdk.Stack(cdk.App(), "S"), parcels(tmp_path), every_hours=5, lookback_hours=0)
    assert "every_hours must be one of" in str(error.value)
    assert "lookback_hours must be between" in str(error.value)


def test_should_write_the_page_over_all_models_with_rights_that_do_not_grow(tmp_path: Path) -> None:
    def dashboard(count: int) -> Template:
        def build(stack: cdk.Stack) -> None:
            around = Around(stack)
            ModelDashboard(
                stack,
                "Models",
                environment_name="test",
                models=[
                    ShownModel(
                        name=f"m{n}",
                        title=f"Model {n}",
                        slug=f"m{n}",
                        group=f"test-m{n}",
                        approved=f"/ml-lifecycle/test/m{n}/approved",
                        alarms=(f"Test-M{n}Operations-",),
                        endpoint=f"test-m{n}",
                    )
                    for n in range(count)
                ],
                artifacts=around.lake.artifacts,
                message_key=around.message_key,
                log_key=around.log_key,
            )

        return synthesise_stacks(tmp_path / str(count), {"Pages": build})["Pages"]

    one, many = dashboard(1), dashboard(40)
    found = statements(one, "ModelsFunctionRole")
    assert granted(found) == granted(statements(many, "ModelsFunctionRole"))
    assert {a for a, r in granted(found) if r == "*"} == {
        "cloudwatch:GetMetricData",
        "sagemaker:ListModelPackages",
    }
    assert {r.rsplit(">", 1)[1] for a, r in granted(found) if a == "s3:PutObject"} == {"/model-dashboard/*"}
    assert not [r for a, r in granted(found) if a == "s3:GetObject"]
    [parameters] = {r for a, r in granted(found) if a == "ssm:GetParameter"}
    assert parameters.endswith(":parameter/ml-lifecycle/test/*")
    assert only(one, "AWS::Scheduler::Schedule")["ScheduleExpression"] == "cron(50 * * * ? *)"
