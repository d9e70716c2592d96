"""The ``rules`` of a training: what is watched while it runs, and what then happens."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ml_contract.spec.blocks import Strict

__all__ = ["Rules", "Track"]

#: Where runs are recorded: nowhere, or on the environment's MLflow tracking server.
Track = Literal["none", "mlflow"]


class Rule(Strict):
    """One rule."""

    action: Literal["stop", "note"] = Field(
        default="stop", description="Fail the training with the rule's words, or only note them."
    )


class LossNotDecreasing(Rule):
    """The training loss stands still."""

    rounds: int = Field(default=20, ge=1, description="Rounds without progress.")
    least_percent: float = Field(default=0.1, ge=0, lt=100, description="What counts as progress.")


class Overfit(Rule):
    """The validation loss stays far above the training loss."""

    ratio: float = Field(default=0.1, gt=0, description="How far: a share of the training loss.")
    rounds: int = Field(default=5, ge=1, description="For how many rounds in a row.")


class Exploding(Rule):
    """A loss or a gradient that is no finite number, or a gradient beyond what is allowed."""

    largest_gradient: float | None = Field(
        default=None, gt=0, description="Norm of a round's gradients (pytorch); None: any finite one."
    )


class ClassImbalance(Rule):
    """The largest class has too many times the training rows of the smallest; judged before the start."""

    ratio: float = Field(default=10, ge=1)


class Rules(Strict):
    """Rules that watch a training. A rule that is not named does not run; ``{}`` takes its defaults."""

    loss_not_decreasing: LossNotDecreasing | None = None
    overfit: Overfit | None = None
    exploding: Exploding | None = None
    class_imbalance: ClassImbalance | None = None
