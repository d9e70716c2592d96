"""Cells of the wires between services: throttled, answered too late, and a credential that has expired.

Each fault is put before calls of one role. What makes up for it is the product's own: the tries of a
function's client, of Lambda and of its event sources, of Firehose and of Pipelines.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from rehearsal.story.chaos.events import served, version_like
from rehearsal.story.chaos.loop import RECORDS, WORKLOAD, accounted, fresh, plan, sent, unharmed
from rehearsal.story.ingestion import Sent, send
from rehearsal.story.matrix.ground import model_of
from rehearsal.story.operations.cells import Cell
from rehearsal.story.operations.trainings import (
    alarm_event,
    decisions,
    now_of,
    reason_of,
    rested,
    started,
    stop,
)
from rehearsal.story.serving import approve, captured_lines, parameter_value
from rehearsal.story.streaming import online
from rehearsal.story.telling import Evidence, require, wait_until
from rehearsal.story.traffic import ask, questions
from rehearsal.story.training import executions

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS", "ORDER", "WORKLOAD"]

CHAPTER = "Wires: throttling, timeouts, expired credentials"
ORDER = 30
THROTTLED, EXPIRED = "ThrottlingException", "ExpiredTokenException"
#: Attempts of the clients of the retraining and the promotion function, and of the transform's.
ATTEMPTS = 3
#: A second more than the clients of the functions wait for an answer: 10 s; the stream consumer's 5 s.
LATE, LATE_FOR_THE_CONSUMER = "slow:11", "slow:6"
#: Bad records among the good ones.
BAD = 5

# --- records ---


def _with_bad_ones(tale: Tale, evidence: Evidence) -> None:
    """Send good records, which are delivered, and bad ones, which the transform puts into quarantine."""
    number = len(tale.cloud.ledger())
    bad = [Sent(data=f"no record {number} {n}".encode(), kind="not_json") for n in range(BAD)]
    account = accounted(tale, send(tale, [*fresh(tale), *bad], {}))
    evidence |= {
        name: getattr(account, name) for name in ("sent", "delivered", "quarantined", "lost", "twice")
    }


def _quarantine(step: str, times: int, tale: Tale, evidence: Evidence) -> None:
    """The transform's writing of refused records."""
    with unharmed(tale, evidence):
        plan(tale, "s3:PutObject", *[step] * times, who="IngestionTransform")
        _with_bad_ones(tale, evidence)


def _delivery(action: str, step: str, times: int, tale: Tale, evidence: Evidence) -> None:
    """What Firehose itself reads and writes."""
    with unharmed(tale, evidence):
        plan(tale, action, *[step] * times, who="IngestionDelivery")
        _with_bad_ones(tale, evidence)


def _online(action: str, step: str, times: int, tale: Tale, evidence: Evidence) -> None:
    """The features of records on their way to the online store."""
    with unharmed(tale, evidence):
        plan(tale, action, *[step] * times, who="ConsumerFunction")
        batch = sent(tale)

        def arrived() -> bool:
            # What an event source tries again later is due on the clock.
            tale.cloud.idle()
            tale.cloud.advance(seconds=30)
            return not tale.cloud.server.control("GET", "/faults")["left"]

        wait_until("the last of the faults", arrived, seconds=60)
        tale.cloud.idle()
        online(tale, batch, evidence)
        accounted(tale, batch)


# --- a training ---


def _asked(action: str, step: str, times: int, tale: Tale, evidence: Evidence) -> None:
    """An alarm's event reaches the retraining function, whose calls meet the fault: one training."""
    with unharmed(tale, evidence, starts=1):
        rested(tale)
        before, seen = len(executions(tale)), len(decisions(tale))
        name = tale.outputs("Operations")["RetrainFunctionName"]
        plan(tale, action, *[step] * times, who="RetrainingTrigger")
        tale.cloud.client("lambda").invoke(
            FunctionName=name,
            InvocationType="Event",
            Payload=json.dumps(
                alarm_event(tale.outputs("Operations")["DriftAlarmName"], now_of(tale))
            ).encode(),
        )
        # A call that was answered too late is made again before the function decides.
        (decided,) = wait_until("the decision", lambda: decisions(tale)[seen:], seconds=60)
        execution = started(tale, before)["PipelineExecutionArn"]
        evidence |= {"decided": decided["started"], "reason": reason_of(tale, execution)}
        require(decided["execution"] == execution, "the function names another execution than runs")
        evidence["status"] = stop(tale, execution)


def _steps(tale: Tale, evidence: Evidence) -> None:
    """The pipeline's first job is throttled at its start: Pipelines tries again, the training goes on."""
    with unharmed(tale, evidence, starts=1):
        rested(tale)
        before = len(executions(tale))
        plan(tale, "sagemaker:CreateProcessingJob", THROTTLED, THROTTLED)
        tale.cloud.client("lambda").invoke(
            FunctionName=tale.outputs("Operations")["RetrainFunctionName"],
            Payload=json.dumps({"reason": "its first job is throttled", "time": now_of(tale)}).encode(),
        )
        execution = started(tale, before)["PipelineExecutionArn"]
        sagemaker = tale.cloud.client("sagemaker")

        def begun() -> list[dict[str, Any]]:
            steps = sagemaker.list_pipeline_execution_steps(
                PipelineExecutionArn=execution, SortOrder="Ascending"
            )["PipelineExecutionSteps"]
            return [step for step in steps if "ProcessingJob" in step.get("Metadata", {})]

        step = wait_until("the first job", begun, seconds=60)[0]
        evidence |= {"step": step["StepName"], "attempts": step.get("AttemptCount", 1)}
        evidence["status"] = stop(tale, execution)


# --- a promotion ---


def _promoted(faults: dict[str, tuple[str, ...]], tale: Tale, evidence: Evidence) -> None:
    """An approval whose promotion meets faults: its message is seen again, one version comes into service."""
    with unharmed(tale, evidence, promotions=1):
        package = version_like(tale, "wires")
        for action, steps in faults.items():
            plan(tale, action, *steps, who="RegistryPromotion")
        approve(tale, package)
        served(tale, package)
        tale.cloud.idle()
        evidence["serves"] = model_of(parameter_value(tale))


# --- the endpoint ---


def _capture(tale: Tale, evidence: Evidence) -> None:
    """What is captured cannot be written: callers notice nothing, and later requests are captured again."""
    with unharmed(tale, evidence):
        tale.cloud.server.control("POST", "/endpoints/flush", {})
        before = captured_lines(tale)
        plan(tale, "s3:PutObject", THROTTLED, who="Serving")
        first = ask(tale, questions(tale, tale.inputs.live[:RECORDS]))
        tale.cloud.server.control("POST", "/endpoints/flush", {})
        kept = captured_lines(tale) - before
        second = ask(tale, questions(tale, tale.inputs.live[:RECORDS]))
        tale.cloud.server.control("POST", "/endpoints/flush", {})
        after = captured_lines(tale) - before - kept
        evidence |= {
            "answered": len(first) + len(second),
            "captured_under_the_fault": kept,
            "captured_after_it": after,
        }
        require(after == len(second), f"{len(second)} requests were answered, {after} were captured")


def _cell(name: str, title: str, run: Any, *capabilities: str) -> Cell:
    return Cell(
        id=f"wires.{name}",
        title=title,
        chapter=CHAPTER,
        run=run,
        ground="serving",
        capabilities=capabilities,
    )


CELLS = (
    _cell(
        "quarantine.throttled",
        "S3 throttles the quarantine beyond the function's tries: Firehose asks the function again",
        partial(_quarantine, THROTTLED, ATTEMPTS + 1),
        "stream.firehose",
        "data.validation",
    ),
    _cell(
        "quarantine.timeout",
        "S3 answers the quarantine too late: written twice under one name, counted once",
        partial(_quarantine, LATE, 1),
        "stream.firehose",
        "data.validation",
    ),
    _cell(
        "delivery.throttled",
        "S3 throttles Firehose's own objects: they stay buffered and are written later, once",
        partial(_delivery, "s3:PutObject", THROTTLED, 1),
        "stream.firehose",
    ),
    _cell(
        "delivery.read",
        "Kinesis throttles Firehose's reading: it reads on where it was",
        partial(_delivery, "kinesis:GetRecords", "ProvisionedThroughputExceededException", 2),
        "stream.kinesis",
        "stream.firehose",
    ),
    _cell(
        "delivery.expired",
        "Firehose's credential has expired when it writes: the next one writes, once",
        partial(_delivery, "s3:PutObject", EXPIRED, 1),
        "stream.firehose",
    ),
    _cell(
        "consumer.throttled",
        "Feature Store throttles the stream consumer beyond its tries: the event source hands records again",
        partial(_online, "sagemaker:PutRecord", THROTTLED, 5 * RECORDS),
        "stream.consumer",
    ),
    _cell(
        "consumer.timeout",
        "Feature Store answers the stream consumer too late: the records are put again and change nothing",
        partial(_online, "sagemaker:PutRecord", LATE_FOR_THE_CONSUMER, 3),
        "stream.consumer",
    ),
    _cell(
        "consumer.expired",
        "The stream consumer's credential has expired: the batch is handed to it again",
        partial(_online, "sagemaker:PutRecord", EXPIRED, 1),
        "stream.consumer",
    ),
    _cell(
        "retrain.throttled",
        "SageMaker throttles the retraining function beyond its tries: Lambda asks it again, one training",
        partial(_asked, "sagemaker:ListPipelineExecutions", THROTTLED, ATTEMPTS + 1),
        "retrain.guard",
    ),
    _cell(
        "retrain.timeout",
        "The start of the pipeline is answered too late: asked again with the same token, one training",
        partial(_asked, "sagemaker:StartPipelineExecution", LATE, 1),
        "retrain.guard",
    ),
    _cell(
        "retrain.expired",
        "The retraining function's credential has expired: Lambda asks it again, one training",
        partial(_asked, "sagemaker:ListPipelineExecutions", EXPIRED, 1),
        "retrain.guard",
    ),
    _cell(
        "pipeline.throttled",
        "SageMaker throttles the start of a pipeline's job: Pipelines tries again",
        _steps,
        "retrain.ondemand",
    ),
    _cell(
        "promotion.throttled",
        "SageMaker, Parameter Store and CloudFormation throttle a promotion: its message is seen again",
        partial(
            _promoted,
            {
                "sagemaker:DescribeModelPackage": (THROTTLED,) * (ATTEMPTS + 1),
                "ssm:PutParameter": (THROTTLED,) * ATTEMPTS,
                "cloudformation:UpdateStack": (THROTTLED,) * ATTEMPTS,
            },
        ),
        "registry.versions",
    ),
    _cell(
        "promotion.timeout",
        "CloudFormation answers a promotion too late: the update that runs is not begun again",
        partial(_promoted, {"cloudformation:UpdateStack": (LATE,)}),
        "registry.versions",
    ),
    _cell(
        "promotion.expired",
        "The promotion's credential has expired between parameter and stack: its message is seen again",
        partial(_promoted, {"cloudformation:UpdateStack": (EXPIRED,)}),
        "registry.versions",
    ),
    _cell(
        "capture",
        "What an endpoint captures cannot be written: callers notice nothing, it is captured again",
        _capture,
        "serve.realtime",
    ),
)
