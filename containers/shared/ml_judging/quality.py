"""Quality of a model in the file formats of SageMaker Model Monitor, held out or live.

Names and layout of ``statistics.json`` and ``constraints.json`` are those of the Amazon SageMaker Developer
Guide, "Model quality metrics and Amazon CloudWatch monitoring"; the measures of a workload that Model Monitor
does not know stand beside its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk

from ml_judging.measures import LOSSES

__all__ = ["CONSTRAINTS", "METRICS", "constraints", "statistics", "threshold_of"]

Values = npt.NDArray[Any]

#: Keys of the two documents by the task.
METRICS: Final = {
    "binary": "binary_classification_metrics",
    "multiclass": "multiclass_classification_metrics",
    "regression": "regression_metrics",
}
CONSTRAINTS: Final = {
    "binary": "binary_classification_constraints",
    "multiclass": "multiclass_classification_constraints",
    "regression": "regression_constraints",
}
#: Our measure of each rate of Model Monitor's; the others are one minus it.
_SAME_SPREAD: Final = {
    "true_positive_rate": "recall",
    "false_negative_rate": "recall",
    "true_negative_rate": "specificity",
    "false_positive_rate": "specificity",
}


def statistics(
    task: str,
    labels: Values,
    scores: Values,
    decided: Values,
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    classes: tuple[str, ...] | None,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Make ``statistics.json`` of model quality.

    Args:
        task: binary, multiclass or regression.
        labels: positions of classes, or numbers.
        scores: of the positive class, of every class, or the numbers.
        decided: positions of classes, or numbers.
        metrics: the workload's own measures, each with ``value`` and ``standard_deviation``.
        classes: texts of the classes.
        about: ``start_time`` and the like of the dataset.
    """
    found = {
        name: {"value": one["value"], "standard_deviation": one["standard_deviation"]}
        for name, one in metrics.items()
    }
    extra: dict[str, Any] = {}
    if task != "regression":
        extra = _classes(task, labels.astype(np.int64), decided.astype(np.int64), len(classes or ()))
        if task == "binary":
            extra |= _binary_curves(labels.astype(np.int64), scores)
    for name, value in extra.items():
        if isinstance(value, float):
            spread = metrics.get(_SAME_SPREAD.get(name, name), {}).get("standard_deviation")
            found.setdefault(name, {"value": value, "standard_deviation": spread})
        else:
            found[name] = value
    return {
        "version": 0.0,
        "dataset": {"item_count": len(labels), **about},
        METRICS[task]: found,
    }


def _classes(task: str, labels: Values, decided: Values, count: int) -> dict[str, Any]:
    every = list(range(count))
    table = sk.confusion_matrix(labels, decided, labels=every)
    # Model Monitor compares with whoever always says the most frequent class.
    constant = np.full_like(labels, np.bincount(labels, minlength=count).argmax())
    found: dict[str, Any] = {
        "confusion_matrix": {
            str(row): {str(column): int(table[row, column]) for column in every} for row in every
        },
        "accuracy_best_constant_classifier": float(sk.accuracy_score(labels, constant)),
    }
    average: Any = {"average": "binary" if task == "binary" else "weighted", "zero_division": 0.0}
    prefix = "" if task == "binary" else "weighted_"
    for suffix, guess in (("", decided), ("_best_constant_classifier", constant)):
        found[f"{prefix}recall{suffix}"] = float(sk.recall_score(labels, guess, **average))
        found[f"{prefix}precision{suffix}"] = float(sk.precision_score(labels, guess, **average))
        for name, beta in (("f0_5", 0.5), ("f1", 1.0), ("f2", 2.0)):
            found[f"{prefix}{name}{suffix}"] = float(sk.fbeta_score(labels, guess, beta=beta, **average))
    if task == "binary":
        sensitive, specific = (
            float(sk.recall_score(labels, decided, pos_label=one, zero_division=0.0)) for one in (1, 0)
        )
        found |= {
            "true_positive_rate": sensitive,
            "true_negative_rate": specific,
            "false_positive_rate": 1 - specific,
            "false_negative_rate": 1 - sensitive,
        }
    return found


def _binary_curves(labels: Values, scores: Values) -> dict[str, Any]:
    false, true, _ = sk.roc_curve(labels, scores)
    precision, recall, _ = sk.precision_recall_curve(labels, scores)
    return {
        "receiver_operating_characteristic_curve": {
            "false_positive_rates": false.tolist(),
            "true_positive_rates": true.tolist(),
        },
        "precision_recall_curve": {"precisions": precision.tolist(), "recalls": recall.tolist()},
    }


def threshold_of(name: str, value: float, tolerance: float) -> float:
    """From which value on a measure is worse than ``value`` by more than a share of it."""
    allowed = abs(value) * tolerance
    return value + allowed if name in LOSSES else value - allowed


def constraints(task: str, thresholds: Mapping[str, float]) -> dict[str, Any]:
    """Make ``constraints.json`` of model quality from the value that each measure must keep."""
    return {
        "version": 0.0,
        CONSTRAINTS[task]: {
            name: {
                "threshold": value,
                "comparison_operator": "GreaterThanThreshold" if name in LOSSES else "LessThanThreshold",
            }
            for name, value in thresholds.items()
        },
    }
