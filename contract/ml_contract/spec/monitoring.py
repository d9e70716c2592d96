"""The ``monitoring`` block: what is watched on live traffic."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ml_contract.spec.blocks import ColumnName, Strict


class DriftRule(Strict):
    """When the distribution of a field counts as drifted from its baseline."""

    distance: Literal["psi", "ks", "js"] = Field(
        default="psi", description="Population stability index, Kolmogorov-Smirnov, Jensen-Shannon (base 2)."
    )
    threshold: float = Field(default=0.25, gt=0)


class Monitoring(Strict):
    """What is watched on live traffic."""

    engine: Literal["processing", "model_monitor"] = Field(
        default="processing",
        description="model_monitor is closed to accounts that did not use it before 2026-07-30.",
    )
    every_hours: Literal[1, 2, 3, 4, 6, 8, 12, 24] = 1
    instance_type: str = "ml.m5.large"
    minimum_records: int = Field(
        default=100, ge=1, description="Fewer captured records are no evidence: alarm, not judged."
    )
    drift: DriftRule = DriftRule()
    fields: dict[ColumnName, DriftRule] = Field(default_factory=dict, description="Rules of single fields.")
    ignore: tuple[ColumnName, ...] = ()
    minimum_completeness: float = Field(default=0.95, ge=0, le=1)
    alarm_after_violations: int = Field(default=1, ge=1)
