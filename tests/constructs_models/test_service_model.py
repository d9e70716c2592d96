"""SageMaker's own request shapes: as botocore has them, and what they refuse."""

from __future__ import annotations

import json
from typing import Any

import botocore.loaders
import botocore.model
import botocore.validate
import pytest
from ml_lifecycle.training import service_model


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    loaded: dict[str, Any] = botocore.loaders.Loader().load_service_model("sagemaker", "service-2")
    return loaded


def training_job() -> dict[str, Any]:
    return {
        "TrainingJobName": "job",
        "RoleArn": "arn:aws:iam::123456789012:role/train",
        "AlgorithmSpecification": {"TrainingInputMode": "File", "TrainingImage": "image"},
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }


def test_should_hold_the_same_shapes_as_the_installed_botocore(service: dict[str, Any]) -> None:
    held = json.loads(service_model._FILE.read_text())
    assert held == json.loads(json.dumps(service_model.extract(service))), (
        "botocore changed: run python -m ml_lifecycle.training.service_model and read the difference"
    )


def test_should_find_nothing_wrong_with_a_request_that_botocore_takes(service: dict[str, Any]) -> None:
    shape = botocore.model.ServiceModel(service).operation_model("CreateTrainingJob").input_shape
    assert shape is not None
    assert not botocore.validate.ParamValidator().validate(training_job(), shape).has_errors()
    assert service_model.problems("CreateTrainingJob", training_job()) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"RoleArm": "x"}, "RoleArm: is no parameter"),
        ({"RoleArn": None}, "RoleArn: must be a string, got None"),
        ({"RoleArn": "role"}, "RoleArn: must have between 20 and 2048 characters, got 4"),
        (
            {"RoleArn": "arn:aws:iam::12:role/train-a-model"},
            "RoleArn: got 'arn:aws:iam::12:role/train-a-model'; must match",
        ),
        ({"HyperParameters": {"eta": 0.1}}, "HyperParameters['eta']: must be a string, got 0.1"),
        ({"EnableNetworkIsolation": "yes"}, "EnableNetworkIsolation: must be a boolean, got 'yes'"),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 0}}, "MaxRuntimeInSeconds: must be at least 1, got 0"),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": True}}, "must be an integer, got True"),
        ({"Tags": [{"Key": "a"}]}, "Tags[0].Value: is required"),
        (
            {"ResourceConfig": {"InstanceType": "ml.m5.huge", "InstanceCount": 1, "VolumeSizeInGB": 30}},
            "ResourceConfig.InstanceType: got 'ml.m5.huge'; SageMaker takes",
        ),
        (
            {"InputDataConfig": {"Get": "Parameters.Channels"}},
            "InputDataConfig: a list cannot be an expression",
        ),
    ],
)
def test_should_refuse_what_sagemaker_would_refuse(change: dict[str, Any], complaint: str) -> None:
    found = service_model.problems("CreateTrainingJob", training_job() | change)
    assert all(line.startswith("CreateTrainingJob.") for line in found)
    assert any(complaint in line for line in found), found


def test_should_report_every_problem_at_once() -> None:
    found = service_model.problems("CreateTrainingJob", {"TrainingJobName": "-", "Tags": [{}]})
    assert any("RoleArn: is required" in line for line in found)
    assert any("TrainingJobName: got '-'" in line for line in found)
    assert any("Tags[0].Key: is required" in line for line in found)


def test_should_take_a_pipeline_expression_for_a_scalar_and_miss_no_name_that_pipelines_gives() -> None:
    request = training_job() | {"RoleArn": {"Get": "Parameters.Role"}}
    del request["TrainingJobName"]
    assert service_model.problems("CreateTrainingJob", request, given=frozenset({"TrainingJobName"})) == []
    assert service_model.problems("CreateTrainingJob", request) == [
        "CreateTrainingJob.TrainingJobName: is required"
    ]
