"""Rollouts under live traffic: a good version takes over and nobody notices, a bad one is taken back."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rehearsal.story.matrix.cells import Block, Cell, Row
from rehearsal.story.matrix.ground import INSTANCE, ground, model_of, see_again
from rehearsal.story.matrix.load import Load, endpoint_sender, within
from rehearsal.story.serving import approve, describe_endpoint, parameter_value, serving_stack
from rehearsal.story.telling import require, wait_until
from rehearsal.story.traffic import questions

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS", "planned_shares", "rollout_block"]

#: Real seconds of traffic before an approval and after its end, so that a plot shows both.
MARGIN_SECONDS = 1.5
#: Real seconds for a whole rollout; the clock runs while it bakes.
ENDED_SECONDS = 180
#: Fewer answers in a phase say nothing about its share.
FEWEST_ANSWERS = 20

_ROW = {
    "all_at_once": "roll.allatonce",
    "canary": "roll.canary",
    "linear": "roll.linear",
    "rolling": "roll.rolling",
}


def rollout_block(strategy: str, **more: Any) -> Block:
    """A real-time block with a rollout strategy."""
    return {
        **INSTANCE,
        "rollout": {"strategy": strategy, "max_error_percent": 5, "max_latency_ms": 5_000, **more},
    }


def planned_shares(block: Block) -> tuple[float, ...]:
    """The shares of traffic that a block says the new model gets, one after the other."""
    rollout: Mapping[str, Any] = block["rollout"]
    step = rollout.get("step_percent", 10) / 100
    if rollout["strategy"] == "canary":
        return step, 1.0
    if rollout["strategy"] in ("linear", "rolling"):
        return tuple(min(1.0, round((n + 1) * step, 9)) for n in range(math.ceil(round(1 / step, 9))))
    return (1.0,)


def share_in_force(tale: Tale) -> float | None:
    """The share that the service gives the new fleet now."""
    name = tale.outputs("Serving")["EndpointName"]
    said = tale.cloud.server.control("GET", f"/endpoints/traffic?name={name}")
    return float(said["green_share"]) if "green" in said["fleets"] else None


def release(tale: Tale, row: Row, package: str) -> tuple[Load, dict[str, Any]]:
    """Approve a version under live traffic and wait for the end of the update; the load and the stack."""
    old = parameter_value(tale)
    updated = serving_stack(tale).get("LastUpdatedTime")

    def over() -> dict[str, Any] | None:
        see_again(tale)
        stack = serving_stack(tale)
        ended = stack.get("LastUpdatedTime") != updated and not stack["StackStatus"].endswith("_IN_PROGRESS")
        return stack if ended else None

    bodies = questions(tale, tale.inputs.live)
    with Load(endpoint_sender(tale), bodies, probe=partial(share_in_force, tale)) as load:
        time.sleep(MARGIN_SECONDS)
        started = time.monotonic()
        try:
            approve(tale, package)
            stack: dict[str, Any] = wait_until(
                "the end of the serving stack's update", over, seconds=ENDED_SECONDS
            )
            row.seconds = round(time.monotonic() - started, 1)
            time.sleep(MARGIN_SECONDS)
        finally:
            row.requests, row.failed = len(load.replies), len(load.failed)
            row.series = load.series(model_of(old))
    row.requests, row.failed = len(load.replies), len(load.failed)
    row.series = load.series(model_of(old))
    row.facts |= {**load.summary(), "stack": stack["StackStatus"]}
    return load, stack


def play_good(tale: Tale, row: Row) -> None:
    """A good version takes over; no request fails, the traffic moves as the block says."""
    here = ground(tale)
    package = here.other(parameter_value(tale))
    before = describe_endpoint(tale)["EndpointConfigName"]
    load, stack = release(tale, row, package)
    require(stack["StackStatus"] == "UPDATE_COMPLETE", f"the stack is {stack['StackStatus']}")
    require(parameter_value(tale) == package, "the parameter is not the version that was approved")
    require(describe_endpoint(tale)["EndpointConfigName"] != before, "the endpoint has its old configuration")
    require(
        not load.failed,
        f"{len(load.failed)} requests failed, the first: {[r.error for r in load.failed[:1]]}",
    )
    last = [reply.model for reply in load.replies if reply.at > load.replies[-1].at - MARGIN_SECONDS / 2]
    require(set(last) == {model_of(package)}, f"in the end {sorted(map(str, set(last)))} answered")
    assert here.block is not None
    row.facts["shares"] = _shares_held(load, model_of(package), planned_shares(here.block))


def _shares_held(load: Load, new: str, planned: Sequence[float]) -> list[dict[str, float]]:
    """Compare, phase by phase, the share in force with who answered.

    Raises:
        StoryError: a share was never in force that the plan names, or the answers do not fit theirs.
    """
    said = [share for _, share in load.shares if share > 0]
    missing = [share for share in planned if not any(math.isclose(share, s) for s in said)]
    require(
        not missing, f"planned shares that were never in force: {missing}; there were {sorted(set(said))}"
    )
    rows = []
    for wanted in sorted({s for _, s in load.shares}):
        times = [at for at, share in load.shares if share == wanted]
        # Between two looks that said the same, nothing else was in force.
        inside = [r for r in load.replies if times[0] <= r.at <= times[-1] and r.model is not None]
        found = sum(r.model == new for r in inside)
        if len(inside) >= FEWEST_ANSWERS:
            rows.append(
                {"planned": wanted, "measured": round(found / len(inside), 3), "answers": len(inside)}
            )
            require(
                within(found, len(inside), wanted),
                f"of {len(inside)} answers while the share was {wanted:g}, {found} were the new model's",
            )
    return rows


def play_bad(which: str, tale: Tale, row: Row) -> None:
    """A bad version shows what it is; its alarm brings the old one back and the registry says why."""
    here = ground(tale)
    bad: str = getattr(here, which)
    serving = parameter_value(tale)
    before = describe_endpoint(tale)["EndpointConfigName"]
    load, stack = release(tale, row, bad)
    require(
        stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE",
        f"a {which} version must be rolled back; the stack is {stack['StackStatus']}",
    )
    wait_until("the restoring of the parameter", lambda: parameter_value(tale) == serving, seconds=60)
    described = tale.cloud.client("sagemaker").describe_model_package(ModelPackageName=bad)
    row.facts |= {
        "registry": described["ModelApprovalStatus"],
        "reason": described.get("ApprovalDescription"),
    }
    require(described["ModelApprovalStatus"] == "Rejected", "the registry does not reject the version")
    require(
        "alarm" in str(row.facts["reason"]).lower(),
        f"the reason names no alarm: {row.facts['reason']}",
    )
    require(
        describe_endpoint(tale)["EndpointConfigName"] == before,
        "the endpoint is not back on its configuration",
    )
    last = {
        r.model for r in load.replies if r.error is None and r.at > load.replies[-1].at - MARGIN_SECONDS / 2
    }
    require(last == {model_of(serving)}, f"in the end {sorted(map(str, last))} answered")
    if which == "failing":
        require(load.failed, "it was rolled back before any request showed that it fails")


def _cells() -> list[Cell]:
    blocks = {
        "all_at_once": rollout_block("all_at_once", bake_minutes=4),
        "canary": rollout_block("canary", step_percent=25, bake_minutes=4),
        "linear": rollout_block("linear", step_percent=34, bake_minutes=3),
        # Two instances, so that a batch of half the fleet is one of them.
        "rolling": {
            **rollout_block("rolling", step_percent=50, bake_minutes=3),
            "initial_instance_count": 2,
            "scaling": {"min_capacity": 2, "max_capacity": 4},
        },
    }
    found = []
    for strategy, block in blocks.items():
        words = strategy.replace("_", " ")
        found += [
            Cell(
                id=f"rollout.{strategy}.good",
                title=f"Rollout {words}: a good version takes over",
                block=block,
                play=play_good,
                capabilities=(_ROW[strategy],),
            ),
            Cell(
                id=f"rollout.{strategy}.bad",
                title=f"Rollout {words}: a version that fails is taken back",
                block=block,
                play=partial(play_bad, "failing"),
                capabilities=(_ROW[strategy], "roll.rollback"),
            ),
        ]
    slow = rollout_block("canary", step_percent=25, bake_minutes=4, max_latency_ms=400)
    found.append(
        Cell(
            id="rollout.canary.slow",
            title="Rollout canary: a version that answers too late is taken back",
            block=slow,
            play=partial(play_bad, "slow"),
            capabilities=("roll.canary", "roll.rollback"),
        )
    )
    return found


CELLS: tuple[Cell, ...] = tuple(_cells())
