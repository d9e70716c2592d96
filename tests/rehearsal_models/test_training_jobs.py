"""Training jobs as SageMaker runs them: on spot capacity, on several hosts, in warm pools."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal.executors.training_jobs.spot import INTERRUPTIONS, Interruption, Interruptions

from .conftest import Rehearsal, allow, await_


def request(rehearsal: Rehearsal, name: str, *, laps: int = 30, **changes: Any) -> dict[str, Any]:
    """Return the request of a training that counts laps."""
    parameters = {"laps": str(laps), **changes.pop("parameters", {})}
    resources = {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 30}
    return {
        "TrainingJobName": name,
        "AlgorithmSpecification": {
            "TrainingImage": rehearsal.job_image,
            "TrainingInputMode": "File",
            "ContainerArguments": ["laps"],
            "MetricDefinitions": [{"Name": "lap", "Regex": "lap=([0-9]+);"}],
        },
        "RoleArn": rehearsal.role,
        "HyperParameters": parameters,
        "OutputDataConfig": {"S3OutputPath": f"s3://{rehearsal.bucket}/models/"},
        "ResourceConfig": resources | changes.pop("resources", {}),
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        **changes,
    }


def on_spot(rehearsal: Rehearsal, name: str, **changes: Any) -> dict[str, Any]:
    """Return the request of one on spot capacity, with checkpoints."""
    return request(
        rehearsal,
        name,
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 1200},
        CheckpointConfig={"S3Uri": f"s3://{rehearsal.bucket}/checkpoints/{name}"},
        **changes,
    )


def finished(rehearsal: Rehearsal, job: dict[str, Any]) -> dict[str, Any]:
    """Run a job to its end; its description."""
    sagemaker = rehearsal.client("sagemaker")
    sagemaker.create_training_job(**job)
    found: dict[str, Any] = await_(
        lambda: sagemaker.describe_training_job(TrainingJobName=job["TrainingJobName"]),
        lambda seen: seen["TrainingJobStatus"] not in ("InProgress", "Stopping"),
    )
    return found


def interrupt(rehearsal: Rehearsal, **plan: Any) -> None:
    """Plan an interruption."""
    rehearsal.server.control("POST", "/spot-interruptions", plan)


def model(rehearsal: Rehearsal, name: str) -> dict[str, Any]:
    """Return the files of a job's model."""
    with tarfile.open(fileobj=io.BytesIO(rehearsal.read(f"models/{name}/output/model.tar.gz"))) as tar:
        members = {member.name: tar.extractfile(member) for member in tar.getmembers()}
        return {key: json.loads(file.read()) for key, file in members.items() if file is not None}


def transitions(job: dict[str, Any]) -> list[str]:
    """Return the secondary statuses of a job."""
    return [transition["Status"] for transition in job["SecondaryStatusTransitions"]]


def logged(rehearsal: Rehearsal, name: str) -> str:
    """Return everything that a job's hosts logged."""
    logs = rehearsal.client("logs")
    group = "/aws/sagemaker/TrainingJobs"
    streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
    events = [
        logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
        for stream in streams
    ]
    return "\n".join(event["message"] for found in events for event in found)


def test_should_start_again_from_its_checkpoint_when_capacity_is_taken_away(rehearsal: Rehearsal) -> None:
    interrupt(rehearsal, job="spot-*", after="lap=6;")
    job = finished(rehearsal, on_spot(rehearsal, "spot-once", laps=20))
    assert job["TrainingJobStatus"] == "Completed", job
    assert transitions(job) == [
        "Starting",
        "Downloading",
        "Training",
        "Interrupted",
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    assert model(rehearsal, "spot-once")["algo-1.json"]["from"] >= 7
    # A minute of the clock passed without capacity; nobody pays for it.
    assert 1 <= job["BillableTimeInSeconds"] <= job["TrainingTimeInSeconds"] - 55
    assert [metric["Value"] for metric in job["FinalMetricDataList"]] == [19]
    assert rehearsal.server.control("GET", "/spot-interruptions")["left"] == []
    (entry,) = [one for one in rehearsal.ledger(kind="spot-interruption") if one["name"] == "spot-once"]
    assert entry["outcome"] == "ran"


def test_should_end_a_program_that_does_not_listen_and_resume_from_what_was_copied(
    rehearsal: Rehearsal,
) -> None:
    interrupt(rehearsal, job="deaf", after="lap=25;", warning_seconds=0.3)
    job = finished(rehearsal, on_spot(rehearsal, "deaf", laps=32, parameters={"deaf": "yes"}))
    assert job["TrainingJobStatus"] == "Completed", job
    assert 0 < model(rehearsal, "deaf")["algo-1.json"]["from"] < 32


def test_should_wait_no_longer_than_it_may_when_there_is_no_capacity(rehearsal: Rehearsal) -> None:
    interrupt(rehearsal, job="no-capacity", after="lap=1;", capacity=False)
    job = finished(
        rehearsal,
        on_spot(rehearsal, "no-capacity")
        | {"StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 90}},
    )
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")


def test_should_leave_jobs_that_are_not_on_spot_alone(rehearsal: Rehearsal) -> None:
    interrupt(rehearsal, job="on-demand", after="lap=1;")
    job = finished(rehearsal, request(rehearsal, "on-demand", laps=4))
    assert "Interrupted" not in transitions(job)
    assert rehearsal.server.control("POST", "/spot-interruptions")["left"] == []


def test_should_refuse_an_interruption_that_it_cannot_plan(rehearsal: Rehearsal) -> None:
    with pytest.raises(Exception, match=r"when is unknown; .*; after must be a text"):
        interrupt(rehearsal, job="x", when="now")


def test_should_run_a_process_per_host_and_pack_what_all_wrote(rehearsal: Rehearsal) -> None:
    job = finished(rehearsal, request(rehearsal, "pair", laps=2, resources={"InstanceCount": 2}))
    assert job["TrainingJobStatus"] == "Completed", job
    assert set(model(rehearsal, "pair")) == {"algo-1.json", "algo-2.json"}
    said = logged(rehearsal, "pair")
    assert "algo-1 of 2, with 127.0.0.1, from lap 0" in said
    assert "algo-2 of 2, with 127.0.0.1, from lap 0" in said


def test_should_fail_with_the_words_of_the_host_that_failed(rehearsal: Rehearsal) -> None:
    job = finished(
        rehearsal,
        request(
            rehearsal,
            "half",
            laps=1,
            parameters={"fails_on": "algo-2"},
            resources={"InstanceCount": 2},
        ),
    )
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"] == "AlgorithmError: rule overfit after round 7: too far, exit code: 1"


def test_should_give_each_host_its_part_of_a_channel_that_is_sharded(rehearsal: Rehearsal) -> None:
    for number in range(3):
        rehearsal.put(f"shards/{number}.txt", str(number))
    channel = {
        "ChannelName": "train",
        "DataSource": {
            "S3DataSource": {
                "S3DataType": "S3Prefix",
                "S3Uri": f"s3://{rehearsal.bucket}/shards/",
                "S3DataDistributionType": "ShardedByS3Key",
            }
        },
    }
    job = request(rehearsal, "sharded", laps=1, resources={"InstanceCount": 2}, InputDataConfig=[channel])
    finished(rehearsal, job)
    (entry,) = [one for one in rehearsal.ledger(kind="training-job") if one["name"] == "sharded"]
    root = Path(entry["detail"]["folder"])
    here, there = (
        {path.name for path in (place / "opt/ml/input/data/train").iterdir()}
        for place in (root, root / "algo-2")
    )
    assert (here, there) == ({"0.txt", "2.txt"}, {"1.txt"})


def test_should_keep_instances_for_the_next_job_that_matches(rehearsal: Rehearsal) -> None:
    sagemaker = rehearsal.client("sagemaker")
    warm = {"KeepAlivePeriodInSeconds": 600, "VolumeSizeInGB": 31}
    assert finished(rehearsal, request(rehearsal, "warm-1", laps=1, resources=warm))["WarmPoolStatus"] == {
        "Status": "Available",
        "ResourceRetainedBillableTimeInSeconds": 0,
    }
    finished(rehearsal, request(rehearsal, "cold", laps=1, resources={"VolumeSizeInGB": 32}))
    finished(rehearsal, request(rehearsal, "warm-2", laps=1, resources=warm))
    first = sagemaker.describe_training_job(TrainingJobName="warm-1")["WarmPoolStatus"]
    assert (first["Status"], first["ReusedByJob"]) == ("Reused", "warm-2")
    rehearsal.server.control("POST", "/clock/advance", {"hours": 1})
    second = sagemaker.describe_training_job(TrainingJobName="warm-2")["WarmPoolStatus"]
    assert second["Status"] == "Terminated"
    assert 600 >= second["ResourceRetainedBillableTimeInSeconds"] >= 590


def test_should_refuse_a_warm_pool_of_spot_instances(rehearsal: Rehearsal) -> None:
    with pytest.raises(ClientError, match="is not supported with EnableManagedSpotTraining"):
        finished(rehearsal, on_spot(rehearsal, "warm-spot", resources={"KeepAlivePeriodInSeconds": 60}))


def test_should_publish_the_metrics_that_the_log_shows(rehearsal: Rehearsal) -> None:
    finished(rehearsal, request(rehearsal, "measured", laps=3))
    found = rehearsal.client("cloudwatch").list_metrics(
        Namespace="/aws/sagemaker/TrainingJobs", MetricName="lap"
    )["Metrics"]
    dimensions = [{d["Name"]: d["Value"] for d in metric["Dimensions"]} for metric in found]
    assert {"TrainingJobName": "measured"} in dimensions


def test_should_stop_a_job_that_is_asked_to_and_keep_its_checkpoint(rehearsal: Rehearsal) -> None:
    sagemaker = rehearsal.client("sagemaker")
    sagemaker.create_training_job(**on_spot(rehearsal, "stopped", laps=400))
    await_(
        lambda: sagemaker.describe_training_job(TrainingJobName="stopped")["SecondaryStatus"],
        lambda status: status == "Training",
    )
    await_(lambda: rehearsal.keys("checkpoints/stopped/"), bool)
    sagemaker.stop_training_job(TrainingJobName="stopped")
    job = await_(
        lambda: sagemaker.describe_training_job(TrainingJobName="stopped"),
        lambda seen: seen["TrainingJobStatus"] not in ("InProgress", "Stopping"),
    )
    assert transitions(job)[-3:] == ["Stopping", "Uploading", "Stopped"]


def test_should_count_interruptions_off() -> None:
    plan = Interruptions()
    plan.plan(Interruption(job="pipelines-*-Train-*", after="x", times=2))
    found = plan.of("pipelines-1-Train-2")
    assert found is not None
    plan.happened(found)
    again = plan.of("pipelines-1-Train-2")
    assert again is not None
    plan.happened(again)
    assert plan.of("pipelines-1-Train-2") is None
    assert INTERRUPTIONS.left() == []


def test_should_hand_a_tracked_job_a_store_when_it_may_reach_the_server(rehearsal: Rehearsal) -> None:
    sagemaker = rehearsal.client("sagemaker")
    arn = sagemaker.create_mlflow_tracking_server(
        TrackingServerName="runs", ArtifactStoreUri=f"s3://{rehearsal.bucket}/mlflow", RoleArn=rehearsal.role
    )["TrackingServerArn"]
    variables = {"Environment": {"MLFLOW_TRACKING_URI": arn}}
    refused = finished(rehearsal, request(rehearsal, "not-granted", laps=1, **variables))
    assert "the tracking server refuses the job's role" in refused["FailureReason"]
    role = rehearsal.make_role(
        "tracked", "sagemaker.amazonaws.com", [allow("s3:*", "logs:*"), allow("sagemaker-mlflow:*", on=arn)]
    )
    done = finished(rehearsal, request(rehearsal, "tracked", laps=1, **variables, RoleArn=role))
    assert done["TrainingJobStatus"] == "Completed", done
    (entry,) = rehearsal.ledger(kind="tracking")
    assert (entry["outcome"], entry["name"]) == ("recorded", "tracked")
    alone = finished(
        rehearsal, request(rehearsal, "alone", laps=1, **variables, RoleArn=role, EnableNetworkIsolation=True)
    )
    assert "in network isolation does not reach" in alone["FailureReason"]
