"""Bring back what was deleted or overwritten in the lake: objects by their versions, rows by their snapshots.

    tools/python tools/restore.py objects --bucket NAME --prefix claims-fraud/data/ --at 2026-11-21T14:00:00Z
    tools/python tools/restore.py rows --database dev_curated --table claims_fraud --at 2026-11-21T14:00:00Z
    tools/python tools/restore.py rows --database dev_curated --table claims_fraud --snapshot 1234567890

It acts with your credentials. Nothing is ever lost by it: an object is restored by a copy of its version on
top of the others, one that was not there at the moment gets a delete marker, and a table that goes back to a
snapshot keeps the later ones until they expire. ``--dry-run`` says what would be done.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "glue")]

if TYPE_CHECKING:
    from lake_files.iceberg import Place


class RestoreError(Exception):
    """It cannot be restored; the text says why."""


@dataclass(frozen=True)
class Change:
    """What is to be done to one object: its key, and the version to copy; ``None``: it was not there."""

    key: str
    version_id: str | None


@dataclass(frozen=True)
class Outcome:
    """How many objects were restored, removed because they were not there, and left as they are."""

    restored: int
    removed: int
    unchanged: int


@dataclass(frozen=True)
class _Entry:
    key: str
    version_id: str
    modified: datetime
    deleted: bool
    latest: bool


def plan(s3: Any, bucket: str, prefix: str, at: datetime) -> tuple[list[Change], int]:
    """What makes the objects below ``prefix`` what they were at ``at``; and how many are that already.

    S3 keeps times by the second: a change in the second of ``at`` counts as made before it, and what was
    written and deleted within one second as not deleted, for S3 does not say which came first.
    """
    changes: list[Change] = []
    unchanged = 0
    for key, entries in _by_key(_history(s3, bucket, prefix)):
        # S3 lists the versions of a key from the newest to the oldest (ListObjectVersions).
        then = next((entry for entry in entries if entry.modified <= at), None)
        now = next(entry for entry in entries if entry.latest)
        if then is None or then.deleted:
            changes += [] if now.deleted else [Change(key, None)]
        elif now.version_id != then.version_id:
            changes.append(Change(key, then.version_id))
        else:
            unchanged += 1
    return changes, unchanged


def _history(s3: Any, bucket: str, prefix: str) -> Iterator[_Entry]:
    pages = s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        for kind in ("Versions", "DeleteMarkers"):
            for item in page.get(kind, ()):
                yield _Entry(
                    item["Key"],
                    item["VersionId"],
                    item["LastModified"],
                    kind == "DeleteMarkers",
                    item["IsLatest"],
                )


def _by_key(history: Iterator[_Entry]) -> list[tuple[str, list[_Entry]]]:
    keys: dict[str, list[_Entry]] = {}
    for entry in history:
        keys.setdefault(entry.key, []).append(entry)
    # Versions and delete markers come apart; the one that is now is the newest of its second.
    return sorted(
        (key, sorted(entries, key=lambda one: (one.modified, one.latest), reverse=True))
        for key, entries in keys.items()
    )


def restore_objects(s3: Any, bucket: str, prefix: str, at: datetime, *, dry_run: bool = False) -> Outcome:
    """Make the objects below ``prefix`` what they were at ``at``.

    :raises RestoreError: the bucket keeps no versions
    """
    if s3.get_bucket_versioning(Bucket=bucket).get("Status") != "Enabled":
        raise RestoreError(f"bucket {bucket} keeps no versions: what was deleted there is gone")
    changes, unchanged = plan(s3, bucket, prefix, at)
    for change in [] if dry_run else changes:
        if change.version_id is None:
            s3.delete_object(Bucket=bucket, Key=change.key)
        else:
            # A managed copy: one request copies 5 GB at most (CopyObject), this one copies in parts.
            source = {"Bucket": bucket, "Key": change.key, "VersionId": change.version_id}
            s3.copy(source, bucket, change.key)
    removed = sum(1 for change in changes if change.version_id is None)
    return Outcome(len(changes) - removed, removed, unchanged)


def restore_rows(
    glue: Any, place: Place, *, snapshot_id: int | None, at: datetime | None, dry_run: bool = False
) -> dict[str, Any]:
    """Make an earlier snapshot of a table the current one.

    :raises lake_files.iceberg.TableError: there is no such table or snapshot
    """
    from lake_files import iceberg

    table = iceberg.open_table(iceberg.glue_catalog(glue), place)
    before = iceberg.current_snapshot(table)
    if snapshot_id is None:
        if at is None:
            raise RestoreError("say which snapshot, or which moment")
        snapshot_id = iceberg.snapshot_at(table, at).snapshot_id
    rows = {"before": iceberg.row_count(table), "after": iceberg.row_count(table, snapshot_id)}
    if not dry_run and snapshot_id != before.snapshot_id:
        iceberg.roll_back(table, snapshot_id)
    return {"table": str(place), "from": before.snapshot_id, "to": snapshot_id, "rows": rows}


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise argparse.ArgumentTypeError(f"the moment must have a time zone, {text}Z for UTC, got {text}")
    return found


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    objects = kinds.add_parser("objects", help="make a prefix of a bucket what it was")
    objects.add_argument("--bucket", required=True)
    objects.add_argument("--prefix", required=True, help="the objects whose keys begin with it")
    objects.add_argument("--at", required=True, type=_moment, help="a moment such as 2026-11-21T14:00:00Z")
    rows = kinds.add_parser("rows", help="make a table what it was")
    rows.add_argument("--database", required=True)
    rows.add_argument("--table", required=True)
    when = rows.add_mutually_exclusive_group(required=True)
    when.add_argument("--at", type=_moment, help="the snapshot that readers saw then")
    when.add_argument("--snapshot", type=int, help="this snapshot")
    for one in (objects, rows):
        one.add_argument("--dry-run", action="store_true", help="only say what would be done")
    given = parser.parse_args(argv)
    import boto3

    if given.kind == "objects":
        client = boto3.client("s3")
        try:
            outcome = restore_objects(client, given.bucket, given.prefix, given.at, dry_run=given.dry_run)
        except RestoreError as error:
            return _refused(error)
        print(json.dumps({**asdict(outcome), "dry_run": given.dry_run}))
        return 0
    # Only here: pyiceberg is slow to import.
    from lake_files.iceberg import Place, TableError

    place = Place(given.database, given.table)
    try:
        done = restore_rows(
            boto3.client("glue"), place, snapshot_id=given.snapshot, at=given.at, dry_run=given.dry_run
        )
    except (RestoreError, TableError) as error:
        return _refused(error)
    print(json.dumps({**done, "dry_run": given.dry_run}))
    return 0


def _refused(error: Exception) -> int:
    print(error, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
