"""Metrics of a model on the test split, each with its standard deviation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from ml_runtime.job import BadInputError
from scipy import stats
from sklearn import metrics as sk

#: Bootstrap samples; the standard deviation of a metric is then known to within 5 %.
SAMPLES = 200
#: Rows drawn per bootstrap sample at most. A standard deviation shrinks with the root of the rows, which
#: scales it back.
SAMPLE_ROWS = 10_000
ROC_POINTS = 200
SEED = 7

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Metric = Callable[[npt.NDArray[np.int64]], float]


def _binary(labels: Labels, scores: Floats, threshold: float) -> dict[str, Metric]:
    decided = (scores >= threshold).astype(np.int64)
    return {
        "auc": lambda rows: sk.roc_auc_score(labels[rows], scores[rows]),
        "average_precision": lambda rows: sk.average_precision_score(labels[rows], scores[rows]),
        "accuracy": lambda rows: sk.accuracy_score(labels[rows], decided[rows]),
        "precision": lambda rows: sk.precision_score(labels[rows], decided[rows], zero_division=0.0),
        "recall": lambda rows: sk.recall_score(labels[rows], decided[rows], zero_division=0.0),
        "f1": lambda rows: sk.f1_score(labels[rows], decided[rows], zero_division=0.0),
        "log_loss": lambda rows: sk.log_loss(labels[rows], scores[rows], labels=[0, 1]),
    }


def _multiclass(labels: Labels, scores: Floats) -> dict[str, Metric]:
    classes = list(range(scores.shape[1]))
    decided = scores.argmax(axis=1)
    # Softmax in 32 bits adds up to one within 1e-7; log_loss asks for more.
    shares = scores / scores.sum(axis=1, keepdims=True)
    return {
        "accuracy": lambda rows: sk.accuracy_score(labels[rows], decided[rows]),
        "macro_f1": lambda rows: sk.f1_score(
            labels[rows], decided[rows], labels=classes, average="macro", zero_division=0.0
        ),
        "log_loss": lambda rows: sk.log_loss(labels[rows], shares[rows], labels=classes),
    }


def _regression(labels: Floats, scores: Floats) -> dict[str, Metric]:
    return {
        "rmse": lambda rows: sk.root_mean_squared_error(labels[rows], scores[rows]),
        "mae": lambda rows: sk.mean_absolute_error(labels[rows], scores[rows]),
        "mse": lambda rows: sk.mean_squared_error(labels[rows], scores[rows]),
        "r2": lambda rows: sk.r2_score(labels[rows], scores[rows]),
    }


def _deviation(metric: Metric, groups: list[npt.NDArray[np.int64]]) -> float:
    """Return the bootstrap standard deviation.

    Each class keeps its number of rows, so that every sample has all.
    """
    total = sum(len(group) for group in groups)
    share = min(1.0, SAMPLE_ROWS / total)
    rng = np.random.default_rng(SEED)
    drawn = [rng.permutation(group)[: max(2, math.ceil(len(group) * share))] for group in groups]
    outcome = stats.bootstrap(
        drawn,
        lambda *parts: metric(np.concatenate(parts)),
        n_resamples=SAMPLES,
        vectorized=False,
        paired=False,
        method="percentile",
        rng=rng,
    )
    return float(outcome.standard_error) * math.sqrt(sum(len(part) for part in drawn) / total)


def _thinned(fpr: Floats, tpr: Floats) -> list[list[float]]:
    positions = np.unique(np.linspace(0, len(fpr) - 1, min(len(fpr), ROC_POINTS)).round().astype(int))
    return [[float(fpr[i]), float(tpr[i])] for i in positions]


def evaluate_scores(
    task: str, labels: npt.NDArray[Any], scores: npt.NDArray[Any], threshold: float
) -> dict[str, Any]:
    """Return ``evaluation.json``.

    Args:
        task: binary, multiclass or regression.
        labels: positions of classes, or numbers.
        scores: what ``Model.scores`` gives.
        threshold: binary only; positive from this score on.
    """
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise BadInputError(
            f"the model answers {int((~np.isfinite(values)).sum())} test scores that are not finite numbers"
        )
    rows = np.arange(len(labels))
    if len(rows) < 2:
        raise BadInputError(f"{len(rows)} test rows cannot judge a model")
    roc: list[list[float]] = []
    confusion: list[list[int]] = []
    if task == "binary":
        functions = _binary(labels, values, threshold)
        fpr, tpr, _ = sk.roc_curve(labels, values)
        roc = _thinned(fpr, tpr)
        confusion = sk.confusion_matrix(labels, values >= threshold, labels=[0, 1]).tolist()
    elif task == "multiclass":
        functions = _multiclass(labels, values)
        confusion = sk.confusion_matrix(
            labels, values.argmax(axis=1), labels=list(range(values.shape[1]))
        ).tolist()
    else:
        functions = _regression(labels, values)
    # A class of a single row cannot be drawn from by itself.
    groups = [rows[labels == value] for value in np.unique(labels)] if task != "regression" else [rows]
    lonely = [group for group in groups if len(group) < 2]
    groups = [group for group in groups if len(group) >= 2]
    if lonely:
        groups = [*groups, np.concatenate(lonely)] if sum(map(len, lonely)) >= 2 else [rows]
    metrics = {}
    for name, function in functions.items():
        value = float(function(rows))
        metrics[name] = {"value": value, "standard_deviation": _deviation(function, groups)}
    return {
        "task": task,
        "rows": len(rows),
        "metrics": metrics,
        "confusion": confusion,
        "roc": roc,
        "decision_threshold": threshold if task == "binary" else None,
    }
