"""Blocks that say what is fitted on the training split: gaps, outliers, encodings, scales, balance."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ml_contract.spec.blocks import ColumnName, Strict

__all__ = [
    "Balance",
    "Encoding",
    "Imputation",
    "Outliers",
    "QuantileBinFeature",
    "Scale",
]

Scale = Literal["none", "standard", "min_max", "robust"]
Balance = Literal["none", "class_weight", "oversample", "smote"]
Reason = Annotated[str, Field(min_length=3)]


class Imputation(Strict):
    """What stands for a value that is missing, and why."""

    kind: Literal["median", "mean", "zero", "most_frequent", "constant", "none"] = Field(
        description="median, mean and zero are for numbers, most_frequent and constant for categories too."
    )
    value: str | float | None = Field(default=None, description="The constant.")
    indicator: bool = Field(
        default=False, description="One more column, 1 where the value was missing and 0 elsewhere."
    )
    reason: Reason

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "constant" and self.value is None:
            raise ValueError("kind constant needs a value")
        if self.kind != "constant" and self.value is not None:
            raise ValueError(f"value goes with kind constant, not with {self.kind}")
        if self.value == "":
            raise ValueError("the empty text always means 'no value'; name another constant")
        return self


class Outliers(Strict):
    """What happens to numbers beyond limits: fixed ones, or quantiles of the training split."""

    kind: Literal["clip", "missing"] = Field(
        description="clip puts them on the limit, missing treats them as no value."
    )
    lower: float | None = None
    upper: float | None = None
    lower_quantile: float | None = Field(default=None, gt=0, lt=1)
    upper_quantile: float | None = Field(default=None, gt=0, lt=1)
    reason: Reason

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        given = [n for n in ("lower", "upper", "lower_quantile", "upper_quantile") if _given(self, n)]
        if not given:
            problems.append("no limit is given; give lower, upper, lower_quantile or upper_quantile")
        for side in ("lower", "upper"):
            if side in given and f"{side}_quantile" in given:
                problems.append(f"{side} and {side}_quantile are two limits of one side; keep one")
        if self.lower is not None and self.upper is not None and self.lower >= self.upper:
            problems.append(f"lower {self.lower:g} is not below upper {self.upper:g}")
        low, high = self.lower_quantile, self.upper_quantile
        if low is not None and high is not None and low >= high:
            problems.append(f"lower_quantile {low:g} is not below upper_quantile {high:g}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _given(block: Outliers, name: str) -> bool:
    return getattr(block, name) is not None


class OneHotEncoding(Strict):
    """One column per frequent value and one for every other; the default."""

    kind: Literal["one_hot"]
    max_categories: int | None = Field(
        default=None, ge=2, le=1000, description="Of this field; the default is features.max_categories."
    )


class OrdinalEncoding(Strict):
    """One column: the position of the value in a given order. A value that is not in it is missing."""

    kind: Literal["ordinal"]
    order: tuple[str, ...] = Field(min_length=2, description="From the least to the most.")


class FrequencyEncoding(Strict):
    """One column: the value's share of the training split; 0 for a value that was not seen there."""

    kind: Literal["frequency"]
    max_categories: int = Field(default=10_000, ge=2, le=100_000)


class TargetEncoding(Strict):
    """One column (of a multiclass label: one per class): the label's mean among rows with the value.

    A training row gets the mean of the other folds, so it never sees its own label.
    """

    kind: Literal["target"]
    smoothing: float = Field(
        default=20, ge=0, description="Weight of the mean of all rows, in rows: rare values lean on it."
    )
    folds: int = Field(default=5, ge=2, le=20)
    max_categories: int = Field(default=10_000, ge=2, le=100_000)


Encoding = Annotated[
    OneHotEncoding | OrdinalEncoding | FrequencyEncoding | TargetEncoding, Field(discriminator="kind")
]


class QuantileBinFeature(Strict):
    """Number to one of ``bins`` intervals of about as many training rows, a column per interval."""

    kind: Literal["quantile_bin"]
    field: ColumnName
    bins: int = Field(ge=2, le=100)
