"""Cells of retraining: what starts a training, what keeps it from starting, and who is told.

A training that a cell only needs to have begun is stopped: what it makes is shown by those that run to their
end. Each cell first lets the cool-down after the latest start pass.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from rehearsal.redrive import redrive
from rehearsal.story.ingestion import deliver, plain, send
from rehearsal.story.mailbox import notices, open_mailbox, told
from rehearsal.story.operations.cells import Cell
from rehearsal.story.processing import curate
from rehearsal.story.telling import Evidence, require, wait_until
from rehearsal.story.training import executions, finish, invoke_trigger

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS", "WORKLOAD"]

CHAPTER = "Retraining"
COOLDOWN_HOURS = 2
#: Rows that are worth a training.
WORTH = 40
#: Events of a storm.
STORM = 50
THREADS = 16
#: A budget that nothing here reaches.
PLENTY_USD = 500.0
#: Attempts of the function's client, and invocations of an asynchronous event.
ATTEMPTS = 3
START_SECONDS = 90

WORKLOAD: Mapping[str, Any] = {
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


# ---------------------------------------------------------------------- what the cells share


def _rested(tale: Tale) -> None:
    """Let the cool-down after the latest start pass; nothing runs any more, no schedule fires."""
    tale.cloud.idle()
    tale.cloud.pass_over(hours=COOLDOWN_HOURS + 0.1)


def _now(tale: Tale) -> str:
    """The time by the rehearsal's clock, as an event bears it."""
    now: str = tale.cloud.server.control("GET", "/clock")["now"]
    return now


def _started(tale: Tale, before: int) -> dict[str, Any]:
    """Wait for one execution more than ``before``; the newest."""
    found = wait_until(
        "the start of a training",
        lambda: executions(tale) if len(executions(tale)) > before else None,
        seconds=START_SECONDS,
    )
    require(len(found) == before + 1, f"{len(found) - before} trainings were started, not one")
    newest: dict[str, Any] = found[0]
    return newest


def _reason(tale: Tale, arn: str) -> str:
    answer = tale.cloud.client("sagemaker").list_pipeline_parameters_for_execution(PipelineExecutionArn=arn)
    return next((p["Value"] for p in answer["PipelineParameters"] if p["Name"] == "Reason"), "")


def _stop(tale: Tale, arn: str) -> str:
    """Stop an execution; its last status."""
    sagemaker = tale.cloud.client("sagemaker")
    sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn)

    def ended() -> str | None:
        status: str = sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)[
            "PipelineExecutionStatus"
        ]
        return None if status in ("Executing", "Stopping") else status

    status: str = wait_until(f"the end of {arn}", ended, seconds=120)
    return status


def _decisions(tale: Tale) -> list[dict[str, Any]]:
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


def _function_role_settings(tale: Tale, change: Mapping[str, str]) -> Callable[[], None]:
    """Change variables of the retraining function; the returned function puts them back."""
    client = tale.cloud.client("lambda")
    name = tale.outputs("Operations")["RetrainFunctionName"]
    before = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    client.update_function_configuration(FunctionName=name, Environment={"Variables": {**before, **change}})

    def back() -> None:
        client.update_function_configuration(FunctionName=name, Environment={"Variables": before})

    return back


def _was_to_fail(tale: Tale) -> None:
    """What failed in the background until now was meant to; the cell has shown it."""
    tale.known["failures told"] = len([e for e in tale.cloud.ledger() if e["outcome"] == "failed"])


def _alarm_event(name: str, time: str) -> dict[str, Any]:
    return {
        "source": "aws.cloudwatch",
        "detail-type": "CloudWatch Alarm State Change",
        "time": time,
        "detail": {"alarmName": name, "state": {"value": "ALARM"}, "previousState": {"value": "OK"}},
    }


# ---------------------------------------------------------------------- triggers


def _on_demand(tale: Tale, evidence: Evidence) -> None:
    """A person asks; the training runs to its end, and a version waits."""
    open_mailbox(tale)
    _rested(tale)
    answer = invoke_trigger(tale, {"reason": "a person wants to know", "time": _now(tale)})
    evidence["answer"] = answer
    require(answer["started"], f"nothing was started: {answer.get('why')}")
    evidence["why"] = _reason(tale, answer["execution"])
    finish(tale, answer["execution"], evidence)
    again = invoke_trigger(tale, {"reason": "asked again at once", "time": _now(tale)})
    evidence["asked_again"] = again["why"]
    require(not again["started"], "asked again within the cool-down, it started another training")


def _on_drift(kind: str, output: str, tale: Tale, evidence: Evidence) -> None:
    """The alarm of one kind of monitor goes off; EventBridge brings it to the function."""
    open_mailbox(tale)
    _rested(tale)
    before = len(executions(tale))
    name = tale.outputs("Operations")[output]
    cloudwatch = tale.cloud.client("cloudwatch")
    # The alarm's own way there is the monitors' to show; this is the way from the alarm on.
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="OK", StateReason="before the cell")
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason=f"{kind} has drifted")
    execution = _started(tale, before)["PipelineExecutionArn"]
    evidence |= {"alarm": name, "execution": execution, "reason": _reason(tale, execution)}
    notice = told(tale, "drift.found")
    evidence["notice"] = notice
    evidence["stopped"] = _stop(tale, execution)
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="OK", StateReason="after the cell")
    require(evidence["reason"].startswith("drift: "), f"it was started for {evidence['reason']!r}")
    require(notice["numbers"]["monitor"] == kind, f"people were told of {notice['numbers']['monitor']}")


def _on_schedule(tale: Tale, evidence: Evidence) -> None:
    """The clock comes to the schedule's next hour."""
    _rested(tale)
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
    ]
    require(len(found) == 1, f"{len(found)} schedules ask for a training")
    every = timedelta(days=tale.workload.retraining.every_days or 0)
    now, due = datetime.fromisoformat(_now(tale)), found[0]["CreationDate"] + every
    while due <= now + timedelta(minutes=5):
        due += every
    ahead = (due - now).total_seconds() / 3600
    tale.cloud.pass_over(hours=ahead - 1 / 30)
    fired = tale.cloud.advance(minutes=20)
    execution = _started(tale, before)["PipelineExecutionArn"]
    evidence |= {
        "schedule": found[0]["ScheduleExpression"],
        "hours_until_it_was_due": round(ahead, 2),
        "fired": [one["title"] for one in fired],
        "execution": execution,
        "reason": _reason(tale, execution),
        "stopped": _stop(tale, execution),
    }
    require(evidence["reason"] == "schedule", f"it was started for {evidence['reason']!r}")


def _on_new_data(tale: Tale, evidence: Evidence) -> None:
    """The features are built again without a new row: nothing; then with enough of them: a training."""
    tale.cloud.idle()
    before = len(executions(tale))
    if not any(e["PipelineExecutionStatus"] == "Succeeded" for e in executions(tale)):
        require(False, "no training has succeeded yet that new data could be compared with")
    _rested(tale)
    glue = tale.cloud.client("glue")
    job = next(n for n in glue.list_jobs()["JobNames"] if n.endswith("-features"))
    seen = len(_decisions(tale))
    glue.start_job_run(JobName=job)
    decided = wait_until(
        "a decision on features without a new row", lambda: _decisions(tale)[seen:], seconds=300, every=1
    )
    evidence["without_new_rows"] = decided[-1]["why"]
    require(not decided[-1]["started"], "a training was started without a new row")
    require(decided[-1]["why"].startswith("0 new rows"), f"it says {decided[-1]['why']!r}")
    batch = send(tale, plain(tale.inputs.changed), evidence)
    deliver(tale, batch, evidence)
    _rested(tale)
    curate(tale, evidence)
    execution = _started(tale, before)["PipelineExecutionArn"]
    evidence |= {
        "minimum_records": WORTH,
        "new_records": len(batch.messages),
        "execution": execution,
        "reason": _reason(tale, execution),
        "stopped": _stop(tale, execution),
    }
    require(evidence["reason"].startswith("new data: "), f"it was started for {evidence['reason']!r}")


# ---------------------------------------------------------------------- guards


def _storm(tale: Tale, evidence: Evidence) -> None:
    """Fifty alarms at once, some twice, some late, in no order: one training."""
    _rested(tale)
    before = len(executions(tale))
    name = tale.outputs("Operations")["DriftAlarmName"]
    now = datetime.fromisoformat(_now(tale))
    dice = random.Random(tale.seed)  # noqa: S311 - no secret
    times = [now - timedelta(seconds=dice.randrange(0, 600)) for _ in range(STORM // 2)]
    events = [_alarm_event(name, f"{t:%Y-%m-%dT%H:%M:%SZ}") for t in (*times, *times)]
    dice.shuffle(events)
    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(partial(invoke_trigger, tale), events))
    tale.cloud.idle()
    found = executions(tale)
    evidence |= {
        "events": len(events),
        "answers": dict(Counter("started" if a["started"] else "not started" for a in answers)),
        "executions_named": len({a["execution"] for a in answers if a["started"]}),
        "executions_started": len(found) - before,
        "reasons_not_to": sorted({a["why"].split(" arn:")[0] for a in answers if not a["started"]}),
    }
    require(len(found) == before + 1, f"a storm of {STORM} started {len(found) - before} trainings")


def _cooldown(tale: Tale, evidence: Evidence) -> None:
    """Asked again before the cool-down is over, the function says until when; after it, it starts."""
    _rested(tale)
    first = invoke_trigger(tale, {"reason": "the first", "time": _now(tale)})
    require(first["started"], f"nothing was started: {first.get('why')}")
    running = invoke_trigger(tale, {"reason": "while it runs", "time": _now(tale)})
    evidence["while_it_runs"] = running["why"]
    require(not running["started"] and "Executing" in running["why"], f"it says {running}")
    _stop(tale, first["execution"])
    tale.cloud.pass_over(hours=COOLDOWN_HOURS - 0.5)
    early = invoke_trigger(tale, {"reason": "half an hour too early", "time": _now(tale)})
    evidence["too_early"] = early["why"]
    require(not early["started"] and "cooldown until" in early["why"], f"it says {early}")
    tale.cloud.pass_over(hours=0.6)
    after = invoke_trigger(tale, {"reason": "after it", "time": _now(tale)})
    require(after["started"], f"after the cool-down nothing was started: {after.get('why')}")
    evidence["after_it"] = after["execution"]
    _stop(tale, after["execution"])


def _redriven(tale: Tale, evidence: Evidence) -> None:
    """SageMaker answers nothing but errors; the event is kept, and after the repair handed over again."""
    _rested(tale)
    before = len(executions(tale))
    server, sqs = tale.cloud.server, tale.cloud.client("sqs")
    url = tale.outputs("Operations")["RetrainDeadLettersUrl"]
    name = tale.outputs("Operations")["DriftAlarmName"]
    action = "sagemaker:ListPipelineExecutions"
    server.control("POST", "/faults", {"action": action, "steps": ["InternalFailure"] * ATTEMPTS**2})

    def kept() -> int:
        found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
        return int(found["Attributes"]["ApproximateNumberOfMessages"])

    function = tale.outputs("Operations")["RetrainFunctionName"]
    tale.cloud.client("lambda").invoke(
        FunctionName=function,
        InvocationType="Event",
        Payload=json.dumps(_alarm_event(name, _now(tale))).encode(),
    )
    try:
        evidence["dead_letters"] = wait_until("a dead letter", kept, seconds=120)
    finally:
        server.control("POST", "/faults", {"action": action, "steps": []})
    require(len(executions(tale)) == before, "a training was started although SageMaker did not answer")
    _was_to_fail(tale)
    # The same letter twice, as after an interrupted redrive.
    letter = sqs.receive_message(QueueUrl=url, VisibilityTimeout=0)["Messages"][0]["Body"]
    sqs.send_message(QueueUrl=url, MessageBody=letter)
    done = redrive(sqs, tale.cloud.client("lambda"), queue_url=url, function=function)
    evidence["redriven"] = done.events
    execution = _started(tale, before)["PipelineExecutionArn"]
    tale.cloud.idle()
    evidence |= {"left": kept(), "executions_started": len(executions(tale)) - before}
    require(done.events == 2 and not evidence["left"], f"{done.events} redriven, {evidence['left']} left")
    require(evidence["executions_started"] == 1, f"{evidence['executions_started']} trainings were started")
    _stop(tale, execution)


def _budget(tale: Tale, evidence: Evidence) -> None:
    """The month's budget is used up: nothing starts, and people are told once, with numbers."""
    open_mailbox(tale)
    _rested(tale)
    before = len(executions(tale))
    back = _function_role_settings(tale, {"BUDGET_USD": "0.000001"})
    try:
        asked = [{"reason": f"asked for the {n}. time", "time": _now(tale)} for n in (1, 2, 3)]
        with ThreadPoolExecutor(len(asked)) as pool:
            answers = list(pool.map(partial(invoke_trigger, tale), asked))
    finally:
        back()
    notice = told(tale, "retraining.refused")
    evidence |= {
        "answers": [answer["why"] for answer in answers],
        "told": [answer.get("told") for answer in answers],
        "notice": notice,
    }
    require(not any(answer["started"] for answer in answers), "a training was started over the budget")
    require(len(executions(tale)) == before, "there is another execution")
    require(evidence["told"].count(True) == 1, f"people were told {evidence['told'].count(True)} times")
    require(notice["numbers"]["spent USD"] > 0, "the notice does not say what was spent")
    after = invoke_trigger(tale, {"reason": "with a budget again", "time": _now(tale)})
    require(after["started"], f"with a budget nothing was started: {after.get('why')}")
    evidence["with_a_budget"] = after["execution"]
    _stop(tale, after["execution"])


def _worse(tale: Tale, evidence: Evidence) -> None:
    """A model of shuffled labels is judged beside the champion and refused; nobody is asked about it."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    open_mailbox(tale)
    tale.cloud.idle()
    sagemaker, objects = tale.cloud.client("sagemaker"), tale.cloud.objects
    group = tale.outputs("Models")["ModelPackageGroupName"]

    def versions() -> int:
        return len(sagemaker.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"])

    name = tale.outputs("Models")["PipelineName"]
    definition = json.loads(sagemaker.describe_pipeline(PipelineName=name)["PipelineDefinition"])
    defaults = {p["Name"]: p.get("DefaultValue") for p in definition["Parameters"]}
    source = str(defaults["FeaturesUri"])
    target = f"{source.rstrip('/')}/_shuffled/"
    label = tale.contract.label.field
    dice = random.Random(tale.seed)  # noqa: S311 - no secret
    for uri in objects.list(source, suffix=".parquet"):
        if "/_" in uri.removeprefix(source):
            continue
        table = pq.read_table(io.BytesIO(objects.read(uri)))
        values = table[label].to_pylist()
        dice.shuffle(values)
        column = pa.array(values, table.schema.field(label).type)
        table = table.set_column(table.schema.get_field_index(label), label, column)
        body = io.BytesIO()
        pq.write_table(table, body)
        objects.write(target + uri.removeprefix(source).lstrip("/"), body.getvalue())
    before = versions()
    champion = sagemaker.describe_model_package(ModelPackageName=tale.known["serving"])
    parameters = {
        "FeaturesUri": target,
        "Reason": "the labels were shuffled",
        "ChampionModel": champion["InferenceSpecification"]["Containers"][0]["ModelDataUrl"],
        "ChampionTest": champion["CustomerMetadataProperties"]["TestSet"],
    }
    execution = sagemaker.start_pipeline_execution(
        PipelineName=name,
        PipelineExecutionDescription=parameters["Reason"],
        PipelineParameters=[
            {"Name": key, "Value": value} for key, value in parameters.items() if key in defaults
        ],
    )["PipelineExecutionArn"]
    notice = told(tale, "model.refused", execution, seconds=300)
    evidence |= {"execution": execution, "notice": notice, "versions": versions()}
    require(versions() == before, "a version was registered that is worse than the champion")
    require(notice["numbers"].get("step") == "Reject", f"it ended at {notice['numbers'].get('step')}")
    _was_to_fail(tale)


# ---------------------------------------------------------------------- people


def _people(tale: Tale, evidence: Evidence) -> None:
    """From the start of a training to the version in service: each notice with numbers and a way there."""
    from rehearsal.story.serving import approve, await_promotion, await_service

    open_mailbox(tale)
    _rested(tale)
    answer = invoke_trigger(tale, {"reason": "to be told of", "time": _now(tale)})
    require(answer["started"], f"nothing was started: {answer.get('why')}")
    started = told(tale, "retraining.started", answer["execution"])
    require("to be told of" in started["why"], f"the notice gives another reason: {started['why']}")
    finish(tale, answer["execution"], evidence)
    waits = told(tale, "model.waits")
    metric = tale.workload.acceptance.metric
    evidence["waits"] = waits["numbers"]
    require(
        isinstance(waits["numbers"].get(metric), float), f"the notice does not say the version's {metric}"
    )
    arn = waits["links"]["model package"]
    approve(tale, arn)
    await_promotion(tale, arn)
    promoted = told(tale, "model.promoted", arn)
    evidence["promoted"] = promoted["numbers"]
    require(isinstance(promoted["numbers"].get(metric), float), f"the notice does not say {metric}")
    await_service(tale)
    tale.known["serving"] = arn
    _rested(tale)
    answer = invoke_trigger(tale, {"reason": "to be stopped", "time": _now(tale)})
    evidence["stopped"] = _stop(tale, answer["execution"])
    failed = told(tale, "retraining.failed", answer["execution"])
    evidence |= {
        "kinds": dict(Counter(notice["notice"] for notice in notices(tale))),
        "started": started,
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
        id="retrain.guard.cooldown",
        title="One training at a time, and none before the cool-down is over",
        chapter=CHAPTER,
        run=_cooldown,
        ground="trained",
        capabilities=("retrain.guard",),
    ),
    Cell(
        id="retrain.guard.storm",
        title=f"{STORM} alarms at once, doubled, late and shuffled: one training",
        chapter=CHAPTER,
        run=_storm,
        ground="trained",
        capabilities=("retrain.guard",),
    ),
    Cell(
        id="retrain.guard.redrive",
        title="An event that could not be handled is kept, handed over again twice, and starts one training",
        chapter=CHAPTER,
        run=_redriven,
        ground="trained",
        capabilities=("retrain.guard",),
    ),
    Cell(
        id="retrain.guard.budget",
        title="Over the month's budget nothing starts, and people are told once",
        chapter=CHAPTER,
        run=_budget,
        ground="trained",
        capabilities=("retrain.guard", "observe.notify"),
    ),
    Cell(
        id="retrain.guard.champion",
        title="A worse model is judged beside the champion and refused before anyone is asked",
        chapter=CHAPTER,
        run=_worse,
        ground="serving",
        capabilities=("retrain.guard",),
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
