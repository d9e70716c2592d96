"""Model Monitor's own job before a model quality or bias job: labels are merged with what was captured.

A line of the result is the captured line with the ``groundTruthData`` of its prediction, known by
``inferenceId`` or else ``eventId``. Predictions without a label are left out, as are labels without one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from rehearsal.executors import transfer

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["merge", "merged_lines"]


def merged_lines(captured: Sequence[str], truth: Sequence[str]) -> list[str]:
    """Merge lines of capture files with lines of ground-truth files; of several labels the last counts."""
    labels: dict[str, Any] = {}
    for text in truth:
        line = json.loads(text)
        labels[line["eventMetadata"]["eventId"]] = line["groundTruthData"]
    merged = []
    for text in captured:
        line = json.loads(text)
        metadata = line["eventMetadata"]
        label = labels.get(metadata.get("inferenceId", metadata["eventId"]))
        if label is not None:
            merged.append(json.dumps({**line, "groundTruthData": label}))
    return merged


def merge(
    runtime: Runtime,
    *,
    files: Sequence[tuple[str, str]],
    truth_uri: str,
    collected: tuple[datetime, datetime],
    target_uri: str,
    role: str,
    region: str,
) -> list[str]:
    """Merge capture files with the labels collected in a span of hours, as the monitor's role.

    Args:
        files: URI of a capture file and where it stands below the target.
        truth_uri: folder of the ground truth's hours.
        collected: first and last moment of collection.
        target_uri: where the result goes.

    Returns:
        URIs of the merged files; those without a line are not written.

    Raises:
        TransferError: the role may not read or write them.
    """
    first, last = (moment.replace(minute=0, second=0, microsecond=0) for moment in collected)
    truth: list[str] = []
    hour = first
    while hour <= last:
        folder = f"{truth_uri.rstrip('/')}/{hour:%Y/%m/%d/%H}/"
        for uri in transfer.listed(runtime, folder, role=role, region=region):
            truth += transfer.fetch(runtime, uri, role=role, region=region).decode().splitlines()
        hour += timedelta(hours=1)
    written = []
    client = runtime.client("s3", role=role, region=region)
    for uri, place in files:
        captured = transfer.fetch(runtime, uri, role=role, region=region).decode().splitlines()
        lines = merged_lines([text for text in captured if text.strip()], truth)
        if not lines:
            continue
        target = f"{target_uri.rstrip('/')}/{place}"
        bucket, key = transfer.split_uri(target)
        client.put_object(Bucket=bucket, Key=key, Body="".join(f"{line}\n" for line in lines).encode())
        written.append(target)
    return written
