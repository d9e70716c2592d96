"""What earlier runs found: each report carries the history on, so the newest one is enough."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import boto3

from ml_monitoring.evidence import bucket_and_key
from ml_monitoring.outcome import Finding

__all__ = ["REMEMBERED", "entry", "read_history", "since"]

#: Runs that a report remembers.
REMEMBERED: Final = 90


def read_history(uri: str | None) -> list[dict[str, Any]]:
    """Return what the newest report below a place remembers, the oldest run first."""
    if uri is None:
        return []
    s3 = boto3.client("s3")
    bucket, key = bucket_and_key(uri)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{key.rstrip('/')}/")
    reports = [
        item for page in pages for item in page.get("Contents", ()) if item["Key"].endswith("/report.json")
    ]
    if not reports:
        return []
    newest = max(reports, key=lambda item: item["LastModified"])
    report = json.loads(s3.get_object(Bucket=bucket, Key=newest["Key"])["Body"].read())
    # Reports of releases that remembered nothing have no history.
    found: list[dict[str, Any]] = report.get("history", [])
    return found


def entry(
    window: Mapping[str, str | None], findings: Sequence[Finding], violations: int | None
) -> dict[str, Any]:
    """One run as later reports remember it; ``violations`` is None when nothing was judged."""
    return {
        "start": window["start"],
        "end": window["end"],
        "violations": violations,
        "values": {one.key: one.value for one in findings if one.value is not None},
        "beyond": sorted({one.key for one in findings if one.beyond}),
    }


def since(history: Sequence[Mapping[str, Any]], key: str) -> str | None:
    """Return when the unbroken row of judged runs began in which ``key`` was beyond its limit.

    A run without a verdict breaks no row.
    """
    start: str | None = None
    for run in reversed(history):
        if run["violations"] is None:
            continue
        if key not in run["beyond"]:
            break
        start = run["start"]
    return start
