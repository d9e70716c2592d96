"""What Firehose makes of records."""

from __future__ import annotations

import base64
import gzip
import io
import json
from datetime import UTC, date, datetime
from typing import Any

import pyarrow.parquet as pq
import pytest

from rehearsal.executors.delivery_format import (
    Column,
    ConversionError,
    compressed,
    error_line,
    object_prefix,
    parquet,
    row_of,
)

ARRIVAL = datetime(2025, 3, 4, 5, 6, 7, 89_000, tzinfo=UTC)


def test_should_evaluate_the_expressions_of_a_prefix() -> None:
    assert object_prefix("data/day=!{timestamp:yyyy-MM-dd}/", ARRIVAL) == "data/day=2025-03-04/"
    errors = "errors/!{firehose:error-output-type}/!{timestamp:yyyy/'at' HH.mm}/"
    assert object_prefix(errors, ARRIVAL, error_type="processing-failed") == (
        "errors/processing-failed/2025/at 05.06/"
    )
    assert object_prefix("!{firehose:random-string}/", ARRIVAL, random="abc") == "abc/"


def test_should_append_the_hour_to_a_prefix_without_expression() -> None:
    assert object_prefix("raw/", ARRIVAL) == "raw/2025/03/04/05/"
    assert object_prefix("errors/", ARRIVAL, error_type="processing-failed") == (
        "errors/processing-failed/2025/03/04/05/"
    )


@pytest.mark.parametrize(
    "prefix", ["!{partitionKeyFromQuery:x}/", "!{firehose:error-output-type}/", "!{timestamp:G}/"]
)
def test_should_refuse_an_expression_that_has_no_value_here(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"is not emulated|goes with ErrorOutputPrefix"):
        object_prefix(prefix, ARRIVAL)


def one(kind: str, value: Any, formats: list[str] | None = None) -> Any:
    return row_of(json.dumps({"c": value}).encode(), [Column("c", kind)], formats)["c"]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("bigint", 2**62, 2**62),
        ("bigint", "17", 17),
        ("double", 3, 3.0),
        ("double", "2.5", 2.5),
        ("string", 3, "3"),
        ("boolean", "TRUE", True),
        ("date", "2025-01-31", date(2025, 1, 31)),
        ("timestamp", "2025-01-31T10:11:12.345Z", datetime(2025, 1, 31, 10, 11, 12, 345_000, tzinfo=UTC)),
        ("timestamp", "2025-01-31 10:11:12", datetime(2025, 1, 31, 10, 11, 12, tzinfo=UTC)),
        ("timestamp", 1_738_318_272_345, datetime(2025, 1, 31, 10, 11, 12, 345_000, tzinfo=UTC)),
        ("bigint", None, None),
    ],
)
def test_should_convert_a_value_to_its_column(kind: str, value: Any, expected: Any) -> None:
    assert one(kind, value) == expected


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("bigint", 1.5),
        ("bigint", True),
        ("int", 2**31),
        ("double", "much"),
        ("boolean", 1),
        ("date", "31.01.2025"),
        ("date", "2025-02-30"),
        ("timestamp", "yesterday"),
    ],
)
def test_should_refuse_a_value_that_its_column_does_not_hold(kind: str, value: Any) -> None:
    with pytest.raises(ConversionError, match=rf"column c is {kind}, got ") as caught:
        one(kind, value)
    assert caught.value.code == "DataFormatConversion.MalformedData"


def test_should_read_times_by_the_formats_of_the_hive_serde() -> None:
    assert one("timestamp", 1_738_318_272_345, ["millis"]).year == 2025
    iso = one("timestamp", "2025-01-31T10:11:12.5Z", ["yyyy-MM-dd'T'HH:mm:ss.SSS'Z'"])
    assert iso == datetime(2025, 1, 31, 10, 11, 12, 500_000, tzinfo=UTC)
    with pytest.raises(ConversionError):
        one("timestamp", "2025-01-31T10:11:12Z", [])


def test_should_ignore_unknown_fields_and_match_names_as_told() -> None:
    columns = [Column("age", "bigint")]
    assert row_of(b'{"Age": 3, "other": 1}', columns) == {"age": 3}
    assert row_of(b'{"Age": 3}', columns, fold_case=False) == {"age": None}


@pytest.mark.parametrize("data", [b"{", b"\xff", b"[1]", b'"text"'])
def test_should_refuse_what_is_no_json_object(data: bytes) -> None:
    with pytest.raises(ConversionError):
        row_of(data, [Column("c", "string")])


def test_should_write_parquet_with_the_tables_columns_in_order() -> None:
    columns = [Column("b", "bigint"), Column("a", "string"), Column("t", "timestamp")]
    body = parquet([{"a": "x", "b": 1, "t": ARRIVAL}, {"a": None, "b": None, "t": None}], columns, "SNAPPY")
    file = pq.ParquetFile(io.BytesIO(body))
    assert [column.name for column in file.schema] == ["b", "a", "t"]
    assert file.schema.column(2).physical_type == "INT96"
    assert file.metadata.row_group(0).column(0).compression == "SNAPPY"
    assert file.read().to_pylist()[1] == {"b": None, "a": None, "t": None}


def test_should_compress_only_as_it_can() -> None:
    assert compressed(b"x", "UNCOMPRESSED") == (b"x", "")
    body, extension = compressed(b"x", "GZIP")
    assert (gzip.decompress(body), extension) == (b"x", ".gz")
    with pytest.raises(NotImplementedError, match="'ZIP' is not emulated"):
        compressed(b"x", "ZIP")


def test_should_keep_the_record_as_it_came_in_an_error_line() -> None:
    line = error_line(b"\xff raw", ARRIVAL, ARRIVAL, 4, errorCode="Lambda.FunctionError")
    assert line.endswith(b"\n")
    record = json.loads(line)
    assert base64.b64decode(record["rawData"]) == b"\xff raw"
    assert record["attemptsMade"] == 4
    assert record["arrivalTimestamp"] == 1_741_064_767_089
    assert record["errorCode"] == "Lambda.FunctionError"
