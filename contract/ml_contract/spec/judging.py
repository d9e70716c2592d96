"""The ``acceptance`` block, and the metrics that models are judged by."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from ml_contract.spec.blocks import Strict

BinaryMetric = Literal["auc", "average_precision", "accuracy", "precision", "recall", "f1", "log_loss"]
MulticlassMetric = Literal["accuracy", "macro_f1", "log_loss"]
RegressionMetric = Literal["rmse", "mae", "mse", "r2"]
Metric = Literal[
    "auc",
    "average_precision",
    "accuracy",
    "precision",
    "recall",
    "f1",
    "log_loss",
    "macro_f1",
    "rmse",
    "mae",
    "mse",
    "r2",
]
#: Metrics where less is better.
LOSS_METRICS = frozenset({"log_loss", "rmse", "mae", "mse"})
METRICS: dict[str, tuple[str, ...]] = {
    "binary": ("auc", "average_precision", "accuracy", "precision", "recall", "f1", "log_loss"),
    "multiclass": ("accuracy", "macro_f1", "log_loss"),
    "regression": ("rmse", "mae", "mse", "r2"),
}


class Acceptance(Strict):
    """When a trained model is good enough to be registered: its metric on the held-out test split."""

    metric: Metric
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        loss = self.metric in LOSS_METRICS
        if loss and (self.at_most is None or self.at_least is not None):
            raise ValueError(f"{self.metric} is better when it is lower: give at_most, not at_least")
        if not loss and (self.at_least is None or self.at_most is not None):
            raise ValueError(f"{self.metric} is better when it is higher: give at_least, not at_most")
        return self
