"""A pipeline that searches: the request that SageMaker gets, where the best model is looked for, who may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from cdk_support import Template, resources, statements, synthesise_stacks
from ml_lifecycle.training import TrainingPipeline
from ml_lifecycle.training.tuning import tuning_values
from model_support import NAME, Around, granted, parcels, pipeline_definition, step

RANGES = """
  ranges:
    max_depth: {kind: integer, minimum: 2, maximum: 8}
    eta: {kind: continuous, minimum: 0.01, maximum: 0.3, scaling: logarithmic}
    grow_policy: {kind: categorical, values: [depthwise, lossguide]}
"""
COLD = "tuning:\n  max_jobs: 12\n  max_parallel_jobs: 3\n" + RANGES
WARM = "tuning:\n  strategy: random\n  warm_start: {parent: abc-Tune-1}\n" + RANGES


def training(stack: cdk.Stack, folder: Path, blocks: str) -> TrainingPipeline:
    around = Around(stack)
    return TrainingPipeline(
        stack,
        "Training",
        workload=parcels(folder, blocks),
        pipeline_name=NAME,
        model_package_group_name=NAME,
        features=around.lake.features,
        artifacts=around.lake.artifacts,
        volume_key=around.data_key,
        network=around.network(),
    )


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    folder = tmp_path_factory.mktemp("tuning")

    return synthesise_stacks(
        folder,
        {
            "Cold": lambda stack: training(stack, folder, COLD),
            "Warm": lambda stack: training(stack, folder, WARM),
        },
    )


@pytest.mark.slow
def test_should_ask_for_the_search_of_the_workload(templates: dict[str, Template]) -> None:
    found = pipeline_definition(templates["Cold"])
    arguments = step(found, "Tune")["Arguments"]
    config = arguments["HyperParameterTuningJobConfig"]
    assert config["Strategy"] == "Bayesian"
    assert config["ResourceLimits"] == {"MaxNumberOfTrainingJobs": 12, "MaxParallelTrainingJobs": 3}
    assert config["HyperParameterTuningJobObjective"] == {"MetricName": "validation:rmse", "Type": "Minimize"}
    assert config["ParameterRanges"]["ContinuousParameterRanges"] == [
        {"Name": "eta", "MinValue": "0.01", "MaxValue": "0.3", "ScalingType": "Logarithmic"}
    ]
    assert "WarmStartConfig" not in arguments
    assert not any(s["Name"] == "Train" for s in found["Steps"])


@pytest.mark.slow
def test_should_enclose_and_encrypt_each_trial(templates: dict[str, Template]) -> None:
    definition = step(pipeline_definition(templates["Cold"]), "Tune")["Arguments"]["TrainingJobDefinition"]
    assert definition["EnableNetworkIsolation"] is True
    assert definition["EnableInterContainerTrafficEncryption"] is True
    assert "VolumeKmsKeyId" in definition["ResourceConfig"]
    assert set(definition["VpcConfig"]) == {"SecurityGroupIds", "Subnets"}
    assert {"Name": "validation:rmse", "Regex": "validation-rmse:([-+0-9.eE]+)"} in (
        definition["AlgorithmSpecification"]["MetricDefinitions"]
    )


@pytest.mark.slow
def test_should_judge_and_register_the_best_model(templates: dict[str, Template]) -> None:
    found = pipeline_definition(templates["Cold"])
    best = {"Get": "Steps.Tune.TrainingJobSummaries[0].TrainingJobName"}
    inputs = {i["InputName"]: i for i in step(found, "Evaluate")["Arguments"]["ProcessingInputs"]}
    judged = inputs["model"]["S3Input"]["S3Uri"]["Std:Join"]["Values"]
    assert judged[-2:] == [best, "output/model.tar.gz"]
    output = step(found, "Tune")["Arguments"]["TrainingJobDefinition"]["OutputDataConfig"]["S3OutputPath"]
    assert judged[:-2] == output["Std:Join"]["Values"]
    containers = step(found, "Register")["Arguments"]["InferenceSpecification"]["Containers"]
    assert containers[0]["ModelDataUrl"]["Std:Join"]["Values"] == judged


@pytest.mark.slow
def test_should_go_on_from_a_parent_that_an_execution_may_name(templates: dict[str, Template]) -> None:
    found = pipeline_definition(templates["Warm"])
    warm = step(found, "Tune")["Arguments"]["WarmStartConfig"]
    assert warm["WarmStartType"] == "TransferLearning"
    assert warm["ParentHyperParameterTuningJobs"] == [
        {"HyperParameterTuningJobName": {"Get": "Parameters.ParentTuningJob"}}
    ]
    parameters = {p["Name"]: p.get("DefaultValue") for p in found["Parameters"]}
    assert parameters["ParentTuningJob"] == "abc-Tune-1"


@pytest.mark.slow
def test_should_let_the_pipeline_run_tuning_jobs_of_its_step_only(templates: dict[str, Template]) -> None:
    everyone = [
        pair
        for name in resources(templates["Cold"], "AWS::IAM::Role")
        if name.startswith("Training")
        for pair in granted(statements(templates["Cold"], name))
        if "HyperParameterTuning" in pair[0]
    ]
    assert {action for action, _ in everyone} == {
        f"sagemaker:{verb}HyperParameterTuningJob" for verb in ("Create", "Describe", "Stop")
    } | {"sagemaker:ListTrainingJobsForHyperParameterTuningJob"}
    assert all(where.endswith(":hyper-parameter-tuning-job/*-Tune-*") for _, where in everyone)


@pytest.mark.parametrize(
    ("block", "member", "value"),
    [
        (
            "strategy: hyperband\n  hyperband: {min_rounds: 5}",
            "StrategyConfig",
            {"HyperbandStrategyConfig": {"MinResource": 5, "MaxResource": 200}},
        ),
        ("early_stopping: true", "TrainingJobEarlyStoppingType", "Auto"),
        ("seed: 3", "RandomSeed", 3),
        (
            "patience_jobs: 4\n  target: 0.5",
            "TuningJobCompletionCriteria",
            {
                "TargetObjectiveMetricValue": 0.5,
                "BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 4},
            },
        ),
    ],
)
def test_should_say_each_option_in_the_terms_of_sagemaker(
    tmp_path: Path, block: str, member: str, value: Any
) -> None:
    spec = parcels(tmp_path, f"tuning:\n  {block}\n{RANGES}").workload
    assert tuning_values(spec, {})["tuning_config"][member] == value


def test_should_leave_a_searched_hyperparameter_to_the_search(tmp_path: Path) -> None:
    spec = parcels(
        tmp_path, "tuning:\n  ranges: {rounds: {kind: integer, minimum: 20, maximum: 90}}\n"
    ).workload
    given = {"rounds": "200", "gamma": "1"}
    assert tuning_values(spec, given)["hyperparameters"] == {"gamma": "1"}
    assert tuning_values(parcels(tmp_path).workload, given)["hyperparameters"] == given
