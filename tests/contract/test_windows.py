"""Windows over time: every engine against a naive oracle."""

from __future__ import annotations

import datetime as dt
import math
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_contract.compiled import CompiledContract, Window, WindowSpec
from ml_contract.features.frame import FrameError, feature_frame
from ml_contract.features.row import row_function
from ml_contract.load import ContractError, load_workload
from ml_contract.records.codec import Record, RecordCodec, Rejected
from ml_contract.windows.engines import MOMENT, window_sql, with_windows

YAML = """
version: 1
name: metered
title: Readings of meters
owner: team@example.com
record:
  identifier: reading_id
  event_time: read_at
  fields:
    reading_id: {type: string, required: true}
    read_at: {type: timestamp, required: true}
    site: {type: string, required: true}
    load: {type: number}
    cost: {type: integer}
    next_load: {type: number}
label: {task: regression, field: next_load}
windows:
  key: site
  features:
    readings_6h: {aggregate: count, over_hours: 6}
    load_6h: {aggregate: sum, field: load, over_hours: 6}
    load_mean_2d: {aggregate: mean, field: load, over_hours: 48}
    load_low_2d: {aggregate: minimum, field: load, over_hours: 48}
    cost_high_6h: {aggregate: maximum, field: cost, over_hours: 6}
acceptance: {metric: r2, at_least: 0}
"""
NAMES = ["readings_6h", "load_6h", "load_mean_2d", "load_low_2d", "cost_high_6h"]
START = dt.datetime(2026, 3, 1)
SCHEMA: dict[str, Any] = {
    "reading_id": pl.String,
    "read_at": pl.Datetime("us"),
    "site": pl.String,
    "load": pl.Float64,
    "cost": pl.Int64,
    "next_load": pl.Float64,
}


def written(folder: Path, text: str = YAML) -> Path:
    (folder / "workload.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> CompiledContract:
    return load_workload(written(tmp_path_factory.mktemp("metered"))).compiled


Row = dict[str, Any]

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            # Half hours, so that many rows share a moment or lie exactly a window apart.
            "read_at": st.integers(0, 150).map(lambda n: START + dt.timedelta(minutes=30 * n)),
            "site": st.sampled_from(["a", "b", None]),
            "load": st.none() | st.integers(-50, 50).map(float),
            "cost": st.none() | st.integers(-5, 5),
            "next_load": st.none(),
        }
    ),
    min_size=1,
    max_size=40,
).map(lambda rows: [{"reading_id": f"r{i}", **row} for i, row in enumerate(rows)])


def oracle(rows: list[Row], spec: WindowSpec) -> list[Row]:
    """What the words say, in quadratic time."""
    found = []
    for row in rows:
        values: Row = {}
        for window in spec.windows:
            since = row["read_at"] - dt.timedelta(hours=window.over_hours)
            if row["site"] is None:
                values[window.name] = None
                continue
            near = [r for r in rows if r["site"] == row["site"] and since <= r["read_at"] <= row["read_at"]]
            if window.field is None:
                values[window.name] = float(len(near))
                continue
            known = [float(r[window.field]) for r in near if r[window.field] is not None]
            made = {
                "sum": math.fsum,
                "mean": lambda v: math.fsum(v) / len(v),
                "minimum": min,
                "maximum": max,
            }[window.aggregate]
            values[window.name] = made(known) if known else None
        found.append(values)
    return found


def agree(found: list[Row], expected: list[Row]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name in NAMES:
            if other[name] is None:
                assert one[name] is None, name
            else:
                assert one[name] == pytest.approx(other[name], abs=1e-9), name


@settings(max_examples=150)
@given(rows=ROWS)
def test_should_compute_on_polars_what_the_words_say(contract: CompiledContract, rows: list[Row]) -> None:
    assert contract.windows is not None
    expected = oracle(rows, contract.windows)
    frame = pl.DataFrame(rows, schema=SCHEMA)
    agree(with_windows(frame, contract).select(NAMES).to_dicts(), expected)
    lazy = with_windows(frame.lazy(), contract)
    assert isinstance(lazy, pl.LazyFrame)
    agree(lazy.select(NAMES).collect().to_dicts(), expected)


def test_should_keep_the_rows_in_their_order_and_the_other_columns(contract: CompiledContract) -> None:
    rows = [
        {"reading_id": f"r{i}", "read_at": START + dt.timedelta(hours=h), "site": "a", "load": 1.0}
        for i, h in enumerate([5, 1, 3])
    ]
    result = with_windows(
        pl.DataFrame(rows, schema={k: SCHEMA[k] for k in rows[0]} | {"cost": pl.Int64}), contract
    )
    assert result["reading_id"].to_list() == ["r0", "r1", "r2"]
    assert result["readings_6h"].to_list() == [3.0, 1.0, 2.0]
    assert MOMENT not in result.columns


def test_should_leave_a_table_alone_that_has_its_windows(contract: CompiledContract) -> None:
    frame = pl.DataFrame({name: [1.0] for name in NAMES})
    assert with_windows(frame, contract) is frame


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
@settings(max_examples=6)
@given(rows=ROWS)
def test_should_compute_on_spark_what_the_words_say(
    contract: CompiledContract, spark: Any, rows: list[Row]
) -> None:
    from pyspark.sql import functions as sf

    assert contract.windows is not None
    # By a file: rows that Python hands over leave a socket of PySpark's open.
    with tempfile.TemporaryDirectory() as folder:
        pl.DataFrame(rows, schema=SCHEMA).with_columns(
            pl.col("read_at").dt.replace_time_zone("UTC")
        ).write_parquet(f"{folder}/rows.parquet")
        frame = spark.read.parquet(f"{folder}/rows.parquet")
        result = with_windows(frame, contract).orderBy(sf.expr("CAST(substring(reading_id, 2) AS INT)"))
        found = result.select(*NAMES).toPandas().astype(object)
    agree(found.where(found.notna(), None).to_dict("records"), oracle(rows, contract.windows))


def test_should_make_features_of_windows_and_of_expressions_over_them(tmp_path: Path) -> None:
    text = YAML.replace("windows:", "features: {derive: {above: {kind: python, type: number}}}\nwindows:")
    (tmp_path / "features.py").write_text(
        'from ml_contract.expressions import col\nFEATURES = {"above": col("load") - col("load_mean_2d")}\n'
    )
    contract = load_workload(written(tmp_path, text)).compiled
    assert CompiledContract.from_json(contract.to_json()).windows == contract.windows
    rows = [
        {"reading_id": f"r{i}", "read_at": START + dt.timedelta(hours=i), "site": "a", "load": float(load)}
        for i, load in enumerate([10, 20, 60])
    ]
    frame = pl.DataFrame([{**r, "cost": None, "next_load": None} for r in rows], schema=SCHEMA)
    made = feature_frame(frame, contract)
    assert made["load_mean_2d"].to_list() == [10.0, 15.0, 30.0]
    assert made["above"].to_list() == [0.0, 5.0, 30.0]
    with pytest.raises(FrameError, match="load_mean_2d is missing"):
        feature_frame(frame.to_pandas(), contract)


def test_should_take_windows_from_a_request_and_refuse_them_in_a_record(contract: CompiledContract) -> None:
    body = b'{"site": "a", "load": 3, "load_mean_2d": 2.5, "readings_6h": 4}'
    request = RecordCodec(contract, inference=True).decode(body)
    assert isinstance(request, Record)
    made = row_function(contract)(request.values)
    assert (made["load_mean_2d"], made["readings_6h"], made["load_6h"]) == (2.5, 4.0, None)
    record = RecordCodec(contract).decode(
        b'{"reading_id": "r", "read_at": "2026-03-01T00:00:00Z", "site": "a", "load_mean_2d": 1}'
    )
    assert isinstance(record, Rejected)
    assert [reason.code for reason in record.reasons] == ["unknown_field"]


def test_should_write_one_query_level_per_length_of_window() -> None:
    spec = WindowSpec(
        key="k",
        windows=(
            Window(name="n", aggregate="count", field=None, over_hours=99),
            Window(name="m", aggregate="mean", field="v", over_hours=48),
        ),
    )
    sql = window_sql(spec, "t", ["id"])
    assert sql.count("SELECT") == 2
    assert "INTERVAL '99' HOUR PRECEDING" in sql
    assert "INTERVAL '2' DAY PRECEDING" in sql
    assert sql.index("INTERVAL '2' DAY") < sql.index("FROM (") or sql.startswith(
        "SELECT `id`, `k`, `v`, `_moment`, `n`"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "key: site",
            "key: sight",
            "windows.key: got 'sight', which is no field of the record; did you mean site?",
        ),
        ("key: site", "key: load", "windows.key: load is number; allowed here: string or integer"),
        (
            "over_hours: 48}\n    load_low",
            "over_hours: 100}\n    load_low",
            "multiple of 24 up to 2376, got 100",
        ),
        (
            "{aggregate: count, over_hours: 6}",
            "{aggregate: count, field: load, over_hours: 6}",
            "leave field out",
        ),
        (
            "{aggregate: sum, field: load, over_hours: 6}",
            "{aggregate: sum, over_hours: 6}",
            "sum needs the field",
        ),
        ("field: cost", "field: site", "site is string; maximum takes integer or number"),
        (
            "field: cost",
            "field: next_load",
            "next_load is the label; a feature made from it would tell the answer",
        ),
        ("load_6h:", "cost:", "cost is a field or a derived feature; give the window another name"),
        ("load_6h:", "record_id:", "record_id is reserved; give the window another name"),
    ],
)
def test_should_refuse_windows_that_cannot_be(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in YAML
    with pytest.raises(ContractError) as caught:
        load_workload(written(tmp_path, YAML.replace(old, new)))
    assert message in str(caught.value)
