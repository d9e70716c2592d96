"""XGBoost's hyperparameters as our image takes them: one table for the image and for the checks."""

from __future__ import annotations

from ml_contract.algorithms.values import Choice, Number, Task

__all__ = ["ALIASES", "EARLY_STOPPING", "METRICS", "OBJECTIVES", "PARAMETERS", "ROUNDS"]

#: Parameters of a tree booster (XGBoost 3.2, "Parameters for Tree Booster") under their first name.
PARAMETERS: dict[str, Number | Choice] = {
    "eta": Number(0, 1, above_minimum=True),
    "gamma": Number(0),
    "max_depth": Number(0, 64, whole=True),
    "min_child_weight": Number(0),
    "max_delta_step": Number(0),
    "subsample": Number(0, 1, above_minimum=True),
    "colsample_bytree": Number(0, 1, above_minimum=True),
    "colsample_bylevel": Number(0, 1, above_minimum=True),
    "colsample_bynode": Number(0, 1, above_minimum=True),
    "lambda": Number(0),
    "alpha": Number(0),
    "scale_pos_weight": Number(0, above_minimum=True),
    "max_leaves": Number(0, whole=True),
    "max_bin": Number(2, 65_536, whole=True),
    "grow_policy": Choice(("depthwise", "lossguide")),
    "tree_method": Choice(("hist",)),
    "device": Choice(("cpu", "cuda")),
    "seed": Number(0, 2**31 - 1, whole=True),
}
#: XGBoost's second names.
ALIASES = {
    "learning_rate": "eta",
    "min_split_loss": "gamma",
    "reg_lambda": "lambda",
    "reg_alpha": "alpha",
    "random_state": "seed",
}
#: Objectives whose output is the score that the serving image answers with.
OBJECTIVES: dict[Task, tuple[str, ...]] = {
    "binary": ("binary:logistic",),
    "multiclass": ("multi:softprob",),
    "regression": ("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror"),
}
#: What is measured each round. Early stopping follows the last, a loss: AUC on a small validation split is
#: often best after a few rounds, with scores that are still far from being probabilities.
METRICS: dict[Task, tuple[str, ...]] = {
    "binary": ("auc", "logloss"),
    "multiclass": ("merror", "mlogloss"),
    "regression": ("mae", "rmse"),
}
ROUNDS = Number(1, 100_000, whole=True)
EARLY_STOPPING = Number(1, whole=True)
