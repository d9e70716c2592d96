"""SageMaker Pipelines: executions that run their steps in order of dependency, under the pipeline's role."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rehearsal.executors import containers
from rehearsal.executors.pipelines.definition import DefinitionError, parse_definition
from rehearsal.executors.pipelines.execution import RUNNING, Execution
from rehearsal.executors.pipelines.running import run
from rehearsal.executors.pipelines.steps import end_callback
from rehearsal.executors.pipelines.telling import tell
from rehearsal.services.engine import ApiError, Call, Record, Service, instead

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["start", "start_by_event"]

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
                "ParallelismConfiguration": params.get("ParallelismConfiguration"),
                "Steps": {},
            },
            status="Executing",
        )
        record.arn = f"{pipeline.arn}/execution/{identifier}"
        execution = RUNNING[record.arn] = Execution(
            service=service, record=record, pipeline=pipeline, definition=definition, parameters=parameters
        )
    tell(execution, "Executing", None)
    containers.start_work(service.runtime, f"pipeline {pipeline.name} execution {identifier}", run, execution)
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
    execution = RUNNING.get(record.arn)
    if record.status != "Executing" or execution is None:
        raise ApiError(
            "ConflictException", f"The execution {record.arn} is {record.status}; it cannot be stopped"
        )
    service.update(record, status="Stopping", PipelineExecutionStatus="Stopping")
    tell(execution, "Stopping", "Executing")
    execution.stop.set()
    return {"PipelineExecutionArn": record.arn}


@instead("sagemaker", "SendPipelineExecutionStepSuccess")
def succeed_callback(service: Service, call: Call) -> dict[str, Any]:
    """Answer the message of a callback step."""
    del service
    return _answered(
        call, end_callback(call.params["CallbackToken"], outputs=call.params.get("OutputParameters", ()))
    )


@instead("sagemaker", "SendPipelineExecutionStepFailure")
def fail_callback(service: Service, call: Call) -> dict[str, Any]:
    """Answer the message of a callback step: it failed."""
    del service
    reason = call.params.get("FailureReason", "the callback failed")
    return _answered(call, end_callback(call.params["CallbackToken"], failure=reason))


def _answered(call: Call, execution_arn: str | None) -> dict[str, Any]:
    if execution_arn is None:
        raise ApiError("ResourceNotFound", f"No step waits for the token {call.params['CallbackToken']}.")
    return {"PipelineExecutionArn": execution_arn}


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
