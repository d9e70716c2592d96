"""SageMaker Model Monitor: schedules that judge captured traffic with the container of a job definition.

An execution is a Processing job under the definition's role. It reads the hour of capture before its
scheduled time, gets Model Monitor's environment, and what it writes decides between Completed and
CompletedWithViolations.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge
from rehearsal.clock import Due
from rehearsal.executors import containers, processing
from rehearsal.executors.serving import endpoints
from rehearsal.services.engine import ApiError, Call, Record, Service, instead

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["MonitoringClock", "create_schedule", "list_executions"]

_NAMESPACES = {
    "DataQuality": "aws/sagemaker/Endpoints/data-metrics",
    "ModelQuality": "aws/sagemaker/Endpoints/model-metrics",
    "ModelBias": "aws/sagemaker/Endpoints/bias-metrics",
    "ModelExplainability": "aws/sagemaker/Endpoints/explainability-metrics",
}
_INPUT = "/opt/ml/processing/input/endpoint"
_BASELINE = "/opt/ml/processing/baseline"


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
        service.call(
            "CreateProcessingJob",
            ProcessingJobName=job_name,
            **_job(service, schedule, data, kind, when),
        )
    except ApiError as error:
        _finish(service, schedule, execution, "Failed", FailureReason=error.message)
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
    if status == "Failed":
        why = str(changes.get("FailureReason", ""))
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


def _job(
    service: Service, schedule: Record, data: Mapping[str, Any], kind: str, when: datetime
) -> dict[str, Any]:
    """The Processing job of one execution."""
    application = data[f"{kind}AppSpecification"]
    given = data[f"{kind}JobInput"]
    if "EndpointInput" not in given:
        raise ApiError(
            "ValidationException", "the rehearsal monitors endpoints, not the input of batch transforms"
        )
    source = given["EndpointInput"]
    name = source["EndpointName"]
    begin = (when - timedelta(hours=1)).replace(minute=0, second=0, microsecond=0)
    uri, variants = _capture(service, name)
    local = source.get("LocalPath", _INPUT)
    output = data[f"{kind}JobOutputConfig"]["MonitoringOutputs"][0]["S3Output"]
    inputs = [
        _input(
            f"endpoint_{number}",
            f"{uri.rstrip('/')}/{name}/{variant}/{begin:%Y/%m/%d/%H}",
            f"{local}/{name}/{variant}/{begin:%Y/%m/%d/%H}",
        )
        for number, variant in enumerate(variants, start=1)
    ]
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
        "end_time": (begin + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
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
