"""Cells of killed functions: records on their way into the lake, labels, ground truth, a deployment's own."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from rehearsal.story.chaos.killing import (
    all_dead,
    calls_of,
    die_at,
    function_of,
    hand_over,
    handled,
    lives_through,
    rounds,
    see_again,
)
from rehearsal.story.chaos.loop import WORKLOAD, accounted, fresh, sent, unharmed
from rehearsal.story.ingestion import Batch, Sent, json_lines, read_raw, record_id, send
from rehearsal.story.lake import open_table, read_table
from rehearsal.story.operations.cells import Cell
from rehearsal.story.operations.trainings import now_of
from rehearsal.story.sources import written
from rehearsal.story.streaming import online
from rehearsal.story.telling import Evidence, require, wait_until

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS", "WORKLOAD"]

CHAPTER = "Functions killed after each call"
#: Records of a batch that do not fit.
UNFIT = 4
#: Records of a partner's file.
FILED = 10
#: Hours that the ground truth looks back: all that was ever sent.
HOURS = 24 * 30
#: Deaths of a message of the labels' queue: it is handed out five times.
LANDING_DEATHS = 4
_numbers = itertools.count(1)


def _mixed(tale: Tale) -> Batch:
    """Send fresh records, some that do not fit among them."""
    good = sent(tale)
    number = next(_numbers)
    unfit = [Sent(data=f"no record {number}.{n}".encode(), kind="not_json") for n in range(UNFIT)]
    bad = send(tale, unfit, {})
    return Batch(messages=[*good.messages, *bad.messages])


def _delivery(tale: Tale, evidence: Evidence) -> None:
    """Records go through a function that dies after it has put some of them aside."""
    function = function_of(tale, "Data", "IngestionTransform")
    calls = calls_of(tale, function, lambda: accounted(tale, _mixed(tale)))
    evidence["calls"] = dict(Counter(calls))
    with unharmed(tale, evidence):
        die_at(tale, function, list(dict.fromkeys(calls)))
        batch = _mixed(tale)
        account = accounted(tale, batch)
        evidence["under_it"] = {
            "sent": account.sent,
            "delivered": account.delivered,
            "quarantined": account.quarantined,
            "lost": account.lost,
            "twice": account.twice,
        }
        all_dead(tale, function)


def _consumer(tale: Tale, evidence: Evidence) -> None:
    """The function that writes features online dies after a record, and after a record that does not fit."""
    function = tale.outputs("Data")["StreamConsumerName"]
    uri = tale.outputs("Data")["ConsumerQuarantineUri"]

    def through(batch: Batch) -> None:
        tale.cloud.idle()
        accounted(tale, batch)

    calls = calls_of(tale, function, lambda: through(_mixed(tale)))
    evidence["calls"] = dict(Counter(calls))
    with unharmed(tale, evidence):
        die_at(tale, function, list(dict.fromkeys(calls)))
        batch = _mixed(tale)
        through(batch)
        all_dead(tale, function)
        online(tale, batch, evidence)
        aside = Counter(line["record_id"] for line in json_lines(tale, uri))
        unfit = [record_id(m.data) for m in batch.messages if m.kind == "not_json"]
        evidence["quarantined_by_the_consumer"] = sum(aside[identity] for identity in unfit)
        require(all(aside[identity] == 1 for identity in unfit), "a record is not in its quarantine, once")


def _ground_truth(tale: Tale, evidence: Evidence) -> None:
    """Labels become ground truth by a function that dies on the way."""
    function = tale.outputs("Operations")["GroundTruthFunctionName"]
    uri = tale.outputs("Operations")["GroundTruthUri"]

    def event() -> dict[str, Any]:
        return {"time": now_of(tale), "hours": HOURS}

    def lines_written() -> Counter[tuple[str, str]]:
        lines = json_lines(tale, f"{uri}/")
        return Counter((e["eventMetadata"]["eventId"], e["groundTruthData"]["data"]) for e in lines)

    def cleared() -> None:
        """Take away what was written, so that there is something to write."""
        for found in tale.cloud.objects.list(f"{uri}/"):
            bucket, _, key = found.removeprefix("s3://").partition("/")
            tale.cloud.client("s3").delete_object(Bucket=bucket, Key=key)

    cleared()
    calls = calls_of(tale, function, lambda: handled(tale, function, event()))
    untouched = lines_written()
    require(untouched, "there is no label to write")
    dealt = list(rounds(calls))
    evidence |= {"calls": dict(Counter(calls)), "died_after": dealt, "labels": len(untouched)}
    with unharmed(tale, evidence):
        for actions in dealt:
            cleared()
            lives_through(tale, function, actions, partial(hand_over, tale, function, event()))
            found = lines_written()
            lost, more = untouched - found, found - untouched
            require(not lost and not more, f"{len(lost)} labels are lost, {len(more)} are there twice or new")


def _labels(tale: Tale, evidence: Evidence) -> None:
    """Labels that people agreed on land in their table by a function that dies on the way."""
    function = function_of(tale, "Labels", "LabellingOwnLanding")
    outputs = tale.outputs("Labels")
    database, _, table = outputs["LabelTableName"].partition(".")
    tasks: list[str] = []

    def decided() -> None:
        tasks.append(f"chaos-{next(_numbers)}")
        decision = {
            "label": "Y",
            "labelled_at": now_of(tale),
            "labelled_by": ["ann", "bob"],
            "votes": 2,
            "agreement": 1.0,
            "resolution": "agreed",
        }
        item = {
            "task": tasks[-1],
            "identifier": f"none-{tasks[-1]}",
            "origin": "chaos",
            "decision": json.dumps(decision),
        }
        tale.cloud.client("dynamodb").put_item(
            TableName=outputs["ItemTableName"], Item={key: {"S": value} for key, value in item.items()}
        )
        tale.cloud.client("sqs").send_message(
            QueueUrl=outputs["LabelQueue"], MessageBody=json.dumps({"task": tasks[-1]})
        )

    def rows() -> Counter[str]:
        found = read_table(open_table(tale, database, table), ("task",))["task"].to_pylist()
        return Counter(task for task in found if task in tasks)

    def landed() -> None:
        decided()
        wait_until("the label in its table", lambda: rows()[tasks[-1]], seconds=60)

    calls = calls_of(tale, function, landed)
    dealt = list(rounds(calls, LANDING_DEATHS))
    evidence |= {"calls": dict(Counter(calls)), "died_after": dealt}
    with unharmed(tale, evidence):
        for actions in dealt:
            lives_through(tale, function, actions, decided, after_death=partial(see_again, tale))
        found = rows()
        evidence |= {"labels": len(tasks), "rows": sum(found.values())}
        wrong = {task: found[task] for task in tasks if found[task] != 1}
        require(not wrong, f"labels are not in their table, once: {wrong}")


def _landing(tale: Tale, evidence: Evidence) -> None:
    """A partner's files land by a function that dies on the way."""
    function = function_of(tale, "Sources", "LandingWorker")
    name, source = next((n, s) for n, s in tale.workload.sources.items() if s.kind == "drop")
    drop, uri = tale.outputs("Sources")["DropUri"], f"{tale.outputs('Sources')['BatchesUri']}audit/{name}/"
    identifier = tale.contract.identifier
    key = tale.contract.by_name[identifier].source
    dropped: list[str] = []

    def audits() -> list[dict[str, Any]]:
        found = tale.cloud.objects.list(uri, suffix=".json")
        return [tale.cloud.objects.read_json(one) for one in found]

    def dropped_now() -> None:
        records = [json.loads(message.data) for message in fresh(tale, FILED)]
        dropped.extend(str(record[key]) for record in records)
        body, folder = written(records, source), f"{drop}{name}/chaos-{next(_numbers)}/"
        file = f"claims.{source.format}"
        tale.cloud.objects.write(f"{folder}{file}", body)
        entry = {"name": file, "size": len(body), "sha256": sha256(body).hexdigest()}
        tale.cloud.objects.write(f"{folder}all.manifest.json", json.dumps({"files": [entry]}).encode())

    def landed() -> None:
        before = len(audits())
        dropped_now()

        def over() -> bool:
            # The state machine waits by the clock before it tries again.
            tale.cloud.advance(seconds=5)
            return len(audits()) > before

        wait_until("the landing of a batch", over, seconds=60)
        tale.cloud.idle()

    calls = calls_of(tale, function, landed)
    dealt = list(rounds(calls))
    evidence |= {"calls": dict(Counter(calls)), "died_after": dealt}
    with unharmed(tale, evidence):
        before = len(audits())
        for actions in dealt:
            die_at(tale, function, actions)
            landed()
            all_dead(tale, function)
        new = len(audits()) - before
        rows = Counter(str(value) for value in read_raw(tale, [identifier])[identifier].to_pylist())
        evidence |= {"batches": len(dealt), "audit_records": new, "records": len(dropped)}
        wrong = {one: rows[one] for one in dropped if rows[one] != 1}
        require(not wrong, f"{len(wrong)} records are not in the raw zone, once")
        require(new == len(dealt), f"{len(dealt)} batches have {new} audit records")


CELLS = (
    Cell(
        id="kill.delivery",
        title="The function of the delivery dies after it put records aside: each is once where it belongs",
        chapter=CHAPTER,
        run=_delivery,
        capabilities=("stream.firehose",),
    ),
    Cell(
        id="kill.consumer",
        title="The stream's consumer dies after a record and after a refused one: all online or aside, once",
        chapter=CHAPTER,
        run=_consumer,
        capabilities=("stream.consumer",),
    ),
    Cell(
        id="kill.truth",
        title="The function of the ground truth dies after each of its calls: every label is written, once",
        chapter=CHAPTER,
        run=_ground_truth,
        capabilities=(),
    ),
    Cell(
        id="kill.landing",
        title="The function that lands a partner's files dies after each of its calls: each record once",
        chapter=CHAPTER,
        run=_landing,
        capabilities=(),
    ),
    Cell(
        id="kill.labels",
        title="The function that lands labels dies after each of its calls: one row a label",
        chapter=CHAPTER,
        run=_labels,
        capabilities=(),
    ),
)
