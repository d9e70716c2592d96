"""SageMaker Model Monitor: schedules that judge captured traffic with the container of a job definition.

An execution is a Processing job under the definition's role. It reads the capture of its window (the hour
before its scheduled time, unless schedule and definition say otherwise), merged with the labels where its
kind needs them, gets Model Monitor's environment, and what it writes decides between Completed and
CompletedWithViolations. A window without data fails, as the service has it; no container runs then.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge
from rehearsal.clock import Due
from rehearsal.executors import containers, ground_truth_merge, processing, transfer
from rehearsal.executors.serving import endpoints
from rehearsal.services.engine import ApiError, Call, Record, Service, instead

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["NO_DATA", "MonitoringClock", "create_schedule", "list_executions"]

_NAMESPACES = {
    "DataQuality": "aws/sagemaker/Endpoints/data-metrics",
    "ModelQuality": "aws/sagemaker/Endpoints/model-metrics",
    "ModelBias": "aws/sagemaker/Endpoints/bias-metrics",
    "ModelExplainability": "aws/sagemaker/Endpoints/explainability-metrics",
}
_INPUT = "/opt/ml/processing/input/endpoint"
_BASELINE = "/opt/ml/processing/baseline"
_CONFIG = "/opt/ml/processing/input/config"
#: What ListMonitoringExecutions shows of a window in which nothing was captured, or nothing labelled.
NO_DATA = "Job inputs had no data"
#: Kinds whose capture is merged with labels first.
_LABELLED = ("ModelQuality", "ModelBias")


@instead("sagemaker", "CreateMonitoringSchedule")
def create_schedule(service: Service, call: Call) -> dict[str, Any]:
    """Keep a schedule whose job definition exists."""
    config = call.params["MonitoringScheduleConfig"]
    _definition(service, config)
    expression = config.get("ScheduleConfig", {}).get("ScheduleExpression")
    if expression is not None and expression != "NOW":
        try:
            bridge.next_cron(expression, service.runtime.clock.now())
        except ValueError as error:
            raise ApiError("ValidationException", str(error)) from None
    output = service.generic(call)
    record = service.get("MonitoringSchedule", call.params["MonitoringScheduleName"])
    record.status = "Scheduled"
    if expression == "NOW" or expression is None:
        now = service.runtime.clock.now()
        containers.start_work(service.runtime, f"monitor {record.name}", _execute, service, record, now)
    return output


def _definition(service: Service, config: Mapping[str, Any]) -> Record:
    kind = config.get("MonitoringType", "DataQuality")
    name = config.get("MonitoringJobDefinitionName")
    if name is None:
        raise ApiError(
            "ValidationException",
            "the rehearsal runs schedules by MonitoringJobDefinitionName, not by inline definitions",
        )
    return service.get(f"{kind}JobDefinition", name)


@instead("sagemaker", "StopMonitoringSchedule")
def stop_schedule(service: Service, call: Call) -> dict[str, Any]:
    """Stop a schedule; an execution under way goes on."""
    service.update(service.get("MonitoringSchedule", call.params["MonitoringScheduleName"]), status="Stopped")
    return {}


@instead("sagemaker", "StartMonitoringSchedule")
def start_schedule(service: Service, call: Call) -> dict[str, Any]:
    """Start a stopped schedule."""
    service.update(
        service.get("MonitoringSchedule", call.params["MonitoringScheduleName"]), status="Scheduled"
    )
    return {}


@instead("sagemaker", "ListMonitoringExecutions")
def list_executions(service: Service, call: Call) -> dict[str, Any]:
    """List executions, the newest scheduled time first unless asked otherwise."""
    params = call.params
    with service.lock:
        found = [dict(record.data) for record in service.records.get("MonitoringExecution", {}).values()]
    for key, member in (
        ("MonitoringScheduleName", "MonitoringScheduleName"),
        ("EndpointName", "EndpointName"),
        ("StatusEquals", "MonitoringExecutionStatus"),
        ("MonitoringTypeEquals", "MonitoringType"),
        ("MonitoringJobDefinitionName", "MonitoringJobDefinitionName"),
    ):
        if key in params:
            found = [item for item in found if item.get(member) == params[key]]
    found.sort(
        key=lambda item: (item["ScheduledTime"], item["CreationTime"]),
        reverse=params.get("SortOrder", "Descending") == "Descending",
    )
    begin = int(params.get("NextToken", 0))
    end = begin + int(params.get("MaxResults", 100))
    output: dict[str, Any] = {"MonitoringExecutionSummaries": found[begin:end]}
    return output | ({"NextToken": str(end)} if end < len(found) else {})


class MonitoringClock:
    """Due work of the clock: the schedules' cron expressions."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def next_due(self, after: datetime) -> Sequence[Due]:
        """The schedules that are due first after `after`."""
        found: list[Due] = []
        for service, record in self._schedules():
            expression = (
                record.data["MonitoringScheduleConfig"].get("ScheduleConfig", {}).get("ScheduleExpression")
            )
            if expression in (None, "NOW"):
                continue
            when = bridge.next_cron(expression, max(after, record.created))
            if when is None or (found and when > found[0].when):
                continue
            if found and when < found[0].when:
                found = []
            found.append(
                Due(
                    when=when,
                    title=f"monitoring schedule {record.name}",
                    run=lambda s=service, r=record, w=when: self._fire(s, r, w),  # type: ignore[misc]
                )
            )
        return found

    def _schedules(self) -> Iterator[tuple[Service, Record]]:
        for service in self._runtime.services():
            if service.name == "sagemaker":
                for record in list(service.records.get("MonitoringSchedule", {}).values()):
                    if record.status == "Scheduled":
                        yield service, record

    def _fire(self, service: Service, record: Record, when: datetime) -> None:
        endpoints.flush_captures()
        containers.start_work(self._runtime, f"monitor {record.name}", _execute, service, record, when)


def _execute(service: Service, schedule: Record, when: datetime) -> None:
    config = schedule.data["MonitoringScheduleConfig"]
    kind = config.get("MonitoringType", "DataQuality")
    definition = _definition(service, config)
    data = definition.data
    endpoint = data[f"{kind}JobInput"].get("EndpointInput", {}).get("EndpointName")
    job_name = f"model-monitoring-{when:%Y%m%d%H%M}-{uuid.uuid4().hex[:24]}"
    execution = service.put(
        "MonitoringExecution",
        job_name,
        {
            "MonitoringScheduleName": schedule.name,
            "ScheduledTime": when,
            "CreationTime": service.runtime.clock.now(),
            "LastModifiedTime": service.runtime.clock.now(),
            "MonitoringExecutionStatus": "InProgress",
            "MonitoringJobDefinitionName": definition.name,
            "MonitoringType": kind,
            **({} if endpoint is None else {"EndpointName": endpoint}),
        },
    )
    try:
        job_request = _job(service, schedule, data, kind, when)
        if job_request is None:
            _finish(service, schedule, execution, "Failed", FailureReason=NO_DATA)
            return
        service.call("CreateProcessingJob", ProcessingJobName=job_name, **job_request)
    except (ApiError, transfer.TransferError) as error:
        refused = error.message if isinstance(error, ApiError) else str(error)
        _finish(service, schedule, execution, "Failed", FailureReason=refused)
        return
    job = service.get("ProcessingJob", job_name)
    while job.status in ("InProgress", "Stopping"):
        time.sleep(0.1)
    _publish(service, job, data, kind, when)
    status, reason = _judged(job, data, kind)
    changes = {"ProcessingJobArn": job.arn} | ({} if reason is None else {"FailureReason": reason})
    _finish(service, schedule, execution, status, **changes)


def _finish(service: Service, schedule: Record, execution: Record, status: str, **changes: Any) -> None:
    service.update(
        execution,
        status=status,
        MonitoringExecutionStatus=status,
        LastModifiedTime=service.runtime.clock.now(),
        **changes,
    )
    service.update(schedule, LastMonitoringExecutionSummary=dict(execution.data))
    why = str(changes.get("FailureReason", ""))
    if why == NO_DATA:
        # The service's way to say that nobody asked: no defect of what was deployed.
        service.runtime.ledger.recorded("monitoring-execution", execution.name, why)
    elif status == "Failed":
        service.runtime.ledger.failed("monitoring-execution", execution.name, why)
    else:
        service.runtime.ledger.ran("monitoring-execution", execution.name, status=status)


def _judged(job: Record, data: Mapping[str, Any], kind: str) -> tuple[str, str | None]:
    """The execution's status: by the job's exit message, else by the violations file that it wrote."""
    if job.status != "Completed":
        return "Stopped" if job.status == "Stopped" else "Failed", job.data.get("FailureReason")
    message = str(job.data.get("ExitMessage", ""))
    folder = processing.folder_of(job)
    output = data[f"{kind}JobOutputConfig"]["MonitoringOutputs"][0]["S3Output"]["LocalPath"]
    file = folder.local(output) / "constraint_violations.json"
    violations = json.loads(file.read_text("utf-8")).get("violations", []) if file.is_file() else []
    found = message.startswith("CompletedWithViolations") or bool(violations)
    return ("CompletedWithViolations" if found else "Completed"), None


_OFFSET = re.compile(r"(-?)P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?)?")


def _offset(text: str) -> timedelta:
    """An ISO 8601 duration of days, hours and minutes, as offsets are written: ``-PT7H``, ``-P1D``."""
    found = _OFFSET.fullmatch(text)
    if found is None or not any(found.groups()[1:]):
        raise ApiError("ValidationException", f"{text!r} is no offset such as -PT1H or -P1D")
    sign, days, hours, minutes = found.groups()
    span = timedelta(days=int(days or 0), hours=int(hours or 0), minutes=int(minutes or 0))
    return -span if sign else span


def _window(
    config: Mapping[str, Any], source: Mapping[str, Any], when: datetime
) -> tuple[datetime, datetime]:
    """First and last moment of what an execution judges, in whole hours."""
    schedule = config.get("ScheduleConfig", {})
    full = when.replace(minute=0, second=0, microsecond=0)
    begin = full + _offset(schedule.get("DataAnalysisStartTime", "-PT1H"))
    end = full + _offset(schedule.get("DataAnalysisEndTime", "-PT0H"))
    # "If specified, jobs subtract this time": the offsets are written as negative durations.
    begin += _offset(source.get("StartTimeOffset", "-PT0H"))
    end += _offset(source.get("EndTimeOffset", "-PT0H"))
    return begin, end


def _captured(
    service: Service, name: str, role: str, begin: datetime, end: datetime
) -> list[tuple[str, str]]:
    """Folders of the window's capture that hold anything, and their place below the mount."""
    uri, variants = _capture(service, name)
    found = []
    for variant in variants:
        hour = begin
        while hour < end:
            place = f"{name}/{variant}/{hour:%Y/%m/%d/%H}"
            folder = f"{uri.rstrip('/')}/{place}"
            if transfer.listed(service.runtime, f"{folder}/", role=role, region=service.region):
                found.append((folder, place))
            hour += timedelta(hours=1)
    return found


def _merged(
    service: Service,
    schedule: Record,
    data: Mapping[str, Any],
    folders: Sequence[tuple[str, str]],
    span: tuple[datetime, datetime],
) -> list[tuple[str, str]]:
    """Folders of the window's capture with the labels in it."""
    kind = schedule.data["MonitoringScheduleConfig"]["MonitoringType"]
    role, region, runtime = data["RoleArn"], service.region, service.runtime
    output = data[f"{kind}JobOutputConfig"]["MonitoringOutputs"][0]["S3Output"]["S3Uri"].rstrip("/")
    target = f"{output}/merge/{schedule.name}/{span[1]:%Y/%m/%d/%H}"
    files = [
        (uri, f"{place}/{uri.rsplit('/', 1)[-1]}")
        for folder, place in folders
        for uri in transfer.listed(runtime, f"{folder}/", role=role, region=region)
    ]
    written = ground_truth_merge.merge(
        runtime,
        files=files,
        truth_uri=data[f"{kind}JobInput"]["GroundTruthS3Input"]["S3Uri"],
        collected=span,
        target_uri=target,
        role=role,
        region=region,
    )
    runtime.ledger.ran(
        "ground-truth-merge", schedule.name, files=len(files), merged_files=len(written), target=target
    )
    places = dict.fromkeys(uri.removeprefix(f"{target}/").rsplit("/", 1)[0] for uri in written)
    return [(f"{target}/{place}", place) for place in places]


def _job(
    service: Service, schedule: Record, data: Mapping[str, Any], kind: str, when: datetime
) -> dict[str, Any] | None:
    """The Processing job of one execution; ``None`` when its window has no data."""
    application = data[f"{kind}AppSpecification"]
    given = data[f"{kind}JobInput"]
    if "EndpointInput" not in given:
        raise ApiError(
            "ValidationException", "the rehearsal monitors endpoints, not the input of batch transforms"
        )
    source = given["EndpointInput"]
    name = source["EndpointName"]
    begin, end = _window(schedule.data["MonitoringScheduleConfig"], source, when)
    local = source.get("LocalPath", _INPUT)
    folders = _captured(service, name, data["RoleArn"], begin, end)
    if folders and kind in _LABELLED:
        folders = _merged(service, schedule, data, folders, (begin, when))
    if not folders:
        return None
    output = data[f"{kind}JobOutputConfig"]["MonitoringOutputs"][0]["S3Output"]
    inputs = [
        _input(f"endpoint_{number}", uri, f"{local}/{place}")
        for number, (uri, place) in enumerate(folders, start=1)
    ]
    if "ConfigUri" in application:
        inputs.append(_input("analysis_config", application["ConfigUri"], _CONFIG))
    environment = {
        "dataset_format": json.dumps(
            {"sagemakerCaptureJson": {"captureIndexNames": ["endpointInput", "endpointOutput"]}}
        ),
        "dataset_source": local,
        "output_path": output["LocalPath"],
        "publish_cloudwatch_metrics": "Enabled",
        "sagemaker_endpoint_name": name,
        "sagemaker_monitoring_schedule_name": schedule.name,
        "start_time": begin.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "end_time": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    baseline = data.get(f"{kind}BaselineConfig", {})
    for key, variable in (
        ("ConstraintsResource", "baseline_constraints"),
        ("StatisticsResource", "baseline_statistics"),
    ):
        resource = baseline.get(key, {}).get("S3Uri")
        if resource is not None:
            folder = f"{_BASELINE}/{variable.removeprefix('baseline_')}"
            inputs.append(_input(variable, resource, folder))
            environment[variable] = f"{folder}/{resource.rsplit('/', 1)[-1]}"
    job: dict[str, Any] = {
        "RoleArn": data["RoleArn"],
        "AppSpecification": {
            key: application[key]
            for key in ("ImageUri", "ContainerEntrypoint", "ContainerArguments")
            if key in application
        },
        "Environment": {**environment, **application.get("Environment", {})},
        "ProcessingInputs": inputs,
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": "result",
                    "S3Output": {
                        "S3Uri": f"{output['S3Uri'].rstrip('/')}/{name}/{schedule.name}/{when:%Y/%m/%d/%H}",
                        "LocalPath": output["LocalPath"],
                        "S3UploadMode": output.get("S3UploadMode", "EndOfJob"),
                    },
                }
            ],
            **{k: v for k, v in data[f"{kind}JobOutputConfig"].items() if k == "KmsKeyId"},
        },
        "ProcessingResources": {"ClusterConfig": data["JobResources"]["ClusterConfig"]},
    }
    return job | {key: data[key] for key in ("NetworkConfig", "StoppingCondition") if key in data}


def _input(name: str, uri: str, local: str) -> dict[str, Any]:
    return {
        "InputName": name,
        "S3Input": {"S3Uri": uri, "LocalPath": local, "S3DataType": "S3Prefix", "S3InputMode": "File"},
    }


def _capture(service: Service, name: str) -> tuple[str, list[str]]:
    endpoint = service.get("Endpoint", name)
    config = service.get("EndpointConfig", endpoint.data["EndpointConfigName"])
    capture = config.data.get("DataCaptureConfig")
    if capture is None:
        raise ApiError("ValidationException", f"the endpoint {name} captures no data")
    return capture["DestinationS3Uri"], [v["VariantName"] for v in config.data["ProductionVariants"]]


def _publish(service: Service, job: Record, data: Mapping[str, Any], kind: str, when: datetime) -> None:
    """Publish the metrics that the container left in `/opt/ml/output/metrics/cloudwatch`."""
    folder = processing.folder_of(job).base / "output" / "metrics" / "cloudwatch"
    endpoint = data[f"{kind}JobInput"]["EndpointInput"]["EndpointName"]
    schedule = job.data["Environment"]["sagemaker_monitoring_schedule_name"]
    for file in sorted(folder.glob("*.jsonl")) if folder.is_dir() else ():
        for line in file.read_text("utf-8").splitlines():
            if not line.strip():
                continue
            metric = json.loads(line)
            dimensions = {d["Name"]: d["Value"] for d in metric.get("Dimensions", ())}
            bridge.put_metric(
                account=service.account,
                region=service.region,
                namespace=_NAMESPACES[kind],
                name=metric["MetricName"],
                dimensions={"Endpoint": endpoint, "MonitoringSchedule": schedule, **dimensions},
                timestamp=when.timestamp(),
                unit=metric.get("Unit", "None"),
                values=[float(metric["Value"])],
            )


def install(runtime: Runtime) -> None:
    """Run monitoring schedules by the rehearsal's clock."""
    runtime.clock.add_source(MonitoringClock(runtime))
