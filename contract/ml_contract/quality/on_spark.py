"""Data quality measures of a Spark table."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf
from pyspark.sql import types as st

from ml_contract.quality.dqdl import KEYWORDS, Condition, DqdlError, Keyword, Operand, Rule
from ml_contract.quality.verdicts import COMPARISONS, condition_of, known_type

if TYPE_CHECKING:
    from pyspark.sql import Row

__all__ = ["SparkEngine", "broken"]

#: Spark types that a value of the DQDL type converts to.
_DATA_TYPES = {
    "BOOLEAN": "boolean",
    "DATE": "date",
    "TIMESTAMP": "timestamp",
    "INTEGER": "int",
    "LONG": "bigint",
    "FLOAT": "float",
    "DOUBLE": "double",
}


class SparkEngine:
    """Measures a Spark frame; what row-wise rules need is taken in one pass."""

    def __init__(self, frame: DataFrame) -> None:
        self._frame = frame
        self.columns: Sequence[str] = frame.columns

    def measure(self, rules: Sequence[Rule]) -> Mapping[str, Mapping[str, Any]]:
        """Measures by the rule's text."""
        asked = [
            (rule.text, name, column)
            for rule in rules
            for name, column in _MEASURES[rule.kind](self._frame, rule).items()
        ]
        row = _only(self._frame.agg(*(column.alias(f"m{i}") for i, (_, _, column) in enumerate(asked))))
        found: dict[str, dict[str, Any]] = {}
        for i, (text, name, _) in enumerate(asked):
            found.setdefault(text, {})[name] = row[i]
        return found

    def groups(self, rule: Rule) -> Mapping[str, int]:
        """Of the groups by the rule's columns: rows, nulls, once, distinct."""
        columns = [sf.col(f"`{column}`") for column in rule.parameters]
        any_null = functools.reduce(operator.or_, [column.isNull() for column in columns])
        groups = self._frame.where(_considered(rule)).groupBy(*columns).count()
        row = _only(
            groups.agg(
                sf.sum(sf.when(~any_null, sf.col("count")).otherwise(0)).alias("rows"),
                sf.sum(sf.when(any_null, sf.col("count")).otherwise(0)).alias("nulls"),
                sf.count(sf.when(~any_null & (sf.col("count") == 1), 1)).alias("once"),
                sf.count(sf.when(~any_null, 1)).alias("distinct"),
            )
        )
        return {name: int(value or 0) for name, value in row.asDict().items()}

    def sql(self, statement: str) -> Sequence[Sequence[Any]]:
        """At most two rows of a statement over the table ``primary``."""
        self._frame.createOrReplaceTempView("primary")
        rows: list[Row] = self._frame.sparkSession.sql(statement).take(2)
        return rows


def broken(frame: DataFrame, rule: Rule) -> Column:
    """Whether a row breaks a row rule."""
    return _considered(rule) & ~sf.coalesce(_KEPT[rule.kind](frame, rule), sf.lit(False))


def _only(frame: DataFrame) -> Row:
    row: Row | None = frame.first()
    if row is None:
        raise RuntimeError("an aggregate without groups gave no row")
    return row


def _considered(rule: Rule) -> Column:
    """Whether the rule looks at a row."""
    return sf.lit(True) if rule.where is None else sf.coalesce(sf.expr(rule.where), sf.lit(False))


def _column(rule: Rule) -> Column:
    return sf.col(f"`{rule.parameters[0]}`")


def _share(frame: DataFrame, rule: Rule) -> dict[str, Column]:
    considered = _considered(rule)
    kept = sf.coalesce(_KEPT[rule.kind](frame, rule), sf.lit(False))
    return {
        "rows": sf.count(sf.when(considered, 1)),
        "kept": sf.count(sf.when(considered & kept, 1)),
        "nulls": sf.count(sf.when(considered & _column(rule).isNull(), 1)),
    }


def _row_count(_: DataFrame, rule: Rule) -> dict[str, Column]:
    return {"value": sf.count(sf.when(_considered(rule), 1)).cast("double")}


def _complete(_: DataFrame, rule: Rule) -> Column:
    return _column(rule).isNotNull()


def _values(frame: DataFrame, rule: Rule) -> Column:
    return _holds(_column(rule), frame.schema[rule.parameters[0]].dataType, condition_of(rule))


def _length(_: DataFrame, rule: Rule) -> Column:
    return _holds(sf.length(_column(rule)), st.IntegerType(), condition_of(rule))


def _data_type(_: DataFrame, rule: Rule) -> Column:
    column = _column(rule)
    text = column.cast("string")
    kind = _DATA_TYPES[known_type(rule)]
    converts = text.cast(kind).isNotNull()
    if kind in ("int", "bigint"):
        # Spark reads "1.5" as 1; a fraction is no integer.
        converts = text.rlike(r"^\s*[+-]?\d+\s*$") & converts
    return column.isNull() | converts


_KEPT: dict[str, Callable[[DataFrame, Rule], Column]] = {
    "IsComplete": _complete,
    "Completeness": _complete,
    "ColumnValues": _values,
    "ColumnLength": _length,
    "ColumnDataType": _data_type,
}


def _aggregate(function: Callable[[Column], Column]) -> Callable[[DataFrame, Rule], dict[str, Column]]:
    def measure(_: DataFrame, rule: Rule) -> dict[str, Column]:
        return {"value": function(sf.when(_considered(rule), _column(rule))).cast("double")}

    return measure


_MEASURES: dict[str, Callable[[DataFrame, Rule], dict[str, Column]]] = {
    **dict.fromkeys(_KEPT, _share),
    "RowCount": _row_count,
    "DistinctValuesCount": _aggregate(sf.countDistinct),
    "Mean": _aggregate(sf.avg),
    "Sum": _aggregate(sf.sum),
    "StandardDeviation": _aggregate(sf.stddev_pop),
}


def _holds(value: Column, kind: st.DataType, condition: Condition) -> Column:
    """Whether a row's value satisfies the condition. NULL satisfies only ``!=`` and ``not in``."""
    name, operands = condition.operator, condition.operands
    if name in ("!=", "not in"):
        named_null = KEYWORDS["NULL"] in operands
        among = _holds(value, kind, Condition("in", operands))
        return sf.when(value.isNull(), sf.lit(not named_null)).otherwise(~among)
    if name.startswith("not "):
        return value.isNotNull() & ~_holds(value, kind, Condition(name[4:], operands))
    if name in ("=", "in"):
        return functools.reduce(operator.or_, [_equals(value, kind, operand) for operand in operands])
    if name == "matches":
        pattern = operands[0]
        if not isinstance(pattern, str):
            raise DqdlError(f"matches wants a regular expression in quotes, got {pattern!r}")
        held = value.cast("string").rlike(f"^(?:{pattern})$")
    elif name == "between":
        (left, low), (_, high) = (_comparable(value, operand) for operand in operands)
        held = (left > low) & (left < high)
    else:
        left, right = _comparable(value, operands[0])
        held = COMPARISONS[name](left, right)
    return sf.coalesce(held, sf.lit(False))


def _equals(value: Column, kind: st.DataType, operand: Operand) -> Column:
    if isinstance(operand, Keyword):
        text = value.cast("string")
        return {
            "NULL": value.isNull(),
            "EMPTY": sf.coalesce(text == "", sf.lit(False)),
            "WHITESPACES_ONLY": sf.coalesce(text.rlike(r"^\s+$"), sf.lit(False)),
        }[operand.name]
    left = value.cast("double") if isinstance(operand, float) else value
    if isinstance(operand, str) and not isinstance(kind, (st.DateType, st.TimestampType)):
        left = value.cast("string")
    return sf.coalesce(left == sf.lit(operand), sf.lit(False))


def _comparable(value: Column, operand: Operand) -> tuple[Column, Column]:
    if isinstance(operand, Keyword):
        raise DqdlError(f"{operand.name} goes with =, != and in")
    return (value.cast("double") if isinstance(operand, float) else value), sf.lit(operand)
