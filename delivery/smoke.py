"""Ask what was deployed: one made-up record to each workload's endpoint, and whether the answer is one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delivery.accounts import NoAccessError
from delivery.assemblies import Stack

if TYPE_CHECKING:
    from ml_contract.compiled import CompiledContract

__all__ = ["Asked", "ask_all", "made_up_record"]

SEED = 20
#: Why some ways to serve are not asked.
_UNASKED = {
    "asynchronous": "it takes requests from S3 and answers there",
    "batch_transform": "it takes files and answers with files",
    "multi_model": "a caller names a version",
    "ecs": "only its VPC reaches it",
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One workload in one environment: ``passed``, ``failed``, ``no endpoint yet`` or ``not asked``."""

    stack: str
    workload: str
    outcome: str
    why: str

    @property
    def ok(self) -> bool:
        """Whether the delivery may go on."""
        return self.outcome != "failed"


def made_up_record(contract: CompiledContract) -> bytes:
    """The body of a request: a record within the contract's bounds, without the label that nobody knows yet.

    The features over time of a workload with windows are missing: nothing has happened before.
    """
    from ml_contract.made_up.synthetic import generate

    record = generate(contract, 1, SEED)[0]
    del record[contract.label_column.source]
    if contract.windows is not None:
        record |= {window.name: None for window in contract.windows.windows}
    return json.dumps(record).encode()


def ask_all(
    stacks: Sequence[Stack],
    workloads: Path,
    client: Callable[[str, Stack], Any],
) -> list[Asked]:
    """Ask every workload that the deployed stacks serve.

    Args:
        stacks: of one environment; one that serves has an output ``Workload``.
        workloads: the folder that the contracts are read from.
        client: gives a boto3 client by service and stack.

    Needs ``cloudformation:DescribeStacks`` on the stacks, ``sagemaker:DescribeEndpoint`` and
    ``sagemaker:InvokeEndpoint`` on the endpoints, ``lambda:ListAliases`` and ``lambda:InvokeFunction`` on
    functions that serve.
    """
    return [
        _ask(stack, workloads, client)
        for stack in stacks
        if "Workload" in stack.template.get("Outputs", {})
        and {"EndpointName", "ServingStyle"} & set(stack.template["Outputs"])
    ]


def _ask(  # noqa: PLR0911 - one per outcome
    stack: Stack, workloads: Path, client: Callable[[str, Stack], Any]
) -> Asked:
    from botocore.exceptions import BotoCoreError, ClientError

    def asked(outcome: str, why: str, workload: str = "?") -> Asked:
        return Asked(stack=stack.id, workload=workload, outcome=outcome, why=why)

    try:
        described = client("cloudformation", stack).describe_stacks(StackName=stack.name)["Stacks"][0]
    except (ClientError, BotoCoreError, NoAccessError) as error:
        return asked("failed", f"the stack cannot be read: {error}")
    outputs = {o["OutputKey"]: o["OutputValue"] for o in described.get("Outputs", ())}
    if "Workload" not in outputs:
        return asked("failed", "the deployed stack has no output Workload")
    name, style = outputs["Workload"], outputs.get("ServingStyle", "real_time")
    try:
        if style in _UNASKED:
            return asked("not asked", f"serving.style {style}: {_UNASKED[style]}", name)
        there = (
            _alias(client("lambda", stack), outputs["FunctionName"])
            if style == "lambda"
            else _endpoint_status(client("sagemaker", stack), outputs["EndpointName"])
        )
        if there is None:
            return asked("no endpoint yet", "no model has been approved here", name)
        # One that is being updated answers as well.
        if there in ("Failed", "OutOfService", "Deleting", "Creating"):
            return asked("failed", f"the endpoint is {there}", name)
        body = made_up_record(_contract(workloads, name))
        answer = (
            _of_function(client("lambda", stack), outputs["FunctionName"], there, body)
            if style == "lambda"
            else _of_endpoint(client("sagemaker-runtime", stack), outputs, body)
        )
        return asked("passed", f"{_judged(answer)} ({there})", name)
    except (ClientError, BotoCoreError, ValueError, LookupError, TypeError) as error:
        return asked("failed", f"{type(error).__name__}: {' '.join(str(error).split())}", name)


def _contract(workloads: Path, name: str) -> CompiledContract:
    from ml_contract.load import discover_workloads

    for loaded in discover_workloads(workloads):
        if loaded.workload.name == name:
            return loaded.compiled
    raise LookupError(f"{workloads} has no workload {name!r}")


def _endpoint_status(sagemaker: Any, name: str) -> str | None:
    from botocore.exceptions import ClientError

    try:
        status: str = sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"]
    except ClientError as error:
        # DescribeEndpoint models no not-found error: it is a validation error with these words.
        if "Could not find" in error.response["Error"].get("Message", ""):
            return None
        raise
    return status


def _alias(functions: Any, name: str) -> str | None:
    """The alias by which the function is asked; None when no model has made the function yet."""
    from botocore.exceptions import ClientError

    try:
        aliases = functions.list_aliases(FunctionName=name)["Aliases"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return None
        raise
    return str(aliases[0]["Name"]) if aliases else None


def _of_function(functions: Any, name: str, alias: str, body: bytes) -> Any:
    """The answer of a function that serves; its event is an HTTP API's (payload format 2.0)."""
    http = {"method": "POST", "path": "/invocations", "sourceIp": "127.0.0.1", "protocol": "HTTP/1.1"}
    event = {
        "version": "2.0",
        "rawPath": "/invocations",
        "rawQueryString": "",
        "headers": {"content-type": "application/json", "accept": "application/json"},
        "requestContext": {"http": http},
        "body": body.decode(),
        "isBase64Encoded": False,
    }
    raw = functions.invoke(FunctionName=name, Qualifier=alias, Payload=json.dumps(event).encode())
    told = json.loads(raw["Payload"].read())
    if raw.get("FunctionError") or told.get("statusCode") != 200:
        raise ValueError(f"the function answered {json.dumps(told)[:300]}")
    return json.loads(told["body"])


def _of_endpoint(runtime: Any, outputs: Mapping[str, str], body: bytes) -> Any:
    named = {key: outputs[key] for key in ("InferenceComponentName",) if key in outputs}
    response = runtime.invoke_endpoint(
        EndpointName=outputs["EndpointName"],
        ContentType="application/json",
        Accept="application/json",
        Body=body,
        **named,
    )
    return json.loads(response["Body"].read())


def _judged(answer: Any) -> str:
    """What was answered, in a word.

    Raises:
        ValueError: it is no prediction.
    """
    prediction = answer["predictions"][0]
    score = float(prediction["score"])
    if not math.isfinite(score):
        raise ValueError(f"the score is {score}")
    return f"score {score:.4f} of model {answer.get('model', '(unnamed)')}"
