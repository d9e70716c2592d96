"""The boosting itself: round by round, so that it can be watched, saved, interrupted and gone on with.

A training that is killed and resumed gives the bytes of one that was not. XGBoost's hist method is
deterministic but for two things that live in memory only: the random state, which ``seed_per_iteration``
makes a function of the round, and the column sampler of a tree updater, which is made with the updater
(XGBoost 3.2, ``common::MakeColumnSampler``). So where chance takes part, each round begins with new updaters.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import xgboost as xgb
from ml_runtime.job import BadInputError
from ml_trainer.progress import History, best_round, should_stop

from ml_training.hyperparameters import Hyperparameters

BOOSTER = "booster.ubj"


class Watch(Protocol):
    """What accompanies a training."""

    def after(self, number: int, values: dict[str, float], history: History) -> None:
        """See a round that is done."""

    def pause(self, done: int, save: Callable[[pathlib.Path], None], history: History) -> None:
        """Save a checkpoint where one is due; raise where the training was asked to end."""


class Alone:
    """Nobody watches."""

    def after(self, number: int, values: dict[str, float], history: History) -> None:
        """See nothing."""

    def pause(self, done: int, save: Callable[[pathlib.Path], None], history: History) -> None:
        """Save nothing."""


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a training begins: a booster's bytes, rounds done of this training, and what they measured.

    ``parent_rounds`` are those of the model that is gone on from.
    """

    booster: bytes | None = None
    parent_rounds: int = 0
    history: History = dataclasses.field(default_factory=dict)

    @property
    def done(self) -> int:
        """Rounds done of this training."""
        return max(map(len, self.history.values()), default=0)


@dataclasses.dataclass(frozen=True)
class Boosted:
    """A trained booster, cut to its best round.

    ``rounds`` counts its trees per class, the parent's included; ``best`` is -1 when no new round was better
    than the parent.
    """

    booster: xgb.Booster
    rounds: int
    rounds_run: int
    best: int
    metrics: dict[str, float]


def rounds_of(raw: bytes, wanted: Hyperparameters) -> int:
    """Return how many rounds a parent model has. Raises BadInputError when it had another objective."""
    booster = xgb.Booster(model_file=bytearray(raw))
    before = _objective(booster)
    if before != wanted.booster["objective"]:
        raise BadInputError(
            f"the parent model was trained for {before}, this training is for"
            f" {wanted.booster['objective']}: its scores are on another scale; train without parent"
        )
    rounds: int = booster.num_boosted_rounds()
    return rounds


def boost(
    wanted: Hyperparameters,
    train: xgb.DMatrix,
    validation: xgb.DMatrix,
    *,
    start: Start = Start(),
    watch: Watch = Alone(),  # noqa: B008 - it holds nothing
) -> Boosted:
    """Train until the rounds are done or the validation loss has stopped falling."""
    _check_device(wanted)
    booster = xgb.Booster(wanted.booster, [train, validation])
    if start.booster is not None:
        booster.load_model(bytearray(start.booster))
        booster.set_param(_pairs(wanted.booster))
    evaluated = [(train, "train"), (validation, "validation")]
    history: History = {name: list(series) for name, series in start.history.items()}
    loss = f"validation-{wanted.loss}"
    before = _parent_values(wanted, start, evaluated)

    def save(folder: pathlib.Path) -> None:
        booster.save_model(folder / BOOSTER)

    for number in range(start.done, wanted.rounds):
        if should_stop(history.get(loss, []), wanted.early_stopping_rounds):
            break
        iteration = start.parent_rounds + number
        if wanted.draws:
            _new_updaters(booster)
        booster.update(train, iteration)
        values = _measured(booster.eval_set(evaluated, iteration))
        for name, value in values.items():
            history.setdefault(name, []).append(value)
        watch.after(number, values, history)
        watch.pause(number + 1, save, history)
    return _cut(wanted, booster, start, history, before)


def _cut(
    wanted: Hyperparameters, booster: xgb.Booster, start: Start, history: History, before: dict[str, float]
) -> Boosted:
    run = max(map(len, history.values()), default=0)
    loss = f"validation-{wanted.loss}"
    best = run - 1
    if wanted.early_stopping_rounds is not None:
        best = best_round(history[loss])
        if before and not history[loss][best] < before[loss]:
            best = -1
    rounds = start.parent_rounds + best + 1
    metrics = before if best < 0 else {name: series[best] for name, series in history.items()}
    return Boosted(booster[:rounds], rounds, run, best, metrics)


def _parent_values(
    wanted: Hyperparameters, start: Start, evaluated: list[tuple[xgb.DMatrix, str]]
) -> dict[str, float]:
    """Return what the parent alone measures; empty without one."""
    if not start.parent_rounds or start.booster is None:
        return {}
    parent = xgb.Booster(model_file=bytearray(start.booster))[: start.parent_rounds]
    parent.set_param(_pairs({"eval_metric": wanted.booster["eval_metric"]}))
    return _measured(parent.eval_set(evaluated, 0))


def _measured(line: str) -> dict[str, float]:
    """Read what XGBoost says of a round: ``[3]\\ttrain-auc:0.91\\tvalidation-auc:0.88``."""
    pairs = (part.rsplit(":", 1) for part in line.split("\t")[1:])
    return {name: float(value) for name, value in pairs}


def _pairs(parameters: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return parameters as ``set_param`` takes them: a list's values one by one."""
    return [
        (name, item)
        for name, value in parameters.items()
        for item in (value if isinstance(value, list) else [value])
    ]


def _new_updaters(booster: xgb.Booster) -> None:
    """Let the booster make its tree updaters anew; what it knows of the rows stays.

    They are dropped when another method is configured, which ``save_config`` does at once.
    """
    booster.set_param({"tree_method": "approx"})
    booster.save_config()
    booster.set_param({"tree_method": "hist"})


def _objective(booster: xgb.Booster) -> str:
    name: str = json.loads(booster.save_config())["learner"]["objective"]["name"]
    return name


def _check_device(wanted: Hyperparameters) -> None:
    if wanted.booster.get("device") == "cuda" and not xgb.build_info().get("USE_CUDA"):
        raise BadInputError(
            "hyperparameters: device cuda needs an XGBoost built for it; this image has the CPU one"
        )


def matrix_of(features: Any, labels: Any, weights: Any, *, rank: int = 0, count: int = 1) -> xgb.DMatrix:
    """Return the rows that this host trains on: every ``count``-th, from ``rank``."""
    part = slice(rank, None, count)
    return xgb.DMatrix(
        np.ascontiguousarray(features[part]) if count > 1 else features,
        labels[part],
        weight=None if weights is None else weights[part],
    )
