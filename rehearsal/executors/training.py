"""SageMaker training: channels in, `train` under the `/opt/ml` contract, `model.tar.gz` out."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rehearsal.executors import containers, transfer
from rehearsal.executors.containers import JobFolder
from rehearsal.services.engine import ApiError, Call, Record, Service, instead

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

__all__ = ["create", "final_metrics", "stop"]

_STOPS = containers.Stops()
_LOG_GROUP = "/aws/sagemaker/TrainingJobs"


@instead("sagemaker", "CreateTrainingJob")
def create(service: Service, call: Call) -> dict[str, Any]:
    """Check the job as far as SageMaker does before it answers, then start it."""
    params = call.params
    image = params["AlgorithmSpecification"].get("TrainingImage")
    if (image is None) == (params["AlgorithmSpecification"].get("AlgorithmName") is None):
        raise ApiError(
            "ValidationException",
            "AlgorithmSpecification takes exactly one of TrainingImage and AlgorithmName",
        )
    channels = [channel["ChannelName"] for channel in params.get("InputDataConfig", ())]
    if len(set(channels)) != len(channels):
        raise ApiError("ValidationException", f"Channel names must be unique, got {', '.join(channels)}")
    limits = params["StoppingCondition"]
    if params.get("EnableManagedSpotTraining"):
        if limits.get("MaxWaitTimeInSeconds", 0) < limits.get("MaxRuntimeInSeconds", 86400):
            raise ApiError(
                "ValidationException",
                "With EnableManagedSpotTraining, MaxWaitTimeInSeconds must be at least MaxRuntimeInSeconds",
            )
    elif "MaxWaitTimeInSeconds" in limits:
        raise ApiError("ValidationException", "MaxWaitTimeInSeconds needs EnableManagedSpotTraining")
    for definition in params["AlgorithmSpecification"].get("MetricDefinitions", ()):
        try:
            re.compile(definition["Regex"])
        except re.error as error:
            raise ApiError(
                "ValidationException", f"The regex of metric {definition['Name']} is invalid: {error}"
            ) from None
    output = service.generic(call)
    record = service.get("TrainingJob", params["TrainingJobName"])
    record.status = "InProgress"
    _enter(service, record, "Starting", "Preparing the instances for training")
    signal = _STOPS.begin(record.arn)
    containers.start_work(service.runtime, f"training job {record.name}", _run, service, record, signal)
    return output


@instead("sagemaker", "StopTrainingJob")
def stop(service: Service, call: Call) -> dict[str, Any]:
    """Ask a running job to stop; what it has in its model folder by then is kept."""
    record = service.get("TrainingJob", call.params["TrainingJobName"])
    if record.status != "InProgress" or not _STOPS.stop(record.arn):
        raise ApiError(
            "ValidationException",
            f"The job {record.name} is {record.status}; only one InProgress can be stopped",
        )
    record.status = "Stopping"
    _enter(service, record, "Stopping", "Stopping the training job")
    return {}


def _enter(
    service: Service,
    record: Record,
    secondary: str,
    message: str,
    *,
    status: str | None = None,
    **changes: Any,
) -> None:
    """Enter a secondary status, and with the last one the final status and what is known then."""
    now = service.runtime.clock.now()
    transitions: list[dict[str, Any]] = [dict(t) for t in record.data.get("SecondaryStatusTransitions", ())]
    if transitions:
        transitions[-1].setdefault("EndTime", now)
    transitions.append({"Status": secondary, "StartTime": now, "StatusMessage": message})
    if secondary in ("Completed", "Failed", "Stopped", "MaxRuntimeExceeded"):
        transitions[-1]["EndTime"] = now
    changes |= {"SecondaryStatus": secondary, "SecondaryStatusTransitions": transitions}
    service.update(record, status=status, **changes)
    service.runtime.emit(
        "aws.sagemaker",
        "SageMaker Training Job State Change",
        containers.event_detail(service, "TrainingJob", record),
        [record.arn],
        region=service.region,
    )


def _run(service: Service, record: Record, stop_signal: threading.Event) -> None:
    runtime = service.runtime
    folder = JobFolder.of(runtime, "training-jobs", record.name)
    status, secondary, changes = "Failed", "Failed", dict[str, Any]()
    try:
        status, secondary, changes = _work(service, record, folder, stop_signal)
    except transfer.TransferError as error:
        changes = {"FailureReason": str(error)}
    except Exception as error:
        changes = {"FailureReason": f"InternalServerError: {error}"}
        raise
    finally:
        now = runtime.clock.now()
        seconds = int((now - record.data.get("TrainingStartTime", now)).total_seconds())
        containers.ship_log(
            runtime,
            folder,
            role=record.data["RoleArn"],
            region=service.region,
            group=_LOG_GROUP,
            stream=f"{record.name}/algo-1-{int(now.timestamp())}",
        )
        definitions = record.data["AlgorithmSpecification"].get("MetricDefinitions", ())
        changes = {
            "TrainingEndTime": now,
            "TrainingTimeInSeconds": max(seconds, 1),
            "BillableTimeInSeconds": max(seconds, 1),
            "FinalMetricDataList": final_metrics(folder.log, definitions, now),
            **changes,
        }
        _STOPS.end(record.arn)
        detail: dict[str, Any] = {"folder": str(folder.root), "status": status}
        if status == "Failed":
            runtime.ledger.failed("training-job", record.name, changes.get("FailureReason", ""), **detail)
        else:
            runtime.ledger.ran("training-job", record.name, **detail)
        message = changes.get("FailureReason", f"Training job {status.lower()}")
        _enter(service, record, secondary, message, status=status, **changes)


def _work(
    service: Service, record: Record, folder: JobFolder, stop_signal: threading.Event
) -> tuple[str, str, dict[str, Any]]:
    runtime, data = service.runtime, record.data
    role, region = data["RoleArn"], service.region
    containers.assume(role)
    algorithm = data["AlgorithmSpecification"]
    _note_what_is_not_run(service, record)
    if "TrainingImage" not in algorithm:
        raise transfer.TransferError(
            "the rehearsal runs training images only, not algorithms or the built-in ones of AWS Marketplace"
        )
    _enter(service, record, "Downloading", "Downloading input data")
    for channel in data.get("InputDataConfig", ()):
        _download_channel(service, channel, algorithm["TrainingInputMode"], folder, role)
    checkpoints = data.get("CheckpointConfig")
    checkpoint_folder = folder.local((checkpoints or {}).get("LocalPath", "/opt/ml/checkpoints"))
    if checkpoints is not None:
        _resume(service, checkpoints["S3Uri"], checkpoint_folder, role)
    _configure(record, folder)
    _enter(service, record, "Training", "Training image download completed. Training in progress.")
    service.update(record, TrainingStartTime=runtime.clock.now())
    process = containers.start_program(
        runtime,
        folder,
        image=algorithm["TrainingImage"],
        role=role,
        region=region,
        variables={
            "TRAINING_JOB_NAME": record.name,
            "TRAINING_JOB_ARN": record.arn,
            "SM_CURRENT_HOST": "algo-1",
            **data.get("Environment", {}),
        },
        entrypoint=algorithm.get("ContainerEntrypoint"),
        arguments=algorithm.get(
            "ContainerArguments", () if "ContainerEntrypoint" in algorithm else ("train",)
        ),
        isolated=data.get("EnableNetworkIsolation", False),
    )
    limit = data["StoppingCondition"].get("MaxRuntimeInSeconds", 86400)
    outcome = containers.run_to_end(runtime, process, limit_seconds=limit, stop=stop_signal)
    _enter(service, record, "Uploading", "Uploading generated training model")
    changes = _upload(service, record, folder, role)
    if checkpoints is not None:
        transfer.upload(runtime, checkpoint_folder, checkpoints["S3Uri"], role=role, region=region)
    if outcome.timed_out:
        return "Stopped", "MaxRuntimeExceeded", changes
    if outcome.stopped:
        return "Stopped", "Stopped", changes
    if outcome.exit_code:
        failure = folder.base / "output" / "failure"
        said = failure.read_text("utf-8", "replace") if failure.is_file() else containers.tail(folder.log)
        return (
            "Failed",
            "Failed",
            {"FailureReason": f"AlgorithmError: {said}, exit code: {outcome.exit_code}"[:1024]},
        )
    if "ModelArtifacts" not in changes:
        return (
            "Failed",
            "Failed",
            {"FailureReason": "ClientError: the training wrote nothing into /opt/ml/model"},
        )
    return "Completed", "Completed", changes


def _note_what_is_not_run(service: Service, record: Record) -> None:
    """Say what of the request has no effect on one machine."""
    data, ledger = record.data, service.runtime.ledger
    resources = data.get("ResourceConfig", {})
    if resources.get("InstanceCount", 1) > 1:
        ledger.recorded(
            "training-job", record.name, f"one host ran of {resources['InstanceCount']} asked for"
        )
    if data.get("EnableManagedSpotTraining"):
        ledger.recorded(
            "training-job", record.name, "spot capacity is not simulated: the job was never interrupted"
        )
    for key in ("DebugHookConfig", "DebugRuleConfigurations", "ProfilerRuleConfigurations"):
        if data.get(key):
            ledger.recorded("training-job", record.name, f"{key} was kept, its rules were not run")


def _download_channel(
    service: Service, channel: dict[str, Any], default_mode: str, folder: JobFolder, role: str
) -> None:
    """Bring a channel's files. FastFile too: a program reads the same files, here before it asks for them."""
    name = channel["ChannelName"]
    source = channel.get("DataSource", {}).get("S3DataSource")
    mode = channel.get("InputMode", default_mode)
    if source is None or source["S3DataType"] != "S3Prefix":
        raise transfer.TransferError(f"the channel {name} is no S3Prefix; the rehearsal reads only these")
    if mode == "Pipe":
        raise transfer.TransferError(
            f"the channel {name} asks for Pipe mode; the rehearsal has File and FastFile"
        )
    if channel.get("CompressionType", "None") != "None":
        raise transfer.TransferError(
            f"the channel {name} is compressed; the rehearsal reads uncompressed channels"
        )
    transfer.download(
        service.runtime,
        source["S3Uri"],
        folder.base / "input" / "data" / name,
        role=role,
        region=service.region,
    )


def _resume(service: Service, uri: str, to: Path, role: str) -> None:
    """Bring back the checkpoints of an earlier run; a first run has none."""
    bucket, prefix = transfer.split_uri(uri)
    client = service.runtime.client("s3", role=role, region=service.region)
    found = client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1).get("KeyCount", 0)
    to.mkdir(parents=True, exist_ok=True)
    if found:
        transfer.download(service.runtime, uri, to, role=role, region=service.region)


def _upload(service: Service, record: Record, folder: JobFolder, role: str) -> dict[str, Any]:
    """Pack and upload the model and the other output; what Describe tells about them."""
    config = record.data["OutputDataConfig"]
    changes: dict[str, Any] = {}
    for source, archive, key in (
        (folder.base / "model", "model.tar.gz", "ModelArtifacts"),
        (folder.base / "output" / "data", "output.tar.gz", None),
    ):
        if not any(path.is_file() for path in source.rglob("*")):
            continue
        packed = folder.root / archive
        transfer.pack(source, packed)
        uri = f"{config['S3OutputPath'].rstrip('/')}/{record.name}/output/{archive}"
        transfer.upload_file(
            service.runtime,
            packed,
            uri,
            role=role,
            region=service.region,
            kms_key=config.get("KmsKeyId") or None,
        )
        if key is not None:
            changes[key] = {"S3ModelArtifacts": uri}
    return changes


def _configure(record: Record, folder: JobFolder) -> None:
    base, data = folder.base, record.data
    for path in ("model", "output/data", "input/config", "checkpoints"):
        (base / path).mkdir(parents=True, exist_ok=True)
    config = base / "input" / "config"
    containers.write_json(config / "hyperparameters.json", data.get("HyperParameters", {}))
    containers.write_json(
        config / "inputdataconfig.json",
        {
            channel["ChannelName"]: {
                "ContentType": channel.get("ContentType"),
                "TrainingInputMode": channel.get(
                    "InputMode", data["AlgorithmSpecification"]["TrainingInputMode"]
                ),
                "S3DistributionType": channel["DataSource"]["S3DataSource"].get(
                    "S3DataDistributionType", "FullyReplicated"
                ),
                "RecordWrapperType": channel.get("RecordWrapperType", "None"),
            }
            for channel in data.get("InputDataConfig", ())
        },
    )
    containers.write_json(
        config / "resourceconfig.json",
        {
            "current_host": "algo-1",
            "current_instance_type": data["ResourceConfig"].get("InstanceType"),
            "current_group_name": "homogeneousCluster",
            "hosts": ["algo-1"],
            "network_interface_name": "eth0",
        },
    )


def final_metrics(
    log: Path, definitions: Sequence[dict[str, str]], timestamp: datetime
) -> list[dict[str, Any]]:
    """The last value that each metric definition's regex finds in a log."""
    if not definitions or not log.exists():
        return []
    text = log.read_text(encoding="utf-8", errors="replace")
    metrics = []
    for definition in definitions:
        found = re.findall(definition["Regex"], text)
        if found:
            last = found[-1] if isinstance(found[-1], str) else found[-1][0]
            try:
                value = float(last)
            except ValueError:
                continue
            metrics.append({"MetricName": definition["Name"], "Value": value, "Timestamp": timestamp})
    return metrics
