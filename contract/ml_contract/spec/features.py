"""The ``features`` block: what the model sees."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ml_contract.spec.blocks import ColumnName, Strict
from ml_contract.spec.feature_store import FeatureStore
from ml_contract.spec.preparation import Encoding, Imputation, Outliers, QuantileBinFeature, Scale


class BinFeature(Strict):
    """Number to named interval. Intervals are closed on the left: ``edges[i] <= x < edges[i + 1]``."""

    kind: Literal["bin"]
    field: ColumnName
    edges: tuple[float, ...] = Field(min_length=2)
    labels: tuple[str, ...] = Field(min_length=1)
    below: str = "below"
    above: str = "above"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.edges) != sorted(set(self.edges)):
            raise ValueError(f"edges must rise, got {list(self.edges)}")
        if len(self.labels) != len(self.edges) - 1:
            raise ValueError(
                f"{len(self.edges)} edges make {len(self.edges) - 1} labels, got {len(self.labels)}"
            )
        return self


class DaysBetweenFeature(Strict):
    """Days from one date to another; negative when ``until`` is the earlier one."""

    kind: Literal["days_between"]
    since: ColumnName
    until: ColumnName


class RatioFeature(Strict):
    """``numerator / denominator``; no value where the denominator is 0 or missing."""

    kind: Literal["ratio"]
    numerator: ColumnName
    denominator: ColumnName


class DatePartFeature(Strict):
    """Part of a date as an integer: weekday is 1 (Monday) to 7 (Sunday)."""

    kind: Literal["date_part"]
    field: ColumnName
    part: Literal["year", "month", "day", "weekday", "hour"]


class PythonFeature(Strict):
    """An expression of that name in the workload's own ``features.py``."""

    kind: Literal["python"]
    type: Literal["number", "category"]


DerivedFeature = Annotated[
    BinFeature | QuantileBinFeature | DaysBetweenFeature | RatioFeature | DatePartFeature | PythonFeature,
    Field(discriminator="kind"),
]


class Exclusion(Strict):
    """A field that could be a feature and is not."""

    field: ColumnName
    reason: str = Field(min_length=3)


class Features(Strict):
    """What the model sees: every field unless excluded, sensitive, the label, a key or a date."""

    fields: Literal["all"] | tuple[ColumnName, ...] = "all"
    exclude: tuple[Exclusion, ...] = ()
    derive: dict[ColumnName, DerivedFeature] = Field(default_factory=dict)
    impute_numbers: Literal["median", "mean", "zero", "none"] = Field(
        default="none",
        description="none leaves gaps to the algorithm; the value is fitted on the training split.",
    )
    max_categories: int = Field(
        default=50,
        ge=2,
        le=1000,
        description="Most frequent categories kept per field; the rest share one column.",
    )
    minimum_category_count: int = Field(default=1, ge=1)
    store: FeatureStore = FeatureStore()
    impute: dict[ColumnName, Imputation] = Field(
        default_factory=dict, description="Gaps of single features, before they are encoded and scaled."
    )
    outliers: dict[ColumnName, Outliers] = Field(
        default_factory=dict, description="Limits of single number features, before gaps are filled."
    )
    encode: dict[ColumnName, Encoding] = Field(
        default_factory=dict, description="Categories that are not encoded one hot."
    )
    scale: Scale = Field(
        default="none",
        description="All number columns, and categories encoded as one; trees need none.",
    )
    scale_fields: dict[ColumnName, Scale] = Field(
        default_factory=dict, description="Scales of single features."
    )
