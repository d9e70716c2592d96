"""A line a round, which SageMaker's metric definitions read: ``[12] train-logloss:0.51 ...``."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ml_runtime.job import say

#: By ``<split>-<metric>``: a value per round.
History = dict[str, list[float]]


def report(number: int, values: Mapping[str, float]) -> None:
    """Print a round: ``report(12, {"train-logloss": 0.51, "validation-logloss": 0.55})``."""
    say(f"[{number}] {' '.join(f'{name}:{value:.6f}' for name, value in values.items())}")


def best_round(series: list[float], *, minimize: bool = True) -> int:
    """Return the first round with the best value; a value that is no number is never the best.

    Raises ValueError when there is none.
    """
    known = [
        (value if minimize else -value, number)
        for number, value in enumerate(series)
        if not math.isnan(value)
    ]
    if not known:
        raise ValueError("no round has a value")
    return min(known)[1]


def should_stop(series: list[float], patience: int | None, *, minimize: bool = True) -> bool:
    """Whether the last ``patience`` rounds brought nothing better than what was there before them.

    Reads nothing but the values: a training that is resumed stops where an uninterrupted one does.
    """
    if patience is None or len(series) <= patience:
        return False
    try:
        return len(series) - 1 - best_round(series, minimize=minimize) >= patience
    except ValueError:
        return True
