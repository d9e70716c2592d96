"""Hyperparameters: SageMaker hands every one over as a string; here they become typed and checked."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from typing import Any, Literal

from ml_runtime.job import BadInputError

Task = Literal["binary", "multiclass", "regression"]


@dataclasses.dataclass(frozen=True)
class Number:
    """A number within limits; ``whole`` for integers."""

    minimum: float | None = None
    maximum: float | None = None
    whole: bool = False
    above_minimum: bool = False

    def read(self, text: str) -> float | int:
        """Return the number. Raises ValueError saying what is allowed."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        low = "" if self.minimum is None else f" {'above' if self.above_minimum else 'from'} {self.minimum:g}"
        high = "" if self.maximum is None else f" up to {self.maximum:g}"
        wrong = (
            not math.isfinite(value)
            or (self.whole and value != int(value))
            or (
                self.minimum is not None
                and (value < self.minimum or (self.above_minimum and value == self.minimum))
            )
            or (self.maximum is not None and value > self.maximum)
        )
        if wrong:
            raise ValueError(f"must be {'an integer' if self.whole else 'a number'}{low}{high}")
        return int(value) if self.whole else value


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of some words."""

    values: tuple[str, ...]

    def read(self, text: str) -> str:
        """Return the word. Raises ValueError saying what is allowed."""
        if text not in self.values:
            raise ValueError(f"must be one of {', '.join(self.values)}")
        return text


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


def _text(value: object) -> str:
    # The SageMaker SDK encodes each value as JSON, other callers do not: '4' and '"4"' are the same.
    text = str(value).strip()
    if text[:1] == '"':
        try:
            return str(json.loads(text))
        except json.JSONDecodeError:
            return text
    return text


def _guess(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}"


def read_hyperparameters(given: Mapping[str, object], task: Task, classes: int) -> Hyperparameters:
    """Return typed hyperparameters. Raises BadInputError naming every wrong one."""
    problems: list[str] = []
    booster: dict[str, Any] = {"tree_method": "hist", "seed": 0}
    allowed: dict[str, Number | Choice] = {
        **PARAMETERS,
        "objective": Choice(OBJECTIVES[task]),
        "rounds": ROUNDS,
        "early_stopping_rounds": EARLY_STOPPING,
    }
    seen: dict[str, str] = {}
    for original, value in given.items():
        name = ALIASES.get(original, original)
        if name in seen:
            problems.append(f"{original} and {seen[name]} are the same parameter; give one")
            continue
        seen[name] = original
        if name not in allowed:
            problems.append(f"{original} is no hyperparameter{_guess(original, [*allowed, *ALIASES])}")
            continue
        text = _text(value)
        try:
            booster[name] = allowed[name].read(text)
        except ValueError as error:
            problems.append(f"{original} {error}, got {text!r}")
    if "scale_pos_weight" in booster and task != "binary":
        problems.append(f"scale_pos_weight goes with a binary label, not with {task}")
    if problems:
        raise BadInputError("hyperparameters: " + "; ".join(problems))
    rounds = int(booster.pop("rounds", 100))
    early = booster.pop("early_stopping_rounds", None)
    booster.setdefault("objective", OBJECTIVES[task][0])
    booster["eval_metric"] = list(METRICS[task])
    if task == "multiclass":
        booster["num_class"] = classes
    return Hyperparameters(booster, rounds, early)
