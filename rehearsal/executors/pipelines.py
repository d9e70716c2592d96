"""SageMaker Pipelines: executions that run their steps in order of dependency, under the pipeline's role."""

from __future__ import annotations

import hashlib
import json
import secrets
import string
import threading
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rehearsal.executors import containers, transfer
from rehearsal.executors.pipeline_definition import (
    STEP_OPERATIONS,
    Definition,
    DefinitionError,
    Step,
    Values,
    ValueUnknownError,
    evaluate_condition,
    parse_definition,
    resolve,
)
from rehearsal.services.engine import ApiError, Call, Record, Service, instead

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["start", "start_by_event"]

# Two steps at once: more would not be quicker on the two cores that the rehearsal is made for.
PARALLEL_STEPS = 2
_ENDED = frozenset({"Completed", "Failed", "Stopped"})
_POLL_SECONDS = 0.1


class StepFailedError(Exception):
    """A step that failed; the text is its failure reason."""


@dataclass(kw_only=True)
class _Execution:
    """One execution while it runs."""

    service: Service
    record: Record
    pipeline: Record
    definition: Definition
    parameters: dict[str, Any]
    stop: threading.Event = field(default_factory=threading.Event)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcomes: dict[str, bool] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def runtime(self) -> Runtime:
        return self.service.runtime

    @property
    def role(self) -> str:
        return str(self.pipeline.data["RoleArn"])

    def values(self) -> Values:
        now = self.runtime.clock.now()
        return Values(
            parameters=self.parameters,
            execution={
                "StartDateTime": _iso(self.record.created),
                "CurrentDateTime": _iso(now),
                "PipelineName": self.pipeline.name,
                "PipelineArn": self.pipeline.arn,
                "PipelineExecutionId": self.record.name,
                "PipelineExecutionArn": self.record.arn,
            },
            steps=self.answers,
            property_file=self.property_file,
        )

    def property_file(self, step: str, name: str) -> Any:
        """Read a property file from S3 under the pipeline's role."""
        output, path = self.definition.steps[step].property_files[name]
        if step not in self.answers:
            raise ValueUnknownError(f"the property file {name}: step {step} has not run")
        outputs = self.answers[step]["ProcessingOutputConfig"]["Outputs"]
        uri = next(item["S3Output"]["S3Uri"] for item in outputs if item["OutputName"] == output)
        content = transfer.fetch(
            self.runtime, f"{uri.rstrip('/')}/{path}", role=self.role, region=self.service.region
        )
        return json.loads(content)


@dataclass(frozen=True, kw_only=True)
class _Cached:
    at: datetime
    answer: dict[str, Any]
    metadata: dict[str, Any]
    execution_arn: str


_RUNNING: dict[str, _Execution] = {}
_CACHE: dict[tuple[str, str, str], _Cached] = {}


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


# ---------------------------------------------------------------------- the pipeline itself


def _checked(service: Service, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters with the definition in place; a definition that SageMaker would refuse is refused."""
    given = {key: value for key, value in params.items() if key != "PipelineDefinitionS3Location"}
    location = params.get("PipelineDefinitionS3Location")
    if location is not None and "PipelineDefinition" in params:
        raise ApiError(
            "ValidationException", "give PipelineDefinition or PipelineDefinitionS3Location, not both"
        )
    if location is not None:
        answer = service.runtime.client("s3", region=service.region).get_object(
            Bucket=location["Bucket"], Key=location["ObjectKey"]
        )
        given["PipelineDefinition"] = answer["Body"].read().decode()
    if "PipelineDefinition" in given:
        try:
            parse_definition(given["PipelineDefinition"])
        except DefinitionError as error:
            raise ApiError(
                "ValidationException", f"Unable to parse pipeline definition: {'; '.join(error.problems)}"
            ) from None
    return given


@instead("sagemaker", "CreatePipeline")
def create(service: Service, call: Call) -> dict[str, Any]:
    """Keep a pipeline whose definition is sound."""
    params = _checked(service, call.params)
    if "PipelineDefinition" not in params:
        raise ApiError(
            "ValidationException", "PipelineDefinition or PipelineDefinitionS3Location is required"
        )
    return service.generic(
        Call(operation=call.operation, params=params, principal=call.principal, region=call.region)
    )


@instead("sagemaker", "UpdatePipeline")
def update(service: Service, call: Call) -> dict[str, Any]:
    """Change a pipeline; executions under way keep the definition that they started with."""
    params = _checked(service, call.params)
    return service.generic(
        Call(operation=call.operation, params=params, principal=call.principal, region=call.region)
    )


# ---------------------------------------------------------------------- executions


@instead("sagemaker", "StartPipelineExecution")
def start(service: Service, call: Call) -> dict[str, Any]:
    """Start an execution; a second call with the same ClientRequestToken answers the first one's ARN."""
    params = call.params
    pipeline = service.get("Pipeline", params["PipelineName"])
    definition = parse_definition(pipeline.data["PipelineDefinition"])
    given = {item["Name"]: item["Value"] for item in params.get("PipelineParameters", ())}
    try:
        parameters = definition.bind(given)
    except DefinitionError as error:
        raise ApiError("ValidationException", str(error)) from None
    token = params.get("ClientRequestToken")
    with service.lock:
        earlier = _by_token(service, pipeline, token)
        if earlier is not None:
            return {"PipelineExecutionArn": earlier.arn}
        identifier = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(12))
        record = service.put(
            "PipelineExecution",
            identifier,
            {
                "PipelineArn": pipeline.arn,
                "PipelineExecutionDisplayName": params.get(
                    "PipelineExecutionDisplayName",
                    f"execution-{int(service.runtime.clock.timestamp() * 1000)}",
                ),
                "PipelineExecutionDescription": params.get("PipelineExecutionDescription"),
                "PipelineExecutionStatus": "Executing",
                "PipelineParameters": [
                    {"Name": name, "Value": given.get(name, _text(value))}
                    for name, value in parameters.items()
                ],
                "PipelineDefinition": pipeline.data["PipelineDefinition"],
                "ClientRequestToken": token,
                "Steps": {},
            },
            status="Executing",
        )
        record.arn = f"{pipeline.arn}/execution/{identifier}"
        execution = _RUNNING[record.arn] = _Execution(
            service=service, record=record, pipeline=pipeline, definition=definition, parameters=parameters
        )
    _tell(execution, "Executing", None)
    containers.start_work(
        service.runtime, f"pipeline {pipeline.name} execution {identifier}", _run, execution
    )
    return {"PipelineExecutionArn": record.arn}


def _by_token(service: Service, pipeline: Record, token: str | None) -> Record | None:
    if token is None:
        return None
    return next(
        (r for r in _executions(service, pipeline.arn) if r.data["ClientRequestToken"] == token), None
    )


def _executions(service: Service, pipeline_arn: str) -> list[Record]:
    with service.lock:
        return [
            record
            for record in service.records.get("PipelineExecution", {}).values()
            if record.data["PipelineArn"] == pipeline_arn
        ]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@instead("sagemaker", "StopPipelineExecution")
def stop(service: Service, call: Call) -> dict[str, Any]:
    """Ask an execution to stop: its running jobs are stopped, no new step begins."""
    record = service.get("PipelineExecution", call.params["PipelineExecutionArn"])
    execution = _RUNNING.get(record.arn)
    if record.status != "Executing" or execution is None:
        raise ApiError(
            "ConflictException", f"The execution {record.arn} is {record.status}; it cannot be stopped"
        )
    service.update(record, status="Stopping", PipelineExecutionStatus="Stopping")
    _tell(execution, "Stopping", "Executing")
    execution.stop.set()
    return {"PipelineExecutionArn": record.arn}


@instead("sagemaker", "ListPipelineExecutions")
def list_executions(service: Service, call: Call) -> dict[str, Any]:
    """List the executions of a pipeline, newest first unless asked otherwise."""
    params = call.params
    pipeline = service.get("Pipeline", params["PipelineName"])
    before, after = params.get("CreatedBefore"), params.get("CreatedAfter")
    records = [
        record
        for record in _executions(service, pipeline.arn)
        if (before is None or record.created < before) and (after is None or record.created > after)
    ]
    # The order in which they were started decides between two of the same moment.
    if params.get("SortBy", "CreationTime") == "PipelineExecutionArn":
        records.sort(key=lambda record: record.arn)
    if params.get("SortOrder", "Descending") == "Descending":
        records.reverse()
    page, token = _page(records, params)
    output: dict[str, Any] = {
        "PipelineExecutionSummaries": [
            {
                key: value
                for key, value in {
                    "PipelineExecutionArn": record.arn,
                    "StartTime": record.created,
                    "PipelineExecutionStatus": record.status,
                    "PipelineExecutionDescription": record.data["PipelineExecutionDescription"],
                    "PipelineExecutionDisplayName": record.data["PipelineExecutionDisplayName"],
                    "PipelineExecutionFailureReason": record.data.get("FailureReason"),
                }.items()
                if value is not None
            }
            for record in page
        ]
    }
    return output | ({} if token is None else {"NextToken": token})


def _page(items: list[Any], params: Mapping[str, Any]) -> tuple[list[Any], str | None]:
    begin = int(params.get("NextToken", 0))
    end = begin + int(params.get("MaxResults", 100))
    return items[begin:end], str(end) if end < len(items) else None


@instead("sagemaker", "ListPipelineExecutionSteps")
def list_steps(service: Service, call: Call) -> dict[str, Any]:
    """List the steps that an execution has begun, newest first unless asked otherwise."""
    record = service.get("PipelineExecution", call.params["PipelineExecutionArn"])
    with service.lock:
        steps = [dict(step) for step in record.data["Steps"].values()]
    if call.params.get("SortOrder", "Descending") == "Descending":
        steps.reverse()
    page, token = _page(steps, call.params)
    output: dict[str, Any] = {"PipelineExecutionSteps": page}
    return output | ({} if token is None else {"NextToken": token})


@instead("sagemaker", "ListPipelineParametersForExecution")
def list_parameters(service: Service, call: Call) -> dict[str, Any]:
    """List the values that an execution runs with."""
    record = service.get("PipelineExecution", call.params["PipelineExecutionArn"])
    page, token = _page(record.data["PipelineParameters"], call.params)
    output: dict[str, Any] = {"PipelineParameters": page}
    return output | ({} if token is None else {"NextToken": token})


@instead("sagemaker", "DescribePipelineDefinitionForExecution")
def describe_definition(service: Service, call: Call) -> dict[str, Any]:
    """The definition that an execution runs."""
    record = service.get("PipelineExecution", call.params["PipelineExecutionArn"])
    return {"PipelineDefinition": record.data["PipelineDefinition"], "CreationTime": record.created}


def start_by_event(
    runtime: Runtime, *, target: Mapping[str, Any], event: Mapping[str, Any], region: str
) -> str:
    """Start the pipeline that an EventBridge rule or schedule names as its target; the execution's ARN.

    Parameter values that are JSON paths (`$.detail.x`) are read from the event.
    """
    parameters = [
        {"Name": item["Name"], "Value": _from_event(str(item["Value"]), event)}
        for item in target.get("SageMakerPipelineParameters", {}).get("PipelineParameterList", ())
    ]
    client = runtime.client("sagemaker", role=target["RoleArn"], region=region)
    answer = client.start_pipeline_execution(PipelineName=target["Arn"], PipelineParameters=parameters)
    return str(answer["PipelineExecutionArn"])


def _from_event(value: str, event: Mapping[str, Any]) -> str:
    if not value.startswith("$."):
        return value
    found: Any = event
    for part in value[2:].split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise ValueError(f"the event has no {value}, which a pipeline parameter asks for")
        found = found[part]
    return found if isinstance(found, str) else json.dumps(found)


# ---------------------------------------------------------------------- running


def _run(execution: _Execution) -> None:
    record, service = execution.record, execution.service
    pending = dict(execution.definition.steps)
    skipped: set[str] = set()
    succeeded: set[str] = set()
    failed: list[str] = []
    running: dict[Future[None], str] = {}
    with ThreadPoolExecutor(PARALLEL_STEPS, thread_name_prefix=f"pipeline-{record.name}") as pool:
        while pending or running:
            _drop_untaken(execution, pending, skipped)
            if failed or execution.stop.is_set():
                pending.clear()
            for step in [s for s in pending.values() if s.after <= succeeded][
                : PARALLEL_STEPS - len(running)
            ]:
                running[pool.submit(_run_step, execution, step)] = step.name
                del pending[step.name]
            if not running:
                break
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                name = running.pop(future)
                future.result()
                status = record.data["Steps"][name]["StepStatus"]
                if status == "Succeeded":
                    succeeded.add(name)
                elif status == "Failed":
                    failed.append(name)
    changes: dict[str, Any] = {}
    status = "Succeeded"
    if failed:
        status = "Failed"
        changes["FailureReason"] = "Step failure: One or multiple steps failed: " + "; ".join(
            f"{name}: {record.data['Steps'][name]['FailureReason']}" for name in failed
        )
    elif execution.stop.is_set():
        status = "Stopped"
    before = str(record.status)
    service.update(record, status=status, PipelineExecutionStatus=status, **changes)
    _RUNNING.pop(record.arn, None)
    detail = {"pipeline": execution.pipeline.name, "status": status, "steps": sorted(record.data["Steps"])}
    if status == "Failed":
        execution.runtime.ledger.failed("pipeline-execution", record.name, changes["FailureReason"], **detail)
    else:
        execution.runtime.ledger.ran("pipeline-execution", record.name, **detail)
    _tell(execution, status, before)


def _drop_untaken(execution: _Execution, pending: dict[str, Step], skipped: set[str]) -> None:
    """Drop the steps of branches that were not taken, and what depends on them."""
    while True:
        gone = [
            step.name
            for step in pending.values()
            if step.after & skipped
            or (
                step.branch is not None
                and execution.outcomes.get(step.branch[0], step.branch[1]) is not step.branch[1]
            )
        ]
        if not gone:
            return
        for name in gone:
            del pending[name]
            skipped.add(name)


def _run_step(execution: _Execution, step: Step) -> None:
    entry: dict[str, Any] = {
        "StepName": step.name,
        "StepStatus": "Executing",
        "StartTime": execution.runtime.clock.now(),
        "AttemptCount": 1,
    }
    entry |= {} if step.display_name is None else {"StepDisplayName": step.display_name}
    entry |= {} if step.description is None else {"StepDescription": step.description}
    with execution.service.lock:
        execution.record.data["Steps"][step.name] = entry
    _tell_step(execution, step, entry, "Starting")
    changes: dict[str, Any] = {}
    try:
        status = _perform(execution, step, entry)
    except (
        StepFailedError,
        DefinitionError,
        ValueUnknownError,
        transfer.TransferError,
    ) as error:
        status, changes = "Failed", {"FailureReason": str(error)[:1024]}
    except Exception as error:
        changes = {"FailureReason": f"InternalServerError: {error}"[:1024]}
        status = "Failed"
        raise
    finally:
        with execution.service.lock:
            entry.update(StepStatus=status, EndTime=execution.runtime.clock.now(), **changes)
        _tell_step(execution, step, entry, "Executing")


def _perform(execution: _Execution, step: Step, entry: dict[str, Any]) -> str:
    values = execution.values()
    if step.type == "Condition":
        try:
            outcome = all(evaluate_condition(item, values) for item in step.arguments["Conditions"])
        except TypeError as error:
            raise StepFailedError(str(error)) from error
        execution.outcomes[step.name] = outcome
        entry["Metadata"] = {"Condition": {"Outcome": str(outcome)}}
        return "Succeeded"
    arguments = resolve(dict(step.arguments), values)
    if step.type == "Fail":
        entry["Metadata"] = {"Fail": {"ErrorMessage": str(arguments["ErrorMessage"])}}
        raise StepFailedError(str(arguments["ErrorMessage"]))
    key = (execution.pipeline.arn, step.name, _digest(step.type, arguments))
    if step.cache_seconds is not None and _use_cache(execution, step, key, entry):
        return "Succeeded"
    if step.type in ("Processing", "Training"):
        status = _job(execution, step, arguments, entry)
    elif step.type == "RegisterModel":
        status = _register(execution, step, arguments, entry)
    elif step.type == "Model":
        status = _model(execution, step, arguments, entry)
    else:
        raise StepFailedError(f"the rehearsal does not run steps of the type {step.type}")
    if status == "Succeeded" and step.cache_seconds is not None:
        _CACHE[key] = _Cached(
            at=execution.runtime.clock.now(),
            answer=execution.answers[step.name],
            metadata=entry["Metadata"],
            execution_arn=execution.record.arn,
        )
    return status


def _digest(type_name: str, arguments: Mapping[str, Any]) -> str:
    text = json.dumps([type_name, arguments], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _use_cache(execution: _Execution, step: Step, key: tuple[str, str, str], entry: dict[str, Any]) -> bool:
    cached = _CACHE.get(key)
    if cached is None or step.cache_seconds is None:
        return False
    if (execution.runtime.clock.now() - cached.at).total_seconds() > step.cache_seconds:
        return False
    execution.answers[step.name] = cached.answer
    entry["Metadata"] = cached.metadata
    entry["CacheHitResult"] = {"SourcePipelineExecutionArn": cached.execution_arn}
    return True


def _client(execution: _Execution) -> Any:
    return execution.runtime.client("sagemaker", role=execution.role, region=execution.service.region)


def _called(execution: _Execution, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Call SageMaker as the pipeline's role; a refusal is the step's failure."""
    from botocore import xform_name
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer: dict[str, Any] = getattr(_client(execution), xform_name(operation))(**arguments)
    except (ClientError, BotoCoreError) as error:
        raise StepFailedError(f"ClientError: Failed to invoke sagemaker:{operation}. {error}") from error
    return {key: value for key, value in answer.items() if key != "ResponseMetadata"}


def _tags(execution: _Execution, step: Step, arguments: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        *arguments.get("Tags", ()),
        {"Key": "sagemaker:pipeline-execution-arn", "Value": execution.record.arn},
        {"Key": "sagemaker:pipeline-step-name", "Value": step.name},
    ]


def _job_name(execution: _Execution, step: Step) -> str:
    alphabet = string.ascii_letters + string.digits
    suffix = "".join(secrets.choice(alphabet) for _ in range(10))
    return f"pipelines-{execution.record.name}-{step.name[:20].replace('_', '-').rstrip('-')}-{suffix}"


def _job(execution: _Execution, step: Step, arguments: dict[str, Any], entry: dict[str, Any]) -> str:
    operation, _ = STEP_OPERATIONS[step.type]
    noun = operation.removeprefix("Create")
    name = _job_name(execution, step)
    identity = {f"{noun}Name": name}
    created = _called(
        execution,
        operation,
        {**arguments, **identity, "Tags": _tags(execution, step, arguments)},
    )
    entry["Metadata"] = {noun: {"Arn": created[f"{noun}Arn"]}}
    answer = _called(execution, f"Describe{noun}", identity)
    stopping = False
    while True:
        record = execution.service.get(noun, name)
        if record.status in _ENDED:
            break
        if execution.stop.is_set() and not stopping and record.status == "InProgress":
            stopping = True
            _called(execution, f"Stop{noun}", identity)
        time.sleep(_POLL_SECONDS)
    answer = _called(execution, f"Describe{noun}", identity)
    execution.answers[step.name] = answer
    status = answer[f"{noun}Status"]
    if status == "Completed":
        return "Succeeded"
    if status == "Stopped" and execution.stop.is_set():
        return "Stopped"
    reason = answer.get("FailureReason", f"the job {name} was stopped")
    raise StepFailedError(f"ClientError: {noun} {name} {status}: {reason}")


def _register(execution: _Execution, step: Step, arguments: dict[str, Any], entry: dict[str, Any]) -> str:
    generated = {"GeneratedBy": execution.record.arn}
    arguments["MetadataProperties"] = generated | arguments.get("MetadataProperties", {})
    answer = _called(execution, "CreateModelPackage", arguments)
    arn = answer["ModelPackageArn"]
    entry["Metadata"] = {"RegisterModel": {"Arn": arn}}
    execution.answers[step.name] = execution.service.call("DescribeModelPackage", ModelPackageName=arn)
    return "Succeeded"


def _model(execution: _Execution, step: Step, arguments: dict[str, Any], entry: dict[str, Any]) -> str:
    name = _job_name(execution, step)
    answer = _called(
        execution,
        "CreateModel",
        {**arguments, "ModelName": name, "Tags": _tags(execution, step, arguments)},
    )
    entry["Metadata"] = {"Model": {"Arn": answer["ModelArn"]}}
    execution.answers[step.name] = {**answer, "ModelName": name}
    return "Succeeded"


# ---------------------------------------------------------------------- events


def _tell(execution: _Execution, status: str, before: str | None) -> None:
    record = execution.record
    detail: dict[str, Any] = {
        "pipelineExecutionDisplayName": record.data["PipelineExecutionDisplayName"],
        "pipelineExecutionDescription": record.data["PipelineExecutionDescription"],
        "previousPipelineExecutionStatus": before,
        "currentPipelineExecutionStatus": status,
        "executionStartTime": _iso(record.created),
        "pipelineArn": execution.pipeline.arn,
        "pipelineExecutionArn": record.arn,
    }
    if status in ("Succeeded", "Failed", "Stopped"):
        detail["executionEndTime"] = _iso(record.updated)
    execution.runtime.emit(
        "aws.sagemaker",
        "SageMaker Model Building Pipeline Execution Status Change",
        {key: value for key, value in detail.items() if value is not None},
        [execution.pipeline.arn, record.arn],
        region=execution.service.region,
    )


def _tell_step(execution: _Execution, step: Step, entry: Mapping[str, Any], before: str) -> None:
    detail: dict[str, Any] = {
        "stepName": step.name,
        "stepType": step.type,
        "previousStepStatus": before,
        "currentStepStatus": entry["StepStatus"],
        "stepStartTime": _iso(entry["StartTime"]),
        "metadata": entry.get("Metadata", {}),
        "pipelineArn": execution.pipeline.arn,
        "pipelineExecutionArn": execution.record.arn,
    }
    if "EndTime" in entry:
        detail["stepEndTime"] = _iso(entry["EndTime"])
    if "FailureReason" in entry:
        detail["failureReason"] = entry["FailureReason"]
    execution.runtime.emit(
        "aws.sagemaker",
        "SageMaker Model Building Pipeline Execution Step Status Change",
        detail,
        [execution.pipeline.arn, execution.record.arn],
        region=execution.service.region,
    )
