"""Cells of what a training job goes through: interrupted, stopped by a rule, gone on with, on two hosts.

Each is the job of the first execution again, on what that execution prepared: only what is shown differs.
"""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rehearsal.story.matrix.cells import Cell, Row
from rehearsal.story.matrix.ground import FIRST
from rehearsal.story.telling import require

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS"]

_KEPT = (
    "AlgorithmSpecification",
    "RoleArn",
    "HyperParameters",
    "InputDataConfig",
    "OutputDataConfig",
    "ResourceConfig",
    "VpcConfig",
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
    "Environment",
)
#: Of the model folder: what learned, as bytes.
_LEARNED = ("model.ubj", "model.safetensors", "model.onnx")
#: After which line of the log the capacity is taken away.
_ROUND = 4


def _first(tale: Tale) -> dict[str, Any]:
    """The training job of the first execution."""
    sagemaker = tale.cloud.client("sagemaker")
    found = sagemaker.list_training_jobs(
        SortBy="CreationTime", SortOrder="Ascending", StatusEquals="Completed"
    )
    names = [job["TrainingJobName"] for job in found["TrainingJobSummaries"]]
    name = next((name for name in names if name.startswith("pipelines-")), None)
    require(name is not None, "no pipeline has trained a model")
    job: dict[str, Any] = sagemaker.describe_training_job(TrainingJobName=name)
    return job


def _again(tale: Tale, first: Mapping[str, Any], name: str, **changes: Any) -> dict[str, Any]:
    """Train once more as the first job did but for the changes; the job's description at its end."""
    sagemaker = tale.cloud.client("sagemaker")
    request = {key: first[key] for key in _KEPT if first.get(key)}
    limits = {"MaxRuntimeInSeconds": first["StoppingCondition"]["MaxRuntimeInSeconds"]}
    unique = f"{name}-{int(time.time() * 1000)}"
    sagemaker.create_training_job(
        **{**request, "TrainingJobName": unique, "StoppingCondition": limits, **changes}
    )
    deadline = time.monotonic() + 300
    while True:
        job: dict[str, Any] = sagemaker.describe_training_job(TrainingJobName=unique)
        if job["TrainingJobStatus"] not in ("InProgress", "Stopping"):
            return job
        require(time.monotonic() < deadline, f"{unique} still runs")
        time.sleep(0.1)


def _model(tale: Tale, job: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a job's model."""
    require(job["TrainingJobStatus"] == "Completed", f"the training ended {_why(job)}")
    bucket, _, key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://").partition("/")
    data = tale.cloud.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        opened = {member.name: tar.extractfile(member) for member in tar.getmembers()}
        return {name: file.read() for name, file in opened.items() if file is not None}


def _why(job: Mapping[str, Any]) -> str:
    return f"{job['SecondaryStatus']}: {job.get('FailureReason', '')}"


def _beside(first: Mapping[str, Any], name: str) -> str:
    """An S3 folder beside what the first job wrote, where its role may write too."""
    parent = str(first["OutputDataConfig"]["S3OutputPath"]).rstrip("/").rpartition("/")[0]
    return f"{parent}/{name}-{int(time.time() * 1000)}"


def _spot(tale: Tale, row: Row) -> None:
    """Take the capacity away in the middle; the model must be the uninterrupted one's, byte for byte."""
    first = _first(tale)
    limits = first["StoppingCondition"]["MaxRuntimeInSeconds"]
    tale.cloud.server.control(
        "POST", "/spot-interruptions", {"job": "interrupted-*", "after": rf"^\[{_ROUND}\] "}
    )
    job = _again(
        tale,
        first,
        "interrupted",
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": limits, "MaxWaitTimeInSeconds": 2 * limits},
        CheckpointConfig={"S3Uri": _beside(first, "checkpoints")},
    )
    seen = [transition["Status"] for transition in job["SecondaryStatusTransitions"]]
    require("Interrupted" in seen, f"the job went through {', '.join(seen)}: nobody interrupted it")
    whole, resumed = _model(tale, first), _model(tale, job)
    learned = [name for name in _LEARNED if name in whole]
    differ = [name for name in learned if whole[name] != resumed.get(name)]
    require(not differ, f"{', '.join(differ)} differ from those of the uninterrupted training")
    require(
        job["BillableTimeInSeconds"] < job["TrainingTimeInSeconds"],
        "the time without capacity is billed as training",
    )
    row.facts |= {
        "statuses": seen,
        "same bytes": learned,
        "training seconds": job["TrainingTimeInSeconds"],
        "billable seconds": job["BillableTimeInSeconds"],
    }


def _told(tale: Tale, job: str) -> None:
    """Count the failure of a job that was to fail as told, and no other."""
    failed = [entry for entry in tale.cloud.ledger() if entry["outcome"] == "failed"]
    seen: int = tale.known.get("failures told", 0)
    if [entry["name"] for entry in failed[seen:]] == [job]:
        tale.known["failures told"] = len(failed)


def _rules(tale: Tale, row: Row) -> None:
    """Ask for more progress than there can be: the rule must fail the job, in its own words."""
    first = _first(tale)
    s3 = tale.cloud.client("s3")
    channels = {channel["ChannelName"]: channel for channel in first["InputDataConfig"]}
    uri = channels["contract"]["DataSource"]["S3DataSource"]["S3Uri"]
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    contract = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    contract["training"]["rules"] = {"loss_not_decreasing": {"rounds": 2, "least_percent": 99.0}}
    target = f"{_beside(first, 'rules')}/contract.json"
    bucket, _, key = target.removeprefix("s3://").partition("/")
    s3.put_object(Bucket=bucket, Key=key, Body=json.dumps(contract).encode())
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": target}}
    others = [channel for name, channel in channels.items() if name != "contract"]
    told = [*others, {**channels["contract"], "DataSource": source}]
    job = _again(tale, first, "watched", InputDataConfig=told)
    require(job["TrainingJobStatus"] == "Failed", f"the rule let the training go on: {_why(job)}")
    require("rule loss_not_decreasing after round" in job["FailureReason"], f"it failed {_why(job)}")
    row.facts["reason"] = job["FailureReason"]
    _told(tale, job["TrainingJobName"])


def _parent(tale: Tale, row: Row) -> None:
    """Go on from the first model: the new one must say so and hold its rounds."""
    first = _first(tale)
    source = {"S3DataType": "S3Prefix", "S3Uri": first["ModelArtifacts"]["S3ModelArtifacts"]}
    channel = {"ChannelName": "parent", "DataSource": {"S3DataSource": source}}
    job = _again(
        tale,
        first,
        "grown",
        InputDataConfig=[*first["InputDataConfig"], channel],
        HyperParameters={**first["HyperParameters"], "rounds": "10"},
    )
    before = json.loads(_model(tale, first)["metadata.json"])
    metadata = json.loads(_model(tale, job)["metadata.json"])
    require(bool(metadata.get("parent")), "the model does not say what it goes on from")
    require(
        metadata["parent"]["training_job"] == first["TrainingJobName"],
        f"it goes on from {metadata['parent']}, not from {first['TrainingJobName']}",
    )
    row.facts |= {
        "parent": metadata["parent"],
        "rounds before": before["rounds"],
        "rounds": metadata["rounds"],
    }


def _hosts(tale: Tale, row: Row) -> None:
    """Train on two instances: each holds half of the rows, the first writes the model."""
    require(tale.workload.training.algorithm == "xgboost", "this cell is about XGBoost's own collective")
    first = _first(tale)
    job = _again(tale, first, "together", ResourceConfig={**first["ResourceConfig"], "InstanceCount": 2})
    metadata = json.loads(_model(tale, job)["metadata.json"])
    require(metadata["hosts"] == 2, f"the model was made by {metadata['hosts']} hosts")
    alone = json.loads(_model(tale, first)["metadata.json"])
    row.facts |= {"metrics on one": alone["metrics"], "metrics on two": metadata["metrics"]}


def _timed(play: Callable[[Tale, Row], None]) -> Callable[[Tale, Row], None]:
    def played(tale: Tale, row: Row) -> None:
        started = time.monotonic()
        play(tale, row)
        row.seconds = round(time.monotonic() - started, 1)

    return played


CELLS = (
    Cell(
        id="training.spot",
        title="Spot capacity is taken away; the training resumes and gives the same model",
        block=FIRST,
        play=_timed(_spot),
        capabilities=("train.spot",),
    ),
    Cell(
        id="training.rules",
        title="A rule stops a training and says why",
        block=FIRST,
        play=_timed(_rules),
        capabilities=("train.rules",),
    ),
    Cell(
        id="training.parent",
        title="A training goes on from the model before",
        block=FIRST,
        play=_timed(_parent),
        capabilities=("train.incremental",),
    ),
    Cell(
        id="training.hosts",
        title="One model is trained on two instances",
        block=FIRST,
        play=_timed(_hosts),
    ),
)
