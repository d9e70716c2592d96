"""What a step does: a job run to its end, a version registered, a function called, somebody waited for.

Everything is called as the pipeline's role. Steps of services that have no program of ours to run are kept in
the ledger as recorded: their requests were checked, and nothing depends on what they would have found.
"""

from __future__ import annotations

import json
import secrets
import string
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rehearsal.executors.pipelines.definition import STEP_OPERATIONS, Step
from rehearsal.executors.pipelines.execution import Execution, StepFailedError
from rehearsal.executors.pipelines.retries import SERVICE_FAULT, exception_of_call, exception_of_job
from rehearsal.executors.pipelines.values import resolve
from rehearsal.services.engine import hooked_operations

__all__ = ["end_callback", "perform"]

_ENDED = frozenset({"Completed", "Failed", "Stopped"})
_POLL_SECONDS = 0.1
#: TuningStep: as many of the best trials as a definition may refer to (``get_top_model_s3_uri``).
_TOP_TRIALS = 50
#: Steps that are kept and not run, and why.
_RECORDED: Mapping[str, str] = {
    "QualityCheck": "Model Monitor's own image checks the quality; it is closed to new customers",
    "ClarifyCheck": "Clarify's own image computes bias and attributions; it is closed to new customers",
    "EMR": "no EMR cluster runs here",
    "EMRServerless": "the step's job belongs to an EMR application that is not ours",
    "AutoML": "Autopilot's search is a program of AWS",
}


def perform(execution: Execution, step: Step, arguments: dict[str, Any], entry: dict[str, Any]) -> str:
    """Do what a step is for; return its status.

    Raises:
        StepFailedError: it failed; the text says why.
    """
    if step.type in _RECORDED:
        return _recorded(execution, step, arguments, entry)
    work = _WORK.get(step.type)
    if work is None:
        raise StepFailedError(f"the rehearsal does not run steps of the type {step.type}")
    return work(execution, step, arguments, entry)


def _client(execution: Execution) -> Any:
    return execution.runtime.client("sagemaker", role=execution.role, region=execution.service.region)


def _called(execution: Execution, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Call SageMaker as the pipeline's role; a refusal is the step's failure."""
    from botocore import xform_name
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer: dict[str, Any] = getattr(_client(execution), xform_name(operation))(**arguments)
    except (ClientError, BotoCoreError) as error:
        raise _call_failed(f"sagemaker:{operation}", error) from error
    return {key: value for key, value in answer.items() if key != "ResponseMetadata"}


def _call_failed(what: str, error: Exception) -> StepFailedError:
    """What a call that was refused, or not answered, makes of its step."""
    answer: Any = getattr(error, "response", None)
    kind = (
        SERVICE_FAULT
        if answer is None
        else exception_of_call(answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"])
    )
    return StepFailedError(f"ClientError: Failed to invoke {what}. {error}", exception=kind)


def _tags(execution: Execution, step: Step, arguments: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        *arguments.get("Tags", ()),
        {"Key": "sagemaker:pipeline-execution-arn", "Value": execution.record.arn},
        {"Key": "sagemaker:pipeline-step-name", "Value": step.name},
    ]


def _job_name(execution: Execution, step: Step) -> str:
    alphabet = string.ascii_letters + string.digits
    suffix = "".join(secrets.choice(alphabet) for _ in range(10))
    if step.type == "Tuning":
        # The name of a tuning job has 32 characters: it begins with the execution, without the prefix.
        return f"{execution.record.name}-{step.name[:8].replace('_', '-').rstrip('-')}-{suffix}"
    return f"pipelines-{execution.record.name}-{step.name[:20].replace('_', '-').rstrip('-')}-{suffix}"


def _job(execution: Execution, step: Step, arguments: dict[str, Any], entry: dict[str, Any]) -> str:
    operation, _ = STEP_OPERATIONS[step.type]
    noun = operation.removeprefix("Create")
    name = _job_name(execution, step)
    identity = {f"{noun}Name": name}
    created = _called(
        execution,
        operation,
        {**arguments, **identity, "Tags": _tags(execution, step, arguments)},
    )
    entry["Metadata"] = {noun.replace("HyperParameter", ""): {"Arn": created[f"{noun}Arn"]}}
    _called(execution, f"Describe{noun}", identity)
    if operation not in hooked_operations().get("sagemaker", ()):
        execution.runtime.ledger.recorded("pipeline-step", step.name, f"nothing here runs a {noun}")
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
    if step.type == "Tuning":
        answer |= _top_trials(execution, answer, identity)
    execution.answers[step.name] = answer
    status = answer[f"{noun}Status"]
    if status == "Completed":
        return "Succeeded"
    if status == "Stopped" and execution.stop.is_set():
        return "Stopped"
    reason = answer.get("FailureReason", f"the job {name} was stopped")
    raise StepFailedError(
        f"ClientError: {noun} {name} {status}: {reason}", exception=exception_of_job(reason)
    )


def _register(execution: Execution, step: Step, arguments: dict[str, Any], entry: dict[str, Any]) -> str:
    generated = {"GeneratedBy": execution.record.arn}
    arguments["MetadataProperties"] = generated | arguments.get("MetadataProperties", {})
    answer = _called(execution, "CreateModelPackage", arguments)
    arn = answer["ModelPackageArn"]
    entry["Metadata"] = {"RegisterModel": {"Arn": arn}}
    execution.answers[step.name] = execution.service.call("DescribeModelPackage", ModelPackageName=arn)
    return "Succeeded"


def _model(execution: Execution, step: Step, arguments: dict[str, Any], entry: dict[str, Any]) -> str:
    name = _job_name(execution, step)
    answer = _called(
        execution,
        "CreateModel",
        {**arguments, "ModelName": name, "Tags": _tags(execution, step, arguments)},
    )
    entry["Metadata"] = {"Model": {"Arn": answer["ModelArn"]}}
    execution.answers[step.name] = {**answer, "ModelName": name}
    return "Succeeded"


def _top_trials(
    execution: Execution, answer: Mapping[str, Any], identity: Mapping[str, str]
) -> dict[str, Any]:
    """The trials of a tuning job, the best first: what ``TrainingJobSummaries[0]`` of a step means."""
    config = answer["HyperParameterTuningJobConfig"]
    wanted = config.get("HyperParameterTuningJobObjective", {})
    best_first = "Descending" if wanted.get("Type") == "Maximize" else "Ascending"
    listed = _called(
        execution,
        "ListTrainingJobsForHyperParameterTuningJob",
        {
            **identity,
            "SortBy": "FinalObjectiveMetricValue",
            "SortOrder": best_first,
            "MaxResults": _TOP_TRIALS,
        },
    )
    return {"TrainingJobSummaries": listed["TrainingJobSummaries"]}


def _recorded(execution: Execution, step: Step, arguments: dict[str, Any], entry: dict[str, Any]) -> str:
    execution.runtime.ledger.recorded("pipeline-step", step.name, _RECORDED[step.type], type=step.type)
    entry["Metadata"] = {}
    execution.answers[step.name] = dict(arguments)
    return "Succeeded"


# ---------------------------------------------------------------------- functions and callbacks


def _function(execution: Execution, step: Step, arguments: dict[str, Any], entry: dict[str, Any]) -> str:
    """Invoke a function and take its answer's members as the step's outputs."""
    from botocore.exceptions import BotoCoreError, ClientError

    members = resolve(dict(step.members), execution.values())
    arn = str(members["FunctionArn"])
    client = execution.runtime.client("lambda", role=execution.role, region=execution.service.region)
    try:
        answer = client.invoke(FunctionName=arn, Payload=json.dumps(arguments).encode())
    except (ClientError, BotoCoreError) as error:
        raise _call_failed(arn, error) from error
    payload = answer["Payload"].read()
    if "FunctionError" in answer:
        raise StepFailedError(f"ClientError: {arn} failed: {payload.decode('utf-8', 'replace')[:512]}")
    found = json.loads(payload) if payload else None
    outputs = _outputs(step, members, found if isinstance(found, Mapping) else {})
    entry["Metadata"] = {"Lambda": {"Arn": arn, "OutputParameters": _listed(outputs)}}
    execution.answers[step.name] = {"OutputParameters": outputs}
    return "Succeeded"


def _outputs(step: Step, members: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs that a step declares, from what was answered.

    Raises:
        StepFailedError: one of them is missing.
    """
    declared = [item["OutputName"] for item in members.get("OutputParameters", ())]
    missing = [name for name in declared if name not in found]
    if missing:
        raise StepFailedError(f"ClientError: {step.name} did not answer {', '.join(missing)}")
    return {name: found[name] for name in declared}


def _listed(outputs: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"Name": name, "Value": str(value)} for name, value in outputs.items()]


@dataclass(kw_only=True)
class _Callback:
    """A message that somebody has to answer."""

    execution_arn: str
    answered: threading.Event = field(default_factory=threading.Event)
    outputs: dict[str, str] = field(default_factory=dict)
    failure: str | None = None


_CALLBACKS: dict[str, _Callback] = {}


def end_callback(
    token: str, *, outputs: Sequence[Mapping[str, str]] = (), failure: str | None = None
) -> str | None:
    """Answer a callback; return the ARN of its execution, None when nobody waits for that token."""
    waiting = _CALLBACKS.pop(token, None)
    if waiting is None:
        return None
    waiting.outputs = {item["Name"]: item["Value"] for item in outputs}
    waiting.failure = failure
    waiting.answered.set()
    return waiting.execution_arn


def _callback(execution: Execution, step: Step, arguments: dict[str, Any], entry: dict[str, Any]) -> str:
    """Send a message with a token and wait until somebody answers it."""
    from botocore.exceptions import BotoCoreError, ClientError

    members = resolve(dict(step.members), execution.values())
    token = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(10))
    waiting = _CALLBACKS[token] = _Callback(execution_arn=execution.record.arn)
    message = {
        "token": token,
        "pipelineExecutionArn": execution.record.arn,
        "status": "Executing",
        "arguments": arguments,
    }
    client = execution.runtime.client("sqs", role=execution.role, region=execution.service.region)
    try:
        client.send_message(QueueUrl=str(members["SqsQueueUrl"]), MessageBody=json.dumps(message))
    except (ClientError, BotoCoreError) as error:
        _CALLBACKS.pop(token, None)
        raise StepFailedError(f"ClientError: Failed to send the callback. {error}") from error
    entry["Metadata"] = {"Callback": {"CallbackToken": token, "SqsQueueUrl": members["SqsQueueUrl"]}}
    while not waiting.answered.wait(_POLL_SECONDS):
        if execution.stop.is_set() or execution.runtime.stopping.is_set():
            _CALLBACKS.pop(token, None)
            return "Stopped"
    if waiting.failure is not None:
        raise StepFailedError(waiting.failure)
    outputs = _outputs(step, members, waiting.outputs)
    entry["Metadata"]["Callback"]["OutputParameters"] = _listed(outputs)
    execution.answers[step.name] = {"OutputParameters": outputs}
    return "Succeeded"


_Work = Callable[[Execution, Step, dict[str, Any], dict[str, Any]], str]
_WORK: Mapping[str, _Work] = {
    "Processing": _job,
    "Training": _job,
    "Transform": _job,
    "Tuning": _job,
    "RegisterModel": _register,
    "Model": _model,
    "Lambda": _function,
    "Callback": _callback,
}
