"""DataBrew's profile of the raw table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from cdk_support import Template, actions, cdk_context, only, statements, synthesise_stacks
from data_support import Surroundings, parcels
from ml_contract.compiled import CompiledContract
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.data_lake import parquet_table
from ml_lifecycle.processing import DataBrewProfile


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> CompiledContract:
    return parcels(tmp_path_factory.mktemp("workloads")).compiled


def profile(stack: cdk.Stack, contract: CompiledContract, **options: Any) -> DataBrewProfile:
    around = Surroundings(stack, contract)
    table = parquet_table(
        stack,
        "RawTable",
        zone=around.lake.raw,
        name=contract.name,
        columns=contract.glue_columns(),
        prefix="parcel-delay/data/",
        partition_key=("ingest_date", "string"),
    )
    return DataBrewProfile(
        stack,
        "Profile",
        contract=contract,
        name_prefix="t-parcel-delay",
        lake=around.lake,
        raw_table=table,
        raw_prefix="parcel-delay/data/",
        **options,
    )


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, contract: CompiledContract) -> dict[str, Template]:
    return synthesise_stacks(
        tmp_path_factory.mktemp("databrew"),
        {
            "Default": lambda stack: profile(stack, contract),
            "All": lambda stack: profile(stack, contract, sample_rows=None, schedule="cron(0 1 * * ? *)"),
        },
    )


def test_should_profile_a_sample_every_week_with_the_artifacts_key(templates: dict[str, Template]) -> None:
    job = only(templates["Default"], "AWS::DataBrew::Job")
    assert (job["Type"], job["MaxRetries"], job["EncryptionMode"]) == ("PROFILE", 0, "SSE-KMS")
    assert job["JobSample"] == {"Mode": "CUSTOM_ROWS", "Size": 20_000}
    assert job["OutputLocation"]["Key"] == "parcel-delay/profile/"
    assert only(templates["Default"], "AWS::DataBrew::Schedule")["CronExpression"] == "cron(0 4 ? * SUN *)"
    assert only(templates["All"], "AWS::DataBrew::Job")["JobSample"] == {"Mode": "FULL_DATASET"}


def test_should_validate_the_ranges_of_the_contract(templates: dict[str, Template]) -> None:
    rules = {
        rule["Name"]: (
            rule["CheckExpression"],
            {v["ValueReference"]: v["Value"] for v in rule["SubstitutionMap"]},
        )
        for rule in only(templates["Default"], "AWS::DataBrew::Ruleset")["Rules"]
    }
    assert rules == {
        "range of weight_kg": (
            ":col1 is_between :val1 and :val2",
            {":col1": "`weight_kg`", ":val1": "0", ":val2": "70"},
        ),
        "range of stops": (":col1 >= :val1", {":col1": "`stops`", ":val1": "0"}),
    }
    (validation,) = only(templates["Default"], "AWS::DataBrew::Job")["ValidationConfigurations"]
    assert validation["ValidationMode"] == "CHECK_ALL"


def test_should_take_persons_out_of_what_people_look_at_first(templates: dict[str, Template]) -> None:
    (step,) = only(templates["Default"], "AWS::DataBrew::Recipe")["Steps"]
    assert step["Action"]["Operation"] == "DELETE"
    assert json.loads(step["Action"]["Parameters"]["sourceColumns"]) == ["parcel", "record_id", "received_at"]


def test_should_read_the_raw_table_and_write_profiles_only(templates: dict[str, Template]) -> None:
    found = statements(templates["Default"], "ProfileRole")
    assert "s3:DeleteObject" not in actions(found)
    written = [s["Resource"] for s in found if "s3:PutObject" in s["Action"]]
    assert all("/parcel-delay/profile/*" in json.dumps(resource) for resource in written)


def test_should_ask_databrew_for_what_its_api_takes(templates: dict[str, Template]) -> None:
    """The ruleset as CreateRuleset takes it, by botocore's model: patterns and lengths included."""
    import re

    import botocore.session

    model = botocore.session.Session().get_service_model("databrew")
    pattern = model.shape_for("Rule").members["CheckExpression"].metadata["pattern"]
    for rule in only(templates["Default"], "AWS::DataBrew::Ruleset")["Rules"]:
        assert re.fullmatch(pattern, rule["CheckExpression"])


def test_should_pass_the_security_pack(contract: CompiledContract, tmp_path: Path) -> None:
    from cdk_nag import AwsSolutionsChecks

    app = cdk.App(context=cdk_context(), outdir=str(tmp_path))
    stack = cdk.Stack(app, "Pack")
    profile(stack, contract)
    for stand_in, rule in (("DataKey", "KMS5"), ("LogKey", "KMS5"), ("Topic", "SNS3")):
        acknowledge(stack.node.find_child(stand_in), rule, "a stand-in of this test for the foundation's own")
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    app.synth()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "rate(1 day)"}, r"schedule must be cron\(...\), got 'rate\(1 day\)'"),
        ({"sample_rows": 0}, "sample_rows must be at least 1 or None for all, got 0"),
    ],
)
def test_should_refuse_wrong_options(
    options: dict[str, Any], message: str, contract: CompiledContract
) -> None:
    with pytest.raises(ValueError, match=message):
        profile(cdk.Stack(), contract, **options)
