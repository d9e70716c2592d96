"""Chapter: people label what the model is not sure of; what they agree on lands in the lake."""

from __future__ import annotations

import json
import time
from typing import Any

from rehearsal.story.labellers import Labeller, Site, invite
from rehearsal.story.lake import open_table, read_table
from rehearsal.story.tale import Tale
from rehearsal.story.telling import Evidence, Step, require, wait_until

__all__ = ["STEPS"]

CHAPTER = "Label"
#: Items that are labelled here; the others keep waiting, as they do where people have other work too.
ITEMS = 6
#: People of the user pool, with the share of items that they get wrong.
PEOPLE = {"ada": 0.05, "ben": 0.1, "cem": 0.1, "dee": 0.05}
ADJUDICATOR = "dee"
SECONDS = 180


def _own(workload: Any) -> bool:
    return workload.labelling is not None and workload.labelling.engine == "own"


def _items(tale: Tale) -> list[dict[str, Any]]:
    """Every item, as the table holds it."""
    from boto3.dynamodb.types import TypeDeserializer

    read = TypeDeserializer().deserialize
    pages = tale.cloud.client("dynamodb").get_paginator("scan")
    found = pages.paginate(TableName=tale.outputs("Labels")["ItemTableName"], ConsistentRead=True)
    return [{k: read(v) for k, v in item.items()} for page in found for item in page["Items"]]


def _source(tale: Tale, name: str) -> str:
    return next(c.source for c in tale.contract.columns if c.name == name)


def _confidence(tale: Tale, score: float) -> float:
    """How sure the model is, told anew from the contract: not the router's own function."""
    threshold = tale.contract.decision_threshold
    side = 1 - threshold if score >= threshold else threshold
    return abs(score - threshold) / side


def _route(tale: Tale, evidence: Evidence) -> None:
    rules = tale.workload.labelling
    require(rules is not None, "the workload has no labelling block")
    limit = rules.review_below_confidence  # type: ignore[union-attr]
    key = _source(tale, tale.contract.identifier)
    asked = tale.inputs.live
    scores = {str(asked[a.index][key]): a.score for a in tale.known["usual answers"] if a.score is not None}
    unsure: set[str] = set()
    if tale.contract.label.task == "binary":
        # Within rounding of the limit either is right.
        unsure = {i for i, score in scores.items() if _confidence(tale, score) < limit - 1e-9}
        require(unsure, f"of {len(scores)} predictions none is less sure than {limit:g}; nothing to label")

    def routed() -> list[dict[str, Any]]:
        found = _items(tale)
        there = {item["identifier"] for item in found}
        return found if unsure <= there and any(item.get("token") for item in found) else []

    items = wait_until("an item for each unsure prediction", routed, seconds=SECONDS, every=0.5)
    origins: dict[str, int] = {}
    for item in items:
        origins[item["origin"]] = origins.get(item["origin"], 0) + 1
    wrong = [
        item["task"]
        for item in items
        if item["origin"] == "low_confidence" and not float(item["confidence"]) < limit
    ]
    require(not wrong, f"items of predictions that are sure enough: {wrong[:3]}")
    lost = [item["task"] for item in items if not item.get("inference_id")]
    require(not lost, f"items that do not know their inference: {lost[:3]}")
    evidence |= {
        "predictions": len(scores),
        "less_sure_than": limit,
        "unsure": len(unsure),
        "items": len(items),
        "by_origin": origins,
        "shown_fields": len(json.loads(items[0]["shown"])),
    }


def _label(tale: Tale, evidence: Evidence) -> None:
    outputs = tale.outputs("Labels")
    cognito = tale.cloud.client("cognito-idp")
    for name in PEOPLE:
        groups = ["labellers", "adjudicators"] if name == ADJUDICATOR else ["labellers"]
        invite(cognito, outputs["UserPoolId"], name, *groups)
    site = Site(
        endpoint=tale.cloud.server.endpoint,
        api=outputs["ReviewApiId"],
        url=outputs["ReviewUrl"],
        client_id=outputs["UserPoolClientId"],
    )
    status = site.status_without_sign_in()
    require(status == 401, f"without a sign-in the API must answer 401, got {status}")
    people = [Labeller(site, name, seed=tale.seed, mistakes=share) for name, share in PEOPLE.items()]
    truths = _truths(tale)
    values = tale.contract.label.values or ()
    said: dict[str, dict[str, str]] = {}
    deadline = time.monotonic() + SECONDS
    decided: list[dict[str, Any]] = []
    contradicted = False
    while len(decided) < ITEMS or not any(_disputed(item) for item in decided):
        require(
            time.monotonic() < deadline,
            f"in {SECONDS} s {len(decided)} items were decided, none of them after a disagreement"
            if len(decided) >= ITEMS
            else f"{len(decided)} of {ITEMS} items were decided in {SECONDS} s",
        )
        before = sum(map(len, said.values()))
        for person in people:
            # The oldest first: all are at the same few items, until these are decided.
            item = person.next()
            if item is None:
                continue
            truth = truths.get(item["task"])
            if truth is None:
                # Of other traffic than the labelled records: these people know nothing of it.
                person.skip(item["task"])
                continue
            says = person.says(truth, values)
            before_me = list(said.get(item["task"], {}).values())
            if person is people[1] and before_me and not contradicted:
                # One of them contradicts once for certain: some disagreement must be there to settle.
                says = next(value for value in values if value != before_me[0])
            status, answer = person.label(item["task"], says)
            if status == 409:
                continue
            require(status == 200 and not answer["again"], f"{person.name}: {status} {answer}")
            contradicted = contradicted or bool(before_me and says != before_me[0])
            said.setdefault(item["task"], {})[person.name] = says
            if before == 0 and person is people[0]:
                evidence["submitted_twice"] = _submit_twice(person, item["task"], says, values)
        decided = [item for item in _items(tale) if item.get("decision") and item["task"] in said]
        if sum(map(len, said.values())) == before:
            time.sleep(0.2)
    counted = {item["task"]: {v["by"]: v["label"] for v in item["votes"]} for item in _items(tale)}
    different = [task for task, votes in said.items() if counted[task] != votes]
    require(not different, f"votes that were counted differently from what was said: {different[:3]}")
    outcomes = [json.loads(item["decision"]) for item in decided]
    disputed = [item for item in decided if _disputed(item)]
    tale.known["decided items"] = {item["task"]: item for item in decided}
    tale.known["votes"] = said
    right = sum(1 for item, o in zip(decided, outcomes, strict=True) if o["label"] == truths[item["task"]])
    evidence |= {
        "people": len(people),
        "votes": sum(map(len, said.values())),
        "items_decided": len(decided),
        "by_all_who_were_asked": len(outcomes) - len(disputed),
        "after_a_disagreement": len(disputed),
        "by_an_adjudicator": sum(1 for o in outcomes if o["resolution"] == "adjudicator"),
        "as_the_truth": f"{right} of {len(decided)}",
    }


def _disputed(item: dict[str, Any]) -> bool:
    agreement: float = json.loads(item["decision"])["agreement"]
    return agreement < 1


def _truths(tale: Tale) -> dict[str, str]:
    """The true label of each item; synthetic labellers know it, the model never saw it."""
    contract = tale.contract
    key, label = _source(tale, contract.identifier), _source(tale, contract.label.field)
    truth = {str(r[key]): r.get(label) for r in tale.inputs.live}
    texts = {True: "true", False: "false"}
    return {
        item["task"]: texts[t] if isinstance(t, bool) else str(t)
        for item in _items(tale)
        if (t := truth.get(item["identifier"])) is not None
    }


def _submit_twice(person: Labeller, task: str, said: str, values: tuple[str, ...]) -> dict[str, Any]:
    status, answer = person.label(task, said)
    require(status == 200 and answer["again"], f"the same label again must change nothing: {status} {answer}")
    other = next(value for value in values if value != said)
    changed, answer = person.label(task, other)
    require(changed == 409, f"another label of the same person must be refused, got {changed} {answer}")
    return {"the_same": status, "another": changed, "counted_once": True}


def _land(tale: Tale, evidence: Evidence) -> None:
    outputs = tale.outputs("Labels")
    database, _, name = outputs["LabelTableName"].partition(".")
    decided: dict[str, dict[str, Any]] = tale.known["decided items"]

    def rows() -> list[dict[str, Any]]:
        table = open_table(tale, database, name)
        if table.current_snapshot() is None:
            return []
        evidence["snapshots"] = len(table.snapshots())
        found: list[dict[str, Any]] = read_table(table).to_pylist()
        return found

    def landed() -> list[dict[str, Any]]:
        found = rows()
        return found if decided.keys() <= {row["task"] for row in found} else []

    found = wait_until("a row for each decided item", landed, seconds=SECONDS, every=0.5)
    by_task = {row["task"]: row for row in found}
    require(len(by_task) == len(found), f"{len(found) - len(by_task)} labels landed twice")
    for task, item in decided.items():
        row, decision = by_task[task], json.loads(item["decision"])
        for key in ("label", "labelled_by", "votes", "agreement", "resolution"):
            require(row[key] == decision[key], f"{task}: {key} is {row[key]}, decided was {decision[key]}")
        votes: dict[str, str] = tale.known["votes"].get(task, {})
        agreeing = sorted(who for who, says in votes.items() if says == row["label"])
        require(sorted(row["labelled_by"]) == agreeing, f"{task}: labelled by {row['labelled_by']}")
    closed = wait_until(
        "the end of the items' executions",
        lambda: all(i["state"] == "labelled" for i in _items(tale) if i["task"] in decided),
        seconds=SECONDS,
    )
    # The queue delivers at least once: a message for the same item again; nobody waits for it any more.
    sqs = tale.cloud.client("sqs")
    again = json.dumps({"task": found[0]["task"]})
    sqs.send_message(QueueUrl=outputs["LabelQueue"], MessageBody=again)

    def empty() -> bool:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        counts = sqs.get_queue_attributes(QueueUrl=outputs["LabelQueue"], AttributeNames=names)
        return all(int(count) == 0 for count in counts["Attributes"].values())

    wait_until("the landing of a message that came twice", empty, seconds=SECONDS)
    after = [row["task"] for row in rows()]
    require(after.count(found[0]["task"]) == 1, "a message that came twice made two rows")
    evidence |= {
        "table": outputs["LabelTableName"],
        "rows": len(after),
        "closed": bool(closed),
        "rows_of_a_message_that_came_twice": 1,
        "a_row": {
            **{k: found[0][k] for k in ("label", "votes", "agreement", "resolution", "origin")},
            "labelled_at": found[0]["labelled_at"].isoformat(),
            "labelled_by": len(found[0]["labelled_by"]),
        },
    }


STEPS: tuple[Step, ...] = (
    Step(
        id="label-route",
        title="Predictions that the model is not sure of wait for people",
        chapter=CHAPTER,
        run=_route,
        capabilities=lambda _: ("label.review",),
        applies=_own,
    ),
    Step(
        id="label",
        title="People sign in and label; more of them settle a disagreement, a label counts once",
        chapter=CHAPTER,
        run=_label,
        capabilities=lambda _: ("label.own", "label.review"),
        applies=_own,
    ),
    Step(
        id="label-land",
        title="What they agree on lands once, with who and when and how far they agreed",
        chapter=CHAPTER,
        run=_land,
        capabilities=lambda _: ("label.own",),
        applies=_own,
    ),
)
