"""Promotions that meet: two approvals at once, and one while somebody deploys."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from rehearsal.cdk import Cdk
from rehearsal.story.matrix.cells import Block, Cell, Row
from rehearsal.story.matrix.ground import ground, model_of, parts_of, see_again
from rehearsal.story.matrix.load import Load, endpoint_sender
from rehearsal.story.matrix.rollouts import ENDED_SECONDS, MARGIN_SECONDS, rollout_block
from rehearsal.story.serving import approve, parameter_value, serving_stack
from rehearsal.story.telling import require, wait_until
from rehearsal.story.traffic import questions

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS"]

BLOCK = rollout_block("all_at_once", bake_minutes=4)
#: What the deploy that a promotion meets changes: how long an update bakes, and so the template.
CHANGED = rollout_block("all_at_once", bake_minutes=3)


def _serves(tale: Tale) -> str:
    """What the serving stack was last updated to."""
    name = tale.outputs("Models")["ApprovedModelParameter"]
    resolved: list[str] = [
        parameter["ResolvedValue"]
        for parameter in serving_stack(tale)["Parameters"]
        if parameter["ParameterValue"] == name
    ]
    return resolved[0]


def _agreed(tale: Tale) -> str | None:
    """What parameter and stack agree upon, once the stack is at rest."""
    see_again(tale)
    at_rest = serving_stack(tale)["StackStatus"] == "UPDATE_COMPLETE"
    return parameter_value(tale) if at_rest and parameter_value(tale) == _serves(tale) else None


def _finish(tale: Tale, row: Row, load: Load, wanted: str | None) -> None:
    last = {r.model for r in load.replies if r.at > load.replies[-1].at - MARGIN_SECONDS / 2}
    served = parameter_value(tale)
    row.facts |= {**load.summary(), "serving": model_of(served)}
    require(not load.failed, f"{row.failed} requests failed, the first: {[r.error for r in load.failed[:1]]}")
    require(wanted is None or served == wanted, f"{model_of(served)} serves, not {model_of(wanted or '')}")
    require(
        last == {model_of(served)},
        f"the parameter says {model_of(served)}, {sorted(map(str, last))} answered",
    )


def _counted(row: Row, load: Load, old: str) -> None:
    row.requests, row.failed = len(load.replies), len(load.failed)
    row.series = load.series(model_of(old))


def at_once(tale: Tale, row: Row) -> None:
    """Both good versions are approved at the same moment: one serves in the end, and all agree which."""
    here = ground(tale)
    old = parameter_value(tale)
    barrier = threading.Barrier(2)

    def one(arn: str) -> None:
        barrier.wait(timeout=10)
        approve(tale, arn)

    with Load(endpoint_sender(tale), questions(tale, tale.inputs.live)) as load:
        time.sleep(MARGIN_SECONDS)
        started = time.monotonic()
        updated = serving_stack(tale).get("LastUpdatedTime")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(one, here.good))
        wait_until(
            "an update of the stack",
            lambda: see_again(tale) and serving_stack(tale).get("LastUpdatedTime") != updated,
            seconds=60,
        )
        # The later message waits while the first one's update goes on.
        _await_quiet(tale, row)
        row.seconds = round(time.monotonic() - started, 1)
        time.sleep(MARGIN_SECONDS)
    _counted(row, load, old)
    _finish(tale, row, load, None)


def during_a_deploy(tale: Tale, row: Row) -> None:
    """A person deploys; the approval that comes meanwhile waits, then its version serves."""
    here = ground(tale)
    old = parameter_value(tale)
    new = here.other(old)
    cdk = Cdk.of(tale.app, here.variants.assembly(CHANGED), tale.cloud.server, progress=tale.note)
    with (
        Load(endpoint_sender(tale), questions(tale, tale.inputs.live)) as load,
        ThreadPoolExecutor(1) as pool,
    ):
        time.sleep(MARGIN_SECONDS)
        here.block = None
        deploy = pool.submit(cdk.deploy, parts_of(tale)[1:], exclusively=True, concurrency=1)
        wait_until(
            "the beginning of the deploy",
            lambda: serving_stack(tale)["StackStatus"] == "UPDATE_IN_PROGRESS" or deploy.done(),
            seconds=60,
            every=0.02,
        )
        row.facts["stack_at_the_approval"] = serving_stack(tale)["StackStatus"]
        started = time.monotonic()
        approve(tale, new)
        deploy.result()
        here.block = CHANGED
        wait_until("the promotion after the deploy", lambda: _agreed(tale) == new, seconds=ENDED_SECONDS)
        row.seconds = round(time.monotonic() - started, 1)
        time.sleep(MARGIN_SECONDS)
    _counted(row, load, old)
    _finish(tale, row, load, new)


def _queue(tale: Tale) -> str:
    """URL of the queue that feeds the promotion function."""
    name = tale.cdk.stack_name(parts_of(tale)[0])
    pages = tale.cloud.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=name)
    found = [
        resource["PhysicalResourceId"]
        for page in pages
        for resource in page["StackResourceSummaries"]
        if resource["ResourceType"] == "AWS::SQS::Queue" and "Events" in resource["LogicalResourceId"]
    ]
    require(len(found) == 1, f"stack {name} has {len(found)} queues of events, not one")
    url: str = found[0]
    return url


def _waiting(tale: Tale) -> int:
    attributes: dict[str, Any] = tale.cloud.client("sqs").get_queue_attributes(
        QueueUrl=_queue(tale),
        AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
    )["Attributes"]
    return sum(int(count) for count in attributes.values())


def _await_quiet(tale: Tale, row: Row) -> None:
    def quiet() -> bool:
        row.facts |= {
            "left_in_the_queue": _waiting(tale),
            "stack": serving_stack(tale)["StackStatus"],
            "parameter": parameter_value(tale),
            "stack_serves": _serves(tale),
        }
        return _agreed(tale) is not None and not row.facts["left_in_the_queue"]

    wait_until("an empty queue and a stack at rest", quiet, seconds=ENDED_SECONDS)


def _cell(name: str, title: str, play: Any, block: Block = BLOCK) -> Cell:
    return Cell(
        id=f"promotion.{name}", title=title, block=block, play=play, capabilities=("registry.versions",)
    )


CELLS: tuple[Cell, ...] = (
    _cell("at_once", "Two versions approved at the same moment: one serves, nothing is lost", at_once),
    _cell("during_a_deploy", "Approved while somebody deploys: it waits, then serves", during_a_deploy),
)
