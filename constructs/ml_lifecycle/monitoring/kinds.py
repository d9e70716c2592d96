"""The four kinds of monitor: what each is called by CloudWatch, S3 and SageMaker."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ml_contract.spec.workload import Workload

__all__ = ["KINDS", "Engine", "Facts", "Kind", "cadence", "short_name"]

Engine = Literal["processing", "model_monitor"]
#: ``data``: what is asked; ``quality``: how good the answers were, once the labels are known; ``bias``: whom
#: the answers favour; ``attribution``: what the model goes by.
Kind = Literal["data", "quality", "bias", "attribution"]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is fixed about a kind.

    Args:
        managed: its ``MonitoringType`` (SageMaker API reference, MonitoringScheduleConfig).
        prefix: before the names of its metrics.
        folder: where its reports lie, below ``<artifacts>/<slug>/``.
        mark: before the names of its jobs, so that no job of one kind has the name of another's.
        minute: past the hour. Captured requests are written to S3 with some delay; and four jobs of a
            workload need not ask for their machines in the same second.
        labelled: whether it needs to know how things ended.
        runbook: page for who hears of its violations.
        violated: what the violations mean.
    """

    managed: Literal["DataQuality", "ModelQuality", "ModelBias", "ModelExplainability"]
    prefix: str
    folder: str
    mark: str
    minute: int
    labelled: bool
    runbook: str
    violated: str


KINDS: Mapping[Kind, Facts] = {
    "data": Facts(
        managed="DataQuality",
        prefix="",
        folder="monitoring",
        mark="",
        minute=20,
        labelled=False,
        runbook="drift",
        violated="Traffic of {endpoint} violates its baseline",
    ),
    "quality": Facts(
        managed="ModelQuality",
        prefix="Quality",
        folder="monitoring-quality",
        mark="quality-",
        minute=25,
        labelled=True,
        runbook="quality",
        violated="Answers of {endpoint} are worse than its limits or its baseline, by the labels that came",
    ),
    "bias": Facts(
        managed="ModelBias",
        prefix="Bias",
        folder="monitoring-bias",
        mark="bias-",
        minute=30,
        labelled=True,
        runbook="bias",
        violated="Answers of {endpoint} differ between groups more than its limits or its baseline let them",
    ),
    "attribution": Facts(
        managed="ModelExplainability",
        prefix="Attribution",
        folder="monitoring-attribution",
        mark="attribution-",
        minute=35,
        labelled=False,
        runbook="attribution",
        violated="The model behind {endpoint} goes by other features than when it was judged",
    ),
}


def cadence(spec: Workload, kind: Kind) -> int:
    """Hours between two runs of a kind, as the workload says.

    Raises:
        ValueError: the workload has not switched the kind on.
    """
    if kind == "data":
        return spec.monitoring.every_hours
    block = getattr(spec.monitoring, kind)
    if block is None:
        raise ValueError(f"workload {spec.name!r}: monitoring.{kind} must be given for its monitor, got null")
    hours: int = block.every_hours
    return hours


def short_name(name: str, most: int) -> str:
    """Return ``name`` if it fits, else what fits of it and a hash that keeps two of a kind apart."""
    if len(name) <= most:
        return name
    return f"{name[: most - 5].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:4]}"
