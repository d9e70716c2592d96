"""Rows that break a rule whose severity is ``quarantine``: where they lie and how they look.

One JSON object per line, as the record transform writes refused records, with the typed row instead of the
raw bytes: the raw zone still holds them under the same ``record_id``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from lake_files.objects import S3Uri, delete_objects, list_objects, write_text

#: Lines of one object.
LINES = 100_000


def line(
    record_id: str | None, received_at: str | None, broken: Iterable[str], row: Mapping[str, Any]
) -> str:
    """One quarantined row."""
    reasons = [
        {
            "code": "quality",
            "field": _field(rule),
            "value": None if row.get(_field(rule)) is None else str(row[_field(rule)]),
            "allowed": None,
            "message": rule,
        }
        for rule in broken
    ]
    return json.dumps(
        {"received_at": received_at, "record_id": record_id, "reasons": reasons, "row": dict(row)},
        default=str,
        sort_keys=True,
    )


def moment(value: datetime) -> str:
    """An arrival as the record transform writes it: UTC, milliseconds."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03}Z"


def write(s3: Any, uri: str, run_id: str, lines: Iterable[str]) -> int:
    """Replace what lies below ``uri`` by this run's rows; returns their number.

    Every run judges the whole raw table, so an earlier run's rows are among these or are good by now. The
    bucket is versioned: what is replaced stays recoverable.
    """
    before = [item.key for item in list_objects(s3, uri)]
    count, part = 0, []
    for text in lines:
        part.append(text)
        count += 1
        if len(part) == LINES:
            _put(s3, uri, run_id, count, part)
            part = []
    if part:
        _put(s3, uri, run_id, count, part)
    delete_objects(s3, S3Uri.parse(uri).bucket, before)
    return count


def _put(s3: Any, uri: str, run_id: str, last: int, lines: list[str]) -> None:
    text = "\n".join(lines) + "\n"
    write_text(s3, f"{uri}run={run_id}/{last:09}.jsonl", text, "application/x-ndjson")


def _field(rule: str) -> str:
    """The column that a row rule names."""
    return rule.split('"', 2)[1]
