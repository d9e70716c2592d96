"""Ground truth as SageMaker Model Monitor merges it: JSON lines in folders of the hour of collection.

"The date in this path is the date when the Ground Truth label is collected, and does not have to match the
date when the inference was generated" (SageMaker Developer Guide, "Ingest Ground Truth labels and merge them
with predictions"). Of several labels of one prediction the one that was collected last counts.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

__all__ = ["collected", "line", "write"]

#: Labels in one file.
LINES = 50_000


def line(inference_id: str, label: str) -> str:
    """One line: a label and the prediction that it belongs to."""
    # Encoding CSV is the only one that there is: a label with a comma is quoted.
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([label])
    return json.dumps(
        {
            "groundTruthData": {"data": text.getvalue(), "encoding": "CSV"},
            "eventMetadata": {"eventId": inference_id},
            "eventVersion": "0",
        }
    )


def collected(s3: Any, bucket: str, prefix: str, *, since: datetime, until: datetime) -> dict[str, str]:
    """Return the lines that were written from the hour of ``since`` to ``until``, by inference id."""
    found: dict[str, str] = {}
    for key in _keys(s3, bucket, prefix, since, until):
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()
        for text in body.splitlines():
            found[json.loads(text)["eventMetadata"]["eventId"]] = text
    return found


def _keys(s3: Any, bucket: str, prefix: str, since: datetime, until: datetime) -> Iterator[str]:
    first = f"{prefix}{since:%Y/%m/%d/%H}/"
    day = since.replace(hour=0, minute=0, second=0, microsecond=0)
    while day <= until:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}{day:%Y/%m/%d}/")
        for page in pages:
            # S3 lists keys in order: those of an hour by the minute that their names begin with.
            yield from (item["Key"] for item in page.get("Contents", ()) if item["Key"] >= first)
        day += timedelta(days=1)


def write(s3: Any, bucket: str, prefix: str, labels: Mapping[str, str], *, now: datetime) -> list[str]:
    """Write the labels of inference ids as of ``now``; return the keys.

    A file is named by the moment and its content: the same event again writes the same file.
    """
    keys = []
    lines = [f"{line(name, label)}\n" for name, label in sorted(labels.items())]
    for first in range(0, len(lines), LINES):
        body = "".join(lines[first : first + LINES]).encode()
        digest = hashlib.sha256(body).hexdigest()[:16]
        key = f"{prefix}{now:%Y/%m/%d/%H}/{now:%M-%S}-{digest}.jsonl"
        s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/jsonl")
        keys.append(key)
    return keys
