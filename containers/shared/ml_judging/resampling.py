"""Bootstrap intervals of measures, and of the difference between two models on the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ml_judging.measures import Floats, Ints, Measures, better_by

__all__ = ["Bootstrap", "difference", "strata_of", "with_intervals"]

#: Rows drawn per sample at most. A spread shrinks with the root of the rows, which scales it back.
SAMPLE_ROWS: Final = 10_000
#: Numbers of one block of weights (16 MB): samples are made block by block.
BLOCK: Final = 2_000_000
SEED: Final = 7


@dataclass(frozen=True)
class Bootstrap:
    """How often rows are drawn anew, and the level of the intervals."""

    confidence: float = 0.95
    resamples: int = 1_000

    def interval(self, samples: Floats) -> tuple[float, float]:
        """Percentile interval (Efron and Tibshirani 1993, chapter 13)."""
        beyond = (1 - self.confidence) / 2
        low, high = np.quantile(samples, [beyond, 1 - beyond])
        return float(low), float(high)


def strata_of(task: str, labels: npt.NDArray[Any]) -> list[Ints]:
    """Rows of each class, so that every sample has them all; a class of one row joins the other such."""
    rows = np.arange(len(labels))
    if task == "regression":
        return [rows]
    groups = [rows[labels == value] for value in np.unique(labels)]
    lonely = [group for group in groups if len(group) < 2]
    groups = [group for group in groups if len(group) >= 2]
    if lonely:
        return [*groups, np.concatenate(lonely)] if len(lonely) >= 2 else [rows]
    return groups


def _thinned(strata: list[Ints], rng: np.random.Generator) -> tuple[list[Ints], float]:
    """At most ``SAMPLE_ROWS`` rows of all strata, and what their spread is scaled by."""
    total = sum(map(len, strata))
    share = min(1.0, SAMPLE_ROWS / total)
    if share == 1:
        return strata, 1.0
    kept = [rng.permutation(group)[: max(2, round(len(group) * share))] for group in strata]
    return kept, float(np.sqrt(sum(map(len, kept)) / total))


def _weights(strata: list[Ints], rows: int, resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """How often each of ``rows`` rows is drawn, [samples, rows], block by block."""
    block = max(1, BLOCK // rows)
    for start in range(0, resamples, block):
        samples = min(block, resamples - start)
        offsets = np.arange(samples)[:, None] * rows
        flat = [
            (group[rng.integers(0, len(group), (samples, len(group)))] + offsets).ravel() for group in strata
        ]
        counts = np.bincount(np.concatenate(flat), minlength=samples * rows)
        yield counts.reshape(samples, rows).astype(np.float64)


def _sampled(
    models: list[Measures], strata: list[Ints], how: Bootstrap
) -> tuple[list[dict[str, Floats]], float]:
    """Every measure of every sample, of each model on the same draws; and the scale of their spread."""
    rng = np.random.default_rng(SEED)
    kept, scale = _thinned(strata, rng)
    chosen = np.sort(np.concatenate(kept))
    if len(chosen) < models[0].rows:
        models = [model.take(chosen) for model in models]
        kept = [np.searchsorted(chosen, np.sort(group)) for group in kept]
    blocks: list[list[dict[str, Floats]]] = [[] for _ in models]
    for weights in _weights(kept, len(chosen), how.resamples, rng):
        for found, model in zip(blocks, models, strict=True):
            found.append(model.of_samples(weights))
    return [
        {name: np.concatenate([block[name] for block in found]) for name in found[0]} for found in blocks
    ], scale


def _around(value: float, samples: Floats, scale: float) -> Floats:
    """Samples of fewer rows than there are, moved to the value and drawn together to its spread."""
    return samples if scale == 1 else value + (samples - samples.mean()) * scale


def with_intervals(measures: Measures, strata: list[Ints], how: Bootstrap) -> dict[str, dict[str, Any]]:
    """Each measure as ``{"value", "standard_deviation", "interval": [low, high]}``."""
    [samples], scale = _sampled([measures], strata, how)
    found = {}
    for name, value in measures.values().items():
        drawn = _around(value, samples[name], scale)
        found[name] = {
            "value": value,
            "standard_deviation": float(drawn.std(ddof=1)),
            "interval": list(how.interval(drawn)),
        }
    return found


def difference(new: Measures, old: Measures, name: str, strata: list[Ints], how: Bootstrap) -> dict[str, Any]:
    """How much better ``new`` is by one measure on the same rows, with the paired bootstrap's interval."""
    (ours, theirs), scale = _sampled([new, old], strata, how)
    value, other = new.values()[name], old.values()[name]
    gained = float(better_by(name, value, other))
    drawn = _around(gained, better_by(name, ours[name], theirs[name]), scale)
    return {
        "metric": name,
        "rows": new.rows,
        "value": value,
        "champion": other,
        "better_by": gained,
        "interval": list(how.interval(drawn)),
        "probability_better": float((drawn > 0).mean()),
    }
