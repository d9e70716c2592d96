"""The state machine that runs a training pipeline, in the embedded Step Functions, under its own role."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cdk_support import only, resources, statements, synthesise_stacks

from .conftest import Rehearsal, allow, await_

pytestmark = [pytest.mark.rehearsal, pytest.mark.slow]

PIPELINE = "machine-pipeline"
ACCOUNT = "123456789012"


def real(value: Any) -> Any:
    """A template's value as it is in the embedded account."""
    if isinstance(value, dict) and set(value) == {"Ref"}:
        pseudo = {"AWS::Partition": "aws", "AWS::Region": "us-east-1", "AWS::AccountId": ACCOUNT}
        return pseudo[value["Ref"]]
    if isinstance(value, dict) and set(value) == {"Fn::Join"}:
        separator, parts = value["Fn::Join"]
        return str(separator).join(real(part) for part in parts)
    if isinstance(value, dict):
        return {key: real(item) for key, item in value.items()}
    return [real(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def machine(rehearsal: Rehearsal, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The machine of the construct with the permissions that the construct gives; its ARN."""
    import aws_cdk as cdk
    from aws_cdk import aws_iam as iam
    from aws_cdk import aws_kms as kms
    from ml_lifecycle.training.orchestration import PipelineStateMachine

    folder: Path = tmp_path_factory.mktemp("machine")
    own = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:pipeline/{PIPELINE}"

    def start(role: iam.IGrantable) -> iam.Grant:
        return iam.Grant.add_to_principal(
            grantee=role, actions=["sagemaker:StartPipelineExecution"], resource_arns=[own]
        )

    def build(stack: cdk.Stack) -> None:
        pipeline = cast(Any, SimpleNamespace(pipeline_name=PIPELINE, grant_start=start))
        PipelineStateMachine(
            stack, "Train", name="machine-train", pipeline=pipeline, log_key=kms.Key(stack, "Key")
        )

    template = synthesise_stacks(folder, {"Machine": build})["Machine"]
    (role,) = resources(template, "AWS::IAM::Role")
    given = [real(statement) for statement in statements(template, role)]
    arn = rehearsal.make_role("machine-train", "states.amazonaws.com", given)
    definition = real(only(template, "AWS::StepFunctions::StateMachine")["DefinitionString"])
    created = rehearsal.client("stepfunctions").create_state_machine(
        name="machine-train", definition=definition, roleArn=arn
    )
    return str(created["stateMachineArn"])


@pytest.fixture(scope="module", autouse=True)
def pipeline(rehearsal: Rehearsal) -> None:
    """A pipeline that fails when it is told to."""
    condition = {
        "Name": "Mood",
        "Type": "Condition",
        "Arguments": {
            "Conditions": [{"Type": "Equals", "LeftValue": {"Get": "Parameters.Mood"}, "RightValue": "bad"}],
            "IfSteps": [{"Name": "No", "Type": "Fail", "Arguments": {"ErrorMessage": "in a bad mood"}}],
            "ElseSteps": [],
        },
    }
    rehearsal.client("sagemaker").create_pipeline(
        PipelineName=PIPELINE,
        PipelineDefinition=json.dumps(
            {
                "Version": "2020-12-01",
                "Parameters": [{"Name": "Mood", "Type": "String", "DefaultValue": "good"}],
                "Steps": [condition],
            }
        ),
        ClientRequestToken=uuid.uuid4().hex,
        RoleArn=rehearsal.make_role("machine-pipeline", "sagemaker.amazonaws.com", [allow("s3:GetObject")]),
    )


def ended(rehearsal: Rehearsal, machine: str, **given: Any) -> dict[str, Any]:
    """Run the machine to its end."""
    client = rehearsal.client("stepfunctions")
    arn = client.start_execution(stateMachineArn=machine, input=json.dumps(given))["executionArn"]
    found: dict[str, Any] = await_(
        lambda: client.describe_execution(executionArn=arn), lambda found: found["status"] != "RUNNING"
    )
    return found


def test_should_run_the_pipeline_to_its_end(rehearsal: Rehearsal, machine: str) -> None:
    assert ended(rehearsal, machine)["status"] == "SUCCEEDED"
    executions = rehearsal.client("sagemaker").list_pipeline_executions(PipelineName=PIPELINE)
    assert [e["PipelineExecutionStatus"] for e in executions["PipelineExecutionSummaries"]] == ["Succeeded"]


def test_should_pass_parameters_and_fail_with_the_pipelines_reason(
    rehearsal: Rehearsal, machine: str
) -> None:
    found = ended(rehearsal, machine, parameters=[{"Name": "Mood", "Value": "bad"}])
    assert found["status"] == "FAILED"
    assert found["error"] == "Failed"
    assert "in a bad mood" in found["cause"]
