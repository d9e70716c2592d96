"""The ``acceptance`` block, and the metrics that models are judged by."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import model_validator

from ml_contract.spec.blocks import Strict

BinaryMetric = Literal[
    "auc", "average_precision", "accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1",
    "mcc", "log_loss", "brier",
]  # fmt: skip
MulticlassMetric = Literal[
    "accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "mcc", "macro_auc",
    "log_loss",
]  # fmt: skip
RegressionMetric = Literal["rmse", "mae", "mse", "r2", "adjusted_r2"]
Metric = BinaryMetric | MulticlassMetric | RegressionMetric
#: Metrics where less is better.
LOSS_METRICS = frozenset({"log_loss", "brier", "rmse", "mae", "mse"})
METRICS: dict[str, tuple[str, ...]] = {
    "binary": get_args(BinaryMetric),
    "multiclass": get_args(MulticlassMetric),
    "regression": get_args(RegressionMetric),
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
