"""Every job that any template, pipeline, schedule or state machine describes is isolated, or says why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from cdk_support import Assembly
from ml_lifecycle.isolation import METADATA, open_job

from rehearsal.story.operations.isolation import REASONS, jobs_of


def test_should_isolate_every_job_or_say_why_not(assembly: Assembly) -> None:
    jobs = [job for stack, template in assembly.stacks().items() for job in jobs_of(stack, template)]
    kinds = {job.kind for job in jobs}
    assert {"ProcessingJob", "TrainingJob", "Model"} <= kinds
    silent = [f"{job.stack} {job.resource}: {job}" for job in jobs if job.missing and not job.reason]
    assert silent == []
    assert not [job for job in jobs if "EnableInterContainerTrafficEncryption" in job.missing]


def test_should_mean_the_same_metadata() -> None:
    assert REASONS == METADATA


def _found(folder: Path, properties: dict[str, Any], kind: str = "AWS::Scheduler::Schedule") -> Any:
    template = folder / "t.json"
    resource = {"Type": kind, "Properties": properties, "Metadata": {METADATA: {"TrainingJob": "it must"}}}
    template.write_text(json.dumps({"Resources": {"One": resource}}))
    return [(job.kind, job.missing, job.reason) for job in jobs_of("S", template)]


PROCESSING: dict[str, Any] = {"AppSpecification": {}, "ProcessingResources": {}}
BOTH = {"EnableNetworkIsolation": True, "EnableInterContainerTrafficEncryption": True}


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"Input": json.dumps({**PROCESSING, "NetworkConfig": BOTH})}, [("ProcessingJob", (), None)]),
        (
            {"Target": {"Input": {"Fn::Join": ["", ['{"Role": "', {"Ref": "R"}, '", ', "%s"]]}}},
            [("ProcessingJob", ("EnableNetworkIsolation", "EnableInterContainerTrafficEncryption"), None)],
        ),
        (
            {"Steps": [{"Arguments": {"AlgorithmSpecification": {}, "OutputDataConfig": {}, **BOTH}}]},
            [("TrainingJob", (), None)],
        ),
        (
            {"Steps": [{"AlgorithmSpecification": {}, "OutputDataConfig": {}}]},
            [
                (
                    "TrainingJob",
                    ("EnableNetworkIsolation", "EnableInterContainerTrafficEncryption"),
                    "it must",
                )
            ],
        ),
        (
            {"AutoMLJobInputDataConfig": []},
            [("AutoMLJobV2", ("EnableInterContainerTrafficEncryption",), None)],
        ),
        ({"Input": "{ no json"}, []),
    ],
    ids=["schedule", "joined text", "pipeline", "reason", "automl", "text"],
)
def test_should_find_jobs_wherever_they_stand(
    properties: dict[str, Any], expected: list[Any], tmp_path: Path
) -> None:
    rest = json.dumps(PROCESSING)[1:]
    given = json.loads(json.dumps(properties).replace("%s", json.dumps(rest)[1:-1]))
    assert _found(tmp_path, given) == expected


def test_should_look_at_resources_of_sagemaker_themselves(tmp_path: Path) -> None:
    model = "AWS::SageMaker::Model"
    assert _found(tmp_path, {"Containers": []}, model) == [("Model", ("EnableNetworkIsolation",), None)]
    assert _found(tmp_path, {"EnableNetworkIsolation": True}, model) == [("Model", (), None)]
    config = "AWS::SageMaker::EndpointConfig"
    assert _found(tmp_path, {"ProductionVariants": [{"ModelName": "m"}]}, config) == []
    assert _found(tmp_path, {"ProductionVariants": [{}]}, config)


def test_should_want_a_sentence_as_reason() -> None:
    stack = cdk.Stack(cdk.App(), "S")
    resource = cdk.CfnResource(stack, "R", type="AWS::SageMaker::Pipeline")
    with pytest.raises(ValueError, match="reason must say in a sentence why a TrainingJob is open, got 'so'"):
        open_job(resource, "TrainingJob", "so")
    open_job(resource, "TrainingJob", "it talks to its tracker")
    open_job(resource, "Model", "it cannot be isolated")
    assert set(resource.get_metadata(METADATA)) == {"TrainingJob", "Model"}
