"""A/B by weight and shadow: a challenger beside the champion, promoted or rejected by its alarms."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from rehearsal.story.matrix.cells import Block, Cell, Row
from rehearsal.story.matrix.ground import ground, model_of, see_again, settled
from rehearsal.story.matrix.load import Load, endpoint_sender, within
from rehearsal.story.matrix.rollouts import MARGIN_SECONDS, rollout_block
from rehearsal.story.serving import approve, parameter_value, serving_stack
from rehearsal.story.telling import StoryError, require, wait_until
from rehearsal.story.traffic import questions

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS"]

#: Share of the traffic, or of its copies, that the challenger gets; and how long it is tried, by the clock.
PERCENT, TEST_MINUTES = 50, 20
#: Real seconds of traffic in a test: more requests than a promotion asks for.
TEST_SECONDS = 9.0
STARTED_SECONDS = 90
#: Minutes by the clock within which an alarm of a minute must have gone off.
ALARM_MINUTES = 6


def _challenger(tale: Tale) -> str:
    name = tale.outputs("Serving")["ChallengerModelParameter"]
    value: str = tale.cloud.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]
    return value


def _begin(tale: Tale, package: str) -> None:
    """Approve a version and wait until it stands beside the champion."""
    approve(tale, package)

    def ending() -> str | None:
        found = tale.cloud.client("sagemaker").describe_model_package(ModelPackageName=package)
        rejected = found["ModelApprovalStatus"] == "Rejected"
        return f"the version was rejected: {found.get('ApprovalDescription')}" if rejected else None

    wait_until(
        "the challenger's parameter",
        lambda: see_again(tale) and _challenger(tale) == package,
        seconds=STARTED_SECONDS,
        ending=ending,
    )
    wait_until(
        "a challenger in service",
        lambda: package in _resolved(tale) and serving_stack(tale)["StackStatus"] == "UPDATE_COMPLETE",
        seconds=STARTED_SECONDS,
        ending=ending,
    )


def _resolved(tale: Tale) -> set[str]:
    return {p["ResolvedValue"] for p in serving_stack(tale)["Parameters"] if "ResolvedValue" in p}


def _finish(row: Row, load: Load, old: str) -> None:
    row.requests, row.failed = len(load.replies), len(load.failed)
    row.series = load.series(model_of(old))
    row.facts |= load.summary()


def play_good(kind: str, tale: Tale, row: Row) -> None:
    """A good challenger is tried and becomes the champion; no request fails."""
    here = ground(tale)
    old = parameter_value(tale)
    new = here.other(old)
    with Load(endpoint_sender(tale), questions(tale, tale.inputs.live)) as load:
        time.sleep(MARGIN_SECONDS)
        started = time.monotonic()
        _begin(tale, new)
        row.facts["tried_after_seconds"] = round(time.monotonic() - started, 1)
        begun, wall = load.at, time.time()
        time.sleep(TEST_SECONDS)
        ended = load.at
        inside = [r for r in load.replies if begun <= r.at < ended and r.model is not None]
        answered = sum(r.model == model_of(new) for r in inside)
        row.facts["measured"] = (
            _weighed(answered, len(inside)) if kind == "ab" else _copied(tale, answered, wall)
        )
        tale.cloud.advance(minutes=TEST_MINUTES + 1)
        wait_until(
            "the promotion of the challenger",
            lambda: see_again(tale) and parameter_value(tale) == new and _challenger(tale) == "none",
            seconds=STARTED_SECONDS,
        )
        settled_with(tale, new)
        row.seconds = round(time.monotonic() - started, 1)
        time.sleep(MARGIN_SECONDS)
    _finish(row, load, old)
    for point in row.series:
        tried = begun + 1 <= (point["at"] or 0.0) <= ended - 1
        point["plan"] = (PERCENT / 100 if kind == "ab" else 0.0) if tried else None
    require(not load.failed, f"{row.failed} requests failed, the first: {[r.error for r in load.failed[:1]]}")
    last = {r.model for r in load.replies if r.at > load.replies[-1].at - MARGIN_SECONDS / 2}
    require(last == {model_of(new)}, f"in the end {sorted(map(str, last))} answered")


def settled_with(tale: Tale, package: str) -> None:
    """Wait until the stack is at rest with a version as its champion and no challenger."""
    wait_until(
        "the stack that follows",
        lambda: (
            see_again(tale)
            and serving_stack(tale)["StackStatus"].endswith("_COMPLETE")
            and package in _resolved(tale)
            and "none" in _resolved(tale)
        ),
        seconds=STARTED_SECONDS,
    )


def _weighed(answered: int, count: int) -> dict[str, Any]:
    """What share of the callers the challenger answered within the test."""
    require(
        within(answered, count, PERCENT / 100),
        f"of {count} requests of the test, the challenger of {PERCENT} % answered {answered}",
    )
    return {"planned": PERCENT / 100, "measured": round(answered / count, 3), "answers": count}


def _copied(tale: Tale, answered: int, since: float) -> dict[str, Any]:
    """What share of the requests the shadow got a copy of; ``since`` is a time by the wall clock."""
    require(answered == 0, f"{answered} callers were answered by a shadow")
    name = tale.outputs("Serving")["EndpointName"]
    rows = tale.cloud.server.control("GET", f"/endpoints/shares?name={name}&since={since}")["rows"]
    copies = sum(r["count"] for r in rows if r["outcome"] == "shadow")
    live = sum(r["count"] for r in rows if r["outcome"] == "answered")
    require(
        within(copies, live, PERCENT / 100),
        f"of {live} requests, {copies} were copied to a shadow of {PERCENT} %",
    )
    return {"planned": PERCENT / 100, "measured": round(copies / live, 3), "copies": copies}


def play_bad(kind: str, tale: Tale, row: Row) -> None:
    """A failing challenger is rejected by its alarm; of a shadow no caller notices anything."""
    here = ground(tale)
    old = parameter_value(tale)
    with Load(endpoint_sender(tale), questions(tale, tale.inputs.live)) as load:
        time.sleep(MARGIN_SECONDS)
        started = time.monotonic()
        _begin(tale, here.failing)
        # The metric of a minute needs requests in it before the minute is judged.
        _until_rejected(tale, here.failing)
        settled_with(tale, old)
        row.seconds = round(time.monotonic() - started, 1)
        time.sleep(MARGIN_SECONDS)
    _finish(row, load, old)
    described = tale.cloud.client("sagemaker").describe_model_package(ModelPackageName=here.failing)
    row.facts["reason"] = described.get("ApprovalDescription")
    require("alarm" in str(row.facts["reason"]).lower(), f"the reason names no alarm: {row.facts['reason']}")
    require(parameter_value(tale) == old, "the champion has changed")
    if kind == "shadow":
        require(not load.failed, f"{row.failed} callers noticed a shadow that fails")
    else:
        require(load.failed, "it was rejected before any request showed that it fails")
    last = {r.model for r in load.replies if r.at > load.replies[-1].at - MARGIN_SECONDS / 2}
    require(last == {model_of(old)}, f"in the end {sorted(map(str, last))} answered")


def _until_rejected(tale: Tale, package: str) -> None:
    sagemaker = tale.cloud.client("sagemaker")
    for _ in range(ALARM_MINUTES):
        time.sleep(1.0)
        tale.cloud.advance(minutes=1)
        for _ in range(8):
            see_again(tale)
            found = sagemaker.describe_model_package(ModelPackageName=package)
            if found["ModelApprovalStatus"] == "Rejected":
                return
            time.sleep(0.25)
    settled(tale)
    raise StoryError(f"no alarm has rejected the failing challenger within {ALARM_MINUTES} minutes")


def _cells() -> list[Cell]:
    found = []
    for kind, words, row in (
        ("ab", "A/B by weight", "roll.ab"),
        ("shadow", "Shadow", "roll.shadow"),
    ):
        block: Block = rollout_block(kind, challenger_percent=PERCENT, test_minutes=TEST_MINUTES)
        found += [
            Cell(
                id=f"rollout.{kind}.good",
                title=f"{words}: a good challenger is tried and promoted",
                block=block,
                play=partial(play_good, kind),
                capabilities=(row,),
            ),
            Cell(
                id=f"rollout.{kind}.bad",
                title=f"{words}: a failing challenger is rejected by its alarm",
                block=block,
                play=partial(play_bad, kind),
                capabilities=(row, "roll.rollback"),
            ),
        ]
    return found


CELLS: tuple[Cell, ...] = tuple(_cells())
