"""What SageMaker reads from a training's log by the job's metric definitions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge

if TYPE_CHECKING:
    from rehearsal.services.engine import Service

__all__ = ["final_metrics", "publish"]

#: Namespace of algorithm metrics (SageMaker developer guide, "Monitor SageMaker AI with CloudWatch").
NAMESPACE = "/aws/sagemaker/TrainingJobs"


def _found(log: Path, definition: dict[str, str]) -> list[float]:
    """Every value that a definition's regex finds, in the log's order."""
    if not log.exists():
        return []
    values = []
    for found in re.findall(definition["Regex"], log.read_text(encoding="utf-8", errors="replace")):
        try:
            values.append(float(found if isinstance(found, str) else found[0]))
        except ValueError:
            continue
    return values


def final_metrics(
    log: Path, definitions: Sequence[dict[str, str]], timestamp: datetime
) -> list[dict[str, Any]]:
    """The last value that each metric definition's regex finds in a log."""
    return [
        {"MetricName": definition["Name"], "Value": values[-1], "Timestamp": timestamp}
        for definition in definitions
        if (values := _found(log, definition))
    ]


def publish(
    service: Service, job: str, log: Path, definitions: Sequence[dict[str, str]], timestamp: datetime
) -> None:
    """Put all values into CloudWatch, as SageMaker itself does: no permission of the job's role is needed."""
    for definition in definitions:
        values = _found(log, definition)
        if values:
            bridge.put_metric(
                account=service.account,
                region=service.region,
                namespace=NAMESPACE,
                name=definition["Name"],
                dimensions={"TrainingJobName": job},
                timestamp=timestamp.timestamp(),
                unit="None",
                values=values,
            )
