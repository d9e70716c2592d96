"""The same features on every engine: the heart of the contract."""

from __future__ import annotations

import datetime as dt
import json
import math
import random
from typing import Any

import numpy as np
import pytest
import zoo  # type: ignore[import-not-found]  # beside this file, where pytest looks
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_contract.compiled import CompiledContract
from ml_contract.expressions import Expr, col, type_of
from ml_contract.features.fit import fit
from ml_contract.features.frame import FrameError, feature_frame
from ml_contract.features.row import row_function
from ml_contract.load import LoadedWorkload

QUICK: settings = zoo.QUICK
CONTRACT = zoo.contract()
NAMES = [f.name for f in CONTRACT.features]
ROW = row_function(CONTRACT)


def by_rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [ROW(r) for r in records]


def by_pandas(records: list[dict[str, Any]], contract: CompiledContract = CONTRACT) -> list[dict[str, Any]]:
    frame = feature_frame(zoo.pandas_frame(records), contract)
    rows: list[dict[str, Any]] = frame[[f.name for f in contract.features]].to_dict("records")
    return rows


@settings(QUICK, max_examples=12)
@given(records=st.lists(zoo.RECORDS, min_size=1, max_size=20))
def test_should_give_the_same_features_on_polars_pandas_and_single_records(
    records: list[dict[str, Any]],
) -> None:
    expected = by_rows(records)
    polars = feature_frame(zoo.polars_frame(records), CONTRACT).select(NAMES).to_dicts()
    assert zoo.differences(expected, polars, NAMES) == []
    assert zoo.differences(expected, by_pandas(records), NAMES) == []


NUMERIC = st.sampled_from([zoo.i, zoo.x, zoo.y])
BOOLEAN = st.sampled_from([zoo.a, zoo.b, zoo.x > zoo.y, zoo.s == "a", zoo.i.is_null()])


def _grown(numbers: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    constants = st.floats(-100, 100, allow_nan=False)
    return st.one_of(
        st.builds(lambda p, q: p + q, numbers, numbers),
        st.builds(lambda p, q: p - q, numbers, constants),
        st.builds(lambda p, q: p * q, numbers, numbers),
        st.builds(lambda p, q: p / q, numbers, numbers),
        st.builds(lambda p: p.abs().log1p(), numbers),
        st.builds(lambda p, q: p.fill_null(q), numbers, numbers),
        st.builds(_chosen, BOOLEAN, numbers, numbers),
        st.builds(lambda p, q: (p > q).cast("number"), numbers, numbers),
    )


def _chosen(condition: Expr, then: Expr, otherwise: Expr) -> Expr:
    return Expr("when", (condition, then, otherwise))


@QUICK
@given(
    expression=st.recursive(NUMERIC, _grown, max_leaves=6),
    records=st.lists(zoo.RECORDS, min_size=1, max_size=5),
)
def test_should_give_the_same_value_of_any_expression(
    expression: Expr, records: list[dict[str, Any]]
) -> None:
    contract = zoo.contract({"any": expression})
    expected = [row_function(contract)(r) for r in records]
    polars = feature_frame(zoo.polars_frame(records), contract).select("f_any").to_dicts()
    # A sum may cancel: then the last bit of a logarithm is the whole difference.
    assert all(_close(e["f_any"], p["f_any"]) for e, p in zip(expected, polars, strict=True)), (
        expected,
        polars,
    )


def _close(left: Any, right: Any) -> bool:
    if left is None or right is None:
        return left is right
    return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9)


@settings(QUICK, max_examples=4)
@given(records=st.lists(zoo.RECORDS, min_size=1, max_size=20))
def test_should_give_the_same_matrix_and_vector(records: list[dict[str, Any]]) -> None:
    frame = feature_frame(zoo.polars_frame(records), CONTRACT)
    fitted = fit(frame, CONTRACT)
    assert fit(feature_frame(zoo.pandas_frame(records), CONTRACT), CONTRACT).categories == fitted.categories
    with np.errstate(over="ignore"):
        vectors = np.array([fitted.vector(f) for f in by_rows(records)], dtype=np.float64).astype(np.float32)
    np.testing.assert_allclose(fitted.matrix(frame), vectors, rtol=1e-6)


def test_should_read_dates_as_text_as_it_reads_dates() -> None:
    record = {
        "key": "k",
        "day": dt.date(2015, 1, 25),
        "d": dt.date(2000, 2, 29),
        "m": dt.datetime(2015, 3, 1, 13, 5),
    }
    text = {"key": "k", "day": "2015-01-25", "d": "2000-02-29", "m": "2015-03-01T13:05:00.000Z"}
    assert ROW(text) == ROW(record)
    assert ROW(text)["f_hour"] == 13.0
    assert ROW(text)["f_days"] == -5444.0


def test_should_keep_identifier_event_time_and_label() -> None:
    record = {c.name: None for c in zoo.COLUMNS} | {
        "key": "k1",
        "day": dt.date(2015, 1, 25),
        "outcome": "yes",
    }
    frame = feature_frame(zoo.polars_frame([record]), CONTRACT)
    assert frame.columns[:3] == ["key", "day", "outcome"]
    assert frame.row(0)[:3] == ("k1", "2015-01-25T00:00:00Z", "yes")
    assert (
        "outcome"
        not in feature_frame(zoo.polars_frame([record]).drop("outcome"), CONTRACT, label=False).columns
    )


@pytest.mark.parametrize("group", ["t", "j", "b"])
def test_should_keep_the_group_of_a_grouped_split_as_text(group: str) -> None:
    records = zoo_records(40)
    contract = grouped(group)
    polars = feature_frame(zoo.polars_frame(records), contract)
    assert polars.columns[:5] == ["key", "day", "outcome", group, "f_x"]
    expected = [group_text(r[group]) for r in records]
    assert polars[group].to_list() == expected
    assert feature_frame(zoo.pandas_frame(records), contract)[group].to_list() == expected


def grouped(group: str) -> CompiledContract:
    contract: CompiledContract = zoo.with_columns(zoo.contract({"x": zoo.x}), split={"group": group})
    return contract


def group_text(value: object) -> str | None:
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def test_should_name_every_column_that_is_missing_or_of_another_type() -> None:
    import polars as pl

    frame = zoo.polars_frame([]).drop("x").with_columns(pl.lit("no number").alias("i"))
    with pytest.raises(
        FrameError, match=r"zoo.*column i is String, the contract says integer; column x is missing"
    ):
        feature_frame(frame, CONTRACT)


def test_should_refuse_a_pandas_column_that_cannot_be_typed() -> None:
    frame = zoo.pandas_frame([{c.name: None for c in zoo.COLUMNS} | {"key": "k", "day": dt.date(2015, 1, 1)}])
    frame["i"] = "no number"
    with pytest.raises(FrameError, match="column i is object, the contract says integer"):
        feature_frame(frame, CONTRACT)


def test_should_read_time_zones_as_utc() -> None:
    import polars as pl

    record = {c.name: None for c in zoo.COLUMNS} | {
        "key": "k", "day": dt.date(2015, 1, 1), "m": dt.datetime(2015, 1, 1, 23, 30)
    }  # fmt: skip
    frame = zoo.polars_frame([record]).with_columns(
        pl.col("m").dt.replace_time_zone("UTC").dt.convert_time_zone("America/New_York")
    )
    contract = zoo.contract({"hour": col("m").hour(), "weekday": col("m").weekday()})
    assert feature_frame(frame, contract).select("f_hour", "f_weekday").row(0) == (23.0, 4.0)


def test_should_make_features_in_microseconds(claims: LoadedWorkload) -> None:
    """A guard against a tree walk per record: generous enough for a busy machine."""
    import timeit

    function = row_function(claims.compiled)
    record = {
        c.name: {"integer": 3, "number": 3.5, "date": "2015-01-25"}.get(c.type, "x")
        for c in claims.compiled.columns
    }
    assert min(timeit.repeat(lambda: function(record), number=200, repeat=5)) / 200 < 100e-6


# --- Spark -------------------------------------------------------------------------------------------------


def spark_frame(session: Any, contract: CompiledContract, records: list[dict[str, Any]]) -> Any:
    from pyspark.sql import types

    kinds = {
        "string": types.StringType(),
        "integer": types.LongType(),
        "number": types.DoubleType(),
        "boolean": types.BooleanType(),
        "date": types.DateType(),
        "timestamp": types.TimestampType(),
    }
    schema = types.StructType([types.StructField(c.name, kinds[c.type]) for c in contract.columns])
    rows = [
        tuple(
            v.replace(tzinfo=dt.UTC) if isinstance(v := r[c.name], dt.datetime) else v
            for c in contract.columns
        )
        for r in records
    ]
    return session.createDataFrame(rows, schema)


def zoo_records(n: int) -> list[dict[str, Any]]:
    """Seeded random records, and rows at the edges of every type."""
    rng = random.Random(11)
    numbers = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        2.5,
        3.0,
        0.1,
        1e300,
        -1e300,
        5e-324,
        math.nan,
        math.inf,
        -math.inf,
        None,
    ]
    texts = [
        "a",
        "Ab",
        " b ",
        "b",
        "",
        "12",
        "-3.5",
        "+07",
        "1e5",
        ".5",
        "nan",
        " 1",
        "ÀBİß",
        "\t\x0bx\n",
        "12\n",
        "x.*(y",
        None,
    ]
    dates = [
        dt.date(2000, 2, 29),
        dt.date(1900, 2, 28),
        dt.date(1969, 12, 31),
        dt.date(1600, 3, 1),
        dt.date(2400, 12, 31),
    ]
    records = []
    for n_ in range(n):
        day = dt.date(1990, 1, 1) + dt.timedelta(days=rng.randrange(15000))
        records.append(
            {
                "key": f"k{n_}",
                "day": day,
                "i": rng.choice([None, 0, rng.randrange(-9, 9), rng.randrange(-(2**53), 2**53)]),
                "j": rng.choice([None, 0, rng.randrange(-3, 3)]),
                "x": rng.choice([*numbers, rng.uniform(-10, 10), rng.gauss(0, 1e6)]),
                "y": rng.choice([*numbers, rng.uniform(-10, 10), rng.gauss(0, 1e6)]),
                "s": rng.choice(texts),
                "t": rng.choice(texts),
                "a": rng.choice([None, True, False]),
                "b": rng.choice([None, True, False]),
                "d": rng.choice([None, *dates, day + dt.timedelta(days=rng.randrange(-999, 999))]),
                "m": rng.choice(
                    [
                        None,
                        dt.datetime(1969, 12, 31, 23, 59, 59, 999999),
                        dt.datetime(2015, 1, 1) + dt.timedelta(seconds=rng.randrange(10**8)),
                    ]
                ),
                "outcome": rng.choice([None, "no", "yes"]),
            }
        )
    return records


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_should_give_the_same_features_on_spark(spark: Any, claims: LoadedWorkload) -> None:
    records = zoo_records(400)
    frame = feature_frame(spark_frame(spark, CONTRACT, records), CONTRACT)
    got = [row.asDict() for row in frame.collect()]
    assert zoo.differences(by_rows(records), got, NAMES) == []
    assert [(r["key"], r["day"], r["outcome"]) for r in got] == [
        (r["key"], f"{r['day'].isoformat()}T00:00:00Z", r["outcome"]) for r in records
    ]
    assert [f.dataType.simpleString() for f in frame.schema][3:] == [
        "string" if f.type == "category" else "double" for f in CONTRACT.features
    ]
    fitted = fit(feature_frame(zoo.polars_frame(records), CONTRACT), CONTRACT)
    assert fit(frame, CONTRACT).categories == fitted.categories
    with np.errstate(over="ignore"):
        vectors = np.array([fitted.vector(f) for f in by_rows(records)]).astype(np.float32)
    np.testing.assert_allclose(fitted.matrix(frame), vectors, rtol=1e-6)

    for group in ("t", "j", "b"):
        keyed = feature_frame(spark_frame(spark, grouped(group), records), grouped(group)).collect()
        assert [row[group] for row in keyed] == [group_text(r[group]) for r in records]

    # The worked example, from generated claims through the record codec.
    from ml_contract.made_up.synthetic import generate
    from ml_contract.records.codec import Record, RecordCodec

    contract = claims.compiled
    codec = RecordCodec(contract)
    typed = [r.values for r in map(codec.check, generate(contract, 300, 3)) if isinstance(r, Record)]
    assert len(typed) == 300
    function = row_function(contract)
    dates = [c.name for c in contract.columns if c.type == "date"]
    rows = [r | {n: None if r[n] is None else dt.date.fromisoformat(r[n]) for n in dates} for r in typed]
    result = [r.asDict() for r in feature_frame(spark_frame(spark, contract, rows), contract).collect()]
    assert zoo.differences([function(r) for r in typed], result, [f.name for f in contract.features]) == []

    spark.conf.set("spark.sql.session.timeZone", "Europe/Berlin")
    with pytest.raises(
        FrameError, match=r"time zone is Europe/Berlin.*set spark.sql.session.timeZone to UTC"
    ):
        feature_frame(spark_frame(spark, CONTRACT, records[:1]), CONTRACT)


def test_should_cover_every_operation() -> None:
    from ml_contract import expressions

    used = {node.op for e in zoo.EXPRESSIONS.values() for node in e.walk()}
    assert used == set(expressions._SIGNATURES)


def test_should_type_the_zoo_as_declared() -> None:
    types = CONTRACT.types
    for feature in CONTRACT.features:
        kind = type_of(feature.expression, types)
        assert (kind == "string") == (feature.type == "category"), feature.name


def test_should_carry_expressions_as_json() -> None:
    for feature in CONTRACT.features:
        text = json.dumps(feature.expression.to_json(), allow_nan=False)
        assert Expr.from_json(json.loads(text)).to_json() == feature.expression.to_json()
