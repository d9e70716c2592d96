"""AWS Glue triggers and workflows: what starts which job or crawler, and when a run is over."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge
from rehearsal.clock import Due
from rehearsal.executors.glue import on_finish, shown_run, start_job
from rehearsal.executors.glue_crawlers import start_crawl
from rehearsal.executors.scheduler import next_time
from rehearsal.iam import AccessDeniedError
from rehearsal.ministack_bridge import Check
from rehearsal.services.engine import ApiError, instead

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime
    from rehearsal.services.engine import Call, Record, Service

__all__ = ["install", "notify", "start_run"]

#: Defaults of EventBatchingCondition: one event, 900 seconds.
_BATCH_SIZE, _BATCH_WINDOW = 1, 900
_STARTING = ("ON_DEMAND", "SCHEDULED", "EVENT")
_OUTCOMES = {
    "SUCCEEDED": "SucceededActions",
    "FAILED": "FailedActions",
    "STOPPED": "StoppedActions",
    "TIMEOUT": "TimeoutActions",
    "ERROR": "ErroredActions",
}


@dataclass
class _Progress:
    """One run of a workflow as it goes on: the state of each action, and the triggers that have fired."""

    states: dict[tuple[str, str], str] = field(default_factory=dict)
    #: ID of the job run or crawl that an action started.
    started: dict[str, tuple[str, str]] = field(default_factory=dict)
    fired: set[str] = field(default_factory=set)


@dataclass
class _Batch:
    """Events that wait until there are enough of them, or the window is over."""

    events: int = 0
    number: int = 0
    #: End of the window.
    due: datetime | None = None


_PROGRESS: dict[str, _Progress] = {}
_BATCHES: dict[tuple[str, str], _Batch] = {}
_LOCK = threading.RLock()

for _operation in (
    "ListTriggers",
    "GetTriggers",
    "GetTrigger",
    "ListWorkflows",
    "UpdateWorkflow",
):
    instead("glue", _operation)(lambda service, call: service.generic(call))


# -- triggers -----------------------------------------------------------------------------------------------


@instead("glue", "CreateTrigger")
def _create_trigger(service: Service, call: Call) -> dict[str, Any]:
    params = call.params
    kind = params["Type"]
    problems = _trigger_problems(service, params)
    if problems:
        raise ApiError("InvalidInputException", "; ".join(problems))
    out = service.generic(call)
    record = service.get("Trigger", params["Name"])
    record.data.pop("StartOnCreation", None)
    active = kind == "EVENT" or (kind != "ON_DEMAND" and params.get("StartOnCreation", False))
    service.update(record, State="ACTIVATED" if active else "CREATED")
    return out


def _trigger_problems(service: Service, params: Mapping[str, Any]) -> list[str]:
    problems = []
    kind, workflow = params["Type"], params.get("WorkflowName")
    if kind == "SCHEDULED" and not params.get("Schedule"):
        problems.append("a SCHEDULED trigger needs a Schedule")
    if kind == "CONDITIONAL" and not params.get("Predicate", {}).get("Conditions"):
        problems.append("a CONDITIONAL trigger needs a Predicate with Conditions")
    if kind == "EVENT" and workflow is None:
        problems.append("an EVENT trigger belongs to a workflow: give WorkflowName")
    if kind == "ON_DEMAND" and params.get("StartOnCreation"):
        problems.append("StartOnCreation is not for ON_DEMAND triggers")
    if workflow is not None and service.peek("Workflow", workflow) is None:
        problems.append(f"workflow {workflow} does not exist")
    if workflow is not None and kind in _STARTING:
        others = [t.name for t in _triggers(service, workflow) if t.data["Type"] in _STARTING]
        if others:
            problems.append(f"workflow {workflow} already has the start trigger {others[0]}")
    for action in params["Actions"]:
        for noun in ("Job", "Crawler"):
            name = action.get(f"{noun}Name")
            if name is not None and service.peek(noun, name) is None:
                problems.append(f"{noun.lower()} {name} does not exist")
    return problems


@instead("glue", "UpdateTrigger")
def _update_trigger(service: Service, call: Call) -> dict[str, Any]:
    record = service.get("Trigger", call.params["Name"])
    changes = {key: value for key, value in call.params["TriggerUpdate"].items() if key != "Name"}
    service.update(record, **changes)
    return {"Trigger": {"Name": record.name, **record.data}}


@instead("glue", "DeleteTrigger")
def _delete_trigger(service: Service, call: Call) -> dict[str, Any]:
    # Glue does not mind a trigger that is not there.
    if service.peek("Trigger", call.params["Name"]) is not None:
        service.remove("Trigger", call.params["Name"])
    return {"Name": call.params["Name"]}


@instead("glue", "StartTrigger")
def _start_trigger(service: Service, call: Call) -> dict[str, Any]:
    record = service.get("Trigger", call.params["Name"])
    if record.data["Type"] != "ON_DEMAND":
        service.update(record, State="ACTIVATED")
    elif record.data.get("WorkflowName") is not None:
        start_run(service, record.data["WorkflowName"], {})
    else:
        _fire(service, record, None)
    return {"Name": record.name}


@instead("glue", "StopTrigger")
def _stop_trigger(service: Service, call: Call) -> dict[str, Any]:
    record = service.get("Trigger", call.params["Name"])
    service.update(record, State="DEACTIVATED")
    return {"Name": record.name}


def _triggers(service: Service, workflow: str | None) -> list[Record]:
    with service.lock:
        found = list(service.records.get("Trigger", {}).values())
    return [trigger for trigger in found if trigger.data.get("WorkflowName") == workflow]


# -- workflows ----------------------------------------------------------------------------------------------


@instead("glue", "CreateWorkflow")
def _create_workflow(service: Service, call: Call) -> dict[str, Any]:
    out = service.generic(call)
    record = service.get("Workflow", call.params["Name"])
    service.update(record, CreatedOn=record.created, LastModifiedOn=record.created)
    return out


@instead("glue", "DeleteWorkflow")
def _delete_workflow(service: Service, call: Call) -> dict[str, Any]:
    if service.peek("Workflow", call.params["Name"]) is not None:
        service.remove("Workflow", call.params["Name"])
    return {"Name": call.params["Name"]}


@instead("glue", "GetWorkflow")
def _get_workflow(service: Service, call: Call) -> dict[str, Any]:
    record = service.get("Workflow", call.params["Name"])
    runs = _runs(service, record.name)
    last = {"LastRun": _shown(service, runs[-1], graph=False)} if runs else {}
    return {"Workflow": {"Name": record.name, **record.data, **last}}


@instead("glue", "StartWorkflowRun")
def _start_workflow_run(service: Service, call: Call) -> dict[str, Any]:
    run = start_run(service, call.params["Name"], call.params.get("RunProperties", {}))
    return {"RunId": run.name}


@instead("glue", "GetWorkflowRun")
def _get_workflow_run(service: Service, call: Call) -> dict[str, Any]:
    run = _run(service, call.params["Name"], call.params["RunId"])
    return {"Run": _shown(service, run, graph=bool(call.params.get("IncludeGraph")))}


@instead("glue", "GetWorkflowRuns")
def _get_workflow_runs(service: Service, call: Call) -> dict[str, Any]:
    service.get("Workflow", call.params["Name"])
    graph = bool(call.params.get("IncludeGraph"))
    start, limit = int(call.params.get("NextToken", 0)), int(call.params.get("MaxResults", 100))
    runs = _runs(service, call.params["Name"])[::-1]
    page = [_shown(service, run, graph=graph) for run in runs[start : start + limit]]
    following = start + limit
    return {"Runs": page, "NextToken": str(following) if following < len(runs) else None}


@instead("glue", "GetWorkflowRunProperties")
def _get_run_properties(service: Service, call: Call) -> dict[str, Any]:
    run = _run(service, call.params["Name"], call.params["RunId"])
    return {"RunProperties": dict(run.data["WorkflowRunProperties"])}


@instead("glue", "PutWorkflowRunProperties")
def _put_run_properties(service: Service, call: Call) -> dict[str, Any]:
    run = _run(service, call.params["Name"], call.params["RunId"])
    properties = {**run.data["WorkflowRunProperties"], **call.params["RunProperties"]}
    service.update(run, WorkflowRunProperties=properties)
    return {}


def _runs(service: Service, workflow: str) -> list[Record]:
    with service.lock:
        runs = list(service.records.get("WorkflowRun", {}).values())
    return [run for run in runs if run.data["Name"] == workflow]


def _run(service: Service, workflow: str, run_id: str) -> Record:
    found = next((run for run in _runs(service, workflow) if run.name == run_id), None)
    if found is None:
        raise ApiError("EntityNotFoundException", f"no run {run_id} of workflow {workflow}")
    return found


def start_run(
    service: Service, workflow: str, properties: Mapping[str, str], *, events: Mapping[str, int] | None = None
) -> Record:
    """Start a run of a workflow: its start trigger fires.

    :raises ApiError: there is no such workflow or start trigger, or too many runs are under way
    """
    record = service.get("Workflow", workflow)
    start = next((t for t in _triggers(service, workflow) if t.data["Type"] in _STARTING), None)
    if start is None:
        raise ApiError("InvalidInputException", f"workflow {workflow} has no start trigger")
    limit = record.data.get("MaxConcurrentRuns")
    now = service.runtime.clock.now()
    with _LOCK:
        active = [run for run in _runs(service, workflow) if run.data["Status"] == "RUNNING"]
        if limit and len(active) >= int(limit):
            raise ApiError(
                "ConcurrentRunsExceededException",
                f"{workflow}: {limit} runs at most, {active[0].name} is under way",
            )
        data: dict[str, Any] = {
            "Name": workflow,
            "WorkflowRunProperties": {**record.data.get("DefaultRunProperties", {}), **properties},
            "StartedOn": now,
            "Status": "RUNNING",
        }
        if events is not None:
            data["StartingEventBatchCondition"] = dict(events)
        run = service.put("WorkflowRun", f"wr_{uuid.uuid4().hex}", data)
        _PROGRESS[run.name] = _Progress()
    _fire(service, start, run)
    _settle(service, run)
    return run


def _fire(service: Service, trigger: Record, run: Record | None) -> None:
    """Start the actions of a trigger, in a run of a workflow or by itself."""
    progress = None if run is None else _PROGRESS[run.name]
    for action in trigger.data["Actions"]:
        kind = "Job" if "JobName" in action else "Crawler"
        name = action[f"{kind}Name"]
        with _LOCK:
            if progress is not None:
                progress.fired.add(trigger.name)
                progress.states[kind, name] = "RUNNING"
        try:
            started = _start(service, kind, name, action, run)
        except ApiError as error:
            service.runtime.ledger.failed(
                "glue-trigger", trigger.name, f"{kind.lower()} {name} did not start: {error}"
            )
            if progress is not None:
                with _LOCK:
                    progress.states[kind, name] = "ERROR"
            continue
        if progress is not None:
            with _LOCK:
                progress.started[started.name] = (kind, name)


def _start(service: Service, kind: str, name: str, action: Mapping[str, Any], run: Record | None) -> Record:
    workflow = None if run is None else run.name
    if kind == "Crawler":
        return start_crawl(service, name, workflow=workflow)
    arguments = dict(action.get("Arguments", {}))
    if run is not None:
        arguments |= {"--WORKFLOW_NAME": run.data["Name"], "--WORKFLOW_RUN_ID": run.name}
    extra = {key: action[key] for key in ("Timeout", "SecurityConfiguration") if key in action}
    return start_job(service, name, arguments, workflow=workflow, **extra)


def _ended(service: Service, kind: str, ended: Record) -> None:
    """Go on after a job run or a crawl: triggers of its workflow run, or those that stand alone."""
    name = str(ended.data["JobName"] if kind == "Job" else ended.data["Crawler"])
    state = str(ended.data["JobRunState"] if kind == "Job" else ended.data["State"])
    if ended.status is None:
        for trigger in _triggers(service, None):
            if _active_condition(trigger) and _met(trigger, {(kind, name): state}):
                _fire(service, trigger, None)
        return
    run = service.get("WorkflowRun", ended.status)
    progress = _PROGRESS[run.name]
    with _LOCK:
        progress.states[kind, name] = state
        ready = [
            trigger
            for trigger in _triggers(service, run.data["Name"])
            if _active_condition(trigger)
            and trigger.name not in progress.fired
            and _met(trigger, progress.states)
        ]
        progress.fired.update(trigger.name for trigger in ready)
    for trigger in ready:
        _fire(service, trigger, run)
    _settle(service, run)


def _active_condition(trigger: Record) -> bool:
    return (trigger.data["Type"], trigger.data["State"]) == ("CONDITIONAL", "ACTIVATED")


def _met(trigger: Record, states: Mapping[tuple[str, str], str]) -> bool:
    predicate = trigger.data["Predicate"]
    results = []
    for condition in predicate["Conditions"]:
        if "JobName" in condition:
            results.append(states.get(("Job", condition["JobName"])) == condition["State"])
        else:
            results.append(states.get(("Crawler", condition["CrawlerName"])) == condition["CrawlState"])
    return any(results) if predicate.get("Logical", "AND") == "ANY" else all(results)


def _settle(service: Service, run: Record) -> None:
    """End a run in which nothing is under way any more."""
    with _LOCK:
        states = list(_PROGRESS[run.name].states.values())
        if "RUNNING" in states or run.data["Status"] != "RUNNING":
            return
        # A run whose job failed is COMPLETED; only an action that could not start makes it an ERROR.
        status = "ERROR" if "ERROR" in states else "COMPLETED"
        service.update(run, Status=status, CompletedOn=service.runtime.clock.now())
    counts = {key: value for key, value in _statistics(run).items() if value}
    if status == "ERROR" or counts.get("FailedActions") or counts.get("TimeoutActions"):
        service.runtime.ledger.failed("glue-workflow", run.data["Name"], f"{status}: {counts}", run=run.name)
    else:
        service.runtime.ledger.ran("glue-workflow", run.data["Name"], run=run.name, **counts)


def _statistics(run: Record) -> dict[str, int]:
    states = list(_PROGRESS[run.name].states.values())
    counts = {key: states.count(state) for state, key in _OUTCOMES.items()}
    return {"TotalActions": len(states), "RunningActions": states.count("RUNNING"), **counts}


def _shown(service: Service, run: Record, *, graph: bool) -> dict[str, Any]:
    shown = {**run.data, "WorkflowRunId": run.name, "Statistics": _statistics(run)}
    if graph:
        shown["Graph"] = {"Nodes": _nodes(service, run), "Edges": []}
    return shown


def _nodes(service: Service, run: Record) -> list[dict[str, Any]]:
    with _LOCK:
        started = dict(_PROGRESS[run.name].started)
    nodes: list[dict[str, Any]] = []
    for started_id, (kind, name) in started.items():
        node: dict[str, Any] = {"Type": kind.upper(), "Name": name, "UniqueId": started_id}
        if kind == "Job":
            node["JobDetails"] = {"JobRuns": [shown_run(service.get("JobRun", started_id))]}
        else:
            crawl = service.get("Crawl", started_id)
            node["CrawlerDetails"] = {
                "Crawls": [{"State": crawl.data["State"], "StartedOn": crawl.created, "LogStream": name}]
            }
        nodes.append(node)
    return nodes


# -- events and schedules -----------------------------------------------------------------------------------


def notify(runtime: Runtime, target: Mapping[str, Any], region: str) -> None:
    """Take an event for a workflow, as the role of the EventBridge target; enough of them start a run."""
    arn = str(target["Arn"])
    name = arn.rpartition(":workflow/")[2]
    role = str(target.get("RoleArn", ""))
    if not role or not bridge.trusts(role, "events.amazonaws.com"):
        text = f"events.amazonaws.com may not assume {role or 'a role: the target has none'}"
        runtime.ledger.failed("event-target", arn, text)
        return
    principal = runtime.identities.principal(runtime.identities.for_role(role).access_key_id)
    if principal is None:
        raise RuntimeError(f"{role} has credentials and no principal")
    try:
        # NotifyEvent is no public operation; EventBridge calls it with the target's role.
        check = Check(action="glue:notifyEvent", resource=arn)
        runtime.authorizer.require(principal, "glue", [check], region)
    except AccessDeniedError as denied:
        runtime.ledger.failed("event-target", arn, str(denied))
        return
    service = runtime.service("glue", region)
    trigger = next((t for t in _triggers(service, name) if t.data["Type"] == "EVENT"), None)
    if trigger is None or trigger.data["State"] != "ACTIVATED":
        runtime.ledger.failed("event-target", arn, f"workflow {name} has no active EVENT trigger")
        return
    condition = trigger.data.get("EventBatchingCondition", {})
    size = int(condition.get("BatchSize", _BATCH_SIZE))
    window = int(condition.get("BatchWindow", _BATCH_WINDOW))
    with _LOCK:
        batch = _BATCHES.setdefault((region, name), _Batch())
        batch.events += 1
        full, number, now = batch.events >= size, batch.number, runtime.clock.now()
        # The clock may have jumped over the end of a window: the next event opens another.
        opens = batch.due is None or batch.due < now
        due = batch.due = now + timedelta(seconds=window) if opens else batch.due
    if full:
        _start_batch(service, name, number)
    elif opens and due is not None:
        runtime.clock.at(due, f"glue workflow {name}", lambda: _start_batch(service, name, number))


def _start_batch(service: Service, workflow: str, number: int) -> None:
    with _LOCK:
        batch = _BATCHES[service.region, workflow]
        if batch.number != number or not batch.events:
            return
        events = batch.events
        _BATCHES[service.region, workflow] = _Batch(number=number + 1)
    try:
        start_run(service, workflow, {}, events={"BatchSize": events, "BatchWindow": 0})
    except ApiError as error:
        service.runtime.ledger.failed("glue-workflow", workflow, f"{events} events started no run: {error}")


class _Schedules:
    """Scheduled triggers and crawlers, on the rehearsal's clock."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def next_due(self, after: datetime) -> Sequence[Due]:
        earliest: list[Due] = []
        for service in self._runtime.services():
            if service.name != "glue":
                continue
            for due in self._dues(service, after):
                if earliest and due.when > earliest[0].when:
                    continue
                if earliest and due.when < earliest[0].when:
                    earliest.clear()
                earliest.append(due)
        return earliest

    def _dues(self, service: Service, after: datetime) -> list[Due]:
        with service.lock:
            triggers = list(service.records.get("Trigger", {}).values())
            crawlers = list(service.records.get("Crawler", {}).values())
        dues = []
        for trigger in triggers:
            if trigger.data["Type"] == "SCHEDULED" and trigger.data["State"] == "ACTIVATED":
                when = next_time(trigger.data["Schedule"], after=after, anchor=trigger.created)
                if when is not None:
                    dues.append(Due(when=when, title=trigger.name, run=_firing(service, trigger)))
        for crawler in crawlers:
            schedule = crawler.data.get("Schedule")
            if schedule:
                when = next_time(schedule["ScheduleExpression"], after=after, anchor=crawler.created)
                if when is not None:
                    dues.append(Due(when=when, title=crawler.name, run=_crawling(service, crawler)))
        return dues


def _firing(service: Service, trigger: Record) -> Any:
    workflow = trigger.data.get("WorkflowName")
    if workflow is not None:
        return lambda: start_run(service, workflow, {})
    return lambda: _fire(service, trigger, None)


def _crawling(service: Service, crawler: Record) -> Any:
    return lambda: start_crawl(service, crawler.name)


def install(runtime: Runtime) -> None:
    """Listen to jobs, crawlers, events and the clock."""

    def deliver(target: dict[str, Any], _event: dict[str, Any], _account: str, region: str) -> None:
        runtime.background(f"event to {target['Arn']}", notify, runtime, target, region)

    on_finish(_ended)
    bridge.route_event_target(lambda arn: ":glue:" in arn and ":workflow/" in arn, deliver)
    runtime.clock.add_source(_Schedules(runtime))
