"""What a training of trees was asked for, from the job's hyperparameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_contract.algorithms.values import Choice, Task
from ml_contract.algorithms.xgboost import (
    ALIASES,
    EARLY_STOPPING,
    METRICS,
    OBJECTIVES,
    PARAMETERS,
    ROUNDS,
)
from ml_runtime.job import BadInputError
from ml_trainer.hyperparameters import read_all

#: Parameters below 1 that let each tree see a part of the rows or columns: chance takes part.
_DRAWING = ("subsample", "colsample_bytree", "colsample_bylevel", "colsample_bynode")


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """What a training was asked for.

    Args:
        booster: XGBoost's parameters, objective and metrics included.
        rounds: trees at most.
        early_stopping_rounds: rounds without a better metric on the validation split before it stops; none
            for never.
    """

    booster: dict[str, Any]
    rounds: int
    early_stopping_rounds: int | None

    @property
    def loss(self) -> str:
        """The metric that is followed: the last."""
        name: str = self.booster["eval_metric"][-1]
        return name

    @property
    def draws(self) -> bool:
        """Whether chance takes part."""
        return any(self.booster.get(name, 1) < 1 for name in _DRAWING)


def read_hyperparameters(given: Mapping[str, object], task: Task, classes: int) -> Hyperparameters:
    """Return typed hyperparameters. Raises BadInputError naming every wrong one."""
    allowed = {
        **PARAMETERS,
        "objective": Choice(OBJECTIVES[task]),
        "rounds": ROUNDS,
        "early_stopping_rounds": EARLY_STOPPING,
    }
    values = read_all(given, allowed, ALIASES, refused=("distribution", "processes_per_instance"))
    if "scale_pos_weight" in values and task != "binary":
        raise BadInputError(f"hyperparameters: scale_pos_weight goes with a binary label, not with {task}")
    rounds = int(values.pop("rounds", 100))
    early = values.pop("early_stopping_rounds", None)
    booster = {
        "tree_method": "hist",
        "seed": 0,
        # A round's draws depend on its number alone: a training that is resumed draws what it would have.
        "seed_per_iteration": True,
        "objective": OBJECTIVES[task][0],
        **values,
        "eval_metric": list(METRICS[task]),
    }
    if task == "multiclass":
        booster["num_class"] = classes
    return Hyperparameters(booster, rounds, early)
