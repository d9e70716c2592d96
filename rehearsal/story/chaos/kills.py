"""Cells of killed functions: retraining, promotion and what people are told of them.

Each function is first left alone and its calls are noted; then it dies after the first and the last call of
each action. Lambda tries an event three times, so an event meets two deaths at most; a message of the
promotion queue as many as there are.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from rehearsal.story.chaos.killing import calls_of, deadly, ended, lives_through, rounds
from rehearsal.story.chaos.loop import unharmed
from rehearsal.story.mailbox import Mailbox, mailbox
from rehearsal.story.operations.cells import Cell
from rehearsal.story.operations.trainings import (
    SWITCHED_ON,
    alarm_event,
    now_of,
    reason_of,
    rested,
    started,
    stop,
    with_variables,
)
from rehearsal.story.telling import Evidence, require, wait_until
from rehearsal.story.training import executions

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS", "WORKLOAD"]

CHAPTER = "Functions killed after each call"
WORKLOAD = SWITCHED_ON


def hand_over(tale: Tale, function: str, event: Any) -> None:
    """Hand an event over as EventBridge does: Lambda keeps it and makes three attempts."""
    tale.cloud.client("lambda").invoke(
        FunctionName=function, InvocationType="Event", Payload=json.dumps(event).encode()
    )


def handled(tale: Tale, function: str, event: Any) -> None:
    """Hand an event over and wait for the end of its one attempt."""
    since = len(tale.cloud.ledger())
    hand_over(tale, function, event)
    wait_until(f"the end of {function}", lambda: ended(tale, function, since), seconds=60)


def _retrain(tale: Tale, evidence: Evidence) -> None:
    """An alarm's event, and the function that it wakes dies on the way to the training."""
    function = tale.outputs("Operations")["RetrainFunctionName"]
    alarm = tale.outputs("Operations")["DriftAlarmName"]

    def event() -> dict[str, Any]:
        return alarm_event(alarm, now_of(tale))

    rested(tale)
    before = len(executions(tale))
    calls = calls_of(tale, function, lambda: handled(tale, function, event()))
    untouched = started(tale, before)["PipelineExecutionArn"]
    reason = reason_of(tale, untouched)
    stop(tale, untouched)
    dealt = list(rounds(deadly(calls)))
    evidence |= {"calls": dict(Counter(calls)), "events": len(dealt), "reason": reason}
    with unharmed(tale, evidence, starts=len(dealt)):
        for spots in dealt:
            rested(tale)
            before = len(executions(tale))
            act = partial(hand_over, tale, function, event())
            lives_through(tale, function, spots, act, evidence=evidence)
            execution = started(tale, before)["PipelineExecutionArn"]
            require(
                reason_of(tale, execution) == reason, f"it was started for {reason_of(tale, execution)!r}"
            )
            stop(tale, execution)


def _refusal(tale: Tale, evidence: Evidence) -> None:
    """The budget is used up, and the function dies on the way to telling people."""
    function = tale.outputs("Operations")["RetrainFunctionName"]
    told = tale.cloud.client("lambda").get_function_configuration(FunctionName=function)["Environment"][
        "Variables"
    ]["TOLD_PARAMETER"]

    def event() -> dict[str, Any]:
        return {"reason": "although the budget is used up", "time": now_of(tale)}

    def untold() -> None:
        tale.cloud.client("ssm").put_parameter(Name=told, Value="nothing", Type="String", Overwrite=True)

    rested(tale)
    back = with_variables(tale, {"BUDGET_USD": "0.000001"})
    try:
        with mailbox(tale) as box:
            untold()
            calls = calls_of(tale, function, lambda: handled(tale, function, event()))
            box.told("retraining.refused")
            spots = [
                s
                for s in deadly(calls)
                if s.action in ("ssm:GetParameter", "ssm:PutParameter", "sns:Publish")
            ]
            evidence |= {"calls": dict(Counter(calls)), "notices": {}}
            with unharmed(tale, evidence):
                for dealt in rounds(spots, 1):
                    untold()
                    number = len(_of(box, "retraining.refused"))
                    act = partial(hand_over, tale, function, event())
                    lives_through(tale, function, dealt, act, evidence=evidence)
                    times = wait_until(
                        f"a notice although the function died after {dealt[0]}",
                        lambda n=number: len(_of(box, "retraining.refused")) - n,  # type: ignore[misc]
                        seconds=20,
                    )
                    evidence["notices"][str(dealt[0])] = times
                    most = 2 if dealt[0].action == "sns:Publish" else 1
                    require(times <= most, f"people were told {times} times")
                    handled(tale, function, event())
                    again = len(_of(box, "retraining.refused")) - number
                    require(again == times, "asked again in the same month, it told people again")
    finally:
        back()
        untold()


def _of(box: Mailbox, kind: str) -> list[dict[str, Any]]:
    return [notice for notice in box.notices() if notice["notice"] == kind]


CELLS = (
    Cell(
        id="chaos.kill.retrain",
        title="The retraining function dies after each of its calls: every alarm starts one training",
        chapter=CHAPTER,
        run=_retrain,
        capabilities=("retrain.guard",),
    ),
    Cell(
        id="chaos.kill.refusal",
        title="It dies on the way to saying that the budget is used up: people are told",
        chapter=CHAPTER,
        run=_refusal,
        capabilities=("retrain.guard", "observe.notify"),
    ),
)
