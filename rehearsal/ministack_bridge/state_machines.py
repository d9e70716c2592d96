"""Step Functions: the tasks of state machines, their waits and how executions end."""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rehearsal.ministack_bridge._inside import substitute

#: State machine of each callback token: SendTaskSuccess and its like are checked against it.
machine_of_token: dict[str, str] = {}


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task that a state machine is about to do: what it calls with what, and as which role."""

    resource: str
    input: Any
    machine: str
    role: str

    @property
    def region(self) -> str:
        """Region of the state machine."""
        return self.machine.split(":")[3]


class TaskError(Exception):
    """A task failed: the error's name and its cause, as a state machine sees them."""

    def __init__(self, error: str, cause: str) -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause


def guard_state_machines(
    *,
    refused: Callable[[Task], str | None],
    wait: Callable[[float], None],
    ended: Callable[[str, str, str], None],
    own: Callable[[Task], Callable[[], Any] | None] = lambda _: None,
) -> None:
    """Hold the tasks of state machines to their role, let them wait by another clock, tell how they end.

    ``own(task)`` is what does a task in the place of ministack, None when that does it; the service that it
    calls says what the role may do. ``refused(task)`` says so of the others: why not, None when it may.
    ``wait(seconds)`` is what a Wait state and the interval of a retry do. ``ended(machine ARN, status,
    cause)`` is told of each execution.
    """
    machines = importlib.import_module("ministack.services.stepfunctions")
    doing = threading.local()
    execute, emit = machines._execute_task, machines._emit_execution_status_event

    def execute_task(state: Any, given: Any, execution: Mapping[str, Any], context: Any) -> Any:
        machine = str(execution["stateMachineArn"]) if execution else ""
        found = machines._state_machines.get(machine)
        doing.machine, doing.role = machine, str(found["roleArn"]) if found else ""
        return execute(state, given, execution, context)

    def guarded(name: str) -> None:
        original = getattr(machines, name)

        def invoke(resource: str, given: Any, *rest: Any) -> Any:
            role = getattr(doing, "role", "")
            if role:
                task = Task(resource=resource, input=given, machine=doing.machine, role=role)
                ours = own(task)
                if ours is not None:
                    try:
                        return ours()
                    except TaskError as error:
                        raise machines._ExecutionError(error.error, error.cause) from error
                why = refused(task)
                if why is not None:
                    raise machines._ExecutionError("States.Permissions", why)
            if "events:putEvents" in resource:
                given = _with_text_details(given)
            if name == "_invoke_with_callback":
                machine_of_token[str(rest[0])] = doing.machine
            return original(resource, given, *rest)

        substitute(machines, name, invoke)

    def status(execution: Mapping[str, Any]) -> None:
        emit(execution)
        if execution["status"] != "RUNNING":
            cause = f"{execution.get('error') or ''}: {execution.get('cause') or ''}".strip(": ")
            ended(str(execution["stateMachineArn"]), str(execution["status"]), cause)

    for name in ("_invoke_resource", "_invoke_resource_with_timeout", "_invoke_with_callback"):
        guarded(name)
    substitute(machines, "_execute_task", execute_task)
    substitute(machines, "_scaled_sleep", wait)
    substitute(machines, "_emit_execution_status_event", status)


def _with_text_details(given: Any) -> Any:
    """Step Functions takes an event's detail as an object too, and makes it the text that PutEvents takes."""
    entries = [
        {**e, "Detail": e["Detail"] if isinstance(e.get("Detail"), str) else json.dumps(e.get("Detail"))}
        for e in given.get("Entries", ())
    ]
    return {**given, "Entries": entries}
