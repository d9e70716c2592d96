"""The definition of a pipeline: what CreatePipeline refuses, and what references mean."""

import json
from typing import Any

import pytest

from rehearsal.executors.pipelines.definition import DefinitionError, parse_definition
from rehearsal.executors.pipelines.values import (
    Values,
    ValueUnknownError,
    evaluate_condition,
    resolve,
)

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/x:1"
ROLE = "arn:aws:iam::123456789012:role/job"


def processing(name: str, **changes: Any) -> dict[str, Any]:
    """A processing step with one output and a property file."""
    return {
        "Name": name,
        "Type": "Processing",
        "Arguments": {
            "AppSpecification": {"ImageUri": IMAGE, "ContainerArguments": ["evaluate"]},
            "RoleArn": ROLE,
            "ProcessingResources": {
                "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 30}
            },
            "ProcessingOutputConfig": {
                "Outputs": [
                    {
                        "OutputName": "evaluation",
                        "S3Output": {
                            "S3Uri": {
                                "Std:Join": {
                                    "On": "/",
                                    "Values": [
                                        {"Get": "Parameters.Bucket"},
                                        {"Get": "Execution.PipelineExecutionId"},
                                    ],
                                }
                            },
                            "LocalPath": "/opt/ml/processing/output",
                            "S3UploadMode": "EndOfJob",
                        },
                    }
                ]
            },
        },
        "PropertyFiles": [
            {"PropertyFileName": "Evaluation", "OutputName": "evaluation", "FilePath": "evaluation.json"}
        ],
        **changes,
    }


def auc_condition(owner: str = "Evaluate") -> dict[str, Any]:
    """Is the area under the curve good enough?"""
    return {
        "Type": "GreaterThanOrEqualTo",
        "LeftValue": {
            "Std:JsonGet": {
                "PropertyFile": {"Get": f"Steps.{owner}.PropertyFiles.Evaluation"},
                "Path": "metrics.auc.value",
            }
        },
        "RightValue": 0.75,
    }


def document(steps: list[dict[str, Any]], **changes: Any) -> str:
    """A whole definition."""
    return json.dumps(
        {
            "Version": "2020-12-01",
            "Parameters": [
                {"Name": "Bucket", "Type": "String", "DefaultValue": "s3://bucket"},
                {"Name": "Rounds", "Type": "Integer", "DefaultValue": 10},
                {"Name": "Approval", "Type": "String", "DefaultValue": "A", "EnumValues": ["A", "B"]},
            ],
            "Steps": steps,
            **changes,
        }
    )


def branches() -> str:
    """Evaluate, then a condition with a Fail step in the other branch."""
    return document(
        [
            {
                "Name": "Accept",
                "Type": "Condition",
                "Arguments": {
                    "Conditions": [auc_condition()],
                    "IfSteps": [processing("Publish")],
                    "ElseSteps": [
                        {"Name": "Reject", "Type": "Fail", "Arguments": {"ErrorMessage": "not good enough"}}
                    ],
                },
            },
            processing("Evaluate"),
        ]
    )


def values(**steps: Any) -> Values:
    """Values of a run in which the given steps ended."""
    return Values(
        parameters={"Bucket": "s3://bucket", "Rounds": 10, "Approval": "A"},
        execution={"PipelineExecutionId": "abc123def456"},
        steps=steps,
        property_file=lambda step, name: {"metrics": {"auc": {"value": 0.8}}, "list": [1, 2]},
    )


def test_should_find_what_each_step_waits_for() -> None:
    steps = parse_definition(branches()).steps
    assert {name: (step.after, step.branch) for name, step in steps.items()} == {
        "Accept": (frozenset({"Evaluate"}), None),
        "Publish": (frozenset({"Accept"}), ("Accept", True)),
        "Reject": (frozenset({"Accept"}), ("Accept", False)),
        "Evaluate": (frozenset(), None),
    }


def broken(change: Any) -> str:
    step = processing("Prepare")
    change(step)
    return document([step])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        (document([processing("A")], Version="2019-01-01"), "Version must be 2020-12-01"),
        (document([]), "needs at least one step"),
        (document([processing("A"), processing("A")]), "must be unique, got A twice"),
        (document([processing("A", Type="Procesing")]), "unknown Type 'Procesing'"),
        (document([processing("A", DependsOn=["B"])]), "depends on step B, which does not exist"),
        (
            document([processing("A", DependsOn=["B"]), processing("B", DependsOn=["A"])]),
            "A, B depend on each other in a circle",
        ),
        (
            broken(lambda s: s["Arguments"]["AppSpecification"].update(ContainerArgument=["x"])),
            r"Prepare: Arguments.AppSpecification.ContainerArgument is not a parameter",
        ),
        (broken(lambda s: s["Arguments"].pop("RoleArn")), "Prepare: Arguments.RoleArn is required"),
        (
            broken(
                lambda s: s["Arguments"]["ProcessingResources"]["ClusterConfig"].update(
                    InstanceType="ml.zz.large"
                )
            ),
            "InstanceType must be one of",
        ),
        (
            broken(
                lambda s: s["Arguments"]["ProcessingResources"]["ClusterConfig"].update(InstanceCount="1")
            ),
            "InstanceCount must be of type integer, got '1'",
        ),
        (
            broken(lambda s: s["Arguments"].update(RoleArn={"Get": "Parameters.Role"})),
            "refers to the parameter Role, which is not defined",
        ),
        (
            broken(lambda s: s["Arguments"].update(RoleArn={"Get": "Execution.Role"})),
            "unknown execution variable Role",
        ),
        (
            document([processing("A", CacheConfig={"Enabled": True, "ExpireAfter": "30 days"})]),
            "must be an ISO 8601 duration",
        ),
        (
            document(
                [
                    processing("Other", PropertyFiles=[]),
                    {"Name": "C", "Type": "Condition", "Arguments": {"Conditions": [auc_condition("Other")]}},
                ]
            ),
            "refers to the property file Evaluation, which Other does not have",
        ),
    ],
)
def test_should_refuse_a_definition_that_sagemaker_would_refuse(text: str, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        parse_definition(text)


def test_should_tell_all_problems_of_a_definition_at_once() -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_definition(document([processing("A", DependsOn=["B"]), processing("C", Type="Nothing")]))
    assert len(caught.value.problems) == 2


def test_should_type_the_parameters_of_an_execution() -> None:
    definition = parse_definition(branches())
    assert definition.bind({"Rounds": "25"}) == {"Bucket": "s3://bucket", "Rounds": 25, "Approval": "A"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"Round": "1"}, r"\[Round\] is not defined"),
        ({"Rounds": "many"}, r"\[Rounds\] must be of type Integer, got 'many'"),
        ({"Approval": "C"}, r"\[Approval\] must be one of \['A', 'B'\], got 'C'"),
    ],
)
def test_should_refuse_parameter_values_that_do_not_fit(given: dict[str, str], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        parse_definition(branches()).bind(given)


def test_should_resolve_references_inside_arguments() -> None:
    found = values(
        Prepare={
            "ProcessingOutputConfig": {
                "Outputs": [{"OutputName": "train", "S3Output": {"S3Uri": "s3://b/train"}}]
            }
        }
    )
    assert resolve(
        {
            "uri": {"Get": "Steps.Prepare.ProcessingOutputConfig.Outputs['train'].S3Output.S3Uri"},
            "first": {"Get": "Steps.Prepare.ProcessingOutputConfig.Outputs[0].OutputName"},
            "joined": {"Std:Join": {"On": "/", "Values": ["x", {"Get": "Parameters.Rounds"}]}},
            "file": [
                {
                    "Std:JsonGet": {
                        "PropertyFile": {"Get": "Steps.E.PropertyFiles.Evaluation"},
                        "Path": "list[1]",
                    }
                }
            ],
        },
        found,
    ) == {"uri": "s3://b/train", "first": "train", "joined": "x/10", "file": [2]}


def test_should_name_the_reference_that_has_no_value() -> None:
    with pytest.raises(ValueUnknownError, match=r"Steps\.Train\.ModelArtifacts: step Train has not run"):
        resolve({"Get": "Steps.Train.ModelArtifacts"}, values())
    with pytest.raises(ValueUnknownError, match="there is no S3Model"):
        resolve({"Get": "Steps.Train.ModelArtifacts.S3Model"}, values(Train={"ModelArtifacts": {}}))


@pytest.mark.parametrize(
    ("condition", "outcome"),
    [
        (auc_condition(), True),
        ({"Type": "Not", "Expression": auc_condition()}, False),
        ({"Type": "In", "QueryValue": {"Get": "Parameters.Approval"}, "Values": ["B", "C"]}, False),
        (
            {
                "Type": "Or",
                "Conditions": [{"Type": "Equals", "LeftValue": 1, "RightValue": 2}, auc_condition()],
            },
            True,
        ),
        ({"Type": "LessThan", "LeftValue": {"Get": "Parameters.Rounds"}, "RightValue": 11}, True),
    ],
)
def test_should_evaluate_conditions(condition: dict[str, Any], *, outcome: bool) -> None:
    assert evaluate_condition(condition, values()) is outcome


def test_should_refuse_to_compare_text_with_a_number() -> None:
    with pytest.raises(TypeError, match="needs two numbers or two texts, got 'A' and 1"):
        evaluate_condition(
            {"Type": "LessThan", "LeftValue": {"Get": "Parameters.Approval"}, "RightValue": 1}, values()
        )
