"""Steps that are no jobs: functions, callbacks, and what is kept but not run."""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from typing import Any

import pytest
from botocore.exceptions import ClientError

from .conftest import Rehearsal, allow, await_

pytestmark = [pytest.mark.rehearsal, pytest.mark.slow]

ACCOUNT = "123456789012"
FUNCTION = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:pipeline-step"
QUEUE = f"arn:aws:sqs:us-east-1:{ACCOUNT}:pipeline-callbacks"
PROGRAM = """
def handler(event, context):
    if event["word"] == "bad":
        raise ValueError("no such word")
    return {"twice": event["word"] * 2, "secret": "kept"}
"""


@pytest.fixture(scope="module")
def role(rehearsal: Rehearsal) -> str:
    """What the steps need, and a function and a queue."""
    basic = rehearsal.make_role("pipeline-step-function", "lambda.amazonaws.com", [allow("logs:*")])
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("program.py", PROGRAM)
    rehearsal.client("lambda").create_function(
        FunctionName="pipeline-step",
        Runtime="python3.11",
        Role=basic,
        Handler="program.handler",
        Code={"ZipFile": archive.getvalue()},
    )
    rehearsal.client("sqs").create_queue(QueueName="pipeline-callbacks")
    return rehearsal.make_role(
        "steps-pipeline",
        "sagemaker.amazonaws.com",
        [allow("lambda:InvokeFunction", on=FUNCTION), allow("sqs:SendMessage", on=QUEUE)],
    )


def function(name: str, word: Any, arn: str = FUNCTION) -> dict[str, Any]:
    """A Lambda step."""
    return {
        "Name": name,
        "Type": "Lambda",
        "FunctionArn": arn,
        "Arguments": {"word": word},
        "OutputParameters": [{"OutputName": "twice", "OutputType": "String"}],
    }


def callback(rehearsal: Rehearsal, word: Any) -> dict[str, Any]:
    """A callback step."""
    url = rehearsal.client("sqs").get_queue_url(QueueName="pipeline-callbacks")["QueueUrl"]
    return {
        "Name": "Ask",
        "Type": "Callback",
        "SqsQueueUrl": url,
        "Arguments": {"word": word},
        "OutputParameters": [{"OutputName": "answer", "OutputType": "String"}],
    }


def started(rehearsal: Rehearsal, role: str, *steps: dict[str, Any]) -> str:
    """Start a pipeline of these steps; the execution's ARN."""
    client, name = rehearsal.client("sagemaker"), f"steps-{uuid.uuid4().hex[:8]}"
    client.create_pipeline(
        PipelineName=name,
        PipelineDefinition=json.dumps({"Version": "2020-12-01", "Steps": list(steps)}),
        ClientRequestToken=uuid.uuid4().hex,
        RoleArn=role,
    )
    return str(client.start_pipeline_execution(PipelineName=name)["PipelineExecutionArn"])


def ended(rehearsal: Rehearsal, arn: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Wait for an execution; its description and its steps by name."""
    client = rehearsal.client("sagemaker")
    found = await_(
        lambda: client.describe_pipeline_execution(PipelineExecutionArn=arn),
        lambda execution: execution["PipelineExecutionStatus"] not in ("Executing", "Stopping"),
    )
    steps = client.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
    return found, {step["StepName"]: step for step in steps}


def message(rehearsal: Rehearsal) -> dict[str, Any]:
    """The message of a callback."""
    client = rehearsal.client("sqs")
    url = client.get_queue_url(QueueName="pipeline-callbacks")["QueueUrl"]
    received = await_(lambda: client.receive_message(QueueUrl=url).get("Messages"), bool)[0]
    client.delete_message(QueueUrl=url, ReceiptHandle=received["ReceiptHandle"])
    body: dict[str, Any] = json.loads(received["Body"])
    return body


def test_should_hand_a_functions_answer_to_whoever_is_asked_next(rehearsal: Rehearsal, role: str) -> None:
    arn = started(
        rehearsal,
        role,
        callback(rehearsal, {"Get": "Steps.Double.OutputParameters['twice']"}),
        function("Double", "ab"),
    )
    asked = message(rehearsal)
    assert asked["arguments"] == {"word": "abab"}
    assert asked["pipelineExecutionArn"] == arn
    client = rehearsal.client("sagemaker")
    answer = client.send_pipeline_execution_step_success(
        CallbackToken=asked["token"], OutputParameters=[{"Name": "answer", "Value": "yes"}]
    )
    assert answer["PipelineExecutionArn"] == arn
    found, steps = ended(rehearsal, arn)
    assert found["PipelineExecutionStatus"] == "Succeeded", found.get("FailureReason")
    assert steps["Double"]["Metadata"]["Lambda"]["OutputParameters"] == [{"Name": "twice", "Value": "abab"}]
    assert steps["Ask"]["Metadata"]["Callback"]["OutputParameters"] == [{"Name": "answer", "Value": "yes"}]
    with pytest.raises(ClientError, match="No step waits"):
        client.send_pipeline_execution_step_success(CallbackToken=asked["token"])


def test_should_fail_with_a_functions_error(rehearsal: Rehearsal, role: str) -> None:
    found, steps = ended(rehearsal, started(rehearsal, role, function("Double", "bad")))
    assert found["PipelineExecutionStatus"] == "Failed"
    assert "no such word" in steps["Double"]["FailureReason"]


def test_should_fail_when_the_role_may_not_call_the_function(rehearsal: Rehearsal, role: str) -> None:
    other = FUNCTION.replace("pipeline-step", "another")
    _, steps = ended(rehearsal, started(rehearsal, role, function("Double", "ab", other)))
    assert "AccessDenied" in steps["Double"]["FailureReason"]


def test_should_fail_when_who_was_asked_says_so(rehearsal: Rehearsal, role: str) -> None:
    arn = started(rehearsal, role, callback(rehearsal, "x"))
    rehearsal.client("sagemaker").send_pipeline_execution_step_failure(
        CallbackToken=message(rehearsal)["token"], FailureReason="nobody is at home"
    )
    _, steps = ended(rehearsal, arn)
    assert steps["Ask"]["FailureReason"] == "nobody is at home"


def test_should_stop_waiting_when_the_execution_is_stopped(rehearsal: Rehearsal, role: str) -> None:
    arn = started(rehearsal, role, callback(rehearsal, "x"))
    message(rehearsal)
    rehearsal.client("sagemaker").stop_pipeline_execution(
        PipelineExecutionArn=arn, ClientRequestToken=uuid.uuid4().hex
    )
    found, _ = ended(rehearsal, arn)
    assert found["PipelineExecutionStatus"] == "Stopped"


def test_should_keep_what_only_aws_runs_and_say_so(rehearsal: Rehearsal, role: str) -> None:
    step = {
        "Name": "OnACluster",
        "Type": "EMR",
        "Arguments": {"ClusterId": "j-1", "StepConfig": {"HadoopJarStep": {"Jar": "s3://x/y.jar"}}},
    }
    after = {**function("Double", "ab"), "DependsOn": ["OnACluster"]}
    found, steps = ended(rehearsal, started(rehearsal, role, after, step))
    assert found["PipelineExecutionStatus"] == "Succeeded", found.get("FailureReason")
    assert steps["OnACluster"]["StepStatus"] == "Succeeded"
    said = [e["why"] for e in rehearsal.ledger(outcome="recorded", kind="pipeline-step")]
    assert "no EMR cluster runs here" in said


def test_should_run_branches_side_by_side(rehearsal: Rehearsal, role: str) -> None:
    """Two people are asked at once: the second question does not wait for the first answer."""
    first, second = callback(rehearsal, "a"), {**callback(rehearsal, "b"), "Name": "AskToo"}
    arn = started(rehearsal, role, first, second)
    tokens = {message(rehearsal)["token"], message(rehearsal)["token"]}
    assert len(tokens) == 2
    for token in tokens:
        rehearsal.client("sagemaker").send_pipeline_execution_step_success(
            CallbackToken=token, OutputParameters=[{"Name": "answer", "Value": "yes"}]
        )
    found, _ = ended(rehearsal, arn)
    assert found["PipelineExecutionStatus"] == "Succeeded"


@pytest.mark.parametrize(
    ("step", "missing"), [({"Type": "Lambda"}, "FunctionArn"), ({"Type": "Callback"}, "SqsQueueUrl")]
)
def test_should_refuse_a_step_without_its_address(
    rehearsal: Rehearsal, role: str, step: dict[str, Any], missing: str
) -> None:
    with pytest.raises(ClientError, match=f"step needs {missing}"):
        started(rehearsal, role, {"Name": "Bare", "Arguments": {}, **step})
