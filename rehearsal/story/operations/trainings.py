"""What the cells of retraining share: the workload they need, trainings that begin and are stopped."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rehearsal.story.telling import require, wait_until
from rehearsal.story.training import executions

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = [
    "COOLDOWN_HOURS",
    "SWITCHED_ON",
    "WORTH",
    "alarm_event",
    "decisions",
    "meant_to_fail",
    "now_of",
    "reason_of",
    "rested",
    "started",
    "stop",
    "with_variables",
]

COOLDOWN_HOURS = 2
#: Rows that are worth a training.
WORTH = 40
#: A budget that nothing here reaches.
PLENTY_USD = 500.0
START_SECONDS = 90

SWITCHED_ON: Mapping[str, Any] = {
    "retraining": {
        "on_drift": True,
        "on": ["data", "quality"],
        "on_new_data": {"minimum_records": WORTH},
        "every_days": 1,
        "cooldown_hours": COOLDOWN_HOURS,
        "budget": {"usd_per_month": PLENTY_USD},
    },
    "monitoring": {"quality": {}},
}


def rested(tale: Tale) -> None:
    """Let the cool-down after the latest start pass; nothing runs any more, no schedule fires."""
    tale.cloud.idle()
    tale.cloud.pass_over(hours=COOLDOWN_HOURS + 0.1)


def now_of(tale: Tale) -> str:
    """The time by the rehearsal's clock, as an event bears it."""
    now: str = tale.cloud.server.control("GET", "/clock")["now"]
    return now


def started(tale: Tale, before: int) -> dict[str, Any]:
    """Wait for one execution more than ``before``; the newest."""
    found = wait_until(
        "the start of a training",
        lambda: executions(tale) if len(executions(tale)) > before else None,
        seconds=START_SECONDS,
    )
    require(len(found) == before + 1, f"{len(found) - before} trainings were started, not one")
    newest: dict[str, Any] = found[0]
    return newest


def reason_of(tale: Tale, arn: str) -> str:
    answer = tale.cloud.client("sagemaker").list_pipeline_parameters_for_execution(PipelineExecutionArn=arn)
    return next((p["Value"] for p in answer["PipelineParameters"] if p["Name"] == "Reason"), "")


def stop(tale: Tale, arn: str) -> str:
    """Stop an execution, unless it has come to its end already; its last status."""
    sagemaker = tale.cloud.client("sagemaker")
    # Between asking whether it runs and stopping it, it may end.
    with contextlib.suppress(sagemaker.exceptions.ConflictException):
        sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)

    def ended() -> str | None:
        status: str = sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)[
            "PipelineExecutionStatus"
        ]
        return None if status in ("Executing", "Stopping") else status

    status: str = wait_until(f"the end of {arn}", ended, seconds=120)
    return status


def decisions(tale: Tale) -> list[dict[str, Any]]:
    """What the retraining function has decided so far, by its log."""
    logs = tale.cloud.client("logs")
    name = tale.outputs("Operations")["RetrainFunctionName"]
    config = tale.cloud.client("lambda").get_function_configuration(FunctionName=name)
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=config["LoggingConfig"]["LogGroup"])
    found = []
    for event in (event for page in pages for event in page["events"]):
        try:
            line = json.loads(event["message"])
        except ValueError:
            continue
        if isinstance(line, dict) and line.get("message") == "decided":
            found.append(line)
    return found


def with_variables(tale: Tale, change: Mapping[str, str]) -> Callable[[], None]:
    """Change variables of the retraining function; the returned function puts them back."""
    client = tale.cloud.client("lambda")
    name = tale.outputs("Operations")["RetrainFunctionName"]
    before = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    client.update_function_configuration(FunctionName=name, Environment={"Variables": {**before, **change}})

    def back() -> None:
        client.update_function_configuration(FunctionName=name, Environment={"Variables": before})

    return back


def meant_to_fail(tale: Tale) -> None:
    """What failed in the background until now was meant to; the cell has shown it."""
    tale.known["failures told"] = len([e for e in tale.cloud.ledger() if e["outcome"] == "failed"])


def alarm_event(name: str, time: str) -> dict[str, Any]:
    return {
        "source": "aws.cloudwatch",
        "detail-type": "CloudWatch Alarm State Change",
        "time": time,
        "detail": {"alarmName": name, "state": {"value": "ALARM"}, "previousState": {"value": "OK"}},
    }
