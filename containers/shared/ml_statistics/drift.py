"""How far a sample has moved from its baseline, and whether chance explains it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
from scipy import special, stats
from scipy.spatial import distance as distances

from ml_statistics.describe import OTHER, Floats, Kind, finite

Distance = Literal["psi", "ks", "js", "chi2", "wasserstein"]

#: A distance counts only when chance explains it in fewer than one of this many windows (after the
#: correction for looking at many columns): on 100 records the population stability index of an unchanged
#: column often passes 0.1. The default of ``monitoring.false_discovery_rate``.
SIGNIFICANCE = 0.001
#: Buckets that hold fewer values than this in both samples together are judged as one: the chi-squared test
#: asks for it.
SMALLEST_BUCKET = 10
#: Up to this product of both samples' sizes the Kolmogorov-Smirnov test is exact.
EXACT_PAIRS = 10_000
_SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")


@dataclasses.dataclass(frozen=True)
class Drift:
    """The distance of one column from its baseline.

    Args:
        feature: the column.
        distance: which distance; on a category ``ks`` is the largest difference of any category's share.
        value: its value.
        threshold: from which value on it counts.
        chance: probability of such a sample from an unchanged column, corrected for everything that was
            judged at once.
        records: present values it was measured on.
        segment: of which records, ``field=value``; None: of all.
        rate: below which chance it counts.
    """

    feature: str
    distance: Distance
    value: float
    threshold: float
    chance: float
    records: int
    segment: str | None = None
    rate: float = SIGNIFICANCE

    @property
    def drifted(self) -> bool:
        """Whether the distance is both large and no chance."""
        return self.value > self.threshold and self.chance < self.rate


def population_stability_index(expected: Floats, actual: Floats) -> float:
    """Return the index of two rows of counts, each count raised by a half: empty buckets stay finite."""
    p = (expected + 0.5) / (expected.sum() + 0.5 * expected.size)
    q = (actual + 0.5) / (actual.sum() + 0.5 * actual.size)
    # The index is the symmetric Kullback-Leibler divergence.
    return float((special.rel_entr(p, q) + special.rel_entr(q, p)).sum())


def _of_counts(expected: Floats, actual: Floats, which: Distance) -> float:
    if which == "psi":
        return population_stability_index(expected, actual)
    if which == "chi2":
        return cramers_v(expected, actual)
    p, q = expected / expected.sum(), actual / actual.sum()
    if which == "js":
        return float(distances.jensenshannon(p, q, base=2))
    return float(distances.chebyshev(p, q))


def cramers_v(expected: Floats, actual: Floats) -> float:
    """Return how far two rows of counts depend on which row it is: 0 not at all, 1 wholly (Cramér 1946)."""
    table = np.array([expected, actual]).astype(np.int64)
    table = table[:, table.sum(axis=0) > 0]
    return float(stats.contingency.association(table, method="cramer")) if table.shape[1] > 1 else 0.0


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
    bounds = [buckets[0]["lower_bound"], *(bucket["upper_bound"] for bucket in buckets)]
    # Of a column with one value the only bucket has no width.
    edges = np.unique(np.array(bounds, dtype=np.float64))
    expected = np.array([0.0, *(bucket["count"] for bucket in buckets), 0.0])
    # Buckets are [edge, next edge), the last one closed. A pass per edge is several times faster than looking
    # the bucket of each value up.
    below = [np.count_nonzero(values < edge) for edge in edges]
    ends = [*(below if edges.size == 1 else below[:-1]), np.count_nonzero(values <= edges[-1])]
    return expected, np.diff([0, *ends, values.size]).astype(np.float64)


def counted(column: pl.Series) -> pl.DataFrame:
    """Return each value of a category with how many rows have it, in the columns ``value`` and ``count``."""
    return column.alias("value").drop_nulls().value_counts(name="count")


def category_counts(baseline: dict[str, Any], counts: pl.DataFrame) -> tuple[Floats, Floats]:
    """Return the counts of the baseline and of ``counts`` (see ``counted``) per category.

    Categories not seen before share one bucket.
    """
    known = {
        bucket["value"]: float(bucket["count"])
        for bucket in baseline["distribution"]["categorical"]["buckets"]
    }
    known.setdefault(OTHER, 0.0)
    actual = dict.fromkeys(known, 0.0)
    for value, count in counts.iter_rows():
        actual[value if value in known else OTHER] += count
    return np.array([*known.values()]), np.array([*actual.values()])


def ks_distance(sketch: Floats, ordered: Floats) -> float:
    """Return the largest difference between the shares of two rising samples.

    SciPy sorts both anew and looks the one up in the other. The largest difference lies at a value of the
    smaller one or right before it, because its share stands still between two of its values: so many
    look-ups are enough.
    """
    differences = [
        np.abs(np.searchsorted(sketch, sketch, side) / sketch.size - look_up / ordered.size).max()
        for side in _SIDES
        for look_up in [np.searchsorted(ordered, sketch, side)]
    ]
    return float(max(differences))


def kolmogorov_smirnov(sketch: Floats, ordered: Floats) -> tuple[float, float]:
    """Return the distance of two rising samples and the chance of it, as SciPy's ``ks_2samp`` has them."""
    if sketch.size * ordered.size <= EXACT_PAIRS:
        with warnings.catch_warnings():
            # A chance that rounding lifts above 1 makes SciPy take the approximation, which serves.
            warnings.filterwarnings("ignore", "ks_2samp: Exact calculation unsuccessful", RuntimeWarning)
            tested = stats.ks_2samp(sketch, ordered, method="exact")
        return float(tested.statistic), float(tested.pvalue)
    value = ks_distance(sketch, ordered)
    # The approximation of ks_2samp: the exact one-sample law at the effective size.
    size = sketch.size * ordered.size / (sketch.size + ordered.size)
    return value, float(np.clip(stats.kstwo.sf(value, max(1, np.round(size))), 0, 1))


def earth_movers_distance(first: Floats, second: Floats) -> float:
    """Return the Wasserstein distance of two rising samples, as SciPy has it.

    SciPy sorts both anew, together. Both rise already: each value of the larger one is moved to the value of
    the smaller one of the same rank. Where a rank of the smaller one ends within a value, the two share it.
    """
    few, many = sorted((first, second), key=len)
    ends = np.arange(1, few.size, dtype=np.int64) * many.size
    whole, rest = np.divmod(ends, few.size)
    held = np.diff([0, *(whole + (rest > 0)), many.size])
    moved = np.abs(many - np.repeat(few, held)).sum()
    shared = many[whole[rest > 0]]
    left, right = few[:-1][rest > 0], few[1:][rest > 0]
    share = 1 - rest[rest > 0] / few.size
    moved += (share * (np.abs(shared - right) - np.abs(shared - left))).sum()
    # Rounding takes equal samples a hair below nothing.
    return float(np.maximum(moved / many.size, 0))


def _of_sorted(baseline: dict[str, Any], values: Floats, which: Distance) -> tuple[float, float]:
    sketch = np.asarray(baseline["distribution"]["kll"]["sketch"]["data"][0], dtype=np.float64)
    ordered = pl.Series(values).sort().to_numpy()
    value, chance = kolmogorov_smirnov(sketch, ordered)
    if which == "wasserstein":
        # Deviations of a constant column are counted in its own units. Numbers near the largest that a float
        # holds have no deviation, and no mean distance either: those of other sign count as far apart.
        width = baseline["std_dev"] or 1.0
        with np.errstate(over="ignore", invalid="ignore"):
            moved = earth_movers_distance(sketch / width, ordered / width)
        value = float(moved) if np.isfinite(moved) else float(np.finfo(np.float64).max)
    return value, chance


@dataclasses.dataclass(frozen=True)
class Rule:
    """From which distance on a column counts as drifted."""

    distance: Distance
    threshold: float


def measure(
    feature: dict[str, Any],
    column: pl.Series,
    rule: Rule,
    *,
    segment: str | None = None,
    counts: pl.DataFrame | None = None,
) -> Drift | None:
    """Measure one column against its entry of ``statistics.json``; none when either side holds no value.

    The chance is not yet corrected for what else is judged: ``correct`` does it. That of a
    ``wasserstein`` distance is the Kolmogorov-Smirnov test's: both ask whether two samples of numbers are of
    one distribution. ``counts`` are those of a category, where they are known already.
    """
    kind: Kind = "number" if "numerical_statistics" in feature else "category"
    baseline = feature["numerical_statistics" if kind == "number" else "string_statistics"]
    present = finite(column) if kind == "number" else None
    records = len(column) - column.null_count() if present is None else present.size
    if not records or not baseline["common"]["num_present"]:
        return None
    which = rule.distance
    if present is not None and which in ("ks", "wasserstein"):
        value, chance = _of_sorted(baseline, present, which)
    else:
        expected, actual = (
            category_counts(baseline, counted(column) if counts is None else counts)
            if present is None
            else number_counts(baseline, present)
        )
        value, chance = _of_counts(expected, actual, which), _chance_of_counts(expected, actual)
    return Drift(feature["name"], which, value, rule.threshold, chance, records, segment)


def correct(measured: Sequence[Drift], *, rate: float = SIGNIFICANCE) -> tuple[Drift, ...]:
    """Correct the chances for everything that was judged at once (Benjamini-Hochberg)."""
    if not measured:
        return ()
    chances = stats.false_discovery_control([drift.chance for drift in measured], method="bh")
    return tuple(
        dataclasses.replace(drift, chance=float(chance), rate=rate)
        for drift, chance in zip(measured, chances, strict=True)
    )
