"""SageMaker Processing: a job downloads its inputs, runs its container and uploads its outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rehearsal.deaths import DEATHS
from rehearsal.executors import containers, transfer
from rehearsal.executors.containers import JobFolder
from rehearsal.services.engine import ApiError, Call, Record, Service, instead

if TYPE_CHECKING:
    import threading

__all__ = ["create", "folder_of", "stop"]

_STOPS = containers.Stops()
_FOLDERS: dict[str, JobFolder] = {}
_LOG_GROUP = "/aws/sagemaker/ProcessingJobs"


@instead("sagemaker", "CreateProcessingJob")
def create(service: Service, call: Call) -> dict[str, Any]:
    """Check the job as far as SageMaker does before it answers, then start it."""
    for item in [*call.params.get("ProcessingInputs", ()), *_outputs(call.params)]:
        kind = "S3Input" if "InputName" in item else "S3Output"
        path = item.get(kind, {}).get("LocalPath")
        if path is not None and not path.startswith("/opt/ml/processing"):
            raise ApiError("ValidationException", f"LocalPath must be below /opt/ml/processing, got {path!r}")
    names = [item.get("InputName") for item in call.params.get("ProcessingInputs", ())]
    names += [item.get("OutputName") for item in _outputs(call.params)]
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    if twice:
        raise ApiError(
            "ValidationException", f"Input and output names must be unique, got {', '.join(twice)} twice"
        )
    output = service.generic(call)
    record = service.get("ProcessingJob", call.params["ProcessingJobName"])
    record.status = "InProgress"
    _tell(service, record)
    signal = _STOPS.begin(record.arn)
    containers.start_work(service.runtime, f"processing job {record.name}", _run, service, record, signal)
    return output


def folder_of(record: Record) -> JobFolder:
    """The folder in which a job ran."""
    return _FOLDERS[record.arn]


@instead("sagemaker", "StopProcessingJob")
def stop(service: Service, call: Call) -> dict[str, Any]:
    """Ask a running job to stop."""
    record = service.get("ProcessingJob", call.params["ProcessingJobName"])
    if record.status != "InProgress" or not _STOPS.stop(record.arn):
        raise ApiError(
            "ValidationException",
            f"The job {record.name} is {record.status}; only one InProgress can be stopped",
        )
    record.status = "Stopping"
    _tell(service, record)
    return {}


def _outputs(params: dict[str, Any]) -> list[dict[str, Any]]:
    outputs: list[dict[str, Any]] = params.get("ProcessingOutputConfig", {}).get("Outputs", [])
    return outputs


def _tell(service: Service, record: Record) -> None:
    service.runtime.emit(
        "aws.sagemaker",
        "SageMaker Processing Job State Change",
        containers.event_detail(service, "ProcessingJob", record),
        [record.arn],
        region=service.region,
    )


def _run(service: Service, record: Record, stop_signal: threading.Event) -> None:
    runtime = service.runtime
    folder = JobFolder.of(runtime, "processing-jobs", record.name)
    _FOLDERS[record.arn] = folder
    started = runtime.clock.now()
    service.update(record, ProcessingStartTime=started)
    try:
        status, changes = _work(service, record, folder, stop_signal)
    except transfer.TransferError as error:
        status, changes = "Failed", {"FailureReason": str(error)}
    except Exception as error:
        status, changes = "Failed", {"FailureReason": f"InternalServerError: {error}"}
        raise
    finally:
        try:
            containers.ship_log(
                runtime,
                folder,
                role=record.data["RoleArn"],
                region=service.region,
                group=_LOG_GROUP,
                stream=f"{record.name}/algo-1",
            )
        finally:
            message = folder.base / "output" / "message"
            if message.is_file():
                changes["ExitMessage"] = message.read_text("utf-8", "replace")[:1024]
            service.update(record, status=status, ProcessingEndTime=runtime.clock.now(), **changes)
            _STOPS.end(record.arn)
        detail = {"folder": str(folder.root), "status": status, **changes}
        if status == "Failed":
            runtime.ledger.failed("processing-job", record.name, changes.get("FailureReason", ""), **detail)
        else:
            runtime.ledger.ran("processing-job", record.name, **detail)
        _tell(service, record)


def _work(
    service: Service, record: Record, folder: JobFolder, stop_signal: threading.Event
) -> tuple[str, dict[str, Any]]:
    runtime, data = service.runtime, record.data
    role, region = data["RoleArn"], service.region
    containers.assume(role)
    application = data["AppSpecification"]
    cluster = data["ProcessingResources"]["ClusterConfig"]
    if cluster["InstanceCount"] > 1:
        runtime.ledger.recorded(
            "processing-job", record.name, f"one host ran of {cluster['InstanceCount']} asked for"
        )
    for item in data.get("ProcessingInputs", ()):
        source = item.get("S3Input")
        if source is None:
            raise transfer.TransferError(
                f"the input {item['InputName']} is no S3 input; the rehearsal reads only S3 inputs"
            )
        if source["S3DataType"] != "S3Prefix" or source.get("S3InputMode", "File") != "File":
            raise transfer.TransferError(
                f"the input {item['InputName']} is not an S3Prefix in File mode; only these are read here"
            )
        transfer.download(
            runtime, source["S3Uri"], folder.local(source["LocalPath"]), role=role, region=region
        )
    for item in _outputs(data):
        if "S3Output" not in item:
            raise transfer.TransferError(
                f"the output {item['OutputName']} is no S3 output; the rehearsal writes only S3 outputs"
            )
        folder.local(item["S3Output"]["LocalPath"]).mkdir(parents=True, exist_ok=True)
    _configure(record, folder)
    process = containers.start_program(
        runtime,
        folder,
        image=application["ImageUri"],
        role=role,
        region=region,
        variables={"PROCESSING_JOB_NAME": record.name, **data.get("Environment", {})},
        entrypoint=application.get("ContainerEntrypoint"),
        arguments=application.get("ContainerArguments", ()),
        isolated=data.get("NetworkConfig", {}).get("EnableNetworkIsolation", False),
    )
    DEATHS.watch(runtime, "processing-job", record.name, process, log=folder.log, folder=folder.base)
    limit = data.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", 86400)
    outcome = containers.run_to_end(runtime, process, limit_seconds=limit, stop=stop_signal)
    if DEATHS.how(process) == "machine":
        # What it had written is gone with it.
        return "Failed", {"FailureReason": containers.INTERNAL_ERROR}
    # A job that failed or was stopped uploads what it has written, so that it can be looked into.
    for item in _outputs(data):
        target = item["S3Output"]
        transfer.upload(
            runtime,
            folder.local(target["LocalPath"]),
            target["S3Uri"],
            role=role,
            region=region,
            kms_key=data["ProcessingOutputConfig"].get("KmsKeyId"),
        )
    if outcome.timed_out:
        return "Stopped", {"FailureReason": f"MaxRuntimeExceeded: the job ran longer than {limit} seconds"}
    if outcome.stopped:
        return "Stopped", {}
    if outcome.exit_code:
        code = containers.said_status(outcome.exit_code)
        reason = f"AlgorithmError: exit code {code}: {containers.tail(folder.log)}"
        return "Failed", {"FailureReason": reason[:1024]}
    return "Completed", {}


def _configure(record: Record, folder: JobFolder) -> None:
    config = folder.base / "config"
    containers.write_json(
        config / "processingjobconfig.json",
        {"ProcessingJobArn": record.arn, "ProcessingJobName": record.name, **record.data},
    )
    containers.write_json(
        config / "resourceconfig.json",
        {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"},
    )
