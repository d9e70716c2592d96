"""Spark and polars curate the same rows out of the same files."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curate import job
from curate import transforms as on_spark
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from ml_batch import curate as single
from ml_batch import transforms as on_polars
from ml_contract.compiled import Column, CompiledContract, FitSpec, LabelSpec
from ml_contract.quality.on_polars import broken as broken_on_polars
from ml_contract.quality.on_spark import broken as broken_on_spark
from ml_contract.quality.rules import parsed_rules, row_rule

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.slow

COLUMNS = (
    Column(name="id", source="id", type="string", required=True, max_length=3),
    Column(name="day", source="day", type="timestamp", required=True),
    Column(name="count", source="count", type="integer", minimum=-5, maximum=9),
    Column(name="amount", source="amount", type="number", minimum=0),
    Column(name="open", source="open", type="boolean"),
    Column(name="born", source="born", type="date"),
    Column(name="kind", source="kind", type="string", allowed=("a", "b")),
)
CONTRACT = CompiledContract(
    name="things",
    identifier="id",
    event_time="day",
    late_after_days=30,
    columns=COLUMNS,
    label=LabelSpec(task="regression", field="amount"),
    features=(),
    fit=FitSpec(),
    decision_threshold=0.5,
    split={},
    acceptance={},
    monitoring={},
    training={},
    rules=(),
)
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1)).map(lambda m: m.replace(tzinfo=UTC))
DAYS = st.dates(date(1990, 1, 1), date(2040, 1, 1))
NUMBERS = st.one_of(
    st.integers(-(10**6), 10**6).map(float),
    st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3)),
    st.sampled_from([1e300, 2.0**63, -(2.0**63), 0.1, 5e-5, float("nan"), float("inf")]),
)
TEXTS = st.one_of(
    st.sampled_from(
        [
            *(
                "a",
                "b",
                "",
                " ",
                "True",
                "false",
                "TRUE ",
                "1",
                "+1",
                " 7 ",
                "1.0",
                "1.5",
                "1e3",
                "1d",
                ".5",
                "-",
            ),
            *(
                "99",
                "2020-02-30",
                "2020-02-29",
                "2020-2-1",
                "2021-01-01T10:00:00Z",
                "2021-01-01 23:59:60",
                "NaN",
            ),
            *("ä", "2021-01-01T10:00:00.5+02:00", "2021-01-01 10:00:00", "9223372036854775808"),
            "9223372036854775807",
        ]
    ),
    st.text("0123456789.-+eE: TZ", max_size=12),
)
#: For each column: the types that files may have it in, the contract's own first.
FOUND: dict[str, list[tuple[pa.DataType, st.SearchStrategy[Any]]]] = {
    "id": [
        (pa.string(), st.sampled_from(["a", "b", "c", "dddd"])),
        (pa.int64(), st.integers(0, 5)),
        (pa.float64(), NUMBERS),
        (pa.date32(), DAYS),
        (pa.bool_(), st.booleans()),
    ],
    "day": [(pa.timestamp("us", "UTC"), MOMENTS), (pa.string(), TEXTS), (pa.date32(), DAYS)],
    "count": [
        (pa.int64(), st.integers(-9, 9)),
        (pa.int32(), st.integers(-9, 9)),
        (pa.float64(), NUMBERS),
        (pa.string(), TEXTS),
        (pa.bool_(), st.booleans()),
    ],
    "amount": [
        (pa.float64(), NUMBERS),
        (pa.int64(), st.integers(-(10**12), 10**12)),
        (pa.string(), TEXTS),
        (pa.decimal128(12, 2), st.integers(-(10**9), 10**9).map(lambda n: Decimal(n) / 100)),
    ],
    "open": [(pa.bool_(), st.booleans()), (pa.string(), TEXTS), (pa.int64(), st.integers(0, 1))],
    "born": [(pa.date32(), DAYS), (pa.string(), TEXTS), (pa.timestamp("us", "UTC"), MOMENTS)],
    "kind": [(pa.string(), TEXTS), (pa.int32(), st.integers(0, 3))],
    "record_id": [(pa.string(), st.sampled_from(["r1", "r2", "r3", "r4"]))],
    "received_at": [
        (
            pa.timestamp("us", "UTC"),
            st.integers(0, 40).map(lambda d: datetime(2015, 1, 1, tzinfo=UTC) + timedelta(d)),
        )
    ],
}


@st.composite
def files(draw: st.DrawFn) -> pa.Table:
    """One file of the raw zone, its columns drifted or gone."""
    rows = draw(st.integers(1, 12))
    columns = {}
    for name, choices in FOUND.items():
        if draw(st.integers(0, 9)) == 0:
            continue
        kind, values = choices[0] if draw(st.booleans()) else draw(st.sampled_from(choices))
        some = st.one_of(st.none(), values) if draw(st.booleans()) else values
        columns[name] = pa.array(draw(st.lists(some, min_size=rows, max_size=rows)), kind)
    if not columns:
        columns["id"] = pa.array(["a"] * rows)
    return pa.table(columns)


def plain(rows: list[dict[str, Any]]) -> list[str]:
    """Rows as texts, in an order of their own."""

    def value(found: Any) -> Any:
        if isinstance(found, datetime):
            return (
                found.astimezone(UTC).isoformat() if found.tzinfo else found.replace(tzinfo=UTC).isoformat()
            )
        return (
            found.isoformat()
            if isinstance(found, date)
            else repr(found)
            if isinstance(found, float)
            else found
        )

    return sorted(json.dumps({k: value(v) for k, v in row.items()}, sort_keys=True) for row in rows)


@given(
    tables=st.lists(files(), min_size=1, max_size=2),
    keep=st.sampled_from(["latest_event", "latest_arrival", "first_arrival"]),
)
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.function_scoped_fixture,
        HealthCheck.data_too_large,
    ],
)
def test_should_type_judge_and_choose_the_same_rows(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, tables: list[pa.Table], keep: str
) -> None:
    folder: Path = tmp_path_factory.mktemp("files")
    paths = [str(folder / f"{number}.parquet") for number in range(len(tables))]
    for path, table in zip(paths, tables, strict=True):
        pq.write_table(table, path)
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    many = on_spark.union([on_spark.typed(spark.read.parquet(path), CONTRACT) for path in paths]).persist()
    # As text: Python's datetimes of Spark have no zone.
    shown = many.selectExpr(
        *[
            f"string(date_format({n}, \"yyyy-MM-dd'T'HH:mm:ss.SSSSSS\")) as {n}" if k == "timestamp" else n
            for n, k in CONTRACT.glue_columns()
        ],
        on_spark.REASONS,
    )
    one = (
        pl.concat(on_polars.typed(pl.scan_parquet(path), CONTRACT) for path in paths)
        .with_row_index("_row")
        .collect()
    )
    moments = [
        pl.col(n).dt.strftime("%Y-%m-%dT%H:%M:%S%.6f") for n, k in CONTRACT.glue_columns() if k == "timestamp"
    ]
    here = one.drop("_row").with_columns(moments)
    assert plain(here.to_dicts()) == plain([row.asDict() for row in shown.collect()])

    good = many.where(f"size({on_spark.REASONS}) = 0").drop(on_spark.REASONS)
    good_here = one.lazy().filter(pl.col(on_polars.REASONS).list.len() == 0).drop(on_polars.REASONS)
    late = good.where(on_spark.late(CONTRACT)).count()
    assert good_here.filter(on_polars.late(CONTRACT)).collect().height == late
    schema = good_here.collect_schema()
    for rule in parsed_rules(CONTRACT):
        if row_rule(rule):
            expected = good.where(broken_on_spark(good, rule)).count()
            assert good_here.filter(broken_on_polars(schema, rule)).collect().height == expected, rule.text
    winners = on_polars.newest_rows(good_here, CONTRACT, keep)
    chosen = good_here.join(winners, on="_row", how="semi").select("id", "day", "record_id", "received_at")
    chosen = on_polars.with_month(chosen, CONTRACT).with_columns(
        pl.col("day", "received_at").dt.strftime("%Y-%m-%dT%H:%M:%S%.6f")
    )
    newest = on_spark.with_month(on_spark.newest(good, CONTRACT, keep), CONTRACT)
    form = "date_format({0}, \"yyyy-MM-dd'T'HH:mm:ss.SSSSSS\") as {0}"
    newest = newest.selectExpr(
        "id", form.format("day"), "record_id", form.format("received_at"), "event_month"
    )
    assert plain(chosen.collect().to_dicts()) == plain([row.asDict() for row in newest.collect()])
    many.unpersist()


def test_should_judge_alike_by_the_contracts_own_rules(spark: SparkSession, tmp_path: Path) -> None:
    rows = {
        "id": ["a", "b", "dddd"],
        "day": [datetime(2020, 1, 1, tzinfo=UTC)] * 3,
        "count": [1, 99, None],
        "amount": [1.0, -1.0, None],
        "open": [True, None, False],
        "born": [date(2000, 1, 1)] * 3,
        "kind": ["a", "z", None],
        "record_id": ["1", "2", "3"],
        "received_at": [datetime(2020, 1, 1, tzinfo=UTC)] * 3,
    }
    schema = pa.schema([(name, FOUND[name][0][0]) for name in rows])
    pq.write_table(pa.table(rows, schema=schema), tmp_path / "rows.parquet")
    many = job.judge_here(spark.read.parquet(str(tmp_path)), CONTRACT)
    one = single.judge(tmp_path, CONTRACT)
    assert one == many
    assert {outcome.rule.split()[1] for outcome in one if not outcome.passed} == {
        '"id"',
        '"count"',
        '"amount"',
        '"kind"',
    }
