"""Containers that die on purpose: what their service says of it, and what it starts again."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from subprocess import DEVNULL, Popen
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rehearsal.control import ControlError
from rehearsal.deaths import Death, Deaths, read
from rehearsal.executors.containers import said_status
from rehearsal.executors.serving.fleet import Variant
from rehearsal.executors.training_jobs.jobs import algorithm_error
from rehearsal.runtime import Ledger

from .conftest import Rehearsal, allow, await_
from .test_jobs import CLUSTER, process
from .test_serving import ask, make_model, status_of
from .test_training_jobs import finished, request


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"kind": "lambda"}, "kind must be one of training-job"),
        ({"kind": "endpoint", "how": "flood"}, "how must be one of container, machine"),
        ({"kind": "endpoint", "after": "["}, "after is no regex"),
        ({"kind": "endpoint", "seconds": -1}, "seconds must be between 0 and 600"),
        ({"kind": "endpoint", "times": 0}, "times must be between 1 and 100"),
        ({"kind": "endpoint", "when": "now"}, "when is unknown"),
    ],
)
def test_should_refuse_a_death_that_it_cannot_plan(body: dict[str, Any], said: str) -> None:
    with pytest.raises(ControlError, match=said.replace("[", r"\[")):
        read(body)


def test_should_wait_for_the_moment_that_is_said(tmp_path: Path) -> None:
    log, folder = tmp_path / "log", tmp_path / "ml"
    death, _ = read({"kind": "training-job", "after": "^round 4", "wrote": "model/*"})
    assert not death.due(0.0, log, folder)
    log.write_text("round 3\nround 4\n")
    assert not death.due(0.0, log, folder)
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "part").touch()
    assert death.due(0.0, log, folder)
    assert not Death(kind="endpoint", name="*", seconds=600).due(time.monotonic(), log, folder)


def test_should_kill_as_often_as_planned_and_say_so(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    ledger = Ledger(lambda: datetime.now(UTC))
    runtime = cast(Any, SimpleNamespace(ledger=ledger))
    deaths = Deaths()
    deaths.plan(Death(kind="endpoint", name="claims-*", how="machine"))
    first, second = (Popen(["sleep", "60"], stdout=DEVNULL) for _ in range(2))
    try:
        for process in (first, second):
            for name in ("other", "claims-1"):
                deaths.look(runtime, "endpoint", name, process, since=0.0, log=tmp_path, folder=tmp_path)
        assert first.wait(5) == -9
        assert second.poll() is None
        assert deaths.how(first) == "machine"
        assert deaths.how(second) is None
        assert not deaths.left()
        assert [(e.kind, e.name, e.detail["who"]) for e in ledger.entries()] == [
            ("fault", "endpoint", "claims-1")
        ]
    finally:
        second.kill()
        second.wait()


def test_should_say_the_status_of_a_killed_process_as_a_service_does() -> None:
    assert (said_status(-9), said_status(3)) == (137, 3)


def test_should_send_requests_past_an_instance_that_is_gone() -> None:
    def instance(number: int, alive: bool) -> Any:
        return SimpleNamespace(number=number, alive=alive, running=0, enter=lambda: None)

    variant = Variant(name="v", spec={}, weight=1.0, desired=2, program=None)
    variant.instances = [instance(1, alive=False), instance(2, alive=True)]
    assert {cast(Any, variant.take()).number for _ in range(4)} == {2}
    variant.instances = [instance(1, alive=False)]
    assert cast(Any, variant.take()).number == 1


# --- at a server --------------------------------------------------------------------------------------------

server = [pytest.mark.rehearsal, pytest.mark.slow]


def die(rehearsal: Rehearsal, **plan: Any) -> None:
    rehearsal.server.control("POST", "/faults/containers", plan)


def served(rehearsal: Rehearsal) -> Any:
    return rehearsal.server.control("GET", "/faults/containers")


def test_should_say_how_a_container_ended_however_much_it_has_written() -> None:
    assert algorithm_error("no such file", 1) == "AlgorithmError: no such file, exit code: 1"
    long = algorithm_error("first line\n" + "[7] loss:0.25\n" * 200 + "last line", 137)
    assert long.startswith("AlgorithmError: first line")
    assert long.endswith("last line, exit code: 137")
    assert len(f"ClientError: TrainingJob {'n' * 63} Failed: {long}") <= 1024


def restarts(rehearsal: Rehearsal, endpoint: str) -> int:
    """How often a container of an endpoint was started again; other tests' endpoints have theirs."""
    return sum(entry["name"] == endpoint for entry in rehearsal.ledger(kind="container-restart"))


class TestAtAServer:
    """With programs that run."""

    pytestmark = server

    def test_should_call_a_killed_container_the_algorithms_fault(self, rehearsal: Rehearsal) -> None:
        die(rehearsal, kind="training-job", name="killed-*", after="lap=2;")
        job = finished(rehearsal, request(rehearsal, "killed-1", laps=200))
        assert job["TrainingJobStatus"] == "Failed"
        assert job["FailureReason"].startswith("AlgorithmError")
        assert job["FailureReason"].endswith("exit code: 137")
        assert not served(rehearsal)["left"]

    def test_should_call_a_lost_machine_the_services_fault(self, rehearsal: Rehearsal) -> None:
        die(rehearsal, kind="training-job", name="lost-*", how="machine", after="lap=2;")
        job = finished(rehearsal, request(rehearsal, "lost-1", laps=200))
        assert job["TrainingJobStatus"] == "Failed"
        assert job["FailureReason"].startswith("InternalServerError")
        assert "ModelArtifacts" not in job or not job["ModelArtifacts"]["S3ModelArtifacts"]

    def test_should_kill_a_container_at_a_call_of_its_own(self, rehearsal: Rehearsal) -> None:
        plan = {"action": "sts:GetCallerIdentity", "who": rehearsal.role, "steps": ["kill-before"]}
        rehearsal.server.control("POST", "/faults", plan)
        job = process(rehearsal, "killed-at-a-call", "identity")
        assert job["ProcessingJobStatus"] == "Failed"
        assert job["FailureReason"].startswith("AlgorithmError: exit code 137")

    def test_should_try_a_step_again_whose_machine_was_lost(self, rehearsal: Rehearsal) -> None:
        """By the step's policy, a minute of the clock later, with a job of its own; once."""
        role = rehearsal.make_role(
            "retried-pipeline",
            "sagemaker.amazonaws.com",
            [
                allow("sagemaker:*ProcessingJob", "sagemaker:AddTags"),
                allow("iam:PassRole", on=rehearsal.role),
            ],
        )
        sagemaker, name = rehearsal.client("sagemaker"), f"retried-{uuid.uuid4().hex[:6]}"
        step = {
            "Name": "Say",
            "Type": "Processing",
            "Arguments": {
                "AppSpecification": {"ImageUri": rehearsal.job_image, "ContainerArguments": ["say"]},
                "RoleArn": rehearsal.role,
                "ProcessingResources": CLUSTER,
            },
            "RetryPolicies": [{"ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR"], "IntervalSeconds": 60}],
        }
        sagemaker.create_pipeline(
            PipelineName=name,
            PipelineDefinition=json.dumps({"Version": "2020-12-01", "Steps": [step]}),
            ClientRequestToken=uuid.uuid4().hex,
            RoleArn=role,
        )
        die(rehearsal, kind="processing-job", how="machine", name="*-Say-*")
        arn = sagemaker.start_pipeline_execution(PipelineName=name)["PipelineExecutionArn"]
        execution = await_(
            lambda: sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn),
            lambda found: found["PipelineExecutionStatus"] != "Executing",
        )
        assert execution["PipelineExecutionStatus"] == "Succeeded", execution
        (done,) = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
        assert done["AttemptCount"] == 2
        assert (done["EndTime"] - done["StartTime"]).total_seconds() >= 60
        jobs = sagemaker.list_processing_jobs(NameContains=arn.rsplit("/", 1)[-1])["ProcessingJobSummaries"]
        assert sorted(job["ProcessingJobStatus"] for job in jobs) == ["Completed", "Failed"]

    def test_should_start_a_dead_container_of_an_endpoint_again(self, rehearsal: Rehearsal) -> None:
        sagemaker = rehearsal.client("sagemaker")
        make_model(rehearsal, "mortal", 4.0)
        sagemaker.create_endpoint(EndpointName="mortal", EndpointConfigName="mortal")
        await_(lambda: status_of(rehearsal, "mortal")["EndpointStatus"], lambda s: s == "InService")
        before = ask(rehearsal, "mortal")
        die(rehearsal, kind="endpoint", name="mortal")
        await_(lambda: restarts(rehearsal, "mortal"), lambda count: count == 1)

        def answered() -> Any:
            try:
                return ask(rehearsal, "mortal")
            except sagemaker_runtime_error(rehearsal):
                return None

        assert await_(answered, lambda answer: answer is not None) == before
        assert status_of(rehearsal, "mortal")["EndpointStatus"] == "InService"
        sagemaker.delete_endpoint(EndpointName="mortal")
        # One that is ended by whoever may is not started again.
        assert restarts(rehearsal, "mortal") == 1


def sagemaker_runtime_error(rehearsal: Rehearsal) -> Any:
    return rehearsal.client("sagemaker-runtime").exceptions.ModelError
