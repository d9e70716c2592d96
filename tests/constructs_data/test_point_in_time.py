"""The point-in-time job: its arguments, its exact grants, its errors; nag over what it defines."""

from __future__ import annotations

from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from cdk_nag import AwsSolutionsChecks
from cdk_support import Template, actions, cdk_context, resources, statements, synthesise_stacks
from data_support import Surroundings, parcels
from ml_contract.compiled import CompiledContract
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.data_lake import parquet_table
from ml_lifecycle.features import FeatureGroup
from ml_lifecycle.processing import BatchTransform, PointInTime


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> CompiledContract:
    return parcels(tmp_path_factory.mktemp("workloads")).compiled


def point_in_time(
    stack: cdk.Stack, contract: CompiledContract, *, minutes: int | None = None, workers: int = 2
) -> PointInTime:
    around = Surroundings(stack, contract)
    group = FeatureGroup(
        stack,
        "Features",
        contract=contract,
        name_prefix="t-p",
        zone=around.lake.features,
        online_key=around.key,
        table_format="Iceberg",
    )
    batch = BatchTransform(
        stack,
        "Batch",
        contract=contract,
        name_prefix="t-parcel-delay",
        lake=around.lake,
        raw_table=parquet_table(
            stack,
            "RawTable",
            zone=around.lake.raw,
            name=contract.name,
            columns=contract.glue_columns(),
            prefix="parcel-delay/data/",
            partition_key=("ingest_date", "string"),
        ),
        raw_prefix="parcel-delay/data/",
        feature_group=group,
        log_key=around.log_key,
        workers=workers,
    )
    if minutes is None:
        return PointInTime(stack, "PointInTime", batch=batch, feature_group=group)
    return PointInTime(stack, "PointInTime", batch=batch, feature_group=group, minutes=minutes)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, contract: CompiledContract) -> dict[str, Template]:
    def grants(stack: cdk.Stack) -> None:
        built = point_in_time(stack, contract, minutes=30, workers=5)
        built.grant_start(iam.Role(stack, "Starter", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com")))

    return synthesise_stacks(
        tmp_path_factory.mktemp("point-in-time"),
        {"Default": lambda stack: point_in_time(stack, contract), "Grants": grants},
    )


def job(template: Template) -> Template:
    (found,) = [
        (name, j["Properties"])
        for name, j in resources(template, "AWS::Glue::Job").items()
        if name.startswith("BatchPointInTime")
    ]
    properties: Template = found[1]
    return properties


def test_should_run_the_script_on_the_labels_and_the_group_with_the_workers_of_the_others(
    templates: dict[str, Template],
) -> None:
    plain = job(templates["Default"])
    arguments = plain["DefaultArguments"]
    assert (plain["Timeout"], plain["NumberOfWorkers"], plain["MaxRetries"]) == (120, 2, 0)
    assert arguments["--labels_uri"]["Fn::Join"][1][-1] == "/parcel-delay/point-in-time/labels/"
    assert arguments["--target_uri"]["Fn::Join"][1][-1] == "/parcel-delay/point-in-time/sets/latest/"
    (group,) = resources(templates["Default"], "AWS::SageMaker::FeatureGroup").values()
    assert arguments["--feature_group_name"] == group["Properties"]["FeatureGroupName"]
    other = job(templates["Grants"])
    assert (other["Timeout"], other["NumberOfWorkers"]) == (30, 5)


def test_should_read_labels_and_history_and_write_sets_only(templates: dict[str, Template]) -> None:
    found = statements(templates["Default"], "BatchPointInTimeRole")
    assert {a for a in actions(found) if a.startswith(("sagemaker:", "glue:"))} == {
        "sagemaker:DescribeFeatureGroup",
        "glue:GetTable",
    }
    writing = [s for s in found if "s3:PutObject" in s["Action"]]
    places = [
        part
        for statement in writing
        for resource in (
            statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        )
        for part in resource["Fn::Join"][1]
        if isinstance(part, str) and part.startswith("/")
    ]
    assert places
    wanted = (
        "/parcel-delay/point-in-time/sets",
        "/parcel-delay/",
        "/parcel-delay_",
        "/parcel-delay/point-in-time",
    )
    assert all(place.startswith(wanted) for place in places)
    assert "/parcel-delay/point-in-time/labels/*" not in places
    assert "/parcel-delay/offline-store/*" not in places


def test_should_grant_starting_this_job_only(templates: dict[str, Template]) -> None:
    (statement,) = statements(templates["Grants"], "Starter")
    assert set(statement["Action"]) == {"glue:StartJobRun", "glue:GetJobRun", "glue:GetJobRuns"}
    assert statement["Resource"]["Fn::Join"][1][-1]["Ref"].startswith("BatchPointInTime")


def test_should_refuse_a_time_that_glue_does_not_take(contract: CompiledContract) -> None:
    with pytest.raises(ValueError, match="minutes must be between 1 and 10080, got 0"):
        point_in_time(cdk.Stack(), contract, minutes=0)


def test_should_pass_the_security_pack(contract: CompiledContract, tmp_path: Path) -> None:
    app = cdk.App(context=cdk_context(), outdir=str(tmp_path))
    stack = cdk.Stack(app, "Pack")
    point_in_time(stack, contract)
    for stand_in, rule in (("DataKey", "KMS5"), ("LogKey", "KMS5"), ("Topic", "SNS3")):
        acknowledge(stack.node.find_child(stand_in), rule, "a stand-in of this test for the foundation's own")
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    app.synth()
