"""Cells of retraining: what keeps a training from starting, and that nothing is lost by it."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from rehearsal.redrive import redrive
from rehearsal.story.mailbox import mailbox
from rehearsal.story.operations.cells import Cell
from rehearsal.story.operations.trainings import (
    COOLDOWN_HOURS,
    SWITCHED_ON,
    alarm_event,
    meant_to_fail,
    now_of,
    rested,
    started,
    stop,
    with_variables,
)
from rehearsal.story.telling import Evidence, require, wait_until
from rehearsal.story.training import executions, invoke_trigger

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS", "WORKLOAD"]

CHAPTER = "Retraining: guards"
WORKLOAD = SWITCHED_ON
#: Events of a storm, and how many at a time.
STORM = 50
THREADS = 8
#: Attempts of the function's client, and invocations of an asynchronous event.
ATTEMPTS = 3


def _storm(tale: Tale, evidence: Evidence) -> None:
    """Fifty alarms at once, some twice, some late, in no order: one training."""
    rested(tale)
    before = len(executions(tale))
    name = tale.outputs("Operations")["DriftAlarmName"]
    now = datetime.fromisoformat(now_of(tale))
    dice = random.Random(tale.seed)  # noqa: S311 - no secret
    times = [now - timedelta(seconds=dice.randrange(0, 600)) for _ in range(STORM // 2)]
    events = [alarm_event(name, f"{t:%Y-%m-%dT%H:%M:%SZ}") for t in (*times, *times)]
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
    rested(tale)
    first = invoke_trigger(tale, {"reason": "the first", "time": now_of(tale)})
    require(first["started"], f"nothing was started: {first.get('why')}")
    running = invoke_trigger(tale, {"reason": "while it runs", "time": now_of(tale)})
    evidence["while_it_runs"] = running["why"]
    require(not running["started"] and "Executing" in running["why"], f"it says {running}")
    stop(tale, first["execution"])
    tale.cloud.pass_over(hours=COOLDOWN_HOURS - 0.5)
    early = invoke_trigger(tale, {"reason": "half an hour too early", "time": now_of(tale)})
    evidence["too_early"] = early["why"]
    require(not early["started"] and "cooldown until" in early["why"], f"it says {early}")
    tale.cloud.pass_over(hours=0.6)
    after = invoke_trigger(tale, {"reason": "after it", "time": now_of(tale)})
    require(after["started"], f"after the cool-down nothing was started: {after.get('why')}")
    evidence["after_it"] = after["execution"]
    stop(tale, after["execution"])


def _redriven(tale: Tale, evidence: Evidence) -> None:
    """SageMaker answers nothing but errors; the event is kept, and after the repair handed over again."""
    rested(tale)
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
        Payload=json.dumps(alarm_event(name, now_of(tale))).encode(),
    )
    try:
        evidence["dead_letters"] = wait_until("a dead letter", kept, seconds=120)
    finally:
        server.control("POST", "/faults", {"action": action, "steps": []})
    require(len(executions(tale)) == before, "a training was started although SageMaker did not answer")
    meant_to_fail(tale)
    # The same letter twice, as after an interrupted redrive.
    letter = sqs.receive_message(QueueUrl=url, VisibilityTimeout=0)["Messages"][0]["Body"]
    sqs.send_message(QueueUrl=url, MessageBody=letter)
    done = redrive(sqs, tale.cloud.client("lambda"), queue_url=url, function=function)
    evidence["redriven"] = done.events
    execution = started(tale, before)["PipelineExecutionArn"]
    tale.cloud.idle()
    evidence |= {"left": kept(), "executions_started": len(executions(tale)) - before}
    require(done.events == 2 and not evidence["left"], f"{done.events} redriven, {evidence['left']} left")
    require(evidence["executions_started"] == 1, f"{evidence['executions_started']} trainings were started")
    stop(tale, execution)


def _budget(tale: Tale, evidence: Evidence) -> None:
    """The month's budget is used up: nothing starts, and people are told once, with numbers."""
    with mailbox(tale) as box:
        rested(tale)
        before = len(executions(tale))
        back = with_variables(tale, {"BUDGET_USD": "0.000001"})
        try:
            asked = [{"reason": f"asked for the {n}. time", "time": now_of(tale)} for n in (1, 2, 3)]
            with ThreadPoolExecutor(len(asked)) as pool:
                answers = list(pool.map(partial(invoke_trigger, tale), asked))
        finally:
            back()
        notice = box.told("retraining.refused")
        evidence |= {
            "answers": [answer["why"] for answer in answers],
            "told": [answer.get("told") for answer in answers],
            "notice": notice,
        }
        require(not any(answer["started"] for answer in answers), "a training was started over the budget")
        require(len(executions(tale)) == before, "there is another execution")
        require(evidence["told"].count(True) == 1, f"people were told {evidence['told'].count(True)} times")
        require(notice["numbers"]["spent USD"] > 0, "the notice does not say what was spent")
        after = invoke_trigger(tale, {"reason": "with a budget again", "time": now_of(tale)})
        require(after["started"], f"with a budget nothing was started: {after.get('why')}")
        evidence["with_a_budget"] = after["execution"]
        stop(tale, after["execution"])


def _worse(tale: Tale, evidence: Evidence) -> None:
    """A model of shuffled labels is judged beside the champion and refused; nobody is asked about it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with mailbox(tale) as box:
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
        notice = box.told("model.refused", execution, seconds=300)
        evidence |= {"execution": execution, "notice": notice, "versions": versions()}
        require(versions() == before, "a version was registered that is worse than the champion")
        require(notice["numbers"].get("step") == "Reject", f"it ended at {notice['numbers'].get('step')}")
        meant_to_fail(tale)


CELLS = (
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
)
