"""What has to hold after a fault: no record lost, no double start, no half state, a loop that closes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rehearsal.story.ingestion import Account, Batch, Sent, deliver, plain, send
from rehearsal.story.operations.trainings import SWITCHED_ON, meant_to_fail, stop
from rehearsal.story.serving import describe_endpoint, parameter_value, serving_stack
from rehearsal.story.telling import Evidence, StoryError, require, require_no_new_failure, wait_until
from rehearsal.story.traffic import ask, questions
from rehearsal.story.training import executions

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = [
    "RECORDS",
    "WORKLOAD",
    "accounted",
    "fresh",
    "hits_of",
    "plan",
    "plan_events",
    "promotion_queue",
    "sent",
    "settled",
    "unharmed",
]

#: The blocks that the cells need. Nothing starts by the clock, or because something landed: a run by itself,
#: and the training that enough new rows start, would be some other cell's. Who needs a run asks for it.
WORKLOAD: Mapping[str, Any] = {
    **SWITCHED_ON,
    "retraining": {**SWITCHED_ON["retraining"], "every_days": None},
    "batch": {"on_landing": False, "schedule": None},
}
#: Records that show after a fault that the way into the lake is open.
RECORDS = 20
#: Controls of what can be put in the way: calls of roles, events on their way.
KINDS = ("/faults", "/faults/events", "/faults/containers", "/faults/stacks")
#: So long (real seconds) a loop has to close by itself.
HEAL_SECONDS = 180
#: Of what a cell says that it was refused.
MOST_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """The state before a fault."""

    executions: frozenset[str]
    promotions: int
    ledger: int


def plan(tale: Tale, action: str, *steps: str | None, who: str | None = None) -> None:
    """Plan what the next calls of ``action`` by roles meet; no steps lift the plan (``rehearsal.faults``)."""
    body: dict[str, Any] = {"action": action, "steps": list(steps)}
    tale.cloud.server.control("POST", "/faults", body if who is None else body | {"who": who})


def plan_events(tale: Tale, detail_type: str, target: str, *steps: str | None) -> None:
    """Plan what the next events meet on their way to a target; no steps let go what is kept back."""
    body = {"detail_type": detail_type, "target": target, "steps": list(steps)}
    tale.cloud.server.control("POST", "/faults/events", body)


def promotion_queue(tale: Tale) -> str:
    """Name of the queue that feeds the promotion."""
    name = tale.cdk.stack_name(f"{tale.stage}/{tale.workload.id}Models")
    pages = tale.cloud.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=name)
    (url,) = (
        resource["PhysicalResourceId"]
        for page in pages
        for resource in page["StackResourceSummaries"]
        if resource["ResourceType"] == "AWS::SQS::Queue" and "RegistryEvents" in resource["LogicalResourceId"]
    )
    return str(url).rpartition("/")[2]


def hits_of(tale: Tale, since: int) -> Counter[str]:
    """How often each fault has hit since the ledger had ``since`` entries."""
    return Counter(
        f"{entry['name']}: {entry['detail']['what']}"
        for entry in tale.cloud.ledger()[since:]
        if entry["kind"] == "fault"
    )


def fresh(tale: Tale, number: int = RECORDS) -> list[Sent]:
    """Records that nobody has sent before.

    Raises:
        StoryError: there are no such records left.
    """
    first: int = tale.known.get("records of chaos", 0)
    every = [*tale.inputs.live, *tale.inputs.changed]
    chosen = every[first : first + number]
    if len(chosen) < number:
        raise StoryError(f"all {len(every)} records were sent; rehearse with more --records")
    tale.known["records of chaos"] = first + number
    return plain(chosen)


def sent(tale: Tale, number: int = RECORDS) -> Batch:
    """Put records on the stream that nobody has sent before.

    Raises:
        StoryError: there are no such records left.
    """
    return send(tale, fresh(tale, number), {})


def accounted(tale: Tale, batch: Batch, evidence: Evidence | None = None) -> Account:
    """Wait until every record of a batch is in the lake or in quarantine, each exactly once.

    Raises:
        StoryError: one is lost, or somewhere twice, or not where it belongs.
    """
    return deliver(tale, batch, {} if evidence is None else evidence)


@contextmanager
def unharmed(tale: Tale, evidence: Evidence, *, starts: int = 0, promotions: int = 0) -> Iterator[None]:
    """Put a fault in the way in the body; afterwards it must have hit, and the loop must close by itself.

    Args:
        starts: trainings that the body has started, each of them once; those that still run are stopped.
        promotions: versions that the body has brought into the approval parameter.

    Raises:
        StoryError: the fault hit nothing; a record is lost or doubled; a training or a promotion happened
            twice or not at all; a stack, the parameter or the endpoint is in a state between two others.
    """
    tale.cloud.idle()
    before = _Seen(
        executions=frozenset(e["PipelineExecutionArn"] for e in executions(tale)),
        promotions=_promotions(tale),
        ledger=len(tale.cloud.ledger()),
    )
    try:
        yield
    finally:
        # Whatever came of the cell: the next one has its own faults.
        for kind in KINDS:
            tale.cloud.server.control("POST", kind, {"forget": True})
    lifted = time.monotonic()
    tale.cloud.idle()
    # What a body has done itself and seen to meet, such as an approval in the middle of a rollout.
    hits = hits_of(tale, before.ledger) + Counter(evidence.get("injected", {}))
    failed = [e for e in tale.cloud.ledger()[before.ledger :] if e["outcome"] == "failed"]
    evidence |= {
        "injected": dict(hits),
        "failed_because_of_it": [f"{e['kind']} {e['name']}: {e['why']}"[:200] for e in failed[:MOST_SHOWN]],
    }
    require(hits, "the fault has hit nothing")
    # What failed until here was meant to; what fails from now on was not.
    meant_to_fail(tale)
    started = [a for a in (e["PipelineExecutionArn"] for e in executions(tale)) if a not in before.executions]
    promoted = _promotions(tale) - before.promotions
    evidence |= {"trainings_started": len(started), "promotions": promoted}
    require(len(started) == starts, f"{len(started)} trainings were started, there should be {starts}")
    require(promoted == promotions, f"the approval parameter was changed {promoted} times, not {promotions}")
    for arn in started:
        stop(tale, arn)
    settled(tale, evidence)
    closes = sent(tale)
    account = accounted(tale, closes)
    answers = ask(tale, questions(tale, tale.inputs.live[:1]))
    require(answers and answers[0].score is not None, "the endpoint does not answer with a score")
    require_no_new_failure(tale)
    evidence |= {
        "healed_seconds": round(time.monotonic() - lifted, 1),
        "records_after_it": {
            "sent": account.sent,
            "delivered": account.delivered,
            "quarantined": account.quarantined,
            "lost": account.lost,
            "twice": account.twice,
        },
        "answer_after_it": answers[0].label if answers[0].label is not None else answers[0].score,
    }


def settled(tale: Tale, evidence: Evidence) -> None:
    """Nothing is half: every stack has come to its end, and what is approved is what serves.

    Raises:
        StoryError: something is in between, and stays so.
    """

    def moving() -> list[str]:
        return [name for name, status in _stacks(tale).items() if status.endswith("_IN_PROGRESS")]

    wait_until("the end of every stack's change", lambda: not moving(), seconds=HEAL_SECONDS)
    stuck = {name: status for name, status in _stacks(tale).items() if "FAILED" in status}
    require(not stuck, f"stacks are in a state that nobody can deploy on: {stuck}")
    endpoint = describe_endpoint(tale)
    approved, served = parameter_value(tale), _served(tale, endpoint)
    evidence |= {
        "endpoint": endpoint["EndpointStatus"],
        "approved_is_served": approved == served,
        "serving_stack": serving_stack(tale)["StackStatus"],
    }
    require(endpoint["EndpointStatus"] == "InService", f"the endpoint is {endpoint['EndpointStatus']}")
    require(approved == served, f"approved is {approved}, but {served} serves")


def _stacks(tale: Tale) -> dict[str, str]:
    names = {tale.cdk.stack_name(stack.id.partition(" (")[0]) for stack in tale.stage_stacks}
    pages = tale.cloud.client("cloudformation").get_paginator("describe_stacks").paginate()
    found: Sequence[dict[str, Any]] = [stack for page in pages for stack in page["Stacks"]]
    return {s["StackName"]: s["StackStatus"] for s in found if s["StackName"] in names}


def _served(tale: Tale, endpoint: dict[str, Any]) -> str:
    """The model package behind the endpoint's production variant."""
    sagemaker = tale.cloud.client("sagemaker")
    config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    model = sagemaker.describe_model(ModelName=config["ProductionVariants"][0]["ModelName"])
    container = model.get("PrimaryContainer") or model["Containers"][0]
    package: str = container["ModelPackageName"]
    return package


def _promotions(tale: Tale) -> int:
    """How often the approval parameter got another value; the same one written again is no promotion."""
    name = tale.outputs("Models")["ApprovedModelParameter"]
    pages = tale.cloud.client("ssm").get_paginator("get_parameter_history").paginate(Name=name)
    found = [version for page in pages for version in page["Parameters"]]
    values = [version["Value"] for version in sorted(found, key=lambda version: version["Version"])]
    return sum(one != other for one, other in pairwise(values))
