"""Commits to Iceberg tables: one snapshot each, nothing twice, nothing half, whoever else writes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lake_files import iceberg
from moto import mock_aws
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

PLACE = iceberg.Place("t_curated", "parcels")
COLUMNS = [("parcel", "string"), ("sent", "date"), ("weight", "double"), ("at", "timestamp")]
NUMBERS = itertools.count()


@pytest.fixture
def catalog(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setattr(iceberg, "WAIT", 0.001)
    with mock_aws():
        glue = boto3.client("glue", region_name="us-east-1")
        glue.create_database(DatabaseInput={"Name": PLACE.database})
        yield iceberg.glue_catalog(glue)


@pytest.fixture
def table(catalog: Any, tmp_path: Path) -> Table:
    return iceberg.ensure_table(
        catalog,
        PLACE,
        location=f"file://{tmp_path}/parcels/",
        columns=COLUMNS,
        partition_by=[("month", "sent")],
    )


def write(table: Table, folder: Path, ids: Sequence[str], *, month: int = 1, with_ids: bool = True) -> str:
    """A data file of one month, as Spark would write it; its URI."""
    fields = [
        pa.field("parcel", pa.string()),
        pa.field("sent", pa.date32()),
        pa.field("weight", pa.float64()),
        pa.field("at", pa.timestamp("us", "UTC")),
    ]
    if with_ids:
        numbers = iceberg.field_ids(table)
        fields = [field.with_metadata({"PARQUET:field_id": str(numbers[field.name])}) for field in fields]
    moment = datetime(2026, month, 1, tzinfo=UTC)
    rows = pa.table(
        {
            "parcel": list(ids),
            "sent": [date(2026, month, 1 + number % 28) for number in range(len(ids))],
            "weight": [float(number) for number in range(len(ids))],
            "at": [moment] * len(ids),
        },
        schema=pa.schema(fields),
    )
    path = folder / "data" / f"{next(NUMBERS)}" / "part.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(rows, path)
    return f"file://{path}"


def parcels(table: Table, snapshot_id: int | None = None) -> list[str]:
    table.refresh()
    return sorted(table.scan(snapshot_id=snapshot_id).to_arrow()["parcel"].to_pylist())


def test_should_replace_all_rows_in_one_snapshot_and_keep_the_former_ones(
    table: Table, tmp_path: Path
) -> None:
    first = iceberg.replace_rows(
        table,
        [write(table, tmp_path, ["a", "b"]), write(table, tmp_path, ["c"], month=2)],
        properties={"job-run-id": "r1"},
    )
    assert iceberg.partitions(table) == {"2026-01", "2026-02"}
    second = iceberg.replace_rows(table, [write(table, tmp_path, ["d"], month=3)])
    assert [one.snapshot_id for one in table.snapshots()] == [first.snapshot_id, second.snapshot_id]
    assert first.summary is not None
    assert first.summary["job-run-id"] == "r1"
    assert (parcels(table), parcels(table, first.snapshot_id)) == (["d"], ["a", "b", "c"])
    assert iceberg.row_count(table, first.snapshot_id) == 3
    assert len(iceberg.data_files(table, first.snapshot_id)) == 2
    assert iceberg.partitions(table) == {"2026-03"}


def test_should_empty_a_table(table: Table, tmp_path: Path) -> None:
    iceberg.replace_rows(table, [write(table, tmp_path, ["a"])])
    iceberg.replace_rows(table, [])
    assert iceberg.data_files(table) == []
    assert parcels(table) == []


def test_should_append_rows(table: Table, tmp_path: Path) -> None:
    iceberg.append_rows(table, [write(table, tmp_path, ["a"])])
    iceberg.append_rows(table, [write(table, tmp_path, ["b"], with_ids=False)])
    assert parcels(table) == ["a", "b"], "a file without field ids is read by its columns' names"


@pytest.mark.parametrize("first_ever", [True, False])
def test_should_replace_what_another_writer_committed_meanwhile(
    table: Table, catalog: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_ever: bool
) -> None:
    if not first_ever:
        iceberg.replace_rows(table, [write(table, tmp_path, ["old"])])
    other = iceberg.open_table(catalog, PLACE)
    read = iceberg.parquet_file_to_data_file
    calls: list[str] = []

    def interrupted(io: Any, metadata: Any, uri: str) -> Any:
        calls.append(uri)
        if len(calls) == 1:
            iceberg.append_rows(other, [write(table, tmp_path, ["theirs"])])
        return read(io, metadata, uri)

    monkeypatch.setattr(iceberg, "parquet_file_to_data_file", interrupted)
    iceberg.replace_rows(table, [write(table, tmp_path, ["mine"])])
    assert parcels(table) == ["mine"], "neither lost nor beside the other's rows"
    kept = [parcels(table, one.snapshot_id) for one in table.snapshots()]
    assert kept[-2] == (["theirs"] if first_ever else ["old", "theirs"])


def test_should_give_up_when_others_are_always_quicker(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    iceberg.replace_rows(table, [write(table, tmp_path, ["old"])])
    tried: list[int] = []

    def busy(*_: Any) -> None:
        tried.append(1)
        raise CommitFailedException("somebody was quicker")

    monkeypatch.setattr(table.catalog, "commit_table", busy)
    uri = write(table, tmp_path, ["mine"])
    with pytest.raises(CommitFailedException, match="somebody was quicker"):
        iceberg.replace_rows(table, [uri])
    assert len(tried) >= iceberg.ATTEMPTS
    monkeypatch.undo()
    assert parcels(table) == ["old"]


def test_should_refuse_a_file_that_is_named_twice_or_holds_other_columns(
    table: Table, tmp_path: Path
) -> None:
    uri = write(table, tmp_path, ["a"])
    with pytest.raises(ValueError, match="a data file is named twice"):
        iceberg.replace_rows(table, [uri, uri])
    path = tmp_path / "data" / "odd.parquet"
    pq.write_table(pa.table({"parcel": [1]}), path)
    with pytest.raises(ValueError, match="parcel"):
        iceberg.replace_rows(table, [f"file://{path}"])
    assert table.current_snapshot() is None, "nothing was committed"


def test_should_add_columns_in_place_and_read_what_was_there_before(table: Table, tmp_path: Path) -> None:
    first = iceberg.replace_rows(table, [write(table, tmp_path, ["a"])])
    grown = iceberg.evolve(table, [*COLUMNS, ("carrier", "string"), ("tags", "array<string>")])
    assert [name for name, _ in iceberg.hive_columns(grown)] == [
        "parcel",
        "sent",
        "weight",
        "at",
        "carrier",
        "tags",
    ]
    assert iceberg.hive_columns(grown, first.snapshot_id) == COLUMNS
    assert grown.scan().to_arrow()["carrier"].to_pylist() == [None]
    assert iceberg.evolve(grown, COLUMNS[:1]).schema() == grown.schema(), "a column never goes"
    iceberg.append_rows(grown, [write(grown, tmp_path, ["b"], with_ids=False)])
    assert parcels(grown) == ["a", "b"]


def test_should_refuse_a_column_of_another_type(table: Table) -> None:
    with pytest.raises(
        iceberg.SchemaChangeError, match="weight is double and would become string; add a column"
    ):
        iceberg.evolve(table, [("weight", "string")])


def test_should_go_back_to_a_snapshot_and_forward_again(table: Table, tmp_path: Path) -> None:
    first = iceberg.replace_rows(table, [write(table, tmp_path, ["a"])])
    second = iceberg.replace_rows(table, [write(table, tmp_path, ["b"])])
    assert iceberg.roll_back(table, first.snapshot_id).snapshot_id == first.snapshot_id
    assert parcels(table) == ["a"]
    assert parcels(table, second.snapshot_id) == ["b"], "what came later is still there to read"
    with pytest.raises(iceberg.NoSnapshotError, match="is no ancestor of the current one"):
        iceberg.roll_back(table, second.snapshot_id)
    with pytest.raises(iceberg.NoSnapshotError, match="has no snapshot 1; it keeps: "):
        iceberg.roll_back(table, 1)
    iceberg.append_rows(table, [write(table, tmp_path, ["c"])])
    assert parcels(table) == ["a", "c"]


def test_should_find_what_readers_saw_at_a_moment(table: Table, tmp_path: Path) -> None:
    snapshot = iceberg.replace_rows(table, [write(table, tmp_path, ["a"])])
    made = datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC)
    assert iceberg.snapshot_at(table, made + timedelta(seconds=1)).snapshot_id == snapshot.snapshot_id
    with pytest.raises(iceberg.NoSnapshotError, match="had no snapshot at 2020-01-01"):
        iceberg.snapshot_at(table, datetime(2020, 1, 1, tzinfo=UTC))


def test_should_say_that_there_is_no_table_and_no_snapshot(catalog: Any, table: Table) -> None:
    with pytest.raises(
        iceberg.NoTableError, match=r"no Iceberg table t_curated\.other: deploy its stack first"
    ):
        iceberg.open_table(catalog, iceberg.Place("t_curated", "other"))
    with pytest.raises(iceberg.NoSnapshotError, match="nothing was committed yet"):
        iceberg.data_files(table)
    assert iceberg.partitions(table) == set()


def test_should_refuse_bare_files_of_a_snapshot_whose_rows_were_deleted_by_delete_files(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    iceberg.replace_rows(table, [write(table, tmp_path, ["a"])])
    (task,) = table.scan().plan_files()
    task.delete_files.add(task.file)
    monkeypatch.setattr(iceberg, "_tasks", lambda *_: [task])
    with pytest.raises(iceberg.DeletesPendingError, match="OPTIMIZE parcels REWRITE DATA"):
        iceberg.data_files(table)


_SIMPLE = st.sampled_from(
    ["bigint", "int", "double", "float", "string", "boolean", "date", "timestamp", "binary"]
)
_TYPES = st.one_of(
    _SIMPLE,
    _SIMPLE.map(lambda kind: f"array<{kind}>"),
    st.tuples(st.integers(1, 38), st.integers(0, 10)).map(lambda pair: f"decimal({pair[0]},{min(pair)})"),
)


@given(kind=_TYPES)
def test_should_give_back_every_hive_type(kind: str) -> None:
    assert iceberg.hive_type(iceberg.iceberg_type(kind, element_id=2)) == kind


@pytest.mark.parametrize("kind", ["map<string,string>", "varchar(5)", ""])
def test_should_refuse_a_type_that_no_table_has(kind: str) -> None:
    with pytest.raises(ValueError, match="a column's type must be bigint, "):
        iceberg.iceberg_type(kind)


def test_should_refuse_a_partition_that_is_none() -> None:
    with pytest.raises(ValueError, match="partition_by must use identity, year, month, day, got hour"):
        iceberg.spec_of(iceberg.schema_of(COLUMNS), [("hour", "at")])
