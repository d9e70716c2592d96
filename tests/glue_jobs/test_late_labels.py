"""Labels that came later replace those of the records, on any engine."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import boto3
import narwhals as nw
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from build_features import job
from hypothesis import given
from hypothesis import strategies as st
from lake_files import iceberg
from lake_files.labels import newest_labels, read_labels, with_labels
from ml_batch import features as single
from ml_contract.compiled import Column, CompiledContract, LabelSpec
from moto import mock_aws

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

NOW = datetime(2026, 11, 1, tzinfo=UTC)


class FakeTable:
    """Rows behind one snapshot, as pyiceberg hands them over."""

    def __init__(self, rows: list[dict[str, Any]] | None) -> None:
        self.rows = rows

    def current_snapshot(self) -> Any:
        return None if self.rows is None else SimpleNamespace(snapshot_id=7)

    def scan(self, *, snapshot_id: int, selected_fields: tuple[str, ...]) -> Any:
        assert snapshot_id == 7
        rows = [{name: row[name] for name in selected_fields} for row in self.rows or []]
        return SimpleNamespace(to_arrow=lambda: pa.Table.from_pylist(rows))


def row(identifier: str, label: str, days: int, task: str) -> dict[str, Any]:
    return {
        "identifier": identifier,
        "label": label,
        "labelled_at": NOW + timedelta(days=days),
        "task": task,
        "votes": 2,
    }


def contract(kind: str = "string", identifier: str = "string") -> CompiledContract:
    columns = (
        Column(name="claim", source="claim", type=identifier, required=True),
        Column(name="at", source="at", type="date", required=True),
        Column(name="fraud", source="fraud", type=kind),
    )
    values = {"string": ("N", "Y"), "integer": ("0", "1"), "boolean": ("false", "true")}[kind]
    made = object.__new__(CompiledContract)
    for name, value in {
        "identifier": "claim",
        "columns": columns,
        "label": LabelSpec(task="binary", field="fraud", values=values),
    }.items():
        object.__setattr__(made, name, value)
    return made


def test_should_have_no_label_before_the_first_one_lands() -> None:
    labels, snapshot = newest_labels(FakeTable(None))  # type: ignore[arg-type]
    assert labels.num_rows == 0
    assert snapshot is None


@given(
    st.permutations(
        [row("1", "N", 0, "b"), row("1", "Y", 2, "a"), row("2", "N", 1, "a"), row("2", "Y", 1, "b")]
    )
)
def test_should_take_the_newest_label_whatever_the_order_of_rows(rows: list[dict[str, Any]]) -> None:
    labels, snapshot = newest_labels(FakeTable(rows))  # type: ignore[arg-type]
    # The corrected one of 1; of two at the same moment the greater task.
    assert labels.to_pylist() == [
        {"identifier": "1", "label": "Y"},
        {"identifier": "2", "label": "Y"},
    ]
    assert snapshot == 7


@pytest.mark.parametrize(
    ("kind", "old", "text", "new"),
    [("string", "N", "Y", "Y"), ("integer", 0, "1", 1), ("boolean", False, "true", True)],
)
@pytest.mark.parametrize("identifier", ["string", "integer"])
def test_should_replace_the_label_of_labelled_records_only(
    kind: str, old: object, text: str, new: object, identifier: str
) -> None:
    keys: list[object] = ["1", "2", "3"] if identifier == "string" else [1, 2, 3]
    frame = pl.DataFrame({"fraud": [old, None, old], "claim": keys, "other": [1.5, 2.5, 3.5]})
    labels = pl.DataFrame({"identifier": ["2", "3", "9"], "label": [text, text, text]})
    found = with_labels(
        nw.from_native(frame.lazy()), nw.from_native(labels.lazy()), contract(kind, identifier)
    )
    result = nw.to_native(found).collect().sort("claim")
    assert result.columns == frame.columns
    assert result["fraud"].to_list() == [old, new, new]
    assert result["other"].to_list() == [1.5, 2.5, 3.5]
    assert result.schema == frame.schema


def test_should_leave_the_records_as_they_are_without_labels() -> None:
    frame = pl.DataFrame({"claim": ["1"], "fraud": ["N"]})
    labels = pl.DataFrame(schema={"identifier": pl.String, "label": pl.String})
    found = with_labels(nw.from_native(frame.lazy()), nw.from_native(labels.lazy()), contract())
    assert nw.to_native(found).collect().to_dicts() == [{"claim": "1", "fraud": "N"}]


COLUMNS = [("identifier", "string"), ("label", "string"), ("labelled_at", "timestamp"), ("task", "string")]


@pytest.fixture
def catalog(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        glue = boto3.client("glue", region_name="us-east-1")
        glue.create_database(DatabaseInput={"Name": "t_curated"})
        yield iceberg.glue_catalog(glue)


def land(catalog: Any, folder: Path, *rows: dict[str, Any]) -> int:
    """Append labels to the table as the landing function does; its snapshot."""
    place = iceberg.Place("t_curated", "claims_labels")
    table = iceberg.ensure_table(catalog, place, location=f"file://{folder}/labels/", columns=COLUMNS)
    path = folder / f"{len(list(folder.iterdir()))}.parquet"
    kept = [{name: row[name] for name, _ in COLUMNS} for row in rows]
    types = [pa.string(), pa.string(), pa.timestamp("us", "UTC"), pa.string()]
    numbers = iceberg.field_ids(table)
    schema = pa.schema(
        pa.field(name, kind, metadata={"PARQUET:field_id": str(numbers[name])})
        for (name, _), kind in zip(COLUMNS, types, strict=True)
    )
    pq.write_table(pa.Table.from_pylist(kept, schema=schema), path)
    return int(iceberg.append_rows(table, [f"file://{path}"]).snapshot_id)


def test_should_read_the_labels_of_now_or_of_the_snapshot_asked_for(catalog: Any, tmp_path: Path) -> None:
    name = "t_curated.claims_labels"
    labels, snapshot = read_labels(catalog, name)
    assert (labels.num_rows, snapshot) == (0, None), "no table yet"
    with pytest.raises(iceberg.NoTableError):
        read_labels(catalog, name, "7")
    first = land(catalog, tmp_path, row("1", "N", 0, "a"))
    second = land(catalog, tmp_path, row("1", "Y", 1, "b"), row("2", "Y", 0, "c"))
    labels, snapshot = read_labels(catalog, name)
    assert snapshot == second
    assert {one["identifier"]: one["label"] for one in labels.to_pylist()} == {"1": "Y", "2": "Y"}
    labels, snapshot = read_labels(catalog, name, str(first))
    assert (snapshot, labels["label"].to_pylist()) == (first, ["N"])
    labels, snapshot = read_labels(catalog, name, "none")
    assert (snapshot, labels.num_rows) == (None, 0)
    with pytest.raises(iceberg.NoSnapshotError):
        read_labels(catalog, name, "7")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["string", "integer", "boolean"])
@pytest.mark.parametrize("landed", [False, True])
def test_should_label_the_rows_alike_on_spark_and_on_polars(
    spark: SparkSession,
    catalog: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    landed: bool,
) -> None:
    old, new, text = {
        "string": ("N", "Y", "Y"),
        "integer": (0, 1, "1"),
        "boolean": (False, True, "true"),
    }[kind]
    snapshot = land(catalog, tmp_path, row("2", text, 0, "a"), row("9", text, 0, "b")) if landed else None
    monkeypatch.setattr(iceberg, "glue_catalog", lambda _: catalog)
    arguments = {"labels_table": "t_curated.claims_labels", "aws_region": "us-east-1"}
    frame = pl.DataFrame({"claim": ["1", "2", "3"], "fraud": [old, old, None], "other": [1.5, 2.5, None]})
    here, here_of = single.labelled(frame.lazy(), arguments, contract(kind))
    frame.write_parquet(tmp_path / "rows.parquet")
    curated = job.Curated(spark.read.parquet(str(tmp_path / "rows.parquet")), "t_curated.claims", 1)
    there = job.labelled(spark, arguments, curated, contract(kind))
    assert here_of == there.labels_snapshot_id == snapshot
    expected = [
        {"claim": "1", "fraud": old, "other": 1.5},
        {"claim": "2", "fraud": new if landed else old, "other": 2.5},
        {"claim": "3", "fraud": None, "other": None},
    ]
    assert here.collect().sort("claim").to_dicts() == expected
    assert [one.asDict() for one in there.rows.orderBy("claim").collect()] == expected
    assert there.rows.schema.simpleString() == curated.rows.schema.simpleString()
    unasked = job.labelled(spark, {}, curated, contract(kind))
    assert unasked is curated
