"""The ``tuning`` block: which hyperparameters are searched, how, and for how long."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from ml_contract.spec.blocks import Strict

__all__ = [
    "MAX_JOBS",
    "CategoricalRange",
    "ContinuousRange",
    "Hyperband",
    "IntegerRange",
    "Objective",
    "Range",
    "Strategy",
    "Tuning",
    "WarmStart",
]

Strategy = Literal["grid", "random", "bayesian", "hyperband"]
#: Amazon SageMaker Developer Guide, "Resource Limits for Automatic Model Tuning": training jobs per tuning
#: job; random's ten thousand takes a request, 750 is what an account begins with.
MAX_JOBS: Final[dict[Strategy, int]] = {"grid": 750, "random": 10_000, "bayesian": 750, "hyperband": 750}

#: CreateHyperParameterTuningJob, ParameterKey.
Name = Annotated[str, Field(min_length=1, max_length=256)]
Scaling = Literal["auto", "linear", "logarithmic", "reverse_logarithmic"]


class IntegerRange(Strict):
    """Whole numbers."""

    kind: Literal["integer"]
    minimum: int
    maximum: int
    scaling: Literal["auto", "linear", "logarithmic"] = "auto"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_ends(self.minimum, self.maximum, self.scaling)
        return self


class ContinuousRange(Strict):
    """Numbers; ``reverse_logarithmic`` is for those that are interesting close to 1."""

    kind: Literal["continuous"]
    minimum: float
    maximum: float
    scaling: Scaling = "auto"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_ends(self.minimum, self.maximum, self.scaling)
        # IntegerParameterRange and ContinuousParameterRange, ScalingType: "0 <= x < 1".
        if self.scaling == "reverse_logarithmic" and not 0 <= self.minimum < self.maximum < 1:
            raise ValueError(
                "reverse_logarithmic needs 0 <= minimum < maximum < 1, "
                f"got {self.minimum:g} and {self.maximum:g}"
            )
        return self


class CategoricalRange(Strict):
    """Some values, each at most once."""

    kind: Literal["categorical"]
    # Resource limits: "Each categorical hyperparameter can have at most 30 different values".
    values: list[str | int | float] = Field(min_length=1, max_length=30)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len({str(value) for value in self.values}) != len(self.values):
            raise ValueError(f"values must differ, got {', '.join(map(str, self.values))}")
        return self


Range = Annotated[IntegerRange | ContinuousRange | CategoricalRange, Field(discriminator="kind")]


def _check_ends(low: float, high: float, scaling: str) -> None:
    if low >= high:
        raise ValueError(f"minimum must be below maximum, got {low:g} and {high:g}")
    if scaling == "logarithmic" and low <= 0:
        raise ValueError(f"logarithmic scaling needs minimum above 0, got {low:g}")


class Objective(Strict):
    """What a trial is judged by, on the validation split."""

    metric: str = Field(min_length=1, max_length=255, description="e.g. validation:logloss.")
    goal: Literal["minimize", "maximize"] | None = Field(
        default=None, description="None: what the metric says, for algorithms of this project."
    )
    regex: str | None = Field(
        default=None,
        min_length=1,
        max_length=500,
        description="Finds the metric in the log of a script or an own image.",
    )


class Hyperband(Strict):
    """Resource of a trial, in rounds or epochs."""

    min_rounds: int = Field(default=1, ge=1)
    # HyperbandStrategyConfig, MaxResource: "the maximum value that can be set is 20,000".
    max_rounds: int | None = Field(default=None, ge=1, le=20_000, description="None: training.rounds.")


class WarmStart(Strict):
    """Go on from what an earlier tuning job found."""

    parent: str = Field(
        pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,31}$",
        description="Name of a tuning job; an execution may name another (parameter ParentTuningJob).",
    )
    kind: Literal["identical_data_and_algorithm", "transfer_learning"] = "transfer_learning"


class Tuning(Strict):
    """Many trainings in place of one; the best model goes on to be judged.

    Trials are training jobs as ``training`` says, with the searched hyperparameters drawn from ``ranges``.
    """

    strategy: Strategy = "bayesian"
    # Resource limits: "Number of hyperparameters that can be searched": 30.
    ranges: dict[Name, Range] = Field(min_length=1, max_length=30)
    objective: Objective | None = Field(
        default=None, description="None: the loss on the validation split, for algorithms of this project."
    )
    max_jobs: int | None = Field(default=None, ge=1, description="None: every point of a grid, otherwise 20.")
    # Resource limits: 10 parallel training jobs per tuning job, 100 on request.
    max_parallel_jobs: int = Field(default=2, ge=1, le=100)
    # Resource limits: a tuning job runs 30 days; ResourceLimits.MaxRuntimeInSeconds: at least 120.
    max_runtime_minutes: int | None = Field(default=None, ge=2, le=43_200)
    early_stopping: bool = Field(
        default=False, description="Stop a trial that is worse than the median of the others at its round."
    )
    hyperband: Hyperband | None = None
    # BestObjectiveNotImproving: at least 3.
    patience_jobs: int | None = Field(
        default=None, ge=3, description="End when that many trials in a row brought nothing better."
    )
    target: float | None = Field(default=None, description="End when the objective is as good as this.")
    warm_start: WarmStart | None = None
    seed: int = Field(default=7, ge=0)

    @property
    def jobs(self) -> int:
        """Trials at most."""
        if self.max_jobs is not None:
            return self.max_jobs
        return self.points if self.strategy == "grid" else 20

    @property
    def points(self) -> int:
        """Points of the grid."""
        count = 1
        for one in self.ranges.values():
            count *= len(one.values) if isinstance(one, CategoricalRange) else 1
        return count
