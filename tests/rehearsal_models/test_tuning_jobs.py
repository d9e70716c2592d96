"""Tuning jobs: trials are real training jobs; the best of them is known."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from .conftest import IMAGES, REGISTRY, Rehearsal, allow, await_, build_image

pytestmark = [pytest.mark.rehearsal, pytest.mark.slow]

X = {"Name": "x", "MinValue": "0", "MaxValue": "6", "ScalingType": "Linear"}
ENDED = ("Completed", "Failed", "Stopped")


@pytest.fixture(scope="module")
def image(rehearsal: Rehearsal, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image whose training walks down a bowl."""
    folder = tmp_path_factory.mktemp("descend")
    (folder / "job.py").write_text((IMAGES / "job" / "job.py").read_text())
    lines = (IMAGES / "job" / "Dockerfile").read_text().replace('"job"]', '"job", "descend"]')
    (folder / "Dockerfile").write_text(lines)
    uri = f"{REGISTRY}/descend:1"
    build_image(rehearsal.server.state, uri, folder)
    return uri


@pytest.fixture(autouse=True)
def bounded(rehearsal: Rehearsal) -> Iterator[None]:
    """As many trials as a test asks for."""
    rehearsal.server.control("POST", "/tuning", {"max_trials": 20})
    yield
    rehearsal.server.control("POST", "/tuning", {"max_trials": 8})


def request(rehearsal: Rehearsal, image: str, name: str, **config: Any) -> dict[str, Any]:
    """A request for a tuning job that minimises the bowl."""
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 4, "MaxParallelTrainingJobs": 2},
            "ParameterRanges": {"ContinuousParameterRanges": [X]},
            **config,
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {
                "TrainingImage": image,
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([-0-9.e]+);"}],
            },
            "RoleArn": rehearsal.role,
            "OutputDataConfig": {"S3OutputPath": f"s3://{rehearsal.bucket}/{name}"},
            "ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 30},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
            "StaticHyperParameters": {"steps": "2"},
        },
    }


def run(rehearsal: Rehearsal, params: dict[str, Any]) -> dict[str, Any]:
    """Run a tuning job to its end; its description."""
    client, name = rehearsal.client("sagemaker"), params["HyperParameterTuningJobName"]
    client.create_hyper_parameter_tuning_job(**params)
    found: dict[str, Any] = await_(
        lambda: client.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name),
        lambda job: job["HyperParameterTuningJobStatus"] in ENDED,
    )
    return found


def trials(rehearsal: Rehearsal, name: str, **order: Any) -> list[dict[str, Any]]:
    """The trials of a job."""
    client = rehearsal.client("sagemaker")
    found: list[dict[str, Any]] = client.list_training_jobs_for_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=name, **order
    )["TrainingJobSummaries"]
    return found


def objective(trial: dict[str, Any]) -> float:
    """The objective that a trial ended with."""
    return float(trial["FinalHyperParameterTuningJobObjectiveMetric"]["Value"])


def test_should_run_as_many_trials_as_asked_and_know_the_best(rehearsal: Rehearsal, image: str) -> None:
    job = run(rehearsal, request(rehearsal, image, "random"))
    assert job["HyperParameterTuningJobStatus"] == "Completed", job.get("FailureReason")
    assert job["TrainingJobStatusCounters"]["Completed"] == 4
    found = trials(rehearsal, "random", SortBy="FinalObjectiveMetricValue", SortOrder="Ascending")
    values = [objective(trial) for trial in found]
    assert values == sorted(values)
    for trial in found:
        x = float(trial["TunedHyperParameters"]["x"])
        assert objective(trial) == pytest.approx((x - 3) ** 2)
    best = job["BestTrainingJob"]
    assert best["TrainingJobName"] == found[0]["TrainingJobName"]
    # The model of the best trial is where a pipeline looks for it.
    name = best["TrainingJobName"]
    with tarfile.open(fileobj=io.BytesIO(rehearsal.read(f"random/{name}/output/model.tar.gz"))) as tar:
        content = tar.extractfile("model.json")
        assert content is not None
        assert json.loads(content.read())["x"] == best["TunedHyperParameters"]["x"]
    described = rehearsal.client("sagemaker").describe_training_job(TrainingJobName=name)
    assert described["TuningJobArn"] == job["HyperParameterTuningJobArn"]
    assert described["HyperParameters"]["steps"] == "2"
    said = [
        e["why"] for e in rehearsal.ledger(outcome="recorded", kind="tuning-job") if e["name"] == "random"
    ]
    assert any("AWS's search is another program" in why for why in said)


def test_should_try_each_point_of_a_grid(rehearsal: Rehearsal, image: str) -> None:
    params = request(
        rehearsal,
        image,
        "grid",
        Strategy="Grid",
        ResourceLimits={"MaxParallelTrainingJobs": 2},
        ParameterRanges={"CategoricalParameterRanges": [{"Name": "x", "Values": ["1", "3", "5"]}]},
    )
    job = run(rehearsal, params)
    assert sorted(t["TunedHyperParameters"]["x"] for t in trials(rehearsal, "grid")) == ["1", "3", "5"]
    assert job["BestTrainingJob"]["TunedHyperParameters"]["x"] == "3"


def test_should_bear_a_trial_that_fails(rehearsal: Rehearsal, image: str) -> None:
    params = request(
        rehearsal,
        image,
        "moody",
        Strategy="Grid",
        ResourceLimits={"MaxParallelTrainingJobs": 1},
        ParameterRanges={
            "CategoricalParameterRanges": [
                {"Name": "x", "Values": ["2"]},
                {"Name": "mood", "Values": ["good", "bad"]},
            ]
        },
    )
    job = run(rehearsal, params)
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["TrainingJobStatusCounters"]["NonRetryableError"] == 1
    assert job["ObjectiveStatusCounters"] == {"Succeeded": 1, "Pending": 0, "Failed": 1}
    assert job["BestTrainingJob"]["TunedHyperParameters"]["mood"] == "good"


def test_should_fail_when_no_trial_has_a_result(rehearsal: Rehearsal, image: str) -> None:
    params = request(
        rehearsal,
        image,
        "hopeless",
        Strategy="Grid",
        ResourceLimits={"MaxParallelTrainingJobs": 2},
        ParameterRanges={
            "CategoricalParameterRanges": [
                {"Name": "x", "Values": ["2"]},
                {"Name": "mood", "Values": ["bad"]},
            ]
        },
    )
    job = run(rehearsal, params)
    assert job["HyperParameterTuningJobStatus"] == "Failed"
    assert "exit code: 4" in job["FailureReason"]
    assert "BestTrainingJob" not in job


def test_should_stop_bad_trials_early_by_hyperband(rehearsal: Rehearsal, image: str) -> None:
    params = request(
        rehearsal,
        image,
        "hyperband",
        Strategy="Hyperband",
        StrategyConfig={"HyperbandStrategyConfig": {"MinResource": 2, "MaxResource": 30}},
        ResourceLimits={"MaxNumberOfTrainingJobs": 6, "MaxParallelTrainingJobs": 2},
    )
    params["TrainingJobDefinition"]["StaticHyperParameters"] = {"steps": "30", "pause": "0.05"}
    job = run(rehearsal, params)
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    counters = job["TrainingJobStatusCounters"]
    assert counters["Stopped"] >= 1
    assert counters["Completed"] >= 1
    assert counters["Completed"] + counters["Stopped"] == 6


def test_should_go_on_from_a_parent(rehearsal: Rehearsal, image: str) -> None:
    run(rehearsal, request(rehearsal, image, "parent"))
    params = request(
        rehearsal,
        image,
        "child",
        Strategy="Bayesian",
        ResourceLimits={"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 1},
    )
    params["WarmStartConfig"] = {
        "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "parent"}],
        "WarmStartType": "IdenticalDataAndAlgorithm",
    }
    job = run(rehearsal, params)
    everything = [*trials(rehearsal, "parent"), *trials(rehearsal, "child")]
    assert objective(job["OverallBestTrainingJob"]) == min(map(objective, everything))
    params["HyperParameterTuningJobName"] = "orphan"
    params["TrainingJobDefinition"]["StaticHyperParameters"] = {"others": "2"}
    with pytest.raises(ClientError, match="differ from those of the parent parent: others, steps"):
        rehearsal.client("sagemaker").create_hyper_parameter_tuning_job(**params)


def test_should_end_when_the_target_is_reached(rehearsal: Rehearsal, image: str) -> None:
    params = request(
        rehearsal,
        image,
        "target",
        TuningJobCompletionCriteria={"TargetObjectiveMetricValue": 100.0},
        ResourceLimits={"MaxNumberOfTrainingJobs": 10, "MaxParallelTrainingJobs": 1},
    )
    job = run(rehearsal, params)
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert len(trials(rehearsal, "target")) == 1


def test_should_stop_when_asked_to(rehearsal: Rehearsal, image: str) -> None:
    client = rehearsal.client("sagemaker")
    params = request(rehearsal, image, "stopped")
    params["TrainingJobDefinition"]["StaticHyperParameters"] = {"steps": "600", "pause": "0.1"}
    client.create_hyper_parameter_tuning_job(**params)
    await_(lambda: trials(rehearsal, "stopped"), bool)
    client.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName="stopped")
    job = await_(
        lambda: client.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName="stopped"),
        lambda job: job["HyperParameterTuningJobStatus"] in ENDED,
    )
    assert job["HyperParameterTuningJobStatus"] == "Stopped"
    assert {trial["TrainingJobStatus"] for trial in trials(rehearsal, "stopped")} == {"Stopped"}


def test_should_say_when_the_rehearsal_runs_fewer_trials(rehearsal: Rehearsal, image: str) -> None:
    rehearsal.server.control("POST", "/tuning", {"max_trials": 1})
    run(rehearsal, request(rehearsal, image, "bounded"))
    assert len(trials(rehearsal, "bounded")) == 1
    said = [
        e["why"] for e in rehearsal.ledger(outcome="recorded", kind="tuning-job") if e["name"] == "bounded"
    ]
    assert "1 trials were run of 4 asked for: the rehearsal's bound" in said


def test_should_tune_in_a_pipeline_and_hand_on_the_best_model(rehearsal: Rehearsal, image: str) -> None:
    account = "arn:aws:sagemaker:us-east-1:123456789012"
    verbs = ("Create", "Describe", "Stop")
    role = rehearsal.make_role(
        "tuning-pipeline",
        "sagemaker.amazonaws.com",
        [
            allow(
                *(f"sagemaker:{verb}HyperParameterTuningJob" for verb in verbs),
                "sagemaker:ListTrainingJobsForHyperParameterTuningJob",
                "sagemaker:AddTags",
                on=f"{account}:hyper-parameter-tuning-job/*-Tune-*",
            ),
            allow("sagemaker:CreateModel", "sagemaker:AddTags", on=f"{account}:model/pipelines-*"),
            allow("iam:PassRole", on=rehearsal.role),
        ],
    )
    arguments = request(rehearsal, image, "unused")
    del arguments["HyperParameterTuningJobName"]
    best = {"Get": "Steps.Tune.TrainingJobSummaries[0].TrainingJobName"}
    data = {
        "Std:Join": {
            "On": "/",
            "Values": [f"s3://{rehearsal.bucket}/unused", best, "output/model.tar.gz"],
        }
    }
    definition = {
        "Version": "2020-12-01",
        "Steps": [
            {"Name": "Tune", "Type": "Tuning", "Arguments": arguments},
            {
                "Name": "Keep",
                "Type": "Model",
                "Arguments": {
                    "ExecutionRoleArn": rehearsal.role,
                    "PrimaryContainer": {"Image": rehearsal.server_image, "ModelDataUrl": data},
                },
            },
        ],
    }
    client = rehearsal.client("sagemaker")
    client.create_pipeline(
        PipelineName="tuned",
        PipelineDefinition=json.dumps(definition),
        ClientRequestToken="t" * 32,
        RoleArn=role,
    )
    arn = client.start_pipeline_execution(PipelineName="tuned")["PipelineExecutionArn"]
    found = await_(
        lambda: client.describe_pipeline_execution(PipelineExecutionArn=arn),
        lambda execution: execution["PipelineExecutionStatus"] != "Executing",
    )
    assert found["PipelineExecutionStatus"] == "Succeeded", found.get("FailureReason")
    steps = client.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
    metadata = {step["StepName"]: step["Metadata"] for step in steps}
    tuning = metadata["Tune"]["TuningJob"]["Arn"].rpartition("/")[2]
    assert len(tuning) <= 32
    job = client.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=tuning)
    model = client.describe_model(ModelName=metadata["Keep"]["Model"]["Arn"].rpartition("/")[2])
    expected = f"unused/{job['BestTrainingJob']['TrainingJobName']}/output/model.tar.gz"
    assert model["PrimaryContainer"]["ModelDataUrl"] == f"s3://{rehearsal.bucket}/{expected}"
    assert expected in rehearsal.keys("unused/")
