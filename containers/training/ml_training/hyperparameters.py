"""Hyperparameters: SageMaker hands every one over as a string; here they become typed and checked."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from typing import Any

from ml_contract.algorithms.values import Choice, Number, Task
from ml_contract.algorithms.xgboost import (
    ALIASES,
    EARLY_STOPPING,
    METRICS,
    OBJECTIVES,
    PARAMETERS,
    ROUNDS,
)
from ml_runtime.job import BadInputError


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
