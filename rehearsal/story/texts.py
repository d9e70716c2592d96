"""Texts of curated rows become sentiment and entities. Comprehend is a stand-in here: a list of words."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from rehearsal.story.lake import curated_table, open_table, read_curated
from rehearsal.story.telling import Evidence, Step, require, wait_until

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["STEPS", "enrich_texts", "enrich_texts_alone"]

_SECONDS = 240
#: Texts for a lake that nobody filled: plain, long enough to be cut, the same twice, blank, none.
_TEXTS = (
    "thanks, very fast",
    "late and broken by Jane Doe on 2026-11-20",
    "ä" * 4_000,
    "as agreed",
    " ",
    None,
)


def enrich_texts(tale: Tale, evidence: Evidence) -> None:
    """Run the state machine; every text of the curated snapshot then has one row, also after a second run."""
    wanted = _wanted(tale)
    runs = [_run(tale), _run(tale)]
    outputs = tale.outputs("Data")
    rows: list[dict[str, Any]] = (
        open_table(tale, outputs["CuratedDatabase"], outputs["TextsTable"]).scan().to_arrow().to_pylist()
    )
    landed = Counter((str(row["identifier"]), row["text_sha256"]) for row in rows)
    evidence |= {
        "runs": runs,
        "texts": len(wanted),
        "rows": len(rows),
        "cut": sum(row["truncated"] for row in rows),
        "errors": dict(Counter(row["error"] for row in rows if row["error"])),
        "sentiment": dict(Counter(row["sentiment"] for row in rows)),
        "emulated": "a list of words answered instead of Comprehend: the verdicts say nothing",
    }
    missing = set(wanted) - set(landed)
    require(bool(wanted), "there is no text in the curated table")
    require(not missing, f"{len(missing)} of {len(wanted)} texts have no row")
    twice = [key for key, count in landed.items() if count > 1]
    require(not twice, f"{len(twice)} texts have more than one row")
    answers = [entry for entry in tale.cloud.ledger() if entry["kind"] == "comprehend"]
    require(
        bool(answers) and all("EMULATED" in str(entry) for entry in answers),
        "the ledger does not say that Comprehend is emulated",
    )


def enrich_texts_alone(tale: Tale, evidence: Evidence) -> None:
    """The same in a lake without rows: some are put into the curated table first."""
    import pyarrow as pa

    table = curated_table(tale)
    contract, spec = tale.contract, tale.workload.batch.enrich
    require(spec is not None, "the workload has no batch.enrich")
    if table.current_snapshot() is None and spec is not None:
        rows = [
            {contract.identifier: f"PARCEL{n:02}", spec.field: _TEXTS[n % len(_TEXTS)]} for n in range(30)
        ]
        table.append(pa.Table.from_pylist(rows, schema=table.schema().as_arrow()))
    enrich_texts(tale, evidence)


def _wanted(tale: Tale) -> set[tuple[str, str]]:
    spec = tale.workload.batch.enrich
    require(spec is not None, "the workload has no batch.enrich")
    field = "" if spec is None else spec.field
    identifier = tale.contract.identifier
    return {
        (str(row[identifier]), hashlib.sha256(row[field].encode()).hexdigest())
        for row in read_curated(tale, (identifier, field)).to_pylist()
        if row[field] is not None and row[field].strip()
    }


def _run(tale: Tale) -> dict[str, Any]:
    machines = tale.cloud.client("stepfunctions")
    arn = tale.outputs("Data")["TextsStateMachineArn"]
    run = machines.start_execution(stateMachineArn=arn, input="{}")["executionArn"]

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = machines.describe_execution(executionArn=run)
        if found["status"] != "RUNNING":
            return found
        # It may wait for a run that the end of the batch run has started: it looks again every minute.
        listed = machines.list_executions(stateMachineArn=arn, statusFilter="RUNNING")["executions"]
        if [one["executionArn"] for one in listed] == [run]:
            tale.cloud.advance(minutes=1, seconds=5)
        return None

    end = wait_until(f"the end of {run}", ended, seconds=_SECONDS, every=1)
    require(end["status"] == "SUCCEEDED", f"{run}: {end['status']}: {end.get('cause') or end.get('error')}")
    return {"run": end["name"], "status": end["status"], "output": end.get("output")}


STEPS: tuple[Step, ...] = (
    Step(
        id="texts",
        title="Comprehend's stand-in reads the texts; each has one row, also after a second run",
        chapter="Process",
        run=enrich_texts,
        capabilities=lambda _workload: ("process.comprehend",),
        applies=lambda workload: workload.batch.enrich is not None,
    ),
)
