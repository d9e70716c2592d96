"""How far a sample has moved from its baseline, and whether chance explains it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
from scipy import stats
from scipy.spatial import distance as distances

from ml_statistics.describe import OTHER, Floats, Kind, bucket_counts, finite

Distance = Literal["psi", "ks", "js"]

#: A distance counts only when chance explains it in fewer than one of this many windows (after the
#: correction for looking at many columns): on 100 records the population stability index of an unchanged
#: column often passes 0.1.
SIGNIFICANCE = 0.001
#: Buckets that hold fewer values than this in both samples together are judged as one: the chi-squared test
#: asks for it.
SMALLEST_BUCKET = 10
#: Up to this product of both samples' sizes the Kolmogorov-Smirnov test is exact.
EXACT_PAIRS = 10_000


@dataclasses.dataclass(frozen=True)
class Drift:
    """The distance of one column from its baseline.

    Args:
        feature: the column.
        distance: which distance; on a category ``ks`` is the largest difference of any category's share.
        value: its value.
        threshold: from which value on it counts.
        chance: probability of such a sample from an unchanged column, corrected for the number of columns
            judged.
        records: present values it was measured on.
    """

    feature: str
    distance: Distance
    value: float
    threshold: float
    chance: float
    records: int

    @property
    def drifted(self) -> bool:
        """Whether the distance is both large and no chance."""
        return self.value > self.threshold and self.chance < SIGNIFICANCE


def population_stability_index(expected: Floats, actual: Floats) -> float:
    """Return the index of two rows of counts, each count raised by a half: empty buckets stay finite."""
    p = (expected + 0.5) / (expected.sum() + 0.5 * expected.size)
    q = (actual + 0.5) / (actual.sum() + 0.5 * actual.size)
    # The index is the symmetric Kullback-Leibler divergence.
    return float(stats.entropy(p, q) + stats.entropy(q, p))


def _of_counts(expected: Floats, actual: Floats, which: Distance) -> float:
    if which == "psi":
        return population_stability_index(expected, actual)
    p, q = expected / expected.sum(), actual / actual.sum()
    if which == "js":
        return float(distances.jensenshannon(p, q, base=2))
    return float(distances.chebyshev(p, q))


def _chance_of_counts(expected: Floats, actual: Floats) -> float:
    small = expected + actual < SMALLEST_BUCKET
    table = np.array([expected, actual])
    merged = np.column_stack([table[:, ~small], table[:, small].sum(axis=1)])
    merged = merged[:, merged.sum(axis=0) > 0]
    if merged.shape[1] < 2:
        return 1.0
    return float(stats.chi2_contingency(merged, correction=False).pvalue)


def number_counts(baseline: dict[str, Any], values: Floats) -> tuple[Floats, Floats]:
    """Return the baseline's and the values' counts over its buckets, with one bucket more on either side."""
    buckets = baseline["distribution"]["kll"]["buckets"]
    edges = np.array([buckets[0]["lower_bound"], *(bucket["upper_bound"] for bucket in buckets)])
    inside = bucket_counts(values, edges)
    below, above = np.count_nonzero(values < edges[0]), np.count_nonzero(values > edges[-1])
    expected = np.array([0.0, *(bucket["count"] for bucket in buckets), 0.0])
    return expected, np.array([below, *inside, above], dtype=np.float64)


def category_counts(baseline: dict[str, Any], values: pl.Series) -> tuple[Floats, Floats]:
    """Return the counts of the baseline and of ``values`` per category.

    Categories not seen before share one bucket.
    """
    known = {
        bucket["value"]: float(bucket["count"])
        for bucket in baseline["distribution"]["categorical"]["buckets"]
    }
    known.setdefault(OTHER, 0.0)
    actual = dict.fromkeys(known, 0.0)
    for value, count in values.drop_nulls().value_counts(name="count").iter_rows():
        actual[value if value in known else OTHER] += count
    return np.array([*known.values()]), np.array([*actual.values()])


@dataclasses.dataclass(frozen=True)
class Rule:
    """From which distance on a column counts as drifted."""

    distance: Distance
    threshold: float


def measure(feature: dict[str, Any], column: pl.Series, rule: Rule) -> Drift | None:
    """Measure one column against its entry of ``statistics.json``; none when either side holds no value.

    The chance is not yet corrected for the number of columns: ``correct`` does it.
    """
    kind: Kind = "number" if "numerical_statistics" in feature else "category"
    baseline = feature["numerical_statistics" if kind == "number" else "string_statistics"]
    present = finite(column) if kind == "number" else column.drop_nulls()
    if not len(present) or not baseline["common"]["num_present"]:
        return None
    if kind == "number":
        values = np.asarray(present, dtype=np.float64)
        if rule.distance == "ks":
            sketch = np.asarray(baseline["distribution"]["kll"]["sketch"]["data"][0])
            # The approximation says nothing of tiny samples; the exact way is slow for large ones.
            few = sketch.size * values.size <= EXACT_PAIRS
            with warnings.catch_warnings():
                # A chance that rounding lifts above 1 makes SciPy take the approximation, which serves.
                warnings.filterwarnings("ignore", "ks_2samp: Exact calculation unsuccessful", RuntimeWarning)
                tested = stats.ks_2samp(sketch, values, method="exact" if few else "asymp")
            return Drift(
                feature["name"],
                "ks",
                float(tested.statistic),
                rule.threshold,
                float(tested.pvalue),
                values.size,
            )
        expected, actual = number_counts(baseline, values)
    else:
        expected, actual = category_counts(baseline, column)
    return Drift(
        feature["name"],
        rule.distance,
        _of_counts(expected, actual, rule.distance),
        rule.threshold,
        _chance_of_counts(expected, actual),
        len(present),
    )


def correct(measured: Sequence[Drift]) -> tuple[Drift, ...]:
    """Correct the chances for the number of columns judged at once (Benjamini-Hochberg)."""
    if not measured:
        return ()
    chances = stats.false_discovery_control([drift.chance for drift in measured], method="bh")
    return tuple(
        dataclasses.replace(drift, chance=float(chance))
        for drift, chance in zip(measured, chances, strict=True)
    )
