"""Features over time: what the batch engines and Flink compute, from one SQL text.

A window feature of a record aggregates the records with the same key whose event time lies in
``[t - over, t]``, ``t`` being the record's own: the record itself counts, and so does every record of the
same moment. Aggregates pass missing values by; over nothing but missing values the result is missing, a
count is not.

``window_sql`` is the text that Spark and Flink run. Polars has no ``RANGE`` windows in SQL, so the
single-node engine states the same with rolling expressions; tests hold all of them against a naive oracle.
Sums are of 64-bit floats and depend on their order in the last digits.

``window_sql`` needs the standard library only; ``with_windows`` imports the engine of the frame it is given.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ml_contract.compiled import CompiledContract, Window, WindowSpec

__all__ = ["MOMENT", "window_sql", "with_windows"]

#: Column that holds the event time as a timestamp while windows are computed.
MOMENT: Final = "_moment"

_SQL: Final = {"count": "COUNT", "sum": "SUM", "mean": "AVG", "minimum": "MIN", "maximum": "MAX"}


def window_sql(spec: WindowSpec, table: str, carried: Iterable[str], *, quote: str = "`") -> str:
    """One SELECT that gives the ``carried`` columns of ``table``, its ``_moment`` and every window feature.

    A level of nesting per length of window: Flink computes the aggregates of one length in one query only
    (Apache Flink, "Over Aggregation").
    """

    def name(column: str) -> str:
        return f"{quote}{column}{quote}"

    lengths: dict[int, list[Window]] = {}
    for window in spec.windows:
        lengths.setdefault(window.over_hours, []).append(window)
    base = list(dict.fromkeys([*carried, spec.key, *spec.fields, MOMENT]))
    source = table
    done: list[str] = []
    for hours, windows in lengths.items():
        chosen = [name(c) for c in [*base, *done]]
        for window in windows:
            what = "*" if window.field is None else f"CAST({name(window.field)} AS DOUBLE)"
            value = f"{_SQL[window.aggregate]}({what}) OVER w"
            chosen.append(f"CAST({value} AS DOUBLE) AS {name(window.name)}")
        source = (
            f"SELECT {', '.join(chosen)}\nFROM {source}\n"
            f"WINDOW w AS (PARTITION BY {name(spec.key)} ORDER BY {name(MOMENT)} "
            f"RANGE BETWEEN {_interval(hours)} PRECEDING AND CURRENT ROW)"
        )
        done += [window.name for window in windows]
        source = f"({source})"
    return source[1:-1]


def _interval(hours: int) -> str:
    return f"INTERVAL '{hours // 24}' DAY" if hours % 24 == 0 else f"INTERVAL '{hours}' HOUR"


def with_windows(native: Any, contract: CompiledContract) -> Any:
    """Add the contract's window features to a table of its records.

    Args:
        native: a Spark DataFrame, a polars DataFrame or a polars LazyFrame of typed records.

    Returns:
        The same kind of frame, with a column of 64-bit floats per window feature; ``native`` itself when the
        contract has none or the frame has them already. Rows without a key have no windows (missing; a
        count too).
    """
    spec = contract.windows
    if spec is None:
        return native
    present = set(native.collect_schema() if hasattr(native, "collect_schema") else native.columns)
    if present.issuperset(window.name for window in spec.windows):
        return native
    if type(native).__module__.startswith("pyspark."):
        return _spark(native, contract, spec)
    return _polars(native, contract, spec)


def _spark(frame: Any, contract: CompiledContract, spec: WindowSpec) -> Any:
    from pyspark.sql import functions as sf

    names = [window.name for window in spec.windows]
    view = f"records_of_{contract.name}"
    moment = sf.col(contract.event_time).cast("timestamp")
    frame.withColumn(MOMENT, moment).createOrReplaceTempView(view)
    carried = frame.columns
    counted = frame.sparkSession.sql(window_sql(spec, view, carried))
    no_key = sf.col(spec.key).isNull()
    return counted.select(*carried, *(sf.when(~no_key, sf.col(name)).alias(name) for name in names))


def _polars(frame: Any, contract: CompiledContract, spec: WindowSpec) -> Any:
    import polars as pl

    lazy = frame.lazy()
    order = "_order"
    moment = pl.col(contract.event_time).cast(pl.Datetime("us"))
    rows = lazy.with_row_index(order).with_columns(moment.alias(MOMENT)).sort(MOMENT)
    added = []
    for window in spec.windows:
        length = f"{window.over_hours}h"
        if window.field is None:
            ones = pl.col(MOMENT).is_not_null().cast(pl.Float64)
            rolled = _rolled(ones, "sum", length)
        else:
            rolled = _rolled(pl.col(window.field).cast(pl.Float64), window.aggregate, length)
        added.append(pl.when(pl.col(spec.key).is_not_null()).then(rolled.over(spec.key)).alias(window.name))
    result = rows.with_columns(added).sort(order).drop(order, MOMENT)
    return result if isinstance(frame, pl.LazyFrame) else result.collect()


def _rolled(value: Any, aggregate: str, length: str) -> Any:
    settings: dict[str, Any] = {"window_size": length, "closed": "both", "min_samples": 1}
    if aggregate == "sum":
        return value.rolling_sum_by(MOMENT, **settings)
    if aggregate == "mean":
        return value.rolling_mean_by(MOMENT, **settings)
    if aggregate == "minimum":
        return value.rolling_min_by(MOMENT, **settings)
    return value.rolling_max_by(MOMENT, **settings)
