"""Labelling: defaults, both engines, errors, exact grants, what keeps data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from cdk_nag import AwsSolutionsChecks
from cdk_support import Template, actions, cdk_context, only, resources, statements, synthesise_stacks
from label_support import item_table
from label_tasks import ground_truth as runtime_ground_truth
from label_tasks.review import ADJUDICATORS
from label_tasks.rules import Rules
from label_tasks.tasks import INDEX
from ml_contract.extracts.label_rules import label_rules
from ml_contract.load import LoadedWorkload, load_workload
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.labelling import GroundTruthLabelling, Labelling, OwnLabelling, labeling_job
from ml_lifecycle.labelling.landing import COLUMNS
from ml_lifecycle.labelling.review_site import GROUPS

YAML = """
version: 1
name: parcel_delay
title: Parcels that arrive late
owner: logistics@example.com
record:
  identifier: parcel
  event_time: sent_at
  fields:
    parcel: {{type: string, required: true, max_length: 40, sensitive: pii}}
    sent_at: {{type: timestamp, required: true}}
    weight_kg: {{type: number, source: Weight (kg)}}
    late: {{type: string, allowed: ["no", "yes"]}}
label: {{task: binary, field: late, values: ["no", "yes"]}}
acceptance: {{metric: auc, at_least: 0.6}}
{labelling}
"""
TEAM = "arn:aws:sagemaker:eu-central-1:123456789012:workteam/private-crowd/parcels"
OWN = "labelling: {instructions: Say whether it was late.}"
GROUND_TRUTH = (
    f"labelling: {{instructions: Say whether it was late., engine: ground_truth, workforce: '{TEAM}'}}"
)


def workload(folder: Path, labelling: str) -> LoadedWorkload:
    path = folder / "parcel_delay"
    path.mkdir(parents=True, exist_ok=True)
    (path / "workload.yaml").write_text(YAML.format(labelling=labelling))
    return load_workload(path)


def define(stack: cdk.Stack, loaded: LoadedWorkload, **options: Any) -> Labelling:
    lake = DataLake(stack, "Lake", database_prefix="t")
    return Labelling(
        stack,
        "Labelling",
        workload=loaded,
        name_prefix="t-parcel-delay",
        curated=lake.curated,
        artifacts=lake.artifacts,
        capture_prefix="parcel-delay/capture/",
        data_key=kms.Key(stack, "DataKey"),
        message_key=kms.Key(stack, "MessageKey"),
        log_key=kms.Key(stack, "LogKey"),
        **options,
    )


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    folder = tmp_path_factory.mktemp("workloads")
    own, managed = workload(folder / "own", OWN), workload(folder / "gt", GROUND_TRUTH)

    def asking(stack: cdk.Stack) -> None:
        labelling = define(stack, own, alarm_topic=sns.Topic(stack, "Topic"))
        labelling.grant_request(
            iam.Role(stack, "Asker", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        )

    return synthesise_stacks(
        tmp_path_factory.mktemp("out"),
        {
            "Own": asking,
            "GroundTruth": lambda stack: define(stack, managed),
            "Destroyed": lambda stack: define(stack, own, removal_policy=cdk.RemovalPolicy.DESTROY),
        },
    )


def role_of(template: Template, prefix: str) -> list[Template]:
    return statements(template, prefix)


# --- defaults -----------------------------------------------------------------------------------------


def test_should_keep_items_and_people_unless_told_otherwise(templates: dict[str, Template]) -> None:
    for kind in ("AWS::DynamoDB::Table", "AWS::Cognito::UserPool"):
        kept = next(iter(resources(templates["Own"], kind).values()))
        assert (kept["DeletionPolicy"], kept["UpdateReplacePolicy"]) == ("Retain", "Retain")
        gone = next(iter(resources(templates["Destroyed"], kind).values()))
        assert gone["DeletionPolicy"] == "Delete"
    assert only(templates["Own"], "AWS::DynamoDB::Table")["DeletionProtectionEnabled"] is True
    assert only(templates["Own"], "AWS::Cognito::UserPool")["DeletionProtection"] == "ACTIVE"
    assert only(templates["Destroyed"], "AWS::DynamoDB::Table")["DeletionProtectionEnabled"] is False


def test_should_name_what_holds_data_as_ever(templates: dict[str, Template]) -> None:
    names = [
        *resources(templates["Own"], "AWS::DynamoDB::Table"),
        *resources(templates["Own"], "AWS::Cognito::UserPool"),
        *resources(templates["Own"], "Custom::IcebergTable"),
    ]
    assert names == [
        "LabellingOwnItemsTableDFEECF05",
        "LabellingOwnSitePool0CC7508B",
        "LabellingOwnLandingLabelsTable536610C1",
    ]


def test_should_encrypt_and_recover_the_items(templates: dict[str, Template]) -> None:
    table = only(templates["Own"], "AWS::DynamoDB::Table")
    assert table["SSESpecification"]["SSEType"] == "KMS"
    assert table["PointInTimeRecoverySpecification"] == {
        "PointInTimeRecoveryEnabled": True,
        "RecoveryPeriodInDays": 35,
    }
    assert table["TimeToLiveSpecification"] == {"AttributeName": "ttl", "Enabled": True}


def test_should_index_items_as_the_functions_ask_for_them(templates: dict[str, Template]) -> None:
    table = only(templates["Own"], "AWS::DynamoDB::Table")
    assert [index["IndexName"] for index in table["GlobalSecondaryIndexes"]] == [INDEX]
    # The tests of the functions run on a table of the same keys.
    with item_table() as stand_in:
        assert stand_in.key_schema == table["KeySchema"]
        assert (
            stand_in.global_secondary_indexes[0]["KeySchema"]
            == (table["GlobalSecondaryIndexes"][0]["KeySchema"])
        )


def test_should_let_people_in_by_invitation_and_second_factor_only(templates: dict[str, Template]) -> None:
    pool = only(templates["Own"], "AWS::Cognito::UserPool")
    assert pool["AdminCreateUserConfig"] == {"AllowAdminCreateUserOnly": True}
    assert (pool["MfaConfiguration"], pool["EnabledMfas"]) == ("ON", ["SOFTWARE_TOKEN_MFA"])
    assert pool["Policies"]["PasswordPolicy"]["MinimumLength"] == 14
    client = only(templates["Own"], "AWS::Cognito::UserPoolClient")
    assert client["AllowedOAuthFlows"] == ["code"]
    assert client["GenerateSecret"] is False
    assert client["AllowedOAuthScopes"] == ["labels/label"]
    assert client["CallbackURLs"] == client["LogoutURLs"]
    assert client["ExplicitAuthFlows"] == ["ALLOW_REFRESH_TOKEN_AUTH"]
    assert ADJUDICATORS in GROUPS


def test_should_check_the_token_of_every_route_that_shows_data(templates: dict[str, Template]) -> None:
    routes = {
        r["Properties"]["RouteKey"]: r["Properties"]
        for r in resources(templates["Own"], "AWS::ApiGatewayV2::Route").values()
    }
    open_routes = {key for key, route in routes.items() if route["AuthorizationType"] == "NONE"}
    assert open_routes == {"GET /", "GET /app.js", "GET /app.css", "GET /config"}
    for key, route in routes.items():
        if "/api/" in key:
            assert route["AuthorizationType"] == "JWT"
            assert route["AuthorizationScopes"] == ["labels/label"]
    assert sum("/api/" in key for key in routes) == 4


# --- the state machine --------------------------------------------------------------------------------


def machine(template: Template) -> dict[str, Any]:
    text = only(template, "AWS::StepFunctions::StateMachine")["DefinitionString"]
    parts = text["Fn::Join"][1]
    found: dict[str, Any] = json.loads("".join(p if isinstance(p, str) else "REF" for p in parts))
    return found


def test_should_try_every_function_again_that_was_killed(templates: dict[str, Template]) -> None:
    states = machine(templates["Own"])["States"].values()
    invoking = [state for state in states if "lambda:invoke" in str(state.get("Resource", ""))]
    assert invoking
    for state in invoking:
        assert {"Lambda.Unknown", "Runtime.ExitError"} <= {
            e for r in state["Retry"] for e in r["ErrorEquals"]
        }


def test_should_wait_for_votes_and_land_what_was_agreed(templates: dict[str, Template]) -> None:
    states = machine(templates["Own"])["States"]
    for name in ("FirstRound", "NextRound"):
        assert states[name]["Resource"].endswith("lambda:invoke.waitForTaskToken")
        assert states[name]["TimeoutSeconds"] == 72 * 3600
        assert states[name]["Catch"][0]["Next"] == "DecideAtTheEnd"
        # A null that is left out would put the answer in place of the input.
        assert states[name]["ResultPath"] is None
    assert states["Land"]["Resource"].endswith("sqs:sendMessage.waitForTaskToken")
    choices = {c["StringEquals"]: c["Next"] for c in states["Follow"]["Choices"]}
    assert choices == {"agreed": "Land", "more": "NextRound", "adjudicate": "NextRound"}
    assert states["Follow"]["Default"] == "Expire"
    # Only the item's name ever enters the history.
    for state in states.values():
        payload = state.get("Parameters", {}).get("Payload", {})
        assert set(payload) <= {"step", "task.$", "token.$", "ended", "state", "queue.$", "needed.$"}


def test_should_log_steps_without_what_went_through_them(templates: dict[str, Template]) -> None:
    logging = only(templates["Own"], "AWS::StepFunctions::StateMachine")["LoggingConfiguration"]
    assert (logging["Level"], logging["IncludeExecutionData"]) == ("ALL", False)


# --- grants -------------------------------------------------------------------------------------------


def test_should_grant_each_function_what_it_does_and_no_more(templates: dict[str, Template]) -> None:
    own = templates["Own"]
    assert "dynamodb:PutItem" in actions(statements(own, "LabellingOwnRoutingRouterRole"))
    router = actions(statements(own, "LabellingOwnRoutingRouterRole"))
    assert {a for a in router if a.startswith("dynamodb:")} == {"dynamodb:PutItem"}
    assert {a for a in router if a.startswith("states:")} == {"states:StartExecution"}
    review = actions(statements(own, "LabellingOwnReviewRole"))
    assert {a for a in review if a.startswith("dynamodb:")} == {
        "dynamodb:GetItem",
        "dynamodb:UpdateItem",
        "dynamodb:Query",
    }
    assert not {a for a in review if a.startswith(("s3:", "sqs:"))}
    landing = actions(statements(own, "LabellingOwnLandingRole"))
    assert {a for a in landing if a.startswith("dynamodb:")} == {"dynamodb:GetItem"}
    steps = actions(statements(own, "LabellingOwnStepsRole"))
    assert {"lambda:InvokeFunction", "sqs:SendMessage"} <= set(steps)


def test_should_let_three_roles_answer_this_state_machine_only(templates: dict[str, Template]) -> None:
    policies = [
        p["Properties"]
        for name, p in resources(templates["Own"], "AWS::IAM::Policy").items()
        if name.startswith("LabellingOwnSignal")
    ]
    assert len(policies) == 1
    statement = policies[0]["PolicyDocument"]["Statement"][0]
    assert statement["Action"] == "states:SendTaskSuccess"
    assert statement["Resource"]["Fn::GetAtt"][1] == "Arn"
    assert len(policies[0]["Roles"]) == 3


def test_should_let_who_may_ask_invoke_the_router_only(templates: dict[str, Template]) -> None:
    granted = statements(templates["Own"], "Asker")
    assert actions(granted) == ["lambda:InvokeFunction"] or set(actions(granted)) == {"lambda:InvokeFunction"}
    assert granted[0]["Resource"]["Fn::GetAtt"][0].startswith("LabellingOwnRoutingRouter")


def test_should_alarm_when_items_wait_steps_fail_or_something_is_given_up(
    templates: dict[str, Template],
) -> None:
    alarms = {
        a["Properties"]["MetricName"]: a["Properties"]
        for a in resources(templates["Own"], "AWS::CloudWatch::Alarm").values()
    }
    assert set(alarms) == {"OldestItemAge", "ExecutionsFailed", "ApproximateNumberOfMessagesVisible"}
    assert alarms["OldestItemAge"]["Threshold"] == 36 * 3600
    assert len(resources(templates["Own"], "AWS::CloudWatch::Alarm")) == 4
    assert all(a["AlarmActions"] for a in alarms.values())


# --- Ground Truth -------------------------------------------------------------------------------------


def test_should_make_a_job_of_the_private_team_once_a_day(templates: dict[str, Template]) -> None:
    template = templates["GroundTruth"]
    request = machine(template)["States"]["Create"]["Parameters"]
    assert request["HumanTaskConfig"]["WorkteamArn"] == TEAM
    assert request["HumanTaskConfig"]["NumberOfHumanWorkersPerDataObject"] == 2
    assert request["LabelingJobName.$"] == "$.collected.job"
    assert request["InputConfig"]["DataSource"]["S3DataSource"]["ManifestS3Uri.$"] == "$.collected.manifest"
    assert machine(template)["States"]["Create"]["ResultPath"] is None
    assert only(template, "AWS::Scheduler::Schedule")["ScheduleExpression"] == "rate(1 day)"
    assert not resources(template, "AWS::Cognito::UserPool")
    passed = [
        s for s in statements(template, "LabellingGroundTruthMachineRole") if s["Action"] == "iam:PassRole"
    ]
    assert passed[0]["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


def test_should_refuse_a_job_that_sagemaker_would_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = workload(tmp_path, GROUND_TRUTH)
    original = labeling_job.request

    def broken(*args: Any, **kwargs: Any) -> dict[str, Any]:
        made = original(*args, **kwargs)
        made["HumanTaskConfig"]["NumberOfHumanWorkersPerDataObject"] = 99
        made["Surprise"] = 1
        return made

    monkeypatch.setattr(labeling_job, "request", broken)
    with pytest.raises(ValueError, match="SageMaker would refuse the labelling job") as refused:
        define(cdk.Stack(cdk.App(), "Broken"), loaded)
    assert "between 1 and 9, got 99" in str(refused.value)
    assert "Surprise: is no parameter" in str(refused.value)


# --- one thing said in two places ---------------------------------------------------------------------


def test_should_land_the_columns_that_the_table_has() -> None:
    from label_landing.table import ROWS

    assert tuple(ROWS.names) == tuple(name for name, _ in COLUMNS)


def test_should_call_the_label_of_a_job_the_same_on_both_sides() -> None:
    assert labeling_job.ATTRIBUTE == runtime_ground_truth.ATTRIBUTE


def test_should_stage_rules_that_the_functions_read(tmp_path: Path) -> None:
    loaded = workload(tmp_path, OWN)
    rules = Rules.from_json(label_rules(loaded.workload))
    assert rules.identifier == "parcel"
    assert [(f.name, f.source) for f in rules.show] == [("sent_at", "sent_at"), ("weight_kg", "Weight (kg)")]
    assert rules.values == ("no", "yes")
    assert rules.labellers_at_most == 3


# --- errors and findings ------------------------------------------------------------------------------


def test_should_say_what_is_wrong_with_the_workload(tmp_path: Path) -> None:
    stack = cdk.Stack(cdk.App(), "Wrong")
    with pytest.raises(ValueError, match="must have a labelling block, got none"):
        define(stack, workload(tmp_path, ""))
    for engine, other in ((OwnLabelling, GROUND_TRUTH), (GroundTruthLabelling, OWN)):
        with pytest.raises(ValueError, match="must have labelling with engine"):
            engine(
                stack,
                f"Wrong{engine.__name__}",
                workload=workload(tmp_path / engine.__name__, other),
                name_prefix="t",
                curated=stack,  # type: ignore[arg-type]
                artifacts=stack,  # type: ignore[arg-type]
                capture_prefix="c/",
                data_key=stack,  # type: ignore[arg-type]
                message_key=stack,  # type: ignore[arg-type]
                log_key=stack,  # type: ignore[arg-type]
            )


@pytest.mark.parametrize("labelling", [OWN, GROUND_TRUTH], ids=["own", "ground-truth"])
def test_should_leave_no_finding_of_the_security_pack_unanswered(labelling: str, tmp_path: Path) -> None:
    app = cdk.App(context=cdk_context(), outdir=str(tmp_path / "out"))
    stack = cdk.Stack(app, "Checked")
    define(stack, workload(tmp_path, labelling))
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    # The keys around it are plain on purpose: what is raised names them, and them alone.
    with pytest.raises(RuntimeError, match="Checked/DataKey") as found:
        app.synth()
    assert "Checked/Labelling" not in str(found.value)
    assert "Checked/IcebergTables" not in str(found.value)
