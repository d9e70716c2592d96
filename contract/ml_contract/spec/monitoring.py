"""The ``monitoring`` block: what is watched on live traffic."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ml_contract.spec.blocks import ColumnName, Strict
from ml_contract.spec.evaluation import BiasMetric
from ml_contract.spec.judging import LOSS_METRICS, Metric

__all__ = [
    "DISTANCES",
    "AttributionMonitoring",
    "BiasMonitoring",
    "DriftRule",
    "Monitoring",
    "QualityLimit",
    "QualityMonitoring",
]

Hours = Literal[1, 2, 3, 4, 6, 8, 12, 24]

#: Distances by the type of field that they measure. ``ks`` of a category is the largest difference of any
#: category's share (Model Monitor's ``LInfinity``).
DISTANCES: dict[str, tuple[str, ...]] = {
    "number": ("psi", "ks", "js", "wasserstein"),
    "category": ("psi", "ks", "js", "chi2"),
}


class DriftRule(Strict):
    """When the distribution of a field counts as drifted from its baseline."""

    distance: Literal["psi", "ks", "js", "chi2", "wasserstein"] = Field(
        default="psi",
        description="Population stability index, Kolmogorov-Smirnov, Jensen-Shannon (base 2); of categories "
        "chi2 (Cramér's V, 0 to 1); of numbers wasserstein (in standard deviations of the baseline).",
    )
    threshold: float = Field(default=0.25, gt=0)


class QualityLimit(Strict):
    """From where on a measure of the model is too bad."""

    minimum: float | None = None
    maximum: float | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.minimum is None) == (self.maximum is None):
            raise ValueError("give either minimum or maximum")
        return self


class QualityMonitoring(Strict):
    """Quality of the model's live predictions, by labels that arrive later."""

    delay_hours: int = Field(
        default=24, ge=0, le=720, description="Labels are expected so long after the prediction."
    )
    every_hours: Hours = 24
    limits: dict[Metric, QualityLimit] = Field(
        default_factory=dict, description="Of single measures; one without a limit is held to tolerance."
    )
    tolerance: float | None = Field(
        default=0.1,
        ge=0,
        description="Share by which the metric of acceptance may be worse than the package's own; null: any.",
    )
    minimum_labels: int = Field(
        default=50, ge=2, description="Fewer labelled predictions are no evidence: alarm, not judged."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, limit in self.limits.items():
            better = "lower" if name in LOSS_METRICS else "higher"
            if (limit.maximum is None) == (name in LOSS_METRICS):
                needed = "maximum" if better == "lower" else "minimum"
                raise ValueError(f"{name} is better when it is {better}: give {needed}")
        if self.tolerance is None and not self.limits:
            raise ValueError("nothing is judged: give limits or a tolerance")
        return self


class BiasMonitoring(Strict):
    """Bias of live predictions between the facets of ``evaluation.bias``, by Clarify's definitions."""

    every_hours: Hours = 24
    limits: dict[BiasMetric, float] = Field(
        default_factory=dict,
        description="Largest distance of a metric from its fair value: 1 for DI, 0 for every other.",
    )
    tolerance: float | None = Field(
        default=0.1,
        gt=0,
        description="How much further from its fair value than in the package a metric with a limit in "
        "evaluation.bias may be; null: any.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wrong = sorted(name for name, limit in self.limits.items() if limit <= 0)
        if wrong:
            raise ValueError(f"limits must be above 0, got {self.limits[wrong[0]]:g} for {wrong[0]}")
        if self.tolerance is None and not self.limits:
            raise ValueError("nothing is judged: give limits or a tolerance")
        return self


class AttributionMonitoring(Strict):
    """Whether the model still goes by what it went by when it was judged."""

    every_hours: Hours = 24
    rows: int = Field(default=200, ge=10, le=5_000, description="Live records that are explained.")
    ndcg: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="Normalised discounted cumulative gain of the live ranking of features: below it drifts.",
    )


class Monitoring(Strict):
    """What is watched on live traffic."""

    engine: Literal["processing", "model_monitor"] = Field(
        default="processing",
        description="model_monitor is closed to accounts that did not use it before 2026-07-30.",
    )
    every_hours: Hours = 1
    instance_type: str = "ml.m5.large"
    minimum_records: int = Field(
        default=100, ge=1, description="Fewer captured records are no evidence: alarm, not judged."
    )
    drift: DriftRule = DriftRule()
    fields: dict[ColumnName, DriftRule] = Field(default_factory=dict, description="Rules of single fields.")
    ignore: tuple[ColumnName, ...] = ()
    minimum_completeness: float = Field(default=0.95, ge=0, le=1)
    false_discovery_rate: float = Field(
        default=0.001,
        gt=0,
        le=0.2,
        description="Over all fields and segments of a run (Benjamini-Hochberg): a distance beyond its "
        "threshold counts only when it is no chance either.",
    )
    segments: tuple[ColumnName, ...] = Field(
        default=(), description="Categories, fields or features, whose records are judged apart as well."
    )
    alarm_after_violations: int = Field(default=1, ge=1)
    quality: QualityMonitoring | None = None
    bias: BiasMonitoring | None = None
    attribution: AttributionMonitoring | None = None
