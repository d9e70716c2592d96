"""AWS Step Functions: ministack runs the state machines; what they may do and when they wait is ours.

Each task is held to the role of its state machine, as AWS does it. A wait of more than ``QUICK_SECONDS``
(a Wait state, the interval of a retry) is over when the rehearsal's clock has gone so far; a shorter one
passes at once. Executions that end are in the ledger.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge
from rehearsal.executors import containers
from rehearsal.executors.service_metrics import count
from rehearsal.executors.state_tasks import own_task
from rehearsal.iam import AccessDeniedError, Principal
from rehearsal.ministack_bridge import Check, Task

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["QUICK_SECONDS", "install", "task_checks"]

#: Waits up to this long are pauses of a program, not of the story.
QUICK_SECONDS = 30.0
#: Metric of an execution's end.
_METRICS = {
    "SUCCEEDED": "ExecutionsSucceeded",
    "FAILED": "ExecutionsFailed",
    "TIMED_OUT": "ExecutionsTimedOut",
    "ABORTED": "ExecutionsAborted",
}
#: A paused program looks this often whether the server stops.
_LOOK_SECONDS = 0.5


class TargetError(Exception):
    """An event that cannot start a state machine."""


def task_checks(task: Task, *, account: str, region: str) -> Iterator[Check]:
    """What a task's call needs (AWS Step Functions Developer Guide, "Integrating services")."""
    given: Mapping[str, Any] = task.input if isinstance(task.input, Mapping) else {}
    parts = task.resource.split(":states:::", 1)
    if len(parts) == 1:
        # A function named as the resource itself; an activity is the state machine's own.
        if ":lambda:" in task.resource:
            yield Check(action="lambda:InvokeFunction", resource=task.resource)
        return
    integration = parts[1].removesuffix(".waitForTaskToken").removesuffix(":2").removesuffix(".sync")
    if integration.startswith("aws-sdk:"):
        _, service, action = integration.split(":", 2)
        yield Check(action=f"{service}:{action[:1].upper()}{action[1:]}", resource="*")
        return
    service, _, action = integration.partition(":")
    if integration == "lambda:invoke":
        yield Check(
            action="lambda:InvokeFunction", resource=bridge.function_arn(str(given.get("FunctionName", "")))
        )
    elif integration == "events:putEvents":
        for entry in given.get("Entries", ()):
            bus = str(entry.get("EventBusName", "default"))
            arn = bus if bus.startswith("arn:") else f"arn:aws:events:{region}:{account}:event-bus/{bus}"
            yield Check(action="events:PutEvents", resource=arn)
    elif integration == "sqs:sendMessage":
        name = str(given.get("QueueUrl", "")).rsplit("/", 1)[-1]
        yield Check(action="sqs:SendMessage", resource=f"arn:aws:sqs:{region}:{account}:{name}")
    elif integration == "sns:publish":
        yield Check(action="sns:Publish", resource=str(given.get("TopicArn", given.get("TargetArn", "*"))))
    elif integration == "states:startExecution":
        yield Check(action="states:StartExecution", resource=str(given.get("StateMachineArn", "*")))
    else:
        yield Check(action=f"{service}:{action[:1].upper()}{action[1:]}", resource="*")


def install(runtime: Runtime) -> None:
    """Hold state machines to their roles and to the clock; let events start them."""

    def refused(task: Task) -> str | None:
        name, role = task.machine.rsplit(":", 1)[-1], task.role
        region = bridge.current_region()
        checks = list(task_checks(task, account=runtime.account, region=region))
        if not checks:
            return None
        service = checks[0].action.partition(":")[0]
        checks += bridge.kms_checks(service, checks, {}, account=runtime.account, region=region)
        session = f"arn:aws:sts::{runtime.account}:assumed-role/{role.rsplit('/', 1)[-1]}/{name}"
        try:
            runtime.authorizer.require(Principal(role_arn=role, session_arn=session), service, checks, region)
        except AccessDeniedError as denied:
            return str(denied)
        return None

    def wait(seconds: float) -> None:
        if seconds <= QUICK_SECONDS:
            return
        over = threading.Event()
        when = runtime.clock.now() + timedelta(seconds=seconds)
        runtime.clock.at(when, "a state machine waits", over.set)
        while not over.wait(_LOOK_SECONDS) and not runtime.stopping.is_set():
            if runtime.clock.now() >= when:
                return

    def ended(machine: str, status: str, cause: str) -> None:
        name = machine.rsplit(":", 1)[-1]
        if status in _METRICS:
            count(runtime, "AWS/States", _METRICS[status], {"StateMachineArn": machine})
        if status == "SUCCEEDED":
            runtime.ledger.ran("state-machine", name)
        else:
            runtime.ledger.failed("state-machine", name, cause or status)

    def deliver(target: dict[str, Any], event: dict[str, Any], _account: str, region: str) -> None:
        def run() -> None:
            role = str(target.get("RoleArn", ""))
            if not role or not bridge.trusts(role, "events.amazonaws.com"):
                raise TargetError(
                    f"events.amazonaws.com may not assume {role or 'a role: the target has none'}"
                )
            if "InputPath" in target or "InputTransformer" in target:
                raise TargetError("InputPath and InputTransformer of a state machine are not emulated")
            client = runtime.client("stepfunctions", role=role, region=region)
            given = target.get("Input", json.dumps(event))
            client.start_execution(stateMachineArn=target["Arn"], input=given)

        containers.start_work(runtime, f"event to {target['Arn']}", run)

    bridge.guard_state_machines(
        refused=refused, wait=wait, ended=ended, own=lambda task: own_task(runtime, task)
    )
    bridge.route_event_target(lambda arn: ":states:" in arn and ":stateMachine:" in arn, deliver)
