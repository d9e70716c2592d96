"""The fleet follows its load, by a target, by steps, by the clock; instances come and go, none is missed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rehearsal.story.matrix.cells import Block, Cell, Row
from rehearsal.story.matrix.ground import INSTANCE
from rehearsal.story.matrix.load import Load, endpoint_sender
from rehearsal.story.matrix.rollouts import rollout_block
from rehearsal.story.telling import require
from rehearsal.story.traffic import questions

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS"]

#: Requests an instance and minute that a fleet is to keep; a burst brings many more.
TARGET = 20
BURST_SECONDS = 1.5
#: Minutes by the clock: under load, and without any, for which a fleet may take its time.
BUSY_MINUTES, QUIET_MINUTES = 8, 40


def _instances(tale: Tale) -> int:
    name = tale.outputs("Serving")["EndpointName"]
    found = tale.cloud.client("sagemaker").describe_endpoint(EndpointName=name)
    return int(found["ProductionVariants"][0]["DesiredInstanceCount"])


def out_and_in(tale: Tale, row: Row) -> None:
    """Minutes full of requests bring instances, minutes without take them away; every request is answered."""
    row.facts["instances_at_first"] = before = _instances(tale)
    started = time.monotonic()
    with Load(endpoint_sender(tale), questions(tale, tale.inputs.live)) as load:
        for _ in range(BUSY_MINUTES):
            time.sleep(BURST_SECONDS)
            tale.cloud.advance(minutes=1)
            if _instances(tale) > before:
                break
        row.facts["instances_under_load"] = most = _instances(tale)
    _counted(row, load)
    require(most > before, f"{BUSY_MINUTES} busy minutes left {most} instances")
    _pass(tale, lambda: _instances(tale) == before)
    row.seconds = round(time.monotonic() - started, 1)
    row.facts |= {"instances_when_quiet": _instances(tale), "activities": _activities(tale)}
    require(_instances(tale) == before, f"{QUIET_MINUTES} quiet minutes left {_instances(tale)} instances")


def by_the_clock(tale: Tale, row: Row) -> None:
    """At its hour a schedule makes the fleet larger, and another lets it shrink."""
    row.facts["instances_at_first"] = before = _instances(tale)
    started = time.monotonic()
    with Load(endpoint_sender(tale), questions(tale, tale.inputs.live), rate=2) as load:
        _pass(tale, lambda: _instances(tale) > before, minutes=65)
        row.facts["instances_by_schedule"] = most = _instances(tale)
    _counted(row, load)
    row.seconds = round(time.monotonic() - started, 1)
    row.facts["activities"] = _activities(tale)
    require(most == 3, f"the schedule asks for 3 instances, there are {most}")


def _pass(tale: Tale, reached: Callable[[], bool], *, minutes: int = QUIET_MINUTES) -> None:
    for _ in range(minutes):
        if reached():
            return
        tale.cloud.advance(minutes=1)


def _counted(row: Row, load: Load) -> None:
    row.requests, row.failed = len(load.replies), len(load.failed)
    row.facts |= load.summary()
    require(not load.failed, f"{row.failed} requests failed, the first: {[r.error for r in load.failed[:1]]}")


def _activities(tale: Tale) -> list[str]:
    found: list[dict[str, Any]] = tale.cloud.client("application-autoscaling").describe_scaling_activities(
        ServiceNamespace="sagemaker"
    )["ScalingActivities"]
    return [activity["Description"] for activity in found]


def _block(scaling: dict[str, Any]) -> Block:
    return {**rollout_block("all_at_once", bake_minutes=2), **INSTANCE, "scaling": scaling}


CELLS: tuple[Cell, ...] = (
    Cell(
        id="scaling.target",
        title="Scaling by a target: instances follow the requests each has to answer",
        block=_block({"min_capacity": 1, "max_capacity": 3, "target_invocations_per_instance": TARGET}),
        play=out_and_in,
        capabilities=("scale.target",),
    ),
    Cell(
        id="scaling.step",
        title="Scaling by steps: as many instances more as the load is high",
        block=_block(
            {
                "min_capacity": 1,
                "max_capacity": 3,
                "kind": "step",
                "steps": [
                    {"above": TARGET, "add": 1},
                    {"above": 10 * TARGET, "add": 2},
                    {"below": TARGET / 2, "add": -1},
                ],
            }
        ),
        play=out_and_in,
        capabilities=("scale.step",),
    ),
    Cell(
        id="scaling.schedule",
        title="Scaling by the clock: a schedule makes the fleet larger at its hour",
        block=_block(
            {
                "min_capacity": 1,
                "max_capacity": 4,
                "target_invocations_per_instance": 10_000,
                "schedules": {"busy": {"cron": "30 * * * ? *", "min_capacity": 3, "max_capacity": 4}},
            }
        ),
        play=by_the_clock,
        capabilities=("scale.scheduled",),
    ),
)
