"""Cells of events: lost on their way, delivered twice, overtaken by later ones; and records sent twice.

What EventBridge brings to the functions of the loop is dropped, doubled or kept back at its target. What
picks up a lost one is the product's own: the hourly looks for open approvals and for unanswered drift, and
the next build of the features, which counts what the one before could not tell.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from rehearsal.story.chaos.loop import (
    RECORDS,
    WORKLOAD,
    fresh,
    plan,
    plan_events,
    promotion_queue,
    sent,
    unharmed,
)
from rehearsal.story.chaos.producers import NAME as PRODUCER
from rehearsal.story.chaos.producers import PATIENCE, impatient
from rehearsal.story.ingestion import deliver
from rehearsal.story.lake import read_curated
from rehearsal.story.matrix.ground import model_of, see_again
from rehearsal.story.matrix.packages import register_like
from rehearsal.story.operations.cells import Cell
from rehearsal.story.operations.trainings import (
    WORTH,
    decisions,
    now_of,
    reason_of,
    rested,
    started,
    stop,
)
from rehearsal.story.processing import curate
from rehearsal.story.serving import approve, parameter_value, serving_stack
from rehearsal.story.streaming import online
from rehearsal.story.telling import Evidence, require, wait_until
from rehearsal.story.training import executions

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS", "ORDER", "WORKLOAD", "served", "version_like"]

CHAPTER = "Events: lost, twice, out of order"
ORDER = 40
APPROVAL = "SageMaker Model Package State Change"
ALARM = "CloudWatch Alarm State Change"
BUILT = "Glue Job State Change"
#: What the hourly looks say they are.
PROMOTION_LOOK, DRIFT_LOOK = "Promotion Reconciliation", "Retraining Reconciliation"
#: A change so young is left to its own event (lambda/model_promotion).
GRACE_HOURS = 0.3
SERVED_SECONDS = 240


# --- the ways of events ---


def _met(tale: Tale, detail_type: str, step: str, before: int) -> None:
    """Wait until a delivery has met its fault."""

    def hits() -> int:
        return sum(
            entry["kind"] == "fault" and entry["name"] == detail_type and entry["detail"]["what"] == step
            for entry in tale.cloud.ledger()[before:]
        )

    wait_until(f"an event {detail_type} that meets {step}", hits, seconds=60)


def _function(tale: Tale) -> str:
    return tale.outputs("Operations")["RetrainFunctionName"]


def _until_due(tale: Tale, kind: str, *, minutes_before: float = 0.05) -> float:
    """Let time pass, without anything that is due, until a schedule is about to fire; hours that passed."""
    scheduler = tale.cloud.client("scheduler")
    found = [
        schedule
        for item in scheduler.list_schedules()["Schedules"]
        if kind
        in (schedule := scheduler.get_schedule(Name=item["Name"], GroupName=item["GroupName"]))["Target"].get(
            "Input", ""
        )
    ]
    require(len(found) == 1, f"{len(found)} schedules send {kind!r}")
    now, due = datetime.fromisoformat(now_of(tale)), found[0]["CreationDate"]
    ahead = timedelta(minutes=minutes_before)
    due += timedelta(hours=max(0, (now + ahead - due) // timedelta(hours=1)))
    while due <= now + ahead:
        due += timedelta(hours=1)
    hours: float = (due - ahead - now).total_seconds() / 3600
    tale.cloud.pass_over(hours=hours)
    return hours


# --- records ---


def _records_twice(tale: Tale, evidence: Evidence) -> None:
    """A producer hears too late that its records were taken, and sends them again."""
    with unharmed(tale, evidence):
        plan(tale, "kinesis:PutRecords", f"slow:{PATIENCE + 1}", who=PRODUCER)
        # What curates them tells of new features, which is another cell's business.
        plan_events(tale, BUILT, _function(tale), *["drop"] * 3)
        batch = impatient(tale, fresh(tale, RECORDS))
        deliver(tale, batch, evidence)
        online(tale, batch, evidence)
        report = curate(tale, {})
        seen = Counter(read_curated(tale, ("record_id",))["record_id"].to_pylist())
        curated = {identity: seen[identity] for identity in batch.ids}
        evidence |= {
            "on_the_stream": sum(batch.ids.values()),
            "in_the_raw_zone": evidence["delivered"],
            "curated": sum(curated.values()),
            "dropped_as_duplicates": report["duplicates_dropped"],
        }
        require(set(curated.values()) == {1}, f"of {len(curated)} records, curated are {Counter(curated)}")


# --- approvals ---


def version_like(tale: Tale, name: str) -> str:
    """Register one more version like the one that serves."""
    unlike = f"{name}-{int(time.time())}"
    return register_like(tale, parameter_value(tale), unlike, bytes, f"The same model once more: {name}")


def served(tale: Tale, package: str) -> None:
    """Wait until the serving stack has been updated to a version and is at rest."""
    name = tale.outputs("Models")["ApprovedModelParameter"]

    def done() -> bool:
        see_again(tale)
        stack = serving_stack(tale)
        runs = {p["ParameterValue"]: p.get("ResolvedValue") for p in stack["Parameters"]}
        return bool(stack["StackStatus"] == "UPDATE_COMPLETE" and runs[name] == package)

    wait_until(f"version {package.rpartition('/')[2]} in service", done, seconds=SERVED_SECONDS)
    tale.known["serving"] = package


def _approval_lost(tale: Tale, evidence: Evidence) -> None:
    """The event of an approval never reaches the queue; the hourly look finds the version."""
    with unharmed(tale, evidence, promotions=1):
        before, ledger = parameter_value(tale), len(tale.cloud.ledger())
        package = version_like(tale, "lost")
        plan_events(tale, APPROVAL, promotion_queue(tale), "drop")
        approve(tale, package)
        _met(tale, APPROVAL, "drop", ledger)
        tale.cloud.idle()
        evidence["approved"], evidence["without_its_event"] = model_of(package), model_of(before)
        require(parameter_value(tale) == before, "it was promoted although its event was lost")
        tale.cloud.pass_over(hours=GRACE_HOURS)
        evidence["hours_on_the_clock"] = round(GRACE_HOURS + _until_due(tale, PROMOTION_LOOK), 2)
        evidence["fired"] = [one["title"] for one in tale.cloud.advance(seconds=6)]
        served(tale, package)
        evidence["serves"] = model_of(parameter_value(tale))


def _approval_twice(tale: Tale, evidence: Evidence) -> None:
    """The event of an approval comes two times: one promotion."""
    with unharmed(tale, evidence, promotions=1):
        package = version_like(tale, "twice")
        plan_events(tale, APPROVAL, promotion_queue(tale), "twice")
        approve(tale, package)
        served(tale, package)
        tale.cloud.idle()
        evidence["serves"] = model_of(parameter_value(tale))


def _approval_overtaken(tale: Tale, evidence: Evidence) -> None:
    """An approval arrives after a later one has been acted on: the later one stays."""
    with unharmed(tale, evidence, promotions=1):
        ledger = len(tale.cloud.ledger())
        old, new = version_like(tale, "earlier"), version_like(tale, "later")
        plan_events(tale, APPROVAL, promotion_queue(tale), "hold")
        approve(tale, old)
        _met(tale, APPROVAL, "hold", ledger)
        # An event's time has whole seconds.
        time.sleep(1.1)
        approve(tale, new)
        served(tale, new)
        plan_events(tale, APPROVAL, promotion_queue(tale))
        tale.cloud.idle()
        evidence |= {"approved_first": model_of(old), "approved_then": model_of(new)}
        evidence["serves"] = model_of(parameter_value(tale))
        require(parameter_value(tale) == new, "the earlier approval, which came late, was acted on")


# --- drift ---


def _alarm(tale: Tale) -> dict[str, Any]:
    name = tale.outputs("Operations")["DriftAlarmName"]
    (found,) = tale.cloud.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    alarm: dict[str, Any] = found
    return alarm


def _set(tale: Tale, state: str) -> None:
    name = tale.outputs("Operations")["DriftAlarmName"]
    tale.cloud.client("cloudwatch").set_alarm_state(
        AlarmName=name, StateValue=state, StateReason="a fault is tried"
    )


def _drifted(tale: Tale) -> None:
    """Put what a monitor's run publishes of drift, and let the alarm see it."""
    alarm = _alarm(tale)
    metric = (
        alarm
        if "MetricName" in alarm
        else next(m["MetricStat"]["Metric"] for m in alarm["Metrics"] if "MetricStat" in m)
    )
    tale.cloud.client("cloudwatch").put_metric_data(
        Namespace=metric["Namespace"],
        MetricData=[
            {
                "MetricName": metric["MetricName"],
                "Dimensions": metric["Dimensions"],
                "Value": alarm["Threshold"],
            }
        ],
    )

    def on() -> bool:
        tale.cloud.advance(minutes=1)
        return bool(_alarm(tale)["StateValue"] == "ALARM")

    wait_until("the drift alarm", on, seconds=60)


def _drift_lost(tale: Tale, evidence: Evidence) -> None:
    """The event of a drift alarm never arrives, and an alarm that stays on sends no other."""
    with unharmed(tale, evidence, starts=1):
        rested(tale)
        before, ledger = len(executions(tale)), len(tale.cloud.ledger())
        _set(tale, "OK")
        _until_due(tale, DRIFT_LOOK, minutes_before=6)
        plan_events(tale, ALARM, _function(tale), "drop")
        _drifted(tale)
        _met(tale, ALARM, "drop", ledger)
        tale.cloud.idle()
        require(len(executions(tale)) == before, "a training was started although the event was lost")
        evidence["hours_on_the_clock"] = round(_until_due(tale, DRIFT_LOOK), 2)
        evidence["fired"] = [one["title"] for one in tale.cloud.advance(seconds=6)]
        execution = started(tale, before)["PipelineExecutionArn"]
        evidence["reason"] = reason_of(tale, execution)
        stop(tale, execution)
        require(" on since " in evidence["reason"], f"it was started for {evidence['reason']!r}")
        seen = len(decisions(tale))
        _until_due(tale, DRIFT_LOOK)
        tale.cloud.advance(seconds=6)
        (later,) = wait_until("the next look", lambda: decisions(tale)[seen:], seconds=60)
        evidence["an_hour_later"] = later["why"]
        _set(tale, "OK")


def _drift_twice(tale: Tale, evidence: Evidence) -> None:
    """The event of a drift alarm comes two times: one training."""
    with unharmed(tale, evidence, starts=1):
        rested(tale)
        before, seen = len(executions(tale)), len(decisions(tale))
        _set(tale, "OK")
        plan_events(tale, ALARM, _function(tale), "twice")
        _set(tale, "ALARM")
        execution = started(tale, before)["PipelineExecutionArn"]
        wait_until("two decisions", lambda: len(decisions(tale)) >= seen + 2, seconds=60)
        found = decisions(tale)[seen:]
        evidence["decisions"] = dict(Counter("started" if d["started"] else d["why"][:40] for d in found))
        evidence["executions_named"] = len({d["execution"] for d in found if d["started"]})
        stop(tale, execution)
        _set(tale, "OK")


def _drift_overtaken(tale: Tale, evidence: Evidence) -> None:
    """ALARM, OK, ALARM; the first event arrives last, when the second has started a training."""
    with unharmed(tale, evidence, starts=1):
        rested(tale)
        before, ledger = len(executions(tale)), len(tale.cloud.ledger())
        _set(tale, "OK")
        plan_events(tale, ALARM, _function(tale), "hold")
        _set(tale, "ALARM")
        _met(tale, ALARM, "hold", ledger)
        # The cool-down is over for either; what answers the first is the training that the second starts.
        tale.cloud.pass_over(hours=0.1)
        _set(tale, "OK")
        _set(tale, "ALARM")
        execution = started(tale, before)["PipelineExecutionArn"]
        stop(tale, execution)
        seen = len(decisions(tale))
        plan_events(tale, ALARM, _function(tale))
        wait_until("the decision on the first event", lambda: decisions(tale)[seen:], seconds=60)
        evidence["of_the_first"] = decisions(tale)[seen]["why"]
        require("answers it" in evidence["of_the_first"], f"it says {evidence['of_the_first']!r}")
        _set(tale, "OK")


# --- new data ---


def _new_data_lost(tale: Tale, evidence: Evidence) -> None:
    """Nobody hears of new features; the next build of them tells of all that came."""
    with unharmed(tale, evidence, starts=1):
        rested(tale)
        before, ledger = len(executions(tale)), len(tale.cloud.ledger())
        batch = sent(tale, WORTH + 10)
        deliver(tale, batch, {})
        plan_events(tale, BUILT, _function(tale), "drop")
        curate(tale, {})
        _met(tale, BUILT, "drop", ledger)
        tale.cloud.idle()
        require(len(executions(tale)) == before, "a training was started although the event was lost")
        resources = tale.cloud.client("cloudformation").describe_stack_resources(
            StackName=tale.cdk.stack_name(f"{tale.stage}/{tale.workload.id}Data")
        )["StackResources"]
        (job,) = (
            found["PhysicalResourceId"]
            for found in resources
            if found["ResourceType"] == "AWS::Glue::Job" and "BuildFeatures" in found["LogicalResourceId"]
        )
        tale.cloud.client("glue").start_job_run(JobName=job)
        execution = started(tale, before)["PipelineExecutionArn"]
        evidence |= {"new_records": len(batch.messages), "reason": reason_of(tale, execution)}
        stop(tale, execution)
        require(evidence["reason"].startswith("new data: "), f"it was started for {evidence['reason']!r}")


def _cell(name: str, title: str, run: Any, *capabilities: str) -> Cell:
    return Cell(
        id=f"events.{name}",
        title=title,
        chapter=CHAPTER,
        run=run,
        ground="serving",
        capabilities=capabilities,
    )


CELLS = (
    _cell(
        "records.twice",
        "A producer sends its records twice: the lake's raw zone has them twice, all behind it once",
        _records_twice,
        "stream.kinesis",
        "stream.consumer",
    ),
    _cell(
        "drift.lost",
        "The event of a drift alarm is lost: the hourly look starts the training, once",
        _drift_lost,
        "retrain.drift",
        "retrain.guard",
    ),
    _cell(
        "drift.twice",
        "The event of a drift alarm comes twice: one training",
        _drift_twice,
        "retrain.drift",
        "retrain.guard",
    ),
    _cell(
        "drift.overtaken",
        "An alarm's event arrives after a later one: it has been answered",
        _drift_overtaken,
        "retrain.drift",
        "retrain.guard",
    ),
    _cell(
        "newdata.lost",
        "Nobody hears of new features: the next build of them starts the training",
        _new_data_lost,
        "retrain.newdata",
    ),
    _cell(
        "approval.lost",
        "The event of an approval is lost: the hourly look promotes the version",
        _approval_lost,
        "registry.versions",
    ),
    _cell(
        "approval.twice",
        "The event of an approval comes twice: one promotion",
        _approval_twice,
        "registry.versions",
    ),
    _cell(
        "approval.overtaken",
        "An approval arrives after a later one: the later one serves",
        _approval_overtaken,
        "registry.versions",
    ),
)
