"""What runs our code outside SageMaker: functions, schedules, state machines, Fargate, Airflow."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from cost.assembly import Resource, Stack
from cost.load import DAYS, HOURS
from cost.rules.base import Context, State, Usage, priced
from cost.rules.data import crawler_dpu_hours, job_dpu_hours

__all__ = ["runs_a_month", "started"]


@priced("AWS::Lambda::Function")
def function(resource: Resource, context: Context) -> Iterator[Usage]:
    """Milliseconds for each record or prediction, when its stack belongs to a workload."""
    if not _handles_records(resource, context.stack):
        return
    gb = float(resource.properties.get("MemorySize", 128)) / 1024
    seconds = context.records * context.assumptions.function_ms_per_record / 1000
    arm = resource.properties.get("Architectures") == ["arm64"]
    yield Usage(
        price="lambda.arm" if arm else "lambda.x86",
        quantity=gb * seconds,
        why="its share of each record",
        state="load",
    )


def _handles_records(resource: Resource, stack: Stack) -> bool:
    """Whether Firehose or a mapping of a stream gives it records."""
    mark = f"${{{resource.id}"
    by_mapping = any(
        mark in (m.text("FunctionName") or "") and "${" in (m.text("EventSourceArn") or "")
        for m in stack.of_type("AWS::Lambda::EventSourceMapping")
        if m.properties.get("StartingPosition") is not None
    )
    return by_mapping or any(
        mark in json.dumps(d.text("ExtendedS3DestinationConfiguration", "ProcessingConfiguration") or "")
        or f'"{resource.id}"' in json.dumps(d.properties)
        for d in stack.of_type("AWS::KinesisFirehose::DeliveryStream")
    )


def runs_a_month(expression: str) -> float | None:
    """How often a schedule of EventBridge starts its target; ``None`` for one that is not understood."""
    rate = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", expression)
    if rate is not None:
        hours = {"minute": 1 / 60, "hour": 1.0, "day": 24.0}[rate[2]] * int(rate[1])
        return HOURS / hours
    cron = re.fullmatch(r"cron\(([^)]*)\)", expression)
    if cron is None or len(cron[1].split()) != 6:
        return None
    minute, hour, day, _, weekday, _ = cron[1].split()
    of_minutes, of_hours = _values(minute, 60), _values(hour, 24)
    if of_minutes is None or of_hours is None:
        return None
    days = DAYS
    if weekday not in ("?", "*"):
        named = len(re.findall(r"\w+", weekday))
        days = DAYS * (5 if weekday.upper() in ("MON-FRI", "2-6") else named) / 7
    elif day not in ("?", "*"):
        days = len(day.split(","))
    return of_minutes * of_hours * days


def _values(field: str, size: int) -> float | None:
    """How many values a field of a cron expression has."""
    if field == "*":
        return size
    step = re.fullmatch(r"(?:\*|\d+)/(\d+)", field)
    if step is not None:
        return size / int(step[1])
    if re.fullmatch(r"\d+(,\d+)*", field):
        return len(field.split(","))
    between = re.fullmatch(r"(\d+)-(\d+)", field)
    return None if between is None else int(between[2]) - int(between[1]) + 1


@priced("AWS::Scheduler::Schedule")
def schedule(resource: Resource, context: Context) -> Iterator[Usage]:
    """Calls of the schedule, and what each of them starts."""
    if resource.text("State") == "DISABLED":
        return
    expression = resource.text("ScheduleExpression") or ""
    runs = runs_a_month(expression)
    if runs is None:
        yield Usage(price=f"schedule:{expression}", quantity=1, why="a schedule that is not understood")
        return
    yield Usage(price="scheduler.call", quantity=runs / 1e6, why=f"{runs:.0f} calls")
    yield from started(resource, context, runs)


def started(schedule: Resource, context: Context, runs: float) -> Iterator[Usage]:
    """What a schedule's calls cost where they arrive."""
    arn = schedule.text("Target", "Arn") or ""
    given = schedule.text("Target", "Input") or ""
    when = context.stack.when(schedule.properties.get("State"))
    state: State = "serving" if when is not None and context.stack.waits(when) else "rest"
    if "createProcessingJob" in arn:
        yield from _processing(given, context, runs, state)
    elif "glue:" in arn:
        for found in context.stack.refers(given):
            yield from _glue(found, context, runs, state)
    for found in context.stack.refers(arn):
        if found.type == "AWS::StepFunctions::StateMachine":
            yield from _machine(found, context, runs, state)
        elif found.type == "AWS::Lambda::Function":
            gb = float(found.properties.get("MemorySize", 128)) / 1024
            seconds = runs * context.assumptions.function_ms / 1000
            arm = found.properties.get("Architectures") == ["arm64"]
            yield Usage(
                price="lambda.arm" if arm else "lambda.x86",
                quantity=gb * seconds,
                why=f"{runs:.0f} scheduled invocations",
                state=state,
            )


def _processing(text: str, context: Context, runs: float, state: State) -> Iterator[Usage]:
    """Jobs that a request or a definition asks for: each instance type that it names."""
    minutes = context.assumptions.processing_minutes
    for kind, count in instances(text):
        yield Usage(
            price=f"sagemaker.instance:{kind}",
            quantity=count * runs * minutes / 60,
            why=f"{runs:.0f} processing jobs of {minutes:g} minutes",
            state=state,
        )


def instances(text: str) -> list[tuple[str, int]]:
    """Instance types that a JSON text names, with how many of each."""
    found = []
    for match in re.finditer(r'\\?"InstanceType\\?"\s*:\s*\\?"(ml\.[a-z0-9.-]+)\\?"', text):
        near = text[max(0, match.start() - 80) : match.end() + 80]
        count = re.search(r'\\?"InstanceCount\\?"\s*:\s*(\d+)', near)
        found.append((match[1], 1 if count is None else int(count[1])))
    return found


def _glue(found: Resource, context: Context, runs: float, state: State) -> Iterator[Usage]:
    if found.type == "AWS::Glue::Job":
        yield Usage(
            price="glue.dpu",
            quantity=runs * job_dpu_hours(found, context),
            why=f"{runs:.0f} runs of {found.id}",
            state=state,
        )
    elif found.type == "AWS::Glue::Crawler":
        yield Usage(
            price="glue.dpu",
            quantity=runs * crawler_dpu_hours(context),
            why=f"{runs:.0f} runs of {found.id}",
            state=state,
        )
    elif found.type == "AWS::Glue::Workflow":
        for trigger in context.stack.of_type("AWS::Glue::Trigger"):
            if found.id in json.dumps(trigger.properties.get("WorkflowName", "")):
                for part in context.stack.refers(_named(trigger.properties.get("Actions", []))):
                    yield from _glue(part, context, runs, state)


def _named(actions: object) -> str:
    """The references in the actions of a trigger as text."""
    return " ".join(f"${{{name}}}" for name in re.findall(r'"Ref": "(\w+)"', json.dumps(actions)))


def _machine(machine: Resource, context: Context, runs: float, state: State) -> Iterator[Usage]:
    """One run: its transitions and the jobs it starts."""
    definition = machine.text("DefinitionString") or ""
    states = max(1, definition.count('"Type"') + definition.count('\\"Type\\"'))
    yield Usage(price="states.transition", quantity=runs * states / 1000, why=f"{runs:.0f} runs", state=state)
    yield from _processing(definition, context, runs, state)
    for found in context.stack.refers(definition):
        if found.type in ("AWS::Glue::Job", "AWS::Glue::Crawler"):
            yield from _glue(found, context, runs, state)


@priced("AWS::StepFunctions::StateMachine")
def machine(resource: Resource, context: Context) -> Iterator[Usage]:
    """Billed where something starts it."""
    yield from ()


@priced("AWS::ApiGatewayV2::Api")
def api(resource: Resource, context: Context) -> Iterator[Usage]:
    """Requests: a hundred a day of those who label."""
    yield Usage(price="apigateway.http", quantity=100 * DAYS / 1e6, why="100 requests a day", state="load")


@priced("AWS::ECS::Service")
def service(resource: Resource, context: Context) -> Iterator[Usage]:
    """Tasks that are always there: as many as scaling leaves."""
    found = context.stack.refers(resource.text("TaskDefinition") or "")
    targets = list(context.stack.of_type("AWS::ApplicationAutoScaling::ScalableTarget"))
    count = max((int(t.properties.get("MinCapacity", 1)) for t in targets), default=1)
    for task in found:
        cpu, memory = (int(str(task.properties.get(name, 0))) for name in ("Cpu", "Memory"))
        hours = HOURS * count
        yield Usage(
            price="fargate.vcpu", quantity=hours * cpu / 1024, why=f"{count} task(s)", state="serving"
        )
        yield Usage(
            price="fargate.memory", quantity=hours * memory / 1024, why=f"{count} task(s)", state="serving"
        )


@priced("AWS::ElasticLoadBalancingV2::LoadBalancer")
def balancer(resource: Resource, context: Context) -> Iterator[Usage]:
    """Hours of the load balancer."""
    yield Usage(price="elb.hour", quantity=HOURS, why="the load balancer, whoever asks")


@priced("AWS::MWAA::Environment")
def airflow(resource: Resource, context: Context) -> Iterator[Usage]:
    """Hours of the environment."""
    size = (resource.text("EnvironmentClass") or "mw1.small").rpartition(".")[2]
    yield Usage(price=f"mwaa.{size}", quantity=HOURS, why="the environment, whoever schedules")
