"""Tasks of state machines that ministack lacks: other services' jobs to their end (``.sync``), and any API.

A task calls the service through the gateway with credentials of the state machine's role, so what it may do
is decided there, by the request itself. An API of AWS's SDKs (``aws-sdk:service:action``) is called by
botocore's model: Step Functions writes members in PascalCase, whatever the service does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError, UnknownServiceError

from rehearsal.ministack_bridge import Task, TaskError

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["called", "own_task", "sdk_client_name", "state_task", "wait_for"]

Work = Callable[["Runtime", Task], Any]
_TASKS: dict[str, Work] = {}
_LOOK_SECONDS = 0.2
#: Step Functions names services as the SDK for Java does; only some differ from botocore.
_SDK_NAMES = {
    "sfn": "stepfunctions",
    "cloudwatchlogs": "logs",
    "eventbridge": "events",
    "sagemakerfeaturestoreruntime": "sagemaker-featurestore-runtime",
    "emrserverless": "emr-serverless",
}


def state_task(integration: str) -> Callable[[Work], Work]:
    """Register what does a task whose resource is ``arn:aws:states:::<integration>``."""

    def register(work: Work) -> Work:
        _TASKS[integration] = work
        return work

    return register


def own_task(runtime: Runtime, task: Task) -> Callable[[], Any] | None:
    """What does this task here; None when ministack does it."""
    _, _, integration = task.resource.partition(":states:::")
    if integration in _TASKS:
        work = _TASKS[integration]
        return lambda: work(runtime, task)
    if integration.startswith("aws-sdk:") and not integration.endswith(".waitForTaskToken"):
        return lambda: _sdk(runtime, task, integration)
    return None


def sdk_client_name(service: str) -> str:
    """The botocore name of a service as Step Functions names it."""
    return _SDK_NAMES.get(service.lower(), service.lower())


def _sdk(runtime: Runtime, task: Task, integration: str) -> Any:
    _, service, action = integration.split(":", 2)
    try:
        client = runtime.client(sdk_client_name(service), role=task.role, region=task.region)
    except UnknownServiceError as error:
        raise TaskError("States.Runtime", f"there is no service {service}: {error}") from error
    model = client.meta.service_model
    operation = next((name for name in model.operation_names if name.lower() == action.lower()), None)
    if operation is None or action[:1].isupper():
        raise TaskError("States.Runtime", f"{service} has no API {action}; it is written like getObject")
    shape = model.operation_model(operation).input_shape
    given = _named(task.input, shape) if shape is not None else {}
    prefix = "".join(part[:1].upper() + part[1:] for part in service.split("-"))
    answer = called(prefix, lambda: getattr(client, xform_name(operation))(**given))
    return {name: value for name, value in _pascal(answer).items() if name != "ResponseMetadata"}


def called(prefix: str, call: Callable[[], Any]) -> Any:
    """Call an API; its error becomes the task's."""
    try:
        return call()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in ("AccessDeniedException", "AccessDenied"):
            raise TaskError("States.Permissions", str(error)) from error
        name = code if code.endswith(("Exception", "Error")) else f"{code}Exception"
        raise TaskError(f"{prefix}.{name}", str(error)) from error
    except BotoCoreError as error:
        raise TaskError("States.Runtime", str(error)) from error


def _named(value: Any, shape: Any) -> Any:
    """Members under the names of the service's model."""
    if shape.type_name == "structure" and isinstance(value, Mapping):
        known = {name.lower(): name for name in shape.members}
        unknown = [name for name in value if name.lower() not in known]
        if unknown:
            raise TaskError("States.Runtime", f"{shape.name} has no member {unknown[0]}")
        return {
            known[name.lower()]: _named(item, shape.members[known[name.lower()]])
            for name, item in value.items()
        }
    if shape.type_name == "list" and isinstance(value, list):
        return [_named(item, shape.member) for item in value]
    if shape.type_name == "map" and isinstance(value, Mapping):
        return {key: _named(item, shape.value) for key, item in value.items()}
    return value


def _pascal(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name[:1].upper() + name[1:]: _pascal(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_pascal(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


@state_task("sagemaker:createProcessingJob.sync")
def _processing_job(runtime: Runtime, task: Task) -> Any:
    """Run a processing job to its end; one that does not complete fails the task with its description."""
    client = runtime.client("sagemaker", role=task.role, region=task.region)
    return _to_its_end(
        runtime, task, client.create_processing_job, client.describe_processing_job, "ProcessingJob"
    )


@state_task("sagemaker:createTransformJob.sync")
def _transform_job(runtime: Runtime, task: Task) -> Any:
    """Run a batch transform job to its end, in the same way."""
    client = runtime.client("sagemaker", role=task.role, region=task.region)
    return _to_its_end(
        runtime, task, client.create_transform_job, client.describe_transform_job, "TransformJob"
    )


def _to_its_end(
    runtime: Runtime, task: Task, create: Callable[..., Any], describe: Callable[..., Any], kind: str
) -> Any:
    called("SageMaker", lambda: create(**task.input))
    name = task.input[f"{kind}Name"]

    def ended() -> Mapping[str, Any] | None:
        found = called("SageMaker", lambda: describe(**{f"{kind}Name": name}))
        return found if found[f"{kind}Status"] in ("Completed", "Failed", "Stopped") else None

    found = wait_for(runtime, ended)
    shown = {key: value for key, value in _plain(found).items() if key != "ResponseMetadata"}
    if found[f"{kind}Status"] != "Completed":
        raise TaskError("States.TaskFailed", json.dumps(shown))
    return shown


def _plain(value: Any) -> Any:
    """As optimized integrations show it: the service's own names, times in milliseconds."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value.timestamp() * 1000) if isinstance(value, datetime) else value


def wait_for(runtime: Runtime, ended: Callable[[], Any]) -> Any:
    """Ask until there is an answer.

    :raises TaskError: the rehearsal stops before
    """
    while True:
        found = ended()
        if found is not None:
            return found
        if runtime.stopping.wait(_LOOK_SECONDS):
            raise TaskError("States.Runtime", "the rehearsal stops")
