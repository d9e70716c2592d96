"""What the page draws of the held-out rows: ROC, precision by recall, calibration, confusion."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk

__all__ = ["curves"]

POINTS: Final = 200
#: Bins of as many rows each that scores are held against.
CALIBRATION_BINS: Final = 10


def _thinned(*series: npt.NDArray[Any]) -> list[list[float]]:
    length = len(series[0])
    places = np.unique(np.linspace(0, length - 1, min(length, POINTS)).round().astype(int))
    return [[float(values[i]) for values in series] for i in places]


def curves(
    task: str, labels: npt.NDArray[Any], scores: npt.NDArray[np.float64], threshold: float
) -> dict[str, Any]:
    """``roc``, ``precision_recall``, ``calibration`` and ``confusion``; empty where a task has none."""
    found: dict[str, Any] = {"confusion": [], "roc": [], "precision_recall": [], "calibration": []}
    if task == "multiclass":
        every = list(range(scores.shape[1]))
        found["confusion"] = sk.confusion_matrix(labels, scores.argmax(axis=1), labels=every).tolist()
    if task != "binary":
        return found
    false_rate, true_rate, _ = sk.roc_curve(labels, scores)
    precision, recall, _ = sk.precision_recall_curve(labels, scores)
    order = np.argsort(scores, kind="stable")
    bins = [part for part in np.array_split(order, min(CALIBRATION_BINS, len(order))) if len(part)]
    return found | {
        "confusion": sk.confusion_matrix(labels, scores >= threshold, labels=[0, 1]).tolist(),
        "roc": _thinned(false_rate, true_rate),
        "precision_recall": _thinned(recall[::-1], precision[::-1]),
        "calibration": [
            {
                "rows": len(part),
                "mean_score": float(scores[part].mean()),
                "share_positive": float((labels[part] == 1).mean()),
            }
            for part in bins
        ],
    }
