"""Labels joined with features as they were known: one meaning, on one machine (polars) and on Spark.

A model must learn from what would have been known when it would have been asked. So each label row gets, of
the history of its record, the newest feature row

- whose event is not after the label's moment (``event_time <= label_time``; the same instant counts), and
- which had been written by then, where a ``cutoff`` is given (``write_time <= cutoff``): a training set made
  again later is the same, whatever was corrected or backfilled since.

Newest is by event time; of one event time by write time, then by the time of the call, so that a correction
counts. A deletion is a row like any other: after it there are no features until a newer row comes; of rows
that share all three times the deletion is the newest, and else the one whose values are greatest, column by
column in the order of ``features`` (no value is less than any). Every label row comes out once, duplicates
too; without a row of features it has no value in any of them. A label without an identifier or a moment has
no features.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import polars as pl

__all__ = ["AsOf", "AsOfError", "as_of"]

_AT: Final = "__as_of_at"
_ROW: Final = "__as_of_row"
_KIND: Final = "__as_of_kind"
_LABEL: Final = "__as_of_label"
_FOUND: Final = "__as_of_found"


class AsOfError(ValueError):
    """The tables cannot be joined; the message lists everything that stands against it."""


@dataclass(frozen=True, kw_only=True)
class AsOf:
    """Names of the columns and the moment of knowledge.

    Times are timestamps, dates or ISO 8601 texts, of labels and history alike; a time without a zone is UTC.
    """

    identifier: str
    label_time: str
    event_time: str
    features: tuple[str, ...]
    write_time: str | None = None
    invocation_time: str | None = None
    deleted: str | None = None
    cutoff: datetime | None = None
    #: Column of the result that says of when the features are; None for none.
    found_at: str | None = field(default=None)

    def __post_init__(self) -> None:
        problems = []
        if not self.features:
            problems.append("features must name a column or more")
        if len(set(self.features)) != len(self.features):
            problems.append("features names a column twice")
        if self.cutoff is not None and self.write_time is None:
            problems.append("a cutoff needs write_time, the column that it is held against")
        if self.cutoff is not None and self.cutoff.tzinfo is None:
            problems.append(f"cutoff must have a zone, got {self.cutoff}")
        if problems:
            raise AsOfError("; ".join(problems))

    @property
    def ties(self) -> tuple[str, ...]:
        """What decides between rows of one event time, before their values."""
        return tuple(c for c in (self.write_time, self.invocation_time, self.deleted) if c is not None)

    def check(self, labels: list[str], history: list[str]) -> None:
        """Raise when columns are missing or would stand twice."""
        made = (*self.features, *(() if self.found_at is None else (self.found_at,)))
        wanted = (self.identifier, self.event_time, *self.ties, *self.features)
        problems = [
            *(f"labels lack {c}" for c in (self.identifier, self.label_time) if c not in labels),
            *(f"history lacks {c}" for c in dict.fromkeys(wanted) if c not in history),
            *(f"labels have a column {c}, which the features bring too" for c in made if c in labels),
        ]
        if problems:
            raise AsOfError("; ".join(problems))


def as_of(labels: Any, history: Any, spec: AsOf) -> Any:
    """The label rows with the features as they were known: two frames of polars or two of Spark.

    Raises AsOfError when columns are missing.
    """
    import narwhals as nw

    implementation = nw.get_native_namespace(labels).__name__.partition(".")[0]
    spec.check(_names(labels), _names(history))
    if implementation == "polars":
        return _polars(labels.lazy().collect(), history.lazy().collect(), spec)
    if implementation == "pyspark":
        return _spark(labels, history, spec)
    raise AsOfError(f"frames must be of polars or Spark, got {implementation}")


def _names(frame: Any) -> list[str]:
    return list(frame.collect_schema().names() if hasattr(frame, "collect_schema") else frame.columns)


# --- one machine --------------------------------------------------------------------------------------------


def _polars(labels: pl.DataFrame, history: pl.DataFrame, spec: AsOf) -> pl.DataFrame:
    """Keys only are sorted and joined; the features of the chosen rows are gathered once, at the end."""
    import polars as pl

    def moment(frame: pl.DataFrame, column: str) -> pl.Expr:
        kind = frame.schema[column]
        value = pl.col(column)
        if kind == pl.String:
            return value.str.to_datetime("%+", time_unit="us", time_zone="UTC")
        if isinstance(kind, pl.Datetime) and kind.time_zone is not None:
            return value.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
        return value.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")

    ties = [
        pl.col(c).fill_null(value=False) if c == spec.deleted else moment(history, c).alias(c)
        for c in spec.ties
    ]
    keys = history.select(
        pl.col(spec.identifier), moment(history, spec.event_time).alias(_AT), *ties
    ).with_row_index(_ROW)
    keys = keys.filter(pl.col(spec.identifier).is_not_null() & pl.col(_AT).is_not_null())
    if spec.cutoff is not None:
        keys = keys.filter(pl.col(str(spec.write_time)) <= spec.cutoff)
    order = [spec.identifier, _AT, *spec.ties]
    keys = keys.sort(order, nulls_last=False)
    keys = _without_ties(keys, history, order, spec)
    newest = keys.unique(subset=[spec.identifier, _AT], keep="last", maintain_order=True)
    # Two sorted lists are walked side by side: by moment alone, since equal identifiers are compared exactly.
    asked = labels.select(pl.col(spec.identifier), moment(labels, spec.label_time).alias(_LABEL))
    asked = asked.with_row_index("__as_of_asked")
    found = (
        asked.drop_nulls([spec.identifier, _LABEL])
        .sort(_LABEL)
        .join_asof(
            newest.sort(_AT),
            left_on=_LABEL,
            right_on=_AT,
            by=spec.identifier,
            strategy="backward",
            check_sortedness=False,
        )
    )
    if spec.deleted is not None:
        found = found.with_columns(
            pl.when(~pl.col(spec.deleted)).then(pl.col(_ROW)).alias(_ROW),
            pl.when(~pl.col(spec.deleted)).then(pl.col(_AT)).alias(_AT),
        )
    chosen = asked.join(found.select("__as_of_asked", _ROW, _AT), on="__as_of_asked", how="left")
    chosen = chosen.sort("__as_of_asked")
    values = history.select(spec.features).select(pl.all().gather(chosen[_ROW]))
    more = [] if spec.found_at is None else [chosen[_AT].alias(spec.found_at)]
    return labels.with_columns(*values.get_columns(), *more)


def _without_ties(keys: pl.DataFrame, history: pl.DataFrame, order: list[str], spec: AsOf) -> pl.DataFrame:
    """Put rows that share every key into the order of their values; there are few or none."""
    import polars as pl

    tied = keys.filter(pl.struct(order).is_duplicated())
    if not tied.height:
        return keys
    values = history.select(spec.features).select(pl.all().gather(tied[_ROW]))
    tied = pl.concat([tied, values], how="horizontal").sort(
        [*order, *spec.features], nulls_last=False, maintain_order=True
    )
    rest = keys.filter(~pl.struct(order).is_duplicated())
    return pl.concat([rest, tied.select(keys.columns)]).sort(order, nulls_last=False, maintain_order=True)


# --- Spark --------------------------------------------------------------------------------------------------


def _spark(labels: Any, history: Any, spec: AsOf) -> Any:
    """Labels and history in one table, in order, once over: one shuffle, however long a history is."""
    from pyspark.sql import Window
    from pyspark.sql import functions as sf

    def moment(column: str) -> Any:
        return sf.col(column).cast("timestamp")

    ties = [
        sf.coalesce(sf.col(c).cast("boolean"), sf.lit(False)).alias(c)
        if c == spec.deleted
        else moment(c).alias(c)
        for c in spec.ties
    ]
    known = history.where(sf.col(spec.identifier).isNotNull() & moment(spec.event_time).isNotNull())
    if spec.cutoff is not None:
        known = known.where(moment(str(spec.write_time)) <= sf.lit(spec.cutoff))
    row = sf.struct(*ties, *(sf.col(name) for name in spec.features), moment(spec.event_time).alias(_AT))
    known = known.select(
        sf.col(spec.identifier).alias(_LABEL + "_id"),
        moment(spec.event_time).alias(_AT),
        sf.lit(0).alias(_KIND),
        row.alias(_FOUND),
        sf.lit(None).cast(labels.select(sf.struct("*").alias(_LABEL)).schema[0].dataType).alias(_LABEL),
    )
    asked = labels.select(
        sf.col(spec.identifier).alias(_LABEL + "_id"),
        moment(spec.label_time).alias(_AT),
        sf.lit(1).alias(_KIND),
        sf.lit(None).cast(known.schema[_FOUND].dataType).alias(_FOUND),
        sf.struct(*labels.columns).alias(_LABEL),
    )
    walk = (
        Window.partitionBy(_LABEL + "_id")
        # Features of the label's very moment come before it; a label without a moment before all features.
        .orderBy(sf.col(_AT).asc_nulls_first(), _KIND, sf.col(_FOUND).asc_nulls_first())
        .rowsBetween(Window.unboundedPreceding, Window.currentRow)
    )
    joined = (
        known.unionByName(asked)
        .withColumn(_FOUND, sf.last(_FOUND, ignorenulls=True).over(walk))
        .where(sf.col(_KIND) == 1)
    )
    there = sf.lit(True) if spec.deleted is None else ~sf.col(f"{_FOUND}.{spec.deleted}")
    more = () if spec.found_at is None else ((_AT, spec.found_at),)
    return joined.select(
        *(sf.col(f"{_LABEL}.{name}").alias(name) for name in labels.columns),
        *(
            sf.when(there, sf.col(f"{_FOUND}.{name}")).alias(alias)
            for name, alias in (*((name, name) for name in spec.features), *more)
        ),
    )
