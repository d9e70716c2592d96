"""``statistics.json``: what the columns of a table look like."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

Kind = Literal["number", "category"]
Floats = npt.NDArray[np.float64]

#: Buckets of a number with many values: deciles, the usual choice for the population stability index.
BUCKETS = 10
#: A number with no more values than this has one bucket for each.
DISTINCT_BUCKETS = 20
#: Quantiles kept of a number, for the Kolmogorov-Smirnov distance.
SKETCH_SIZE = 2048
#: Categories kept of a column; the rest share one bucket.
CATEGORIES = 100
#: The bucket of the categories beyond the kept ones. Not a string that a record could hold by chance.
OTHER = "<other>"


def bucket_edges(values: Floats) -> Floats:
    """Return rising edges of buckets that fit the values.

    One bucket a value when there are few, else quantiles.
    """
    distinct = np.unique(values)
    if distinct.size <= DISTINCT_BUCKETS:
        middles = distinct[:-1] / 2 + distinct[1:] / 2
        return np.concatenate([distinct[:1], middles, distinct[-1:]])
    return np.unique(np.quantile(values, np.linspace(0, 1, BUCKETS + 1)))


def bucket_counts(values: Floats, edges: Floats) -> npt.NDArray[np.int64]:
    """Count values per bucket ``[edge, next edge)``; the last bucket is closed.

    Values outside count nowhere.
    """
    if edges.size < 2 or edges[0] == edges[-1]:
        return np.array([np.count_nonzero(values == edges[0])], dtype=np.int64)
    counts, _ = np.histogram(values, bins=edges)
    return counts.astype(np.int64)


def _number(values: Floats, missing: int) -> dict[str, Any]:
    common = {"num_present": int(values.size), "num_missing": missing}
    if not values.size:
        return {"common": common}
    edges = bucket_edges(values)
    counts = bucket_counts(values, edges)
    bounds = itertools.pairwise(edges) if edges.size > counts.size else [(edges[0], edges[0])]
    sketch = np.sort(values)
    if sketch.size > SKETCH_SIZE:
        # "nearest" keeps real values: between two of them there may be none.
        sketch = np.quantile(sketch, np.linspace(0, 1, SKETCH_SIZE), method="nearest")
    # Moments of numbers near the largest a float holds do not fit one: then there is none.
    with np.errstate(over="ignore", invalid="ignore"):
        moments = {"mean": values.mean(), "sum": values.sum(), "std_dev": values.std()}
    return {
        "common": common,
        **{name: float(value) if np.isfinite(value) else None for name, value in moments.items()},
        "min": float(values.min()),
        "max": float(values.max()),
        "distribution": {
            "kll": {
                "buckets": [
                    {"lower_bound": float(low), "upper_bound": float(high), "count": float(count)}
                    for (low, high), count in zip(bounds, counts, strict=True)
                ],
                "sketch": {"parameters": {"c": 0.64, "k": float(SKETCH_SIZE)}, "data": [sketch.tolist()]},
            }
        },
    }


def _category(column: pl.Series) -> dict[str, Any]:
    present = column.drop_nulls()
    counted = present.value_counts(name="count").sort(["count", column.name], descending=[True, False])
    rows = list(counted.iter_rows())
    buckets = [{"value": value, "count": int(count)} for value, count in rows[:CATEGORIES]]
    rest = sum(count for _, count in rows[CATEGORIES:])
    if rest:
        buckets.append({"value": OTHER, "count": int(rest)})
    return {
        "common": {"num_present": len(present), "num_missing": len(column) - len(present)},
        "distinct_count": float(len(rows)),
        "distribution": {"categorical": {"buckets": buckets}},
    }


def finite(column: pl.Series) -> Floats:
    """Return the values of a numeric column without missing and non-finite ones."""
    values = column.cast(pl.Float64).drop_nulls().to_numpy()
    known = np.isfinite(values)
    return np.asarray(values if known.all() else values[known], dtype=np.float64)


def describe(frame: pl.DataFrame, kinds: Mapping[str, Kind], *, integers: frozenset[str]) -> dict[str, Any]:
    """Make ``statistics.json`` of the named columns; ``integers`` are the numbers that hold whole ones only.

    Columns that identify a person are never named here: a statistics file is read by more people than the
    records.
    """
    features = []
    for name, kind in kinds.items():
        column = frame[name]
        if kind == "number":
            values = finite(column)
            inferred = "Integral" if name in integers else "Fractional"
            body = {"numerical_statistics": _number(values, len(column) - int(values.size))}
        else:
            inferred = "String"
            body = {"string_statistics": _category(column)}
        features.append({"name": name, "inferred_type": inferred, **body})
    return {"version": 0.0, "dataset": {"item_count": frame.height}, "features": features}
