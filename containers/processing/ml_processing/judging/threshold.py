"""The decision threshold at which wrong decisions cost least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Chosen", "cheapest"]

#: Points of the curve that the report draws.
CURVE_POINTS = 200


@dataclass(frozen=True)
class Chosen:
    """A threshold, what it costs per row where it was chosen, and the curve of the others."""

    threshold: float
    cost_per_row: float
    curve: list[list[float]]


def cost_per_row(
    labels: npt.NDArray[Any], scores: npt.NDArray[Any], threshold: float, costs: dict[str, float]
) -> float:
    """Mean cost of deciding by ``threshold``: positive from this score on."""
    decided = np.asarray(scores) >= threshold
    positive = np.asarray(labels) == 1
    wrong = costs["false_positive"] * (decided & ~positive) + costs["false_negative"] * (~decided & positive)
    return float(wrong.mean())


def cheapest(labels: npt.NDArray[Any], scores: npt.NDArray[Any], costs: dict[str, float]) -> Chosen:
    """Choose the threshold with the least mean cost.

    Halfway between two scores, where rows that were not seen fall on either side alike; of equal costs the
    one that decides positive least often. It lies above 0 and below 1, and has six decimals.

    Args:
        labels: 1 for positive.
        scores: probabilities of the positive class.
        costs: ``false_positive`` and ``false_negative``, of a row each.
    """
    values = np.asarray(scores, dtype=np.float64)
    levels, position = np.unique(-values, return_inverse=True)
    levels = -levels
    positive = np.bincount(position, weights=np.asarray(labels) == 1, minlength=len(levels))
    count = np.bincount(position, minlength=len(levels))
    # Cost of deciding positive down to the k-th highest score; 0: of deciding so for none.
    caught = np.concatenate([[0], positive.cumsum()])
    flagged = np.concatenate([[0], count.cumsum()])
    cost = (
        costs["false_positive"] * (flagged - caught) + costs["false_negative"] * (positive.sum() - caught)
    ) / len(values)
    outside = np.concatenate([[max(1.0, levels[0])], levels, [min(0.0, levels[-1])]])
    thresholds = ((outside[:-1] + outside[1:]) / 2).round(6)
    # Scores may be 1, or closer to each other than decimals tell: what parts no rows is no choice.
    above = np.concatenate([[np.inf], levels]) >= thresholds
    below = thresholds > np.concatenate([levels, [-np.inf]])
    possible = np.flatnonzero(above & below & (thresholds > 0) & (thresholds < 1))
    thresholds, cost = thresholds[possible], cost[possible]
    best = int(cost.argmin())
    shown = np.unique(np.linspace(0, len(cost) - 1, min(len(cost), CURVE_POINTS)).round().astype(int))
    return Chosen(
        threshold=float(thresholds[best]),
        cost_per_row=float(cost[best]),
        curve=[[float(thresholds[i]), float(cost[i])] for i in shown[::-1]],
    )
