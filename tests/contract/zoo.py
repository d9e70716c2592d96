"""A contract that uses every operation on every type, and records for it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from ml_contract.compiled import Column, CompiledContract, Feature, FitSpec, LabelSpec
from ml_contract.expressions import Expr, col, lit, type_of, when

#: Derandomised: the same records in every run, so that a red run can be had again; no minutes of shrinking.
QUICK = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)

COLUMNS = (
    Column(name="key", source="key", type="string", required=True),
    Column(name="day", source="day", type="date", required=True),
    Column(name="i", source="i", type="integer"),
    Column(name="j", source="j", type="integer"),
    Column(name="x", source="x", type="number"),
    Column(name="y", source="y", type="number"),
    Column(name="s", source="s", type="string"),
    Column(name="t", source="t", type="string"),
    Column(name="a", source="a", type="boolean"),
    Column(name="b", source="b", type="boolean"),
    Column(name="d", source="d", type="date"),
    Column(name="m", source="m", type="timestamp"),
    Column(name="outcome", source="outcome", type="string"),
)
i, j, x, y = col("i"), col("j"), col("x"), col("y")
s, t, a, b, d, m, day = col("s"), col("t"), col("a"), col("b"), col("d"), col("m"), col("day")

EXPRESSIONS: dict[str, Expr] = {
    "integer": i,
    "number": x,
    "text": s,
    "boolean": a,
    "sum": x + y,
    "sum_of_integers": i + j,
    "difference": 10 - x,
    "product": x * y * i,
    "quotient": x / y,
    "quotient_of_integers": i / j,
    "inverse": 1 / i,
    "nested_division": (x + 1) / (y / (i - j)),
    "overflow_back": (x * 1e200 * 1e200) / 1e300,
    "overflow_compared": (x * 1e200 * 1e200) > y,
    "negated": -x,
    "absolute": (x - y).abs(),
    "floored": (x / 3).floor(),
    "logarithm": x.log1p(),
    "clipped": x.clip(-5, 5),
    "clipped_below": i.clip(lower=0),
    "clipped_above": (x * y).clip(upper=2.5),
    "equal": x == y,
    "equal_integers": i == j,
    "unequal": i != 3,
    "less": x < y,
    "less_or_equal": x <= 0,
    "greater": i > j,
    "greater_or_equal": y >= x,
    "texts_equal": s == t,
    "text_unequal": s != "Ab",
    "text_less": s < t,
    "booleans_equal": a == b,
    "dates_less": day < d,
    "date_after": d >= lit(dt.date(2015, 2, 28)),
    "moment_before": m < lit(dt.datetime(2015, 3, 1, 12, 30)),
    "and": a & b,
    "or": a | b,
    "not": ~a,
    "and_of_comparisons": (x > 0) & (i < 5) & ~(s == "b"),
    "or_of_unknowns": (x > y) | (s == t) | b,
    "number_missing": x.is_null(),
    "text_missing": s.is_null(),
    "quotient_missing": (x / i).is_null(),
    "number_filled": x.fill_null(-1),
    "filled_from_another": (x / i).fill_null(y),
    "text_filled": s.fill_null("none"),
    "boolean_filled": (x > y).fill_null(True),
    "number_in": i.is_in([1, 2, 3, -4]),
    "text_in": s.is_in(["a", "Ab", " b "]),
    "between": x.is_between(-1, 1),
    "chosen": when(x > 0).then("positive").when(x < 0).then("negative").otherwise("neither"),
    "chosen_number": when(a).then(x).otherwise(i / j),
    "chosen_or_missing": when(s == "a").then(1),
    "chosen_missing": when(b).then(None).otherwise(s),
    "cut": x.cut([-1, 0, 2.5], ["low", "high"]),
    "cut_named": (i / 2).cut([0, 1], ["unit"], below="under", above="over"),
    "year": d.year(),
    "month": d.month(),
    "day_of_month": m.day(),
    "weekday": d.weekday(),
    "weekday_of_moment": m.weekday(),
    "hour": m.hour(),
    "days": day.days_between(d),
    "days_to_moment": d.days_between(m),
    "age": day.year() - i,
    "lower": s.lower(),
    "stripped": s.strip(),
    "length": s.length(),
    "contains": s.contains("b"),
    "contains_special": s.contains(".*("),
    "starts": t.starts_with("A"),
    "mapped": s.map_values({"a": "first", "Ab": "second"}, default="other"),
    "mapped_to_numbers": t.map_values({"a": 1.5, " b ": -2}),
    "boolean_as_number": a.cast("number") + 1,
    "boolean_as_text": b.cast("string"),
    "integer_as_text": i.cast("string"),
    "number_as_text": x.cast("string"),
    "text_as_number": s.cast("number"),
    "text_as_itself": t.cast("string"),
    "deep": when((s.lower().strip().length() > 1) & ~(x / y > 1).fill_null(False))
    .then((x.fill_null(0) + i.fill_null(0)).abs().log1p())
    .otherwise(d.days_between(day) / 365.25),
}


def contract(expressions: dict[str, Expr] | None = None) -> CompiledContract:
    """The zoo's contract, or one over the same columns with other features."""
    types = {c.name: c.type for c in COLUMNS}
    return CompiledContract(
        name="zoo",
        identifier="key",
        event_time="day",
        late_after_days=None,
        columns=COLUMNS,
        label=LabelSpec(task="binary", field="outcome", values=("no", "yes")),
        features=tuple(
            Feature(
                name=f"f_{name}",
                type="category" if type_of(e, types) == "string" else "number",
                expression=e,
            )
            for name, e in (EXPRESSIONS if expressions is None else expressions).items()
        ),
        fit=FitSpec(impute_numbers="median", max_categories=5),
        decision_threshold=0.5,
        split={},
        acceptance={},
        monitoring={},
        training={},
        rules=(),
    )


def _maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), strategy)


TEXTS = st.one_of(
    st.sampled_from(
        ["a", "Ab", " b ", "b", "", "12", "-3.5", "+07", "1e5", ".5", "nan", " 1", "ÀB\u0130ß", "\t\x0bx\n"]
    ),
    st.text(st.characters(codec="utf-8"), max_size=6),
)
NUMBERS = st.one_of(
    st.sampled_from(
        [0.0, -0.0, 1.0, -1.0, 2.5, 3.0, 0.1, 1e300, -1e300, 5e-324, math.nan, math.inf, -math.inf]
    ),
    st.floats(),
    st.floats(-10, 10),
)
INTEGERS = st.one_of(st.integers(-5, 5), st.integers(-(2**53), 2**53), st.sampled_from([0, 2**53, -(2**53)]))
DATES = st.one_of(
    st.dates(dt.date(1600, 1, 1), dt.date(2400, 12, 31)),
    st.sampled_from([dt.date(2000, 2, 29), dt.date(1900, 2, 28), dt.date(1969, 12, 31), dt.date(2015, 3, 1)]),
)
MOMENTS = st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 12, 31))

RECORDS = st.fixed_dictionaries(
    {
        "key": st.text("abc123", min_size=1, max_size=5),
        "day": DATES,
        "i": _maybe(INTEGERS),
        "j": _maybe(INTEGERS),
        "x": _maybe(NUMBERS),
        "y": _maybe(NUMBERS),
        "s": _maybe(TEXTS),
        "t": _maybe(TEXTS),
        "a": _maybe(st.booleans()),
        "b": _maybe(st.booleans()),
        "d": _maybe(DATES),
        "m": _maybe(MOMENTS),
        "outcome": _maybe(st.sampled_from(["no", "yes"])),
    }
)


def polars_frame(records: list[dict[str, Any]]) -> Any:
    """Typed polars table."""
    import polars as pl

    types: dict[str, Any] = {
        "string": pl.String,
        "integer": pl.Int64,
        "number": pl.Float64,
        "boolean": pl.Boolean,
        "date": pl.Date,
        "timestamp": pl.Datetime("us"),
    }
    return pl.DataFrame(records, schema={c.name: types[c.type] for c in COLUMNS}, orient="row")


def pandas_frame(records: list[dict[str, Any]]) -> Any:
    """pandas table as people have them: integers with gaps as floats, texts and dates as objects."""
    import pandas as pd

    data = {c.name: [r[c.name] for r in records] for c in COLUMNS}
    frame = pd.DataFrame(data)
    for column in COLUMNS:
        if column.type in ("integer", "number"):
            frame[column.name] = frame[column.name].astype("float64")
        elif column.type == "timestamp":
            frame[column.name] = pd.Series(data[column.name], dtype="datetime64[us]")
        else:
            frame[column.name] = pd.Series(data[column.name], dtype=object)
    return frame


def same(left: Any, right: Any) -> bool:
    """Equal values: missing equals missing (None or NaN), numbers but for the last bits."""
    if _gone(left) or _gone(right):
        return _gone(left) and _gone(right)
    if isinstance(left, float) and isinstance(right, float):
        return left == right or math.isclose(left, right, rel_tol=1e-14)
    return bool(left == right)


def _gone(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def differences(expected: list[dict[str, Any]], got: list[dict[str, Any]], names: list[str]) -> list[str]:
    """What differs, to read."""
    assert len(expected) == len(got)
    return [
        f"row {n}: {name}: expected {e[name]!r}, got {g[name]!r}"
        for n, (e, g) in enumerate(zip(expected, got, strict=True))
        for name in names
        if not same(e[name], g[name])
    ]


def with_columns(base: CompiledContract, **changes: Any) -> CompiledContract:
    """A contract with some of its parts replaced."""
    return dataclasses.replace(base, **changes)
