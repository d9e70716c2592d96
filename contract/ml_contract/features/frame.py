"""Features of a whole table: the expressions lowered to polars, pandas or Spark through narwhals.

The same tree that ``ml_contract.features.row`` compiles. Where engines disagree (infinities, missing values
in conditions, Sundays, white space) the lowering says explicitly what ``ml_contract.expressions`` promises.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, Final

import narwhals as nw

from ml_contract.compiled import CompiledContract
from ml_contract.expressions import Expr, type_of
from ml_contract.features.row import BLANKS, DECIMAL, EXACT, may_overflow
from ml_contract.windows.engines import with_windows

__all__ = ["FrameError", "feature_frame"]

_MOMENT: Final = nw.Datetime("us")
_ARROW: Final = {
    "integer": "int64",
    "number": "float64",
    "string": "string",
    "boolean": "bool",
    "date": "date32",
    "timestamp": "timestamp",
}


class FrameError(ValueError):
    """A table that does not hold what the contract says."""


def feature_frame(native: Any, contract: CompiledContract, *, label: bool = True) -> Any:
    """Table of identifier, event time (ISO text, UTC), label, group and features, of ``native``'s kind.

    The group is there for a grouped split whose group is no feature.

    ``native`` is a polars, pandas or Spark table with the contract's columns under their names, typed as
    ``CompiledContract.glue_columns`` says; further columns are ignored. Window features are computed over the
    table unless it holds them already (a pandas table must). ``label=False`` leaves the label
    out, for tables that have none yet. Raises FrameError naming every column that is missing or of another
    type.
    """
    pandas = _is_pandas(native)
    if contract.windows is not None and not pandas:
        native = with_windows(native, contract)
    used = _used_columns(contract, label=label)
    if pandas:
        native = _arrow_backed(native, contract, used)
    frame = nw.from_native(native)
    if isinstance(frame, nw.LazyFrame) and "pyspark" in frame.implementation.value:
        _require_utc(frame.to_native())
    _check(frame.collect_schema(), contract, used)
    polars = frame.implementation.is_polars()
    result = frame.select(
        _key(contract),
        _iso(contract, polars=polars).alias(contract.event_time),
        *([_label(contract)] if label else []),
        *_group(contract),
        *_features(contract, polars=polars),
    ).to_native()
    return _plain_pandas(result, contract) if pandas else result


def _used_columns(contract: CompiledContract, *, label: bool) -> list[str]:
    used = {contract.identifier, contract.event_time}
    if contract.group_key is not None:
        used.add(contract.group_key)
    if label:
        used.add(contract.label.field)
    for feature in (*contract.features, *contract.audit):
        used |= feature.expression.columns()
    return [c.name for c in contract.input_columns if c.name in used]


def _features(contract: CompiledContract, *, polars: bool) -> list[nw.Expr]:
    lowering = _Lowering(contract.types, polars=polars)
    columns = []
    for feature in (*contract.features, *contract.audit):
        value = lowering.finite(feature.expression)
        if type_of(feature.expression, contract.types) == "boolean":
            value = _number_from_boolean(value)
        columns.append(value.alias(feature.name))
    return columns


def _key(contract: CompiledContract) -> nw.Expr:
    kind = contract.types[contract.identifier]
    key = nw.col(contract.identifier)
    return key.cast(nw.Int64) if kind == "integer" else key.cast(nw.String)


def _label(contract: CompiledContract) -> nw.Expr:
    node = Expr("col", (), (contract.label.field,))
    if contract.label.task != "regression":
        node = node.cast("string")
    return _Lowering(contract.types).finite(node).alias(contract.label.field)


def _group(contract: CompiledContract) -> list[nw.Expr]:
    name = contract.group_key
    if name is None:
        return []
    # Not through a float: integers of 64 bits stay apart.
    key = nw.col(name)
    kind = contract.types[name]
    if kind == "boolean":
        return [_text_from_boolean(key.cast(nw.Boolean)).alias(name)]
    return [(key.cast(nw.Int64) if kind == "integer" else key).cast(nw.String).alias(name)]


def _iso(contract: CompiledContract, *, polars: bool) -> nw.Expr:
    moment = nw.col(contract.event_time)
    if polars:
        # One text instead of two and their sum; a date has no time of day to be looked at.
        if contract.types[contract.event_time] == "date":
            return moment.cast(nw.Date).dt.to_string("%Y-%m-%dT00:00:00Z")
        return moment.cast(_MOMENT).dt.to_string("%Y-%m-%dT%H:%M:%SZ")
    return nw.concat_str([moment.cast(_MOMENT).dt.to_string("%Y-%m-%dT%H:%M:%S"), nw.lit("Z")])


# --- lowering -----------------------------------------------------------------------------------------


class _Lowering:
    def __init__(self, types: Mapping[str, str], *, polars: bool = False) -> None:
        self.types = types
        self._polars = polars
        self._day_number = _polars_day_number if polars else _day_number

    def finite(self, node: Expr) -> nw.Expr:
        """Value of ``node``, missing where it is not finite."""
        value = self.value(node)
        return _finite(value) if may_overflow(node) else value

    def value(self, node: Expr) -> nw.Expr:  # noqa: PLR0911
        op = node.op
        if op == "col":
            return self._column(node.params[0])
        if op == "lit":
            return _literal(node.params[0])
        if op in _ARITHMETIC:
            a, b = (self.value(x) for x in node.args)
            return _ARITHMETIC[op](a, b)
        if op == "when":
            return self._when(node)
        operands = [self.finite(x) for x in node.args]
        if op == "days_between":
            return self._day_number(operands[1]) - self._day_number(operands[0])
        if op == "weekday":
            return _weekday(self._day_number(operands[0]))
        if op in _BINARY:
            return _BINARY[op](*operands)
        if op in _UNARY:
            return _UNARY[op](operands[0])
        if op == "cast":
            source = type_of(node.args[0], self.types)
            return _CASTS[source, node.params[0]](operands[0])
        if op == "map_values" and self._polars:
            return _polars_map_values(operands[0], *node.params)
        return _PARAMETRISED[op](operands[0], *node.params)

    def _when(self, node: Expr) -> nw.Expr:
        condition, then, otherwise = node.args
        kind = type_of(node, self.types)
        branches = [
            nw.lit(None, dtype=_DTYPES[kind]) if b.op == "lit" and b.params[0] is None else self.finite(b)
            for b in (then, otherwise)
        ]
        return nw.when(_certain(self.finite(condition))).then(branches[0]).otherwise(branches[1])

    def _column(self, name: str) -> nw.Expr:
        kind = self.types[name]
        column = nw.col(name)
        if kind == "integer":
            return column.cast(nw.Float64)
        if kind == "number":
            return _finite(column.cast(nw.Float64))
        return column.cast(_DTYPES[kind])


def _literal(value: Any) -> nw.Expr:
    if isinstance(value, bool):
        return nw.lit(value, dtype=nw.Boolean)
    if isinstance(value, int | float):
        return nw.lit(float(value), dtype=nw.Float64)
    if isinstance(value, dt.datetime):
        return nw.lit(value, dtype=_MOMENT)
    if isinstance(value, dt.date):
        return nw.lit(value, dtype=nw.Date)
    if value is None:
        return nw.lit(None, dtype=nw.Float64)
    return nw.lit(value, dtype=nw.String)


def _finite(value: nw.Expr) -> nw.Expr:
    return nw.when(_certain(value.is_finite())).then(value)


def _certain(condition: nw.Expr) -> nw.Expr:
    """The condition with unknown as false."""
    return condition.fill_null(nw.lit(False, dtype=nw.Boolean))


def _divide(a: nw.Expr, b: nw.Expr) -> nw.Expr:
    return a / nw.when(_certain(b != 0.0)).then(b)


def _conjunction(a: nw.Expr, b: nw.Expr) -> nw.Expr:
    return a & b


def _disjunction(a: nw.Expr, b: nw.Expr) -> nw.Expr:
    return a | b


def _day_number(moment: nw.Expr) -> nw.Expr:
    """Days since a fixed day of the proleptic Gregorian calendar.

    By arithmetic on year, month and day, since durations are not the same thing on every engine: years
    begin in March, so that the leap day is the last of its year and months before it have a fixed number of
    days.
    """
    year = moment.dt.year().cast(nw.Float64)
    month = moment.dt.month().cast(nw.Float64)
    day = moment.dt.day().cast(nw.Float64)
    early = _number_from_boolean(month <= 2.0)
    y = year - early
    m = month - 3.0 + early * 12.0
    return (
        y * 365.0
        + (y / 4.0).floor()
        - (y / 100.0).floor()
        + (y / 400.0).floor()
        + ((m * 153.0 + 2.0) / 5.0).floor()
        + day
    )


def _polars_day_number(moment: nw.Expr) -> nw.Expr:
    # Polars keeps a date as its days since 1970-01-01, which is day 719,469 of the calendar above. A tenth of
    # the time that the arithmetic takes.
    return moment.cast(nw.Date).cast(nw.Int64).cast(nw.Float64) + 719_469.0


def _weekday(day_number: nw.Expr) -> nw.Expr:
    # Not `dt.weekday()`: on Spark that gives 0 for Sunday. Day number 3 of this calendar is a Monday after
    # 1 March.
    days = day_number + 1.0
    return days - (days / 7.0).floor() * 7.0 + 1.0


def _number_from_boolean(value: nw.Expr) -> nw.Expr:
    return value.cast(nw.Int64).cast(nw.Float64)


def _number_from_text(value: nw.Expr) -> nw.Expr:
    # Some engines let $ match before a line break at the end, so nothing but a number's characters may occur.
    readable = _certain(value.str.contains(f"^{DECIMAL}$") & ~value.str.contains("[^0-9.+-]"))
    return _finite(nw.when(readable).then(value).cast(nw.Float64))


def _text_from_number(value: nw.Expr) -> nw.Expr:
    whole = _certain((value.abs() < EXACT) & (value.floor() == value))
    return nw.when(whole).then(value).cast(nw.Int64).cast(nw.String)


def _text_from_boolean(value: nw.Expr) -> nw.Expr:
    text = (
        nw.when(_certain(value))
        .then(nw.lit("true", dtype=nw.String))
        .otherwise(nw.lit("false", dtype=nw.String))
    )
    return nw.when(~value.is_null()).then(text)


def _lower(value: nw.Expr) -> nw.Expr:
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        value = value.str.replace_all(letter, letter.lower(), literal=True)
    return value


def _log1p(value: nw.Expr) -> nw.Expr:
    return (nw.when(_certain(value > -1.0)).then(value) + 1.0).log()


def _cut(value: nw.Expr, edges: list[float], labels: list[str], below: str, above: str) -> nw.Expr:
    result: nw.Expr = nw.lit(above, dtype=nw.String)
    for edge, label in reversed(list(zip(edges, [below, *labels], strict=True))):
        result = nw.when(_certain(value < edge)).then(nw.lit(label, dtype=nw.String)).otherwise(result)
    return nw.when(~value.is_null()).then(result)


def _map_values(value: nw.Expr, pairs: list[tuple[str, Any]], default: Any) -> nw.Expr:
    dtype = nw.String if isinstance(pairs[0][1], str) else nw.Float64
    result: nw.Expr = nw.lit(default, dtype=dtype)
    for key, mapped in reversed(pairs):
        result = nw.when(_certain(value == key)).then(nw.lit(mapped, dtype=dtype)).otherwise(result)
    return nw.when(~value.is_null()).then(result)


def _polars_map_values(value: nw.Expr, pairs: list[tuple[str, Any]], default: Any) -> nw.Expr:
    # One look-up a row, where the other engines compare with every text.
    dtype = nw.String if isinstance(pairs[0][1], str) else nw.Float64
    texts, mapped = [key for key, _ in pairs], [value for _, value in pairs]
    found = value.replace_strict(texts, mapped, default=nw.lit(default, dtype=dtype), return_dtype=dtype)
    return nw.when(~value.is_null()).then(found)


def _is_in(value: nw.Expr, *values: float | str) -> nw.Expr:
    return nw.when(~value.is_null()).then(value.is_in(list(values)))


def _clip(value: nw.Expr, low: float | None, high: float | None) -> nw.Expr:
    if low is not None:
        value = nw.when(_certain(value < low)).then(nw.lit(low, dtype=nw.Float64)).otherwise(value)
    if high is not None:
        value = nw.when(_certain(value > high)).then(nw.lit(high, dtype=nw.Float64)).otherwise(value)
    return value


_DTYPES: Final[dict[str, Any]] = {
    "number": nw.Float64,
    "string": nw.String,
    "boolean": nw.Boolean,
    "date": nw.Date,
    "timestamp": _MOMENT,
    "null": nw.Float64,
}
_ARITHMETIC: Final[dict[str, Callable[[nw.Expr, nw.Expr], nw.Expr]]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": _divide,
}
_BINARY: Final[dict[str, Callable[[nw.Expr, nw.Expr], nw.Expr]]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "and": _conjunction,
    "or": _disjunction,
    "fill_null": lambda a, b: nw.when(~a.is_null()).then(a).otherwise(b),
}
_UNARY: Final[dict[str, Callable[[nw.Expr], nw.Expr]]] = {
    "neg": lambda a: a * -1.0,
    "abs": lambda a: a.abs(),
    "floor": lambda a: nw.when(_certain(a.abs() < EXACT)).then(a.floor().cast(nw.Float64)).otherwise(a),
    "log1p": _log1p,
    "not": lambda a: ~a,
    "is_null": lambda a: a.is_null(),
    "year": lambda a: a.dt.year().cast(nw.Float64),
    "month": lambda a: a.dt.month().cast(nw.Float64),
    "day": lambda a: a.dt.day().cast(nw.Float64),
    "hour": lambda a: a.dt.hour().cast(nw.Float64),
    "lower": _lower,
    "strip": lambda a: a.str.strip_chars(BLANKS),
    "length": lambda a: a.str.len_chars().cast(nw.Float64),
}
_PARAMETRISED: Final[dict[str, Callable[..., nw.Expr]]] = {
    "is_in": _is_in,
    "is_between": lambda a, low, high: (a >= low) & (a <= high),
    "contains": lambda a, text: a.str.contains(text, literal=True),
    "starts_with": lambda a, text: a.str.starts_with(text),
    "clip": _clip,
    "cut": _cut,
    "map_values": _map_values,
}
_CASTS: Final[dict[tuple[str, str], Callable[[nw.Expr], nw.Expr]]] = {
    ("number", "number"): lambda a: a,
    ("string", "string"): lambda a: a,
    ("boolean", "number"): _number_from_boolean,
    ("string", "number"): _number_from_text,
    ("number", "string"): _text_from_number,
    ("boolean", "string"): _text_from_boolean,
}


# --- tables -------------------------------------------------------------------------------------------


def _check(schema: nw.Schema, contract: CompiledContract, used: list[str]) -> None:
    problems = []
    for name in used:
        kind = contract.types[name]
        if name not in schema:
            problems.append(f"column {name} is missing")
        elif not _fits(schema[name], kind):
            problems.append(f"column {name} is {schema[name]}, the contract says {kind}")
    if problems:
        raise FrameError(f"the table does not fit workload {contract.name}: " + "; ".join(problems))


def _fits(dtype: Any, kind: str) -> bool:
    if dtype == nw.Unknown:  # a column of nothing but missing values
        return True
    if kind in ("integer", "number"):
        return bool(dtype.is_numeric())
    if kind in ("date", "timestamp"):
        return isinstance(dtype, nw.Date | nw.Datetime)
    if kind == "boolean":
        return isinstance(dtype, nw.Boolean)
    return isinstance(dtype, nw.String | nw.Categorical | nw.Enum)


def _require_utc(native: Any) -> None:
    zone = native.sparkSession.conf.get("spark.sql.session.timeZone")
    if zone not in ("UTC", "Etc/UTC", "GMT", "Z", "+00:00"):
        raise FrameError(
            f"the Spark session's time zone is {zone}, so dates would move; "
            "set spark.sql.session.timeZone to UTC"
        )


def _is_pandas(native: Any) -> bool:
    return type(native).__module__.split(".", 1)[0] == "pandas"


def _arrow_backed(native: Any, contract: CompiledContract, used: list[str]) -> Any:
    """The used columns as Arrow-backed ones: only these keep 'missing' apart from NaN and False."""
    import pandas as pd
    import pyarrow as pa

    types = {
        "int64": pa.int64(),
        "float64": pa.float64(),
        "string": pa.string(),
        "bool": pa.bool_(),
        "date32": pa.date32(),
        "timestamp": pa.timestamp("us"),
    }
    columns = {}
    for name in used:
        if name not in native.columns:
            continue
        series = native[name]
        kind = contract.types[name]
        if kind in ("date", "timestamp") and isinstance(series.dtype, pd.DatetimeTZDtype):
            series = series.dt.tz_convert("UTC").dt.tz_localize(None)
        # An integer column with gaps is a float column in pandas.
        wanted = (
            "float64" if kind == "integer" and pd.api.types.is_float_dtype(series.dtype) else _ARROW[kind]
        )
        try:
            columns[name] = series.astype(pd.ArrowDtype(types[wanted]))
        except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError, TypeError) as error:
            raise FrameError(
                f"the table does not fit workload {contract.name}: column {name} is {series.dtype}, "
                f"the contract says {kind} ({error})"
            ) from error
    return pd.DataFrame(columns, index=native.index)


def _plain_pandas(result: Any, contract: CompiledContract) -> Any:
    """Numbers as numpy floats (NaN is missing), texts as objects (None is missing)."""
    import numpy as np

    for name, kind in contract.feature_columns():
        if name not in result.columns:
            continue
        if kind == "double":
            result[name] = result[name].to_numpy(dtype=np.float64, na_value=np.nan)
        elif kind == "string":
            result[name] = result[name].astype(object).where(result[name].notna(), None)
    return result
