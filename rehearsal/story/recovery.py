"""Chapter: what is deleted or overwritten comes back, and what is kept too long goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rehearsal.story.lake import curated_table, read_table
from rehearsal.story.tale import Tale
from rehearsal.story.telling import Evidence, Step, require

__all__ = ["RECOVERY", "UPKEEP"]

CHAPTER = "Govern"
UPKEEP_CHAPTER = "Keep in order"
#: Rows that somebody deletes by mistake.
LOST = 25
#: S3 keeps times by the second.
A_SECOND = 1.1
TOOL = Path("tools") / "restore.py"


def _restore(tale: Tale, *arguments: str) -> dict[str, Any]:
    """Run the repository's tool as an operator does; returns what it says that it did."""
    script = tale.app / TOOL
    require(script.exists(), f"the app has no {TOOL}, which brings deleted data back")
    environment = {**os.environ, **tale.cloud.server.environment()}
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    require(done.returncode == 0, f"{TOOL} {' '.join(arguments)}: {done.stderr.strip()[-600:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _rows(table: Any, identifier: str, snapshot_id: int | None = None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(table, snapshot_id=snapshot_id).to_pylist()
    return sorted(rows, key=lambda row: str(row[identifier]))


def _recover(tale: Tale, evidence: Evidence) -> None:
    _recover_rows(tale, evidence)
    _recover_objects(tale, evidence)


def _recover_rows(tale: Tale, evidence: Evidence) -> None:
    """Delete rows, read them at the snapshot before, and make that snapshot the current one again."""
    from pyiceberg.expressions import In

    identifier = tale.contract.identifier
    table = curated_table(tale)
    before = _rows(table, identifier)
    snapshot = table.current_snapshot()
    require(snapshot is not None, "the curated table has no snapshot")
    good = 0 if snapshot is None else snapshot.snapshot_id
    lost = [row[identifier] for row in before[: min(LOST, len(before) - 1)]]
    chosen: Any = In
    table.delete(chosen(identifier, lost))
    left = _rows(curated_table(tale), identifier)
    require(len(left) == len(before) - len(lost), f"{len(before) - len(left)} rows went, not {len(lost)}")
    then = _rows(curated_table(tale), identifier, good)
    require(then == before, "the snapshot before the deletion does not show what it showed")
    where = ("--database", table.name()[0], "--table", table.name()[1])
    done = _restore(tale, "rows", *where, "--snapshot", str(good))
    after = _rows(curated_table(tale), identifier)
    require(after == before, f"after the restore {len(after)} rows differ from the {len(before)} before")
    evidence |= {
        "rows_deleted": len(lost),
        "rows_read_at_the_snapshot_before": len(then),
        "rows_restored": done["rows"]["after"] - done["rows"]["before"],
        "snapshot": str(good),
    }


def _recover_objects(tale: Tale, evidence: Evidence) -> None:
    """Delete and overwrite objects behind everybody's back; make the folder what it was."""
    identifier = tale.contract.identifier
    table = curated_table(tale)
    before = _rows(table, identifier)
    victim = sorted(task.file.file_path for task in table.scan().plan_files())[0]
    features = tale.outputs("Data")["FeaturesDataUri"]
    note = f"{features}_snapshot.json"
    content = tale.cloud.objects.read(note)
    time.sleep(A_SECOND)
    moment = datetime.now(UTC)
    time.sleep(A_SECOND)
    bucket, _, key = victim.removeprefix("s3://").partition("/")
    tale.cloud.client("s3").delete_object(Bucket=bucket, Key=key)
    tale.cloud.objects.write(note, b"overwritten by mistake")
    try:
        _rows(curated_table(tale), identifier)
    except FileNotFoundError:
        evidence["reading_without_the_file"] = "fails"
    require("reading_without_the_file" in evidence, "a data file is gone and nobody noticed")
    restored = 0
    for uri in (victim, note):
        where, _, prefix = uri.removeprefix("s3://").partition("/")
        done = _restore(tale, "objects", "--bucket", where, "--prefix", prefix, "--at", moment.isoformat())
        restored += done["restored"]
    require(restored == 2, f"{restored} objects were restored, two were lost")
    require(_rows(curated_table(tale), identifier) == before, "the rows are not what they were")
    require(tale.cloud.objects.read(note) == content, f"{note} is not what it was")
    evidence |= {"objects_deleted": 1, "objects_overwritten": 1, "objects_restored": restored}


def _optimizers(tale: Tale) -> dict[str, dict[str, Any]]:
    """The curated table's optimizers by their kind."""
    outputs = tale.outputs("Data")
    glue = tale.cloud.client("glue")
    found = {}
    for kind in ("retention", "orphan_file_deletion", "compaction"):
        try:
            answer = glue.get_table_optimizer(
                CatalogId=tale.cloud.server.account,
                DatabaseName=outputs["CuratedDatabase"],
                TableName=outputs["CuratedTable"],
                Type=kind,
            )
        except glue.exceptions.EntityNotFoundException:
            continue
        found[kind] = answer["TableOptimizer"]
    return found


def _maintain(tale: Tale, evidence: Evidence) -> None:
    identifier = tale.contract.identifier
    table = curated_table(tale)
    before, snapshots = _rows(table, identifier), [one.snapshot_id for one in table.snapshots()]
    optimizers = _optimizers(tale)
    evidence |= {"optimizers": sorted(optimizers), "snapshots_before": len(snapshots)}
    if not optimizers:
        evidence["why"] = "the environment keeps no table in order (tables)"
        return
    settings = [_days(kind, found) for kind, found in optimizers.items()]
    # What a job that died before its commit leaves: a file that no snapshot names.
    orphan = f"{tale.outputs('Data')['CuratedDataUri']}data/died-before-its-commit/part-0.parquet"
    tale.cloud.objects.write(orphan, b"PAR1 nobody committed this PAR1")
    # A look to see them, and as many days as they may stay.
    tale.cloud.pass_over(hours=24 * (max(settings) + 2))
    tale.cloud.idle()
    runs = {kind: found.get("lastRun", {}) for kind, found in _optimizers(tale).items()}
    failed = {
        kind: run.get("error", run) for kind, run in runs.items() if run.get("eventType") != "completed"
    }
    require(not failed, f"optimizers did not complete: {failed}")
    after = curated_table(tale)
    kept = [one.snapshot_id for one in after.snapshots()]
    evidence |= {"snapshots_after": len(kept), "expired": len(set(snapshots) - set(kept))}
    require(_rows(after, identifier) == before, "upkeep changed rows")
    require(not tale.cloud.objects.list(orphan), "the file that no snapshot names is still there")
    least = _kept(optimizers["retention"])
    require(
        len(kept) <= max(least, 1), f"{len(kept)} snapshots are kept; {least} may be, the others are too old"
    )
    for one in kept:
        read_table(after, [identifier], one)
    evidence["every_kept_snapshot_can_be_read"] = True


def _settings(optimizer: dict[str, Any]) -> dict[str, Any]:
    for value in optimizer["configuration"].values():
        if isinstance(value, dict) and "icebergConfiguration" in value:
            found: dict[str, Any] = value["icebergConfiguration"]
            return found
    return {}


def _days(kind: str, optimizer: dict[str, Any]) -> int:
    names = {
        "retention": "snapshotRetentionPeriodInDays",
        "orphan_file_deletion": "orphanFileRetentionPeriodInDays",
    }
    return int(_settings(optimizer).get(names.get(kind, ""), 0))


def _kept(optimizer: dict[str, Any]) -> int:
    return int(_settings(optimizer).get("numberOfSnapshotsToRetain", 1))


RECOVERY = (
    Step(
        id="recover",
        title="Deleted rows and objects come back as they were",
        chapter=CHAPTER,
        run=_recover,
        capabilities=lambda _: ("data.repository", "data.versions"),
    ),
)
#: Told last: days pass in it.
UPKEEP = (
    Step(
        id="maintain",
        title="Old snapshots and orphans go, rows stay",
        chapter=UPKEEP_CHAPTER,
        run=_maintain,
        capabilities=lambda _: ("data.lifecycle",),
    ),
)
