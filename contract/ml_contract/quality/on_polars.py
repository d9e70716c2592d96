"""Data quality measures of a polars table, lazily."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from ml_contract.quality.dqdl import KEYWORDS, Condition, DqdlError, Keyword, Operand, Rule
from ml_contract.quality.verdicts import COMPARISONS, condition_of, known_type

__all__ = ["PolarsEngine", "broken"]

_GIVEN = re.compile(r"\s*`?(\w+)`?\s+is\s+not\s+null\s*", re.IGNORECASE)
_DATA_TYPES = {
    "DATE": pl.Date(),
    "TIMESTAMP": pl.Datetime("us"),
    "INTEGER": pl.Int32(),
    "LONG": pl.Int64(),
    "FLOAT": pl.Float32(),
    "DOUBLE": pl.Float64(),
}


class PolarsEngine:
    """Measures a lazy frame; what row-wise rules need is taken in one pass, by the streaming engine."""

    def __init__(self, frame: pl.LazyFrame) -> None:
        self._frame = frame
        self._schema = frame.collect_schema()
        self.columns: Sequence[str] = self._schema.names()

    def measure(self, rules: Sequence[Rule]) -> Mapping[str, Mapping[str, Any]]:
        """Measures by the rule's text."""
        asked = [
            (rule.text, name, expression)
            for rule in rules
            for name, expression in _MEASURES[rule.kind](self._schema, rule).items()
        ]
        row = _collected(
            self._frame.select(expression.alias(f"m{i}") for i, (_, _, expression) in enumerate(asked))
        ).row(0)
        found: dict[str, dict[str, Any]] = {}
        for i, (text, name, _) in enumerate(asked):
            found.setdefault(text, {})[name] = row[i]
        return found

    def groups(self, rule: Rule) -> Mapping[str, int]:
        """Of the groups by the rule's columns: rows, nulls, once, distinct."""
        columns = [pl.col(column) for column in rule.parameters]
        some_null = pl.any_horizontal(column.is_null() for column in columns)
        count = pl.col("_rows")
        groups = self._frame.filter(_considered(rule)).group_by(*columns).agg(pl.len().alias("_rows"))
        row = _collected(
            groups.select(
                rows=count.filter(~some_null).sum(),
                nulls=count.filter(some_null).sum(),
                once=(~some_null & (count == 1)).sum(),
                distinct=(~some_null).sum(),
            )
        ).row(0, named=True)
        return {name: int(value or 0) for name, value in row.items()}

    def sql(self, statement: str) -> Sequence[Sequence[Any]]:
        """At most two rows of a statement over the table ``primary``."""
        context = pl.SQLContext(primary=self._frame, eager=False)
        return _collected(context.execute(statement).head(2)).rows()


def broken(schema: pl.Schema, rule: Rule) -> pl.Expr:
    """Whether a row breaks a row rule."""
    return _considered(rule) & ~_KEPT[rule.kind](schema, rule).fill_null(False)


def _collected(frame: pl.LazyFrame) -> pl.DataFrame:
    found = frame.collect(engine="streaming")
    if not isinstance(found, pl.DataFrame):
        raise TypeError(f"expected a table, got {type(found).__name__}")
    return found


def _considered(rule: Rule) -> pl.Expr:
    """Whether the rule looks at a row."""
    if rule.where is None:
        return pl.lit(True)
    given = _GIVEN.fullmatch(rule.where)
    if given is not None:
        return pl.col(given[1]).is_not_null()
    return pl.sql_expr(rule.where).fill_null(False)


def _column(rule: Rule) -> pl.Expr:
    return pl.col(rule.parameters[0])


def _share(schema: pl.Schema, rule: Rule) -> dict[str, pl.Expr]:
    considered = _considered(rule)
    kept = _KEPT[rule.kind](schema, rule).fill_null(False)
    # A literal alone has one row, whatever the table has.
    everything = _column(rule).is_null() | _column(rule).is_not_null()
    return {
        "rows": (everything & considered).sum(),
        "kept": (considered & kept & everything).sum(),
        "nulls": (considered & _column(rule).is_null()).sum(),
    }


def _row_count(_: pl.Schema, rule: Rule) -> dict[str, pl.Expr]:
    return {"value": pl.len() if rule.where is None else _considered(rule).sum()}


def _complete(_: pl.Schema, rule: Rule) -> pl.Expr:
    return _column(rule).is_not_null()


def _values(schema: pl.Schema, rule: Rule) -> pl.Expr:
    return _holds(_column(rule), schema[rule.parameters[0]], condition_of(rule))


def _length(_: pl.Schema, rule: Rule) -> pl.Expr:
    return _holds(_column(rule).cast(pl.String).str.len_chars(), pl.UInt32(), condition_of(rule))


def _data_type(_: pl.Schema, rule: Rule) -> pl.Expr:
    column = _column(rule)
    text = column.cast(pl.String).str.strip_chars()
    kind = known_type(rule)
    if kind == "BOOLEAN":
        return column.is_null() | text.str.to_lowercase().is_in(
            ["true", "false", "t", "f", "y", "n", "1", "0"]
        )
    if kind == "DATE":
        converts = text.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False).is_not_null()
    elif kind == "TIMESTAMP":
        converts = pl.coalesce(
            text.str.replace("T", " ")
            .str.replace("Z$", "")
            .str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False),
            text.str.to_datetime("%Y-%m-%d", strict=False),
        ).is_not_null()
    else:
        converts = text.cast(_DATA_TYPES[kind], strict=False).is_not_null()
    if kind in ("INTEGER", "LONG"):
        converts = text.str.contains(r"^[+-]?\d+$") & converts
    return column.is_null() | converts


_KEPT: dict[str, Callable[[pl.Schema, Rule], pl.Expr]] = {
    "IsComplete": _complete,
    "Completeness": _complete,
    "ColumnValues": _values,
    "ColumnLength": _length,
    "ColumnDataType": _data_type,
}


def _aggregate(function: Callable[[pl.Expr], pl.Expr]) -> Callable[[pl.Schema, Rule], dict[str, pl.Expr]]:
    def measure(_: pl.Schema, rule: Rule) -> dict[str, pl.Expr]:
        values = _column(rule).filter(_considered(rule) & _column(rule).is_not_null())
        # Of no value at all there is no mean, no sum and no deviation.
        return {"value": pl.when(values.len() > 0).then(function(values).cast(pl.Float64))}

    return measure


def _distinct(_: pl.Schema, rule: Rule) -> dict[str, pl.Expr]:
    values = _column(rule).filter(_considered(rule) & _column(rule).is_not_null())
    return {"value": values.n_unique()}


_MEASURES: dict[str, Callable[[pl.Schema, Rule], dict[str, pl.Expr]]] = {
    **dict.fromkeys(_KEPT, _share),
    "RowCount": _row_count,
    "DistinctValuesCount": _distinct,
    "Mean": _aggregate(lambda values: values.mean()),
    "Sum": _aggregate(lambda values: values.sum()),
    "StandardDeviation": _aggregate(lambda values: values.std(ddof=0)),
}


def _holds(value: pl.Expr, kind: pl.DataType, condition: Condition) -> pl.Expr:
    """Whether a row's value satisfies the condition. NULL satisfies only ``!=`` and ``not in``."""
    name, operands = condition.operator, condition.operands
    if name in ("!=", "not in"):
        named_null = KEYWORDS["NULL"] in operands
        among = _holds(value, kind, Condition("in", operands))
        return pl.when(value.is_null()).then(pl.lit(not named_null)).otherwise(~among)
    if name.startswith("not "):
        return value.is_not_null() & ~_holds(value, kind, Condition(name[4:], operands))
    if name in ("=", "in"):
        return functools.reduce(operator.or_, [_equals(value, kind, operand) for operand in operands])
    if name == "matches":
        pattern = operands[0]
        if not isinstance(pattern, str):
            raise DqdlError(f"matches wants a regular expression in quotes, got {pattern!r}")
        held = value.cast(pl.String).str.contains(f"^(?:{pattern})$")
    elif name == "between":
        (left, low), (_, high) = (_comparable(value, kind, operand) for operand in operands)
        held = (left > low) & (left < high)
    else:
        left, right = _comparable(value, kind, operands[0])
        held = COMPARISONS[name](left, right)
    return held.fill_null(False)


def _equals(value: pl.Expr, kind: pl.DataType, operand: Operand) -> pl.Expr:
    if isinstance(operand, Keyword):
        text = value.cast(pl.String)
        return {
            "NULL": value.is_null(),
            "EMPTY": (text == "").fill_null(False),
            "WHITESPACES_ONLY": text.str.contains(r"^\s+$").fill_null(False),
        }[operand.name]
    if isinstance(operand, str) and not kind.is_temporal():
        return (value.cast(pl.String) == operand).fill_null(False)
    left, right = _comparable(value, kind, operand)
    return (left == right).fill_null(False)


def _comparable(value: pl.Expr, kind: pl.DataType, operand: Operand) -> tuple[pl.Expr, pl.Expr]:
    if isinstance(operand, Keyword):
        raise DqdlError(f"{operand.name} goes with =, != and in")
    if isinstance(operand, float):
        return value.cast(pl.Float64, strict=False), pl.lit(operand)
    if kind == pl.Date:
        return value, pl.lit(operand).str.to_date("%Y-%m-%d", strict=False)
    if isinstance(kind, pl.Datetime):
        moment = pl.lit(operand).str.replace(" ", "T").str.to_datetime(strict=False, time_unit="us")
        return value.dt.replace_time_zone(None).cast(pl.Datetime("us")), moment
    return value, pl.lit(operand)
