"""A pipeline that prepares, trains, evaluates and registers, under its own role."""

import json
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from .conftest import Rehearsal, allow, await_

pytestmark = [pytest.mark.rehearsal, pytest.mark.slow]

GROUP = "dev-numbers"


@pytest.fixture(scope="module")
def pipeline_role(rehearsal: Rehearsal) -> str:
    """What a pipeline needs: to create jobs and packages, and to pass the jobs' role."""
    account = "arn:aws:sagemaker:us-east-1:123456789012"
    jobs = [f"{account}:processing-job/pipelines-*", f"{account}:training-job/pipelines-*"]
    actions = [
        f"sagemaker:{verb}{noun}Job"
        for verb in ("Create", "Describe", "Stop")
        for noun in ("Processing", "Training")
    ]
    return rehearsal.make_role(
        "pipeline",
        "sagemaker.amazonaws.com",
        [
            allow(*actions, "sagemaker:AddTags", on=jobs),
            allow("sagemaker:CreateModelPackage", on=f"{account}:model-package-group/{GROUP}"),
            allow("iam:PassRole", on=rehearsal.role),
            allow("s3:GetObject", on=f"arn:aws:s3:::{rehearsal.bucket}/*"),
        ],
    )


def processing(
    rehearsal: Rehearsal, name: str, inputs: dict[str, tuple[Any, str]], output: str, **more: Any
) -> dict[str, Any]:
    """A processing step with one output."""
    uri = {
        "Std:Join": {
            "On": "/",
            "Values": [f"s3://{rehearsal.bucket}/runs", {"Get": "Execution.PipelineExecutionId"}, output],
        }
    }
    return {
        "Name": name,
        "Type": "Processing",
        "Arguments": {
            "AppSpecification": {"ImageUri": rehearsal.job_image, "ContainerArguments": [name.lower()]},
            "RoleArn": rehearsal.role,
            "ProcessingResources": {
                "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 30}
            },
            "ProcessingInputs": [
                {
                    "InputName": key,
                    "S3Input": {
                        "S3Uri": uri_,
                        "LocalPath": f"/opt/ml/processing/input/{path}",
                        "S3DataType": "S3Prefix",
                        "S3InputMode": "File",
                    },
                }
                for key, (uri_, path) in inputs.items()
            ],
            "ProcessingOutputConfig": {
                "Outputs": [
                    {
                        "OutputName": output,
                        "S3Output": {
                            "S3Uri": uri,
                            "LocalPath": f"/opt/ml/processing/output/{output}",
                            "S3UploadMode": "EndOfJob",
                        },
                    }
                ]
            },
        },
        **more,
    }


def definition(rehearsal: Rehearsal) -> str:
    """The whole pipeline; steps stand in the wrong order on purpose."""
    train = {
        "Name": "Train",
        "Type": "Training",
        "Arguments": {
            "AlgorithmSpecification": {"TrainingImage": rehearsal.job_image, "TrainingInputMode": "File"},
            "RoleArn": rehearsal.role,
            "HyperParameters": {"shift": {"Get": "Parameters.Shift"}},
            "InputDataConfig": [
                {
                    "ChannelName": "train",
                    "DataSource": {
                        "S3DataSource": {
                            "S3DataType": "S3Prefix",
                            "S3Uri": {
                                "Get": "Steps.Prepare.ProcessingOutputConfig.Outputs['train'].S3Output.S3Uri"
                            },
                        }
                    },
                }
            ],
            "OutputDataConfig": {"S3OutputPath": f"s3://{rehearsal.bucket}/models"},
            "ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 30},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        },
    }
    model = {"Get": "Steps.Train.ModelArtifacts.S3ModelArtifacts"}
    evaluate = processing(
        rehearsal,
        "Evaluate",
        {"model": (model, "model")},
        "evaluation",
        PropertyFiles=[
            {"PropertyFileName": "Evaluation", "OutputName": "evaluation", "FilePath": "evaluation.json"}
        ],
    )
    register = {
        "Name": "Register",
        "Type": "RegisterModel",
        "Arguments": {
            "ModelPackageGroupName": GROUP,
            "ModelApprovalStatus": "PendingManualApproval",
            "InferenceSpecification": {
                "Containers": [{"Image": rehearsal.server_image, "ModelDataUrl": model}],
                "SupportedContentTypes": ["text/csv"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
        },
    }
    accept = {
        "Name": "Accept",
        "Type": "Condition",
        "Arguments": {
            "Conditions": [
                {
                    "Type": "LessThanOrEqualTo",
                    "LeftValue": {
                        "Std:JsonGet": {
                            "PropertyFile": {"Get": "Steps.Evaluate.PropertyFiles.Evaluation"},
                            "Path": "metrics.distance.value",
                        }
                    },
                    "RightValue": 1,
                }
            ],
            "IfSteps": [register],
            "ElseSteps": [
                {"Name": "Reject", "Type": "Fail", "Arguments": {"ErrorMessage": "too far from ten"}}
            ],
        },
    }
    prepare = processing(
        rehearsal, "Prepare", {"numbers": (f"s3://{rehearsal.bucket}/numbers/", "numbers")}, "train"
    )
    return json.dumps(
        {
            "Version": "2020-12-01",
            "Parameters": [{"Name": "Shift", "Type": "String", "DefaultValue": "0"}],
            "Steps": [accept, evaluate, train, prepare],
        }
    )


@pytest.fixture(scope="module")
def pipeline(rehearsal: Rehearsal, pipeline_role: str) -> str:
    """A pipeline with its data and its model package group."""
    rehearsal.put("numbers/a.txt", "9\n10\n11\n")
    sagemaker = rehearsal.client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName=GROUP)
    sagemaker.create_pipeline(
        PipelineName="dev-numbers",
        PipelineDefinition=definition(rehearsal),
        ClientRequestToken=uuid.uuid4().hex,
        RoleArn=pipeline_role,
    )
    return "dev-numbers"


def run(
    rehearsal: Rehearsal, pipeline: str, **parameters: str
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Run to the end; the execution and its steps by name."""
    sagemaker = rehearsal.client("sagemaker")
    arn = sagemaker.start_pipeline_execution(
        PipelineName=pipeline,
        ClientRequestToken=uuid.uuid4().hex,
        PipelineParameters=[{"Name": name, "Value": value} for name, value in parameters.items()],
    )["PipelineExecutionArn"]
    found = await_(
        lambda: sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn),
        lambda execution: execution["PipelineExecutionStatus"] not in ("Executing", "Stopping"),
    )
    steps = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
    return found, {step["StepName"]: step for step in steps}


def test_should_run_the_steps_by_dependency_and_register_the_model(
    rehearsal: Rehearsal, pipeline: str
) -> None:
    execution, steps = run(rehearsal, pipeline)
    assert execution["PipelineExecutionStatus"] == "Succeeded", (execution, steps)
    order = sorted(steps, key=lambda name: steps[name]["StartTime"])
    assert order == ["Prepare", "Train", "Evaluate", "Accept", "Register"]
    assert steps["Accept"]["Metadata"]["Condition"]["Outcome"] == "True"
    package = rehearsal.client("sagemaker").describe_model_package(
        ModelPackageName=steps["Register"]["Metadata"]["RegisterModel"]["Arn"]
    )
    assert package["ModelPackageGroupName"] == GROUP
    assert package["ModelApprovalStatus"] == "PendingManualApproval"
    assert package["MetadataProperties"]["GeneratedBy"] == execution["PipelineExecutionArn"]
    data = package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
    assert data.startswith(f"s3://{rehearsal.bucket}/models/pipelines-")


def test_should_stop_at_a_fail_step_and_say_why(rehearsal: Rehearsal, pipeline: str) -> None:
    execution, steps = run(rehearsal, pipeline, Shift="5")
    assert execution["PipelineExecutionStatus"] == "Failed"
    assert "Reject: too far from ten" in execution["FailureReason"]
    assert (steps["Reject"]["StepStatus"], "Register" in steps) == ("Failed", False)


def test_should_start_one_execution_for_one_token(rehearsal: Rehearsal, pipeline: str) -> None:
    sagemaker = rehearsal.client("sagemaker")
    token = uuid.uuid4().hex
    arns = {
        sagemaker.start_pipeline_execution(PipelineName=pipeline, ClientRequestToken=token)[
            "PipelineExecutionArn"
        ]
        for _ in range(3)
    }
    assert len(arns) == 1
    sagemaker.stop_pipeline_execution(PipelineExecutionArn=arns.pop(), ClientRequestToken=token)
    newest = await_(
        lambda: sagemaker.list_pipeline_executions(PipelineName=pipeline)["PipelineExecutionSummaries"][0],
        lambda execution: execution["PipelineExecutionStatus"] not in ("Executing", "Stopping"),
    )
    assert newest["PipelineExecutionStatus"] == "Stopped"


def test_should_refuse_a_pipeline_whose_arguments_are_wrong(rehearsal: Rehearsal, pipeline_role: str) -> None:
    wrong = definition(rehearsal).replace('"AppSpecification"', '"ApplicationSpecification"')
    with pytest.raises(ClientError, match=r"Prepare: Arguments\.AppSpecification is required"):
        rehearsal.client("sagemaker").create_pipeline(
            PipelineName="wrong",
            PipelineDefinition=wrong,
            ClientRequestToken=uuid.uuid4().hex,
            RoleArn=pipeline_role,
        )


def test_should_fail_a_step_that_the_pipelines_role_may_not_start(
    rehearsal: Rehearsal, pipeline: str
) -> None:
    role = rehearsal.make_role("powerless", "sagemaker.amazonaws.com", [allow("s3:GetObject")])
    sagemaker = rehearsal.client("sagemaker")
    sagemaker.create_pipeline(
        PipelineName="powerless",
        PipelineDefinition=definition(rehearsal),
        ClientRequestToken=uuid.uuid4().hex,
        RoleArn=role,
    )
    execution, steps = run(rehearsal, "powerless")
    assert execution["PipelineExecutionStatus"] == "Failed"
    assert "not authorized to perform: sagemaker:CreateProcessingJob" in steps["Prepare"]["FailureReason"]


def test_should_tell_eventbridge_of_the_execution_and_the_package(
    rehearsal: Rehearsal, pipeline: str
) -> None:
    events, sqs = rehearsal.client("events"), rehearsal.client("sqs")
    queue, queue_arn = rehearsal.make_queue("lifecycle")
    pattern = {
        "source": ["aws.sagemaker"],
        "detail-type": [
            "SageMaker Model Package State Change",
            "SageMaker Model Building Pipeline Execution Status Change",
        ],
    }
    events.put_rule(Name="lifecycle", EventPattern=json.dumps(pattern))
    target = {"Id": "queue", "Arn": queue_arn}
    events.put_targets(Rule="lifecycle", Targets=[target])
    _, steps = run(rehearsal, pipeline)
    arn = steps["Register"]["Metadata"]["RegisterModel"]["Arn"]
    rehearsal.client("sagemaker").update_model_package(
        ModelPackageArn=arn, ModelApprovalStatus="Approved", ApprovalDescription="good"
    )
    seen: list[dict[str, Any]] = []

    def read() -> list[dict[str, Any]]:
        answer = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)
        for message in answer.get("Messages", ()):
            seen.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return seen

    await_(
        read, lambda found: any(event["detail"].get("ModelApprovalStatus") == "Approved" for event in found)
    )
    approved = next(event for event in seen if event["detail"].get("ModelApprovalStatus") == "Approved")
    assert approved["resources"] == [arn]
    assert approved["detail"]["ModelPackageArn"] == arn
    assert approved["detail"]["ApprovalDescription"] == "good"
    statuses = [
        event["detail"]["currentPipelineExecutionStatus"]
        for event in seen
        if "pipelineArn" in event["detail"]
    ]
    assert statuses == ["Executing", "Succeeded"]
