"""What asks Comprehend about texts: who may, when it runs, what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import botocore.session
import pytest
from cdk_support import Template, cdk_context, only, resources, synthesise_stacks
from data_support import Surroundings, parcels
from ml_contract.compiled import CompiledContract
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.data_lake import IcebergTable
from ml_lifecycle.processing import TextEnrichment, text_enrichment

EVENT = {"source": ["aws.glue"], "detail": {"state": ["SUCCEEDED"]}}


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> CompiledContract:
    return parcels(tmp_path_factory.mktemp("workloads")).compiled


def enrichment(stack: cdk.Stack, contract: CompiledContract, **options: Any) -> TextEnrichment:
    around = Surroundings(stack, contract)
    curated = IcebergTable(
        stack,
        "Curated",
        zone=around.lake.curated,
        name=contract.name,
        columns=contract.glue_columns(),
        prefix="parcel-delay/data/",
        log_key=around.log_key,
    )
    given: dict[str, Any] = {
        "name_prefix": "t-parcel-delay",
        "field": "carrier",
        "language": "en",
        "started_by": EVENT,
        "alarm_topic": around.topic,
    }
    return TextEnrichment(
        stack,
        "Texts",
        contract=contract,
        lake=around.lake,
        curated_table=curated,
        log_key=around.log_key,
        **{**given, **options},
    )


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, contract: CompiledContract) -> dict[str, Template]:
    return synthesise_stacks(
        tmp_path_factory.mktemp("texts"),
        {
            "Default": lambda stack: enrichment(stack, contract),
            "Bare": lambda stack: enrichment(
                stack, contract, entities=False, started_by=None, alarm_topic=None, most_texts=7
            ),
        },
    )


def definition(template: Template) -> dict[str, Any]:
    text = only(template, "AWS::StepFunctions::StateMachine")["DefinitionString"]
    if isinstance(text, dict):
        text = "".join(part if isinstance(part, str) else "X" for part in text["Fn::Join"][1])
    found: dict[str, Any] = json.loads(text)
    return found


def function(template: Template) -> dict[str, Any]:
    (found,) = [
        one["Properties"]
        for one in resources(template, "AWS::Lambda::Function").values()
        if one["Properties"].get("PackageType") == "Image"
    ]
    return found


def test_should_call_the_function_until_nothing_is_left(templates: dict[str, Template]) -> None:
    states = definition(templates["Default"])["States"]
    assert states["Begin"]["Result"] == {"done": 0}
    assert states["Enrich"]["Parameters"]["Payload"] == {"done.$": "$.done"}
    assert states["Enrich"]["Next"] == "More"
    assert states["More"]["Choices"] == [{"Variable": "$.more", "BooleanEquals": True, "Next": "Enrich"}]
    retried = [name for rule in states["Enrich"]["Retry"] for name in rule["ErrorEquals"]]
    assert {"TransientError", "Lambda.TooManyRequestsException", "Sandbox.Timedout"} <= set(retried)
    assert "MisconfiguredError" not in retried


def test_should_let_one_run_at_a_time(templates: dict[str, Template]) -> None:
    machine = definition(templates["Default"])
    assert machine["StartAt"] == "Runs"
    assert machine["States"]["Alone"]["Choices"][0]["Next"] == "Begin"


def test_should_start_when_the_batch_run_ended_and_only_if_asked(templates: dict[str, Template]) -> None:
    rule = only(templates["Default"], "AWS::Events::Rule")
    assert rule["EventPattern"] == EVENT
    assert resources(templates["Bare"], "AWS::Events::Rule") == {}


def test_should_tell_the_function_what_to_ask(templates: dict[str, Template]) -> None:
    given = function(templates["Default"])["Environment"]["Variables"]
    assert (given["FIELD"], given["IDENTIFIER"], given["LANGUAGE"]) == ("carrier", "parcel", "en")
    assert (given["KINDS"], given["MOST_TEXTS"]) == ("sentiment,entities", "100000")
    bare = function(templates["Bare"])["Environment"]["Variables"]
    assert (bare["KINDS"], bare["MOST_TEXTS"]) == ("sentiment", "7")


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("Default", {"comprehend:BatchDetectSentiment", "comprehend:BatchDetectEntities"}),
        ("Bare", {"comprehend:BatchDetectSentiment"}),
    ],
)
def test_should_grant_the_operations_that_are_asked_and_no_others(
    templates: dict[str, Template], name: str, asked: set[str]
) -> None:
    granted = {
        action
        for policy in resources(templates[name], "AWS::IAM::Policy").values()
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }
    assert {action for action in granted if action.startswith("comprehend:")} == asked


def test_should_alarm_when_a_run_failed(templates: dict[str, Template]) -> None:
    alarm = only(templates["Default"], "AWS::CloudWatch::Alarm")
    assert (alarm["MetricName"], alarm["Threshold"], len(alarm["AlarmActions"])) == ("ExecutionsFailed", 0, 1)
    assert (
        "AlarmActions" not in only(templates["Bare"], "AWS::CloudWatch::Alarm")
        or not only(templates["Bare"], "AWS::CloudWatch::Alarm")["AlarmActions"]
    )


def test_should_make_the_table_beside_the_curated_one(templates: dict[str, Template]) -> None:
    tables = {
        one["Properties"]["Name"]: one
        for one in resources(templates["Default"], "Custom::IcebergTable").values()
    }
    texts = tables["parcel_delay_texts"]
    assert texts["DeletionPolicy"] == "Retain"
    assert ["text_sha256", "string"] in texts["Properties"]["Columns"]


def test_should_pass_the_security_pack(contract: CompiledContract, tmp_path: Path) -> None:
    from cdk_nag import AwsSolutionsChecks

    app = cdk.App(context=cdk_context(), outdir=str(tmp_path))
    stack = cdk.Stack(app, "Pack")
    enrichment(stack, contract)
    for stand_in, rule in (("DataKey", "KMS5"), ("LogKey", "KMS5"), ("Topic", "SNS3")):
        acknowledge(stack.node.find_child(stand_in), rule, "a stand-in of this test for the foundation's own")
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    app.synth()


def test_should_say_everything_that_is_wrong_at_once(contract: CompiledContract) -> None:
    stack = cdk.Stack(cdk.App(), "Wrong")
    with pytest.raises(ValueError, match="text enrichment") as caught:
        enrichment(
            stack,
            contract,
            name_prefix="x" * 80,
            field="weight_kg",
            language="tlh",
            most_texts=0,
            sentiment=False,
            entities=False,
        )
    for part in (
        "field must be a string",
        "language must be one of",
        "most_texts",
        "neither",
        "80 characters",
    ):
        assert part in str(caught.value)


def test_should_know_the_languages_that_botocore_knows() -> None:
    model = botocore.session.get_session().get_service_model("comprehend")
    assert set(text_enrichment._LANGUAGES) == set(model.shape_for("LanguageCode").enum)
