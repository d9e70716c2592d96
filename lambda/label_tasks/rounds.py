"""Lambda entry point ``label_tasks.rounds.handler``: the steps of the state machine of one item.

``open``     the item waits in a queue for a number of votes; the token is kept with it
``decide``   what follows from the votes: a label, another person, an adjudicator, or the end
``close``    the item leaves its queue
``measure``  the age of the oldest item that waits, as a metric (called on a schedule)

Each may be called twice with the same effect.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from function_log import log

from label_tasks.consensus import ADJUDICATION, REVIEW, Outcome, decide
from label_tasks.errors import BadEventError, LabelError
from label_tasks.rules import Rules, load_rules
from label_tasks.settings import Settings
from label_tasks.tasks import Task, Tasks, translated

__all__ = ["Rounds", "handler", "signal"]

_CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=3, read_timeout=10)
#: A token that nobody waits for any more (SendTaskSuccess, Errors).
_GONE = frozenset({"TaskTimedOut", "TaskDoesNotExist", "InvalidToken"})


def signal(client: Any, task: Task) -> bool:
    """Tell the state machine that a round has its votes; ``False`` when it waits no longer."""
    with translated():
        try:
            client.send_task_success(taskToken=task.token, output=json.dumps({"votes": len(task.votes)}))
        except ClientError as error:
            if error.response["Error"]["Code"] in _GONE:
                return False
            raise
    return True


class Rounds:
    """The steps, on a table and on Step Functions."""

    def __init__(self, tasks: Tasks, rules: Rules, stepfunctions: Any) -> None:
        self._tasks = tasks
        self._rules = rules
        self._stepfunctions = stepfunctions

    def open(self, task: str, *, token: str, queue: str | None, needed: int | None) -> dict[str, Any]:
        """Let the item wait for ``needed`` votes in ``queue``; the first round's are the rules'."""

        def change(current: Task) -> Task | None:
            if current.decision is not None:
                return None
            return replace(
                current,
                state="open",
                queue=queue or current.queue or REVIEW,
                needed=needed or max(current.needed, self._rules.labellers_per_item),
                token=token,
            )

        opened = self._tasks.change(task, change)
        if opened is None:
            raise BadEventError(f"there is no item {task}")
        if opened.decision is not None or opened.complete():
            # A crash of this step after the votes came, or a signal that got lost.
            signal(self._stepfunctions, replace(opened, token=token))
        return {"task": task, "queue": opened.queue, "needed": opened.needed}

    def decide(self, task: str, *, ended: bool, now: datetime) -> dict[str, Any]:
        """Say what follows from the votes; a decision is made once and kept."""
        rules = self._rules
        outcome = Outcome(state="expired")

        def change(current: Task) -> Task | None:
            nonlocal outcome
            outcome = decide(
                current.votes,
                per_item=rules.labellers_per_item,
                at_most=rules.labellers_at_most,
                agreement=rules.agreement,
                ended=ended,
            )
            if current.decision is not None or outcome.state != "agreed":
                return None
            decision = {
                "label": outcome.label,
                "labelled_at": now.isoformat(timespec="milliseconds"),
                "labelled_by": list(outcome.labelled_by),
                "votes": outcome.votes,
                "agreement": round(outcome.agreement, 4),
                "resolution": outcome.resolution,
            }
            return replace(current, queue=None, token=None, locks={}, decision=decision)

        found = self._tasks.change(task, change)
        if found is None:
            raise BadEventError(f"there is no item {task}")
        if found.decision is not None:
            outcome = replace(outcome, state="agreed", queue=REVIEW, needed=0)
        return {"state": outcome.state, "queue": outcome.queue, "needed": outcome.needed}

    def close(self, task: str, *, state: str) -> dict[str, Any]:
        """Let the item leave its queue; ``state`` is ``labelled`` or ``expired``."""
        closed = self._tasks.change(
            task,
            lambda current: (
                None
                if current.state == state and current.queue is None
                else replace(current, state=state, queue=None, token=None, locks={})
            ),
        )
        if closed is None:
            raise BadEventError(f"there is no item {task}")
        return {"task": task, "state": closed.state}

    def measure(self, now: datetime) -> dict[str, Any]:
        """Items that wait, and the age of the oldest in seconds."""
        waiting = [task for queue in (REVIEW, ADJUDICATION) for task in self._tasks.waiting(queue)]
        ages = [(now - datetime.fromisoformat(task.created)).total_seconds() for task in waiting]
        return {"waiting": len(waiting), "oldest_seconds": max(ages, default=0.0)}


@cache
def _clients() -> tuple[Any, Any, Any]:
    return (
        boto3.resource("dynamodb", config=_CONFIG),
        boto3.client("stepfunctions", config=_CONFIG),
        boto3.client("cloudwatch", config=_CONFIG),
    )


def handler(event: Any, context: object) -> dict[str, Any]:
    """Take one step. What it did is returned and logged."""
    request = getattr(context, "aws_request_id", None)
    try:
        if not isinstance(event, Mapping) or not isinstance(event.get("step"), str):
            raise BadEventError('the event must be {"step": ...} of the state machine')
        settings = Settings.from_environment(os.environ, "namespace")
        rules = load_rules()
        dynamodb, stepfunctions, cloudwatch = _clients()
        rounds = Rounds(Tasks(dynamodb.Table(settings.table)), rules, stepfunctions)
        result = _step(rounds, event, datetime.now(UTC))
        if event["step"] == "measure":
            with translated():
                cloudwatch.put_metric_data(
                    Namespace=settings.namespace, MetricData=_metrics(result, rules.workload)
                )
    except LabelError as error:
        log("ERROR", "step failed", error=type(error).__name__, why=str(error), request=request)
        raise
    log("INFO", "step", workload=rules.workload, step=event["step"], request=request, **result)
    return result


def _step(rounds: Rounds, event: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    step = event["step"]
    if step == "measure":
        return rounds.measure(now)
    task = event.get("task")
    if not isinstance(task, str) or not task:
        raise BadEventError(f"step {step!r} needs a task, got {task!r}")
    if step == "open":
        return rounds.open(
            task, token=event["token"], queue=event.get("queue"), needed=event.get("needed") or None
        )
    if step == "decide":
        return rounds.decide(task, ended=bool(event.get("ended")), now=now)
    if step == "close":
        return rounds.close(task, state=event["state"])
    raise BadEventError(f"step must be open, decide, close or measure, got {step!r}")


def _metrics(measured: Mapping[str, Any], workload: str) -> list[dict[str, Any]]:
    dimensions = [{"Name": "Workload", "Value": workload}]
    return [
        {
            "MetricName": "WaitingItems",
            "Dimensions": dimensions,
            "Value": measured["waiting"],
            "Unit": "Count",
        },
        {
            "MetricName": "OldestItemAge",
            "Dimensions": dimensions,
            "Value": measured["oldest_seconds"],
            "Unit": "Seconds",
        },
    ]
