"""What curation does to rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pytest
from curate import transforms
from curate.transforms import REASONS
from lake_files.drift import by_schema, schema_drift
from lake_files.parquet import ParquetFile

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Contract:
    identifier: str = "id"
    event_time: str = "day"
    late_after_days: int | None = 30

    def glue_columns(self) -> list[tuple[str, str]]:
        return [
            ("id", "string"),
            ("day", "date"),
            ("count", "bigint"),
            ("amount", "double"),
            ("open", "boolean"),
            ("record_id", "string"),
            ("received_at", "timestamp"),
        ]


CONTRACT = Contract()
SCHEMA = (
    "id string, day date, count bigint, amount double, open boolean, record_id string, received_at timestamp"
)


def frame(spark: SparkSession, rows: list[tuple[Any, ...]], schema: str = SCHEMA) -> DataFrame:
    return spark.createDataFrame(rows, schema)


def moment(day: int, hour: int = 0) -> datetime:
    return datetime(2025, 1, day, hour, tzinfo=UTC)


def test_should_leave_rows_of_the_contracts_types_as_they_are(spark: SparkSession) -> None:
    rows = [("a", date(2025, 1, 1), 1, 2.5, True, "r1", moment(2))]
    typed = transforms.typed(frame(spark, rows), CONTRACT)
    row = typed.collect()[0].asDict()
    assert row.pop(REASONS) == []
    assert row["id"] == "a"
    assert row["count"] == 1
    assert row["amount"] == 2.5
    assert row["open"] is True


def test_should_convert_drifted_types_only_without_loss(spark: SparkSession) -> None:
    schema = "id bigint, day string, count double, amount string, open string, record_id string"
    rows = [
        (7, "2025-01-01", 3.0, "2.5", "TRUE", "good"),
        (8, "2025-01-01", 3.5, "2.5", "true", "fraction"),
        (9, "yesterday", 3.0, "much", "perhaps", "texts"),
        (None, "2025-01-01", 3.0, "1", None, "no id"),
    ]
    typed = {
        row["record_id"]: row for row in transforms.typed(frame(spark, rows, schema), CONTRACT).collect()
    }
    good = typed["good"].asDict()
    assert good[REASONS] == []
    assert (good["id"], good["day"], good["count"], good["amount"], good["open"]) == (
        "7",
        date(2025, 1, 1),
        3,
        2.5,
        True,
    )
    assert typed["fraction"][REASONS] == ["count: a double that is no bigint"]
    assert typed["texts"][REASONS] == [
        "day: a string that is no date",
        "amount: a string that is no double",
        "open: a string that is no boolean",
        "day: missing",
    ]
    assert typed["no id"][REASONS] == ["id: missing"]


def test_should_fill_a_column_that_a_file_lacks_with_nulls_and_drop_unknown_ones(spark: SparkSession) -> None:
    typed = transforms.typed(
        frame(spark, [("a", date(2025, 1, 1), 9)], "id string, day date, extra int"), CONTRACT
    )
    assert typed.columns == [*(name for name, _ in CONTRACT.glue_columns()), REASONS]
    row = typed.collect()[0]
    assert row["amount"] is None
    assert row[REASONS] == []


def test_should_report_missing_unknown_and_retyped_columns_per_file() -> None:
    same = tuple(
        (name, {"string": "string", "date": "date32[day]", "bigint": "int64"}.get(hive, hive))
        for name, hive in CONTRACT.glue_columns()
    )
    same = tuple((name, "bool" if kind == "boolean" else kind) for name, kind in same)
    same = tuple((name, "timestamp[us, tz=UTC]" if kind == "timestamp" else kind) for name, kind in same)
    drifted = tuple((name, "string" if name == "count" else kind) for name, kind in same if name != "amount")
    files = [
        ParquetFile("s3://lake/a", 1, same),
        ParquetFile("s3://lake/b", 1, (*drifted, ("extra", "int32"))),
        ParquetFile("s3://lake/c", 1, (*drifted, ("extra", "int32"))),
    ]
    found = {(d.column, d.kind): d for d in schema_drift(files, CONTRACT.glue_columns())}
    assert set(found) == {("amount", "missing"), ("count", "type"), ("extra", "unknown")}
    assert found["count", "type"].found == "string"
    assert found["count", "type"].expected == "bigint"
    assert found["extra", "unknown"].files == 2
    assert [len(group) for _, group in by_schema(files)] in ([1, 2], [2, 1])


def test_should_keep_the_latest_event_then_the_latest_arrival(spark: SparkSession) -> None:
    rows = [
        ("a", date(2025, 1, 1), 1, None, None, "old", moment(9)),
        ("a", date(2025, 1, 2), 2, None, None, "new", moment(3)),
        ("b", date(2025, 1, 1), 3, None, None, "first", moment(3)),
        ("b", date(2025, 1, 1), 4, None, None, "second", moment(4)),
        ("c", date(2025, 1, 1), 5, None, None, "x1", moment(3)),
        ("c", date(2025, 1, 1), 6, None, None, "x2", moment(3)),
    ]
    kept = {row["id"]: row["record_id"] for row in transforms.newest(frame(spark, rows), CONTRACT).collect()}
    assert kept == {"a": "new", "b": "second", "c": "x2"}
    turned = transforms.newest(frame(spark, rows[::-1]), CONTRACT).collect()
    assert {row["id"]: row["record_id"] for row in turned} == kept, "file order must not matter"


def test_should_call_a_row_late_by_its_arrival_not_by_today(spark: SparkSession) -> None:
    rows = [
        ("in time", date(2025, 1, 1), None, None, None, "1", moment(31)),
        ("late", date(2024, 12, 31), None, None, None, "2", moment(31)),
        ("unknown", date(2020, 1, 1), None, None, None, "3", None),
    ]
    found = frame(spark, rows).where(transforms.late(CONTRACT)).collect()
    assert [row["id"] for row in found] == ["late"]
    assert frame(spark, rows).where(transforms.late(Contract(late_after_days=None))).count() == 0


def test_should_partition_by_the_month_of_the_event(spark: SparkSession) -> None:
    rows = [("a", date(2025, 3, 31), None, None, None, "1", None)]
    assert transforms.with_month(frame(spark, rows), CONTRACT).collect()[0]["event_month"] == "2025-03"
