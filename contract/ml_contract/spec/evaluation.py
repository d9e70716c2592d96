"""The ``evaluation`` block: what a trained model is judged by, beside the metric of ``acceptance``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ml_contract.spec.blocks import ColumnName, Strict

__all__ = ["BIAS_AFTER", "BIAS_BEFORE", "Bias", "BiasMetric", "Champion", "Costs", "Evaluation", "Facet"]

#: Names as SageMaker Clarify has them (Developer Guide, "Pre-training Bias Metrics" and "Post-training Data
#: and Model Bias Metrics").
BiasMetric = Literal[
    "CI", "DPL", "KL", "JS", "LP", "TVD", "KS", "CDDL",
    "DPPL", "DI", "DCAcc", "DCR", "SD", "RD", "DAR", "DRR", "AD", "CDDPL", "TE", "FT", "GE",
]  # fmt: skip
BIAS_BEFORE: tuple[str, ...] = ("CI", "DPL", "KL", "JS", "LP", "TVD", "KS", "CDDL")
BIAS_AFTER: tuple[str, ...] = (
    "DPPL", "DI", "DCAcc", "DCR", "SD", "RD", "DAR", "DRR", "AD", "CDDPL", "TE", "FT", "GE",
)  # fmt: skip


class Facet(Strict):
    """Who may be at a disadvantage: rows with one of some values, or with a number above a threshold."""

    disadvantaged: tuple[str | bool | int, ...] | None = Field(default=None, min_length=1)
    above: float | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.disadvantaged is None) == (self.above is None):
            raise ValueError("give either disadvantaged: [values] or above: number")
        return self


class Bias(Strict):
    """Bias in the data and in the model, by Clarify's definitions."""

    facets: dict[ColumnName, Facet] = Field(min_length=1)
    favourable: tuple[str | bool | int, ...] | None = Field(
        default=None,
        min_length=1,
        description="Label values that are good for whom they are about; by default the positive class.",
    )
    favourable_above: float | None = Field(default=None, description="Regression: good above this number.")
    group: ColumnName | None = Field(
        default=None,
        description="Field whose strata CDDL and CDDPL are averaged over; without it they are not.",
    )
    limits: dict[BiasMetric, float] = Field(
        default_factory=dict,
        description="Largest distance of a metric from its fair value: 1 for DI, 0 for every other.",
    )
    beyond: Literal["refuse", "warn"] = Field(
        default="refuse", description="What a value beyond its limit does to the model."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wrong = sorted(name for name, limit in self.limits.items() if limit <= 0)
        if wrong:
            raise ValueError(f"limits must be above 0, got {self.limits[wrong[0]]:g} for {wrong[0]}")
        needless = sorted({"CDDL", "CDDPL"} & set(self.limits)) if self.group is None else []
        if needless:
            raise ValueError(f"{needless[0]} needs group, the field whose strata it is averaged over")
        return self


class Explain(Strict):
    """What the model goes by: Shapley values of held-out rows, and partial dependence."""

    shap_rows: int = Field(default=200, ge=1, le=5_000, description="Held-out rows that are explained.")
    partial_dependence: int = Field(
        default=5, ge=0, le=50, description="How many of the most important features get a curve."
    )


class Champion(Strict):
    """How a new model must do beside the approved one, by the metric of ``acceptance``."""

    margin: float = Field(
        default=0.0,
        description="The new model must be better by this much on the held-out rows; below 0: may be worse.",
    )
    forgetting: float | None = Field(
        default=0.05,
        ge=0,
        description="How much worse it may be on the approved model's own held-out rows; null: not compared.",
    )


class Costs(Strict):
    """What a wrong decision costs, in one currency: the decision threshold is where rows cost least."""

    false_positive: float = Field(gt=0)
    false_negative: float = Field(gt=0)


class Evaluation(Strict):
    """What a trained model is judged by, beside the metric of ``acceptance``."""

    confidence: float = Field(default=0.95, ge=0.5, le=0.999, description="Level of the intervals.")
    resamples: int = Field(default=1_000, ge=100, le=10_000, description="Bootstrap samples of each.")
    subgroups: tuple[ColumnName, ...] = Field(
        default=(), description="Categories, fields or features, whose rows are judged apart."
    )
    minimum_subgroup_rows: int = Field(default=30, ge=2, description="Fewer rows are counted, not judged.")
    bias: Bias | None = None
    explain: Explain | None = None
    champion: Champion | None = None
    costs: Costs | None = None
