"""Cells of retraining: what starts a training, and who is told.

A training that a cell only needs to have begun is stopped: what it makes is shown by those that run to their
end. Each cell first lets the cool-down after the latest start pass.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from rehearsal.story.ingestion import deliver, plain, send
from rehearsal.story.mailbox import mailbox
from rehearsal.story.operations.cells import Cell
from rehearsal.story.operations.trainings import (
    SWITCHED_ON,
    WORTH,
    decisions,
    now_of,
    reason_of,
    rested,
    started,
    stop,
)
from rehearsal.story.processing import curate
from rehearsal.story.serving import approve, await_promotion, await_service
from rehearsal.story.telling import Evidence, require, wait_until
from rehearsal.story.training import executions, finish, invoke_trigger

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS", "WORKLOAD"]

CHAPTER = "Retraining"
WORKLOAD = SWITCHED_ON


def _on_demand(tale: Tale, evidence: Evidence) -> None:
    """A person asks; the training runs to its end, and a version waits."""
    rested(tale)
    answer = invoke_trigger(tale, {"reason": "a person wants to know", "time": now_of(tale)})
    evidence["answer"] = answer
    require(answer["started"], f"nothing was started: {answer.get('why')}")
    evidence["why"] = reason_of(tale, answer["execution"])
    finish(tale, answer["execution"], evidence)
    again = invoke_trigger(tale, {"reason": "asked again at once", "time": now_of(tale)})
    evidence["asked_again"] = again["why"]
    require(not again["started"], "asked again within the cool-down, it started another training")


def _on_drift(kind: str, output: str, tale: Tale, evidence: Evidence) -> None:
    """The alarm of one kind of monitor goes off; EventBridge brings it to the function."""
    with mailbox(tale) as box:
        rested(tale)
        before = len(executions(tale))
        name = tale.outputs("Operations")[output]
        cloudwatch = tale.cloud.client("cloudwatch")
        # The alarm's own way there is the monitors' to show; this is the way from the alarm on.
        cloudwatch.set_alarm_state(AlarmName=name, StateValue="OK", StateReason="before the cell")
        cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason=f"{kind} has drifted")
        execution = started(tale, before)["PipelineExecutionArn"]
        evidence |= {"alarm": name, "execution": execution, "reason": reason_of(tale, execution)}
        notice = box.told("drift.found")
        evidence["notice"] = notice
        evidence["stopped"] = stop(tale, execution)
        cloudwatch.set_alarm_state(AlarmName=name, StateValue="OK", StateReason="after the cell")
        require(evidence["reason"].startswith("drift: "), f"it was started for {evidence['reason']!r}")
        require(notice["numbers"]["monitor"] == kind, f"people were told of {notice['numbers']['monitor']}")


def _on_schedule(tale: Tale, evidence: Evidence) -> None:
    """The clock comes to the schedule's next hour."""
    rested(tale)
    before = len(executions(tale))
    scheduler = tale.cloud.client("scheduler")
    function = tale.cloud.client("lambda").get_function_configuration(
        FunctionName=tale.outputs("Operations")["RetrainFunctionName"]
    )["FunctionArn"]
    found = [
        schedule
        for item in scheduler.list_schedules()["Schedules"]
        if (schedule := scheduler.get_schedule(Name=item["Name"], GroupName=item["GroupName"]))["Target"][
            "Arn"
        ]
        == function
        # The one that looks for drift every hour is another.
        and "Scheduled Event" in schedule["Target"]["Input"]
    ]
    require(len(found) == 1, f"{len(found)} schedules ask for a training")
    every = timedelta(days=tale.workload.retraining.every_days or 0)
    now, due = datetime.fromisoformat(now_of(tale)), found[0]["CreationDate"] + every
    while due <= now + timedelta(minutes=5):
        due += every
    ahead = (due - now).total_seconds() / 3600
    tale.cloud.pass_over(hours=ahead - 1 / 30)
    fired = tale.cloud.advance(minutes=20)
    execution = started(tale, before)["PipelineExecutionArn"]
    evidence |= {
        "schedule": found[0]["ScheduleExpression"],
        "hours_until_it_was_due": round(ahead, 2),
        "fired": [one["title"] for one in fired],
        "execution": execution,
        "reason": reason_of(tale, execution),
        "stopped": stop(tale, execution),
    }
    require(evidence["reason"] == "schedule", f"it was started for {evidence['reason']!r}")


def _on_new_data(tale: Tale, evidence: Evidence) -> None:
    """The features are built again without a new row: nothing; then with enough of them: a training."""
    tale.cloud.idle()
    before = len(executions(tale))
    require(
        any(e["PipelineExecutionStatus"] == "Succeeded" for e in executions(tale)),
        "no training has succeeded yet that new data could be compared with",
    )
    rested(tale)
    glue = tale.cloud.client("glue")
    resources = tale.cloud.client("cloudformation").describe_stack_resources(
        StackName=tale.cdk.stack_name(f"{tale.stage}/{tale.workload.id}Data")
    )["StackResources"]
    (job,) = (
        found["PhysicalResourceId"]
        for found in resources
        if found["ResourceType"] == "AWS::Glue::Job" and "BuildFeatures" in found["LogicalResourceId"]
    )
    seen = len(decisions(tale))
    glue.start_job_run(JobName=job)
    decided = wait_until(
        "a decision on features without a new row", lambda: decisions(tale)[seen:], seconds=300, every=1
    )
    evidence["without_new_rows"] = decided[-1]["why"]
    require(not decided[-1]["started"], "a training was started without a new row")
    require(decided[-1]["why"].startswith("0 new rows"), f"it says {decided[-1]['why']!r}")
    batch = send(tale, plain(tale.inputs.changed), evidence)
    deliver(tale, batch, evidence)
    curate(tale, evidence)
    execution = started(tale, before)["PipelineExecutionArn"]
    evidence |= {
        "minimum_records": WORTH,
        "new_records": len(batch.messages),
        "execution": execution,
        "reason": reason_of(tale, execution),
        "stopped": stop(tale, execution),
    }
    require(evidence["reason"].startswith("new data: "), f"it was started for {evidence['reason']!r}")


def _people(tale: Tale, evidence: Evidence) -> None:
    """From the start of a training to the version in service: each notice with numbers and a way there."""
    with mailbox(tale) as box:
        rested(tale)
        answer = invoke_trigger(tale, {"reason": "to be told of", "time": now_of(tale)})
        require(answer["started"], f"nothing was started: {answer.get('why')}")
        begun = box.told("retraining.started", answer["execution"])
        require("to be told of" in begun["why"], f"the notice gives another reason: {begun['why']}")
        finish(tale, answer["execution"], evidence)
        waits = box.told("model.waits")
        metric = tale.workload.acceptance.metric
        evidence["waits"] = waits["numbers"]
        require(
            isinstance(waits["numbers"].get(metric), float), f"the notice does not say the version's {metric}"
        )
        arn = waits["links"]["model package"]
        approve(tale, arn)
        await_promotion(tale, arn)
        promoted = box.told("model.promoted", arn)
        evidence["promoted"] = promoted["numbers"]
        require(isinstance(promoted["numbers"].get(metric), float), f"the notice does not say {metric}")
        await_service(tale)
        tale.known["serving"] = arn
        rested(tale)
        answer = invoke_trigger(tale, {"reason": "to be stopped", "time": now_of(tale)})
        evidence["stopped"] = stop(tale, answer["execution"])
        failed = box.told("retraining.failed", answer["execution"])
        evidence |= {
            "kinds": dict(Counter(notice["notice"] for notice in box.notices())),
            "started": begun,
            "failed": failed,
        }


CELLS = (
    Cell(
        id="retrain.ondemand",
        title="A person asks: a training runs, and a version waits for approval",
        chapter=CHAPTER,
        run=_on_demand,
        ground="trained",
        capabilities=("retrain.ondemand",),
    ),
    Cell(
        id="retrain.newdata",
        title="Features without new rows start nothing, enough new rows start a training",
        chapter=CHAPTER,
        run=_on_new_data,
        ground="trained",
        capabilities=("retrain.newdata",),
    ),
    Cell(
        id="retrain.drift.data",
        title="The data monitor's alarm starts a training, and people hear of the drift",
        chapter=CHAPTER,
        run=partial(_on_drift, "data", "DriftAlarmName"),
        ground="trained",
        capabilities=("retrain.drift", "observe.notify"),
    ),
    Cell(
        id="retrain.drift.quality",
        title="The quality monitor's alarm starts a training too",
        chapter=CHAPTER,
        run=partial(_on_drift, "quality", "QualityDriftAlarmName"),
        ground="trained",
        capabilities=("retrain.drift",),
    ),
    Cell(
        id="retrain.schedule",
        title="The schedule's hour comes: a training starts",
        chapter=CHAPTER,
        run=_on_schedule,
        ground="trained",
        capabilities=("retrain.schedule",),
    ),
    Cell(
        id="retrain.notices",
        title="People hear of a training, a version that waits, a promotion, a stop: numbers and links",
        chapter=CHAPTER,
        run=_people,
        ground="serving",
        capabilities=("observe.notify",),
    ),
)
