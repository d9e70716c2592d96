"""Windowed features: the job that is deployed, its grants, its errors, what nobody has to start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from cdk_nag import AwsSolutionsChecks
from cdk_support import Template, actions, cdk_context, only, resources, statements, synthesise_stacks
from data_support import YAML, Surroundings
from ml_contract.compiled import CompiledContract
from ml_contract.load import load_workload
from ml_lifecycle.ingestion import StreamIngestion
from ml_lifecycle.windows import WindowedFeatures

WINDOWS = """
windows:
  key: carrier
  engine: flink
  features:
    parcels_24h: {aggregate: count, over_hours: 24}
    weight_mean_7d: {aggregate: mean, field: weight_kg, over_hours: 168}
"""


def loaded(folder: Path, text: str) -> CompiledContract:
    (folder / "workload.yaml").write_text(text)
    return load_workload(folder).compiled


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> CompiledContract:
    text = YAML.replace("carrier: {type: string,", "carrier: {type: string, required: true,")
    return loaded(tmp_path_factory.mktemp("windowed"), text + WINDOWS)


def built(
    stack: cdk.Stack, contract: CompiledContract, *, alarmed: bool = False, **options: Any
) -> WindowedFeatures:
    around = Surroundings(stack, contract)
    ingestion = StreamIngestion(
        stack,
        "Ingestion",
        contract=contract,
        zone=around.lake.raw,
        stream_key=around.key,
        log_key=around.log_key,
    )
    return WindowedFeatures(
        stack,
        "Windows",
        contract=contract,
        name_prefix="t-parcel-delay",
        source_stream=ingestion.stream,
        zone=around.lake.features,
        data_key=around.key,
        message_key=around.key,
        log_key=around.log_key,
        alarm_topic=around.topic if alarmed else None,
        **options,
    )


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, contract: CompiledContract) -> dict[str, Template]:
    folder = tmp_path_factory.mktemp("windows")
    (folder / "connector.jar").write_bytes(b"a jar")
    return synthesise_stacks(
        folder / "out",
        {
            "Default": lambda stack: built(stack, contract),
            "Options": lambda stack: built(
                stack,
                contract,
                alarmed=True,
                parallelism=4,
                allowed_lateness_hours=3,
                connector=folder / "connector.jar",
                log_retention_days=7,
            ),
        },
    )


def application(template: Template) -> dict[str, Any]:
    found: dict[str, Any] = only(template, "AWS::KinesisAnalyticsV2::Application")
    return found


def test_should_run_the_contract_s_sql_between_the_two_streams(templates: dict[str, Template]) -> None:
    found = application(templates["Default"])
    assert found["RuntimeEnvironment"] == "FLINK-1_20"
    groups = {
        g["PropertyGroupId"]: g["PropertyMap"]
        for g in found["ApplicationConfiguration"]["EnvironmentProperties"]["PropertyGroups"]
    }
    assert groups["kinesis.analytics.flink.run.options"]["python"] == "main.py"
    assert groups["job"]["source_arn"]["Fn::GetAtt"][0].startswith("IngestionStream")
    assert groups["job"]["sink_arn"]["Fn::GetAtt"][0].startswith("WindowsRows")
    flink = found["ApplicationConfiguration"]["FlinkApplicationConfiguration"]
    assert flink["CheckpointConfiguration"]["CheckpointingEnabled"] is True
    assert flink["ParallelismConfiguration"]["Parallelism"] == 1
    assert (
        application(templates["Options"])["ApplicationConfiguration"]["FlinkApplicationConfiguration"][
            "ParallelismConfiguration"
        ]["Parallelism"]
        == 4
    )


def test_should_keep_the_windows_of_a_key_in_a_group_of_their_own(templates: dict[str, Template]) -> None:
    found = only(templates["Default"], "AWS::SageMaker::FeatureGroup")
    assert found["RecordIdentifierFeatureName"] == "carrier"
    assert [f["FeatureName"] for f in found["FeatureDefinitions"]] == [
        "carrier",
        "sent_at",
        "parcels_24h",
        "weight_mean_7d",
    ]
    assert found["OnlineStoreConfig"]["EnableOnlineStore"] is True


def test_should_start_by_itself_once_its_role_may_work(templates: dict[str, Template]) -> None:
    (running,) = resources(templates["Default"], "Custom::FlinkApplicationRunning").values()
    assert running["Properties"]["ApplicationName"]["Ref"].startswith("WindowsApplication")
    assert any(name.startswith("WindowsStarterRole") for name in running["DependsOn"])
    ((_, made),) = resources(templates["Default"], "AWS::KinesisAnalyticsV2::Application").items()
    assert any(name.startswith("WindowsRoleDefaultPolicy") for name in made["DependsOn"])


def test_should_grant_the_job_its_two_streams_and_its_code(templates: dict[str, Template]) -> None:
    found = statements(templates["Default"], "WindowsRole")
    reading = [s for s in found if "kinesis:GetRecords" in s["Action"]]
    writing = [s for s in found if "kinesis:PutRecords" in s["Action"]]
    assert "IngestionStream" in json.dumps(reading)
    assert "WindowsRows" not in json.dumps(reading)
    assert "WindowsRows" in json.dumps(writing)
    assert "IngestionStream" not in json.dumps(writing)
    assert "sagemaker:PutRecord" not in actions(found)
    writer = actions(statements(templates["Default"], "WindowsWriterRole"))
    assert "sagemaker:PutRecord" in writer
    assert "kinesis:PutRecords" not in writer


def test_should_keep_rows_that_cannot_be_put(templates: dict[str, Template]) -> None:
    found = only(templates["Default"], "AWS::Lambda::EventSourceMapping")
    assert found["BisectBatchOnFunctionError"] is True
    assert found["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert found["DestinationConfig"]["OnFailure"]["Destination"]["Fn::GetAtt"][0].startswith("WindowsKept")


def test_should_alarm_when_windows_grow_old(templates: dict[str, Template]) -> None:
    def watched(template: Template) -> dict[str, Any]:
        found = resources(template, "AWS::CloudWatch::Alarm").items()
        return {a["Properties"]["MetricName"]: a["Properties"] for n, a in found if n.startswith("Windows")}

    assert watched(templates["Options"]).keys() == {
        "downtime",
        "ApproximateNumberOfMessagesVisible",
        "Errors",
    }
    assert all(len(a["AlarmActions"]) == 1 for a in watched(templates["Options"]).values())
    assert all(not a["AlarmActions"] for a in watched(templates["Default"]).values())


def test_should_say_that_a_job_without_its_connector_cannot_start(
    contract: CompiledContract, tmp_path: Path
) -> None:
    (tmp_path / "connector.jar").write_bytes(b"a jar")
    app = cdk.App(context=cdk_context())
    without, having = cdk.Stack(app, "Without"), cdk.Stack(app, "Having")
    built(without, contract)
    built(having, contract, connector=tmp_path / "connector.jar")
    # They answer no entries: two packages bring their Python class, and the last one installed wins.
    cdk.assertions.Annotations.from_stack(without).has_warning(
        "*", cdk.assertions.Match.string_like_regexp("has no Kinesis connector.*flink_connector")
    )
    cdk.assertions.Annotations.from_stack(having).has_no_warning(
        "*", cdk.assertions.Match.string_like_regexp("connector")
    )


def test_should_pass_the_security_checks(contract: CompiledContract, tmp_path: Path) -> None:
    app = cdk.App(context=cdk_context(), outdir=str(tmp_path))
    stack = cdk.Stack(app, "Checked")
    built(stack, contract)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    # The keys and the topic around it are plain on purpose: what is raised names them, and them alone.
    with pytest.raises(RuntimeError, match="Checked/DataKey") as found:
        app.synth()
    errors = [part for part in str(found.value).split("\n\n") if "ERROR" in part]
    assert not [error for error in errors if "Checked/Windows" in error]


def test_should_refuse_what_cannot_be_at_once(tmp_path: Path) -> None:
    plain = loaded(tmp_path, YAML)
    stack = cdk.Stack(cdk.App(), "Refused")
    with pytest.raises(ValueError, match=r"parcel_delay has none.*between 1 and 64, got 0.*got nowhere.jar"):
        built(stack, plain, parallelism=0, connector=Path("nowhere.jar"))
