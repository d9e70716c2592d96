"""Finding files and telling readable ones from the rest."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lake_files.objects import S3Uri, hidden, list_objects, partition_of, remove_other_partitions
from lake_files.parquet import inspect, undecodable
from moto import mock_aws


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="lake")
        yield client


def parquet(rows: int, compression: str = "snappy") -> bytes:
    sink = io.BytesIO()
    table = pa.table({"id": list(range(rows)), "text": [f"value {n}" for n in range(rows)]})
    pq.write_table(table, sink, compression=compression)
    return sink.getvalue()


def put(s3: Any, key: str, body: bytes) -> None:
    s3.put_object(Bucket="lake", Key=key, Body=body)


def test_should_take_an_s3_uri_apart() -> None:
    assert S3Uri.parse("s3://lake/a/b.parquet") == S3Uri("lake", "a/b.parquet")
    with pytest.raises(ValueError, match=r"looks like s3://bucket/prefix/, got 'lake/a'"):
        S3Uri.parse("lake/a")


@pytest.mark.parametrize(
    ("key", "expected"),
    [("a/_SUCCESS", True), (".hidden/x", True), ("_tmp/x.parquet", True), ("m=_x/f", False), ("a/b", False)],
)
def test_should_hide_what_spark_hides(key: str, expected: bool) -> None:
    assert hidden(key) is expected


def test_should_list_only_visible_objects_of_the_folder(s3: Any) -> None:
    for key in ("data/a", "data/_SUCCESS", "data/sub/b", "database/c", "data/"):
        put(s3, key, b"x")
    assert [item.key for item in list_objects(s3, "s3://lake/data")] == ["data/a", "data/sub/b"]


def test_should_read_schemas_and_rows_from_the_footers(s3: Any) -> None:
    put(s3, "raw/one", parquet(3))
    found = inspect(s3, "s3://lake/raw/")
    assert found.unreadable == ()
    assert [(file.uri, file.rows) for file in found.files] == [("s3://lake/raw/one", 3)]
    assert dict(found.files[0].columns) == {"id": "int64", "text": "string"}


def test_should_give_the_reason_of_every_file_that_is_no_parquet(s3: Any) -> None:
    whole = parquet(2_000)
    put(s3, "raw/good", whole)
    put(s3, "raw/empty", b"")
    put(s3, "raw/half", whole[: len(whole) // 2])
    put(s3, "raw/text", b"this is a text and no Parquet file")
    put(s3, "raw/cut-in-front", whole[1000:])
    found = inspect(s3, "s3://lake/raw/")
    assert [file.uri for file in found.files] == ["s3://lake/raw/good"]
    reasons = {one.uri.rsplit("/", 1)[1]: one.reason for one in found.unreadable}
    assert reasons["empty"] == "0 bytes; the smallest Parquet file has 12"
    assert "truncated, or not Parquet" in reasons["half"]
    assert "truncated, or not Parquet" in reasons["text"]
    assert "row groups reach to byte" in reasons["cut-in-front"]


def test_should_find_a_file_whose_pages_are_damaged(s3: Any) -> None:
    whole = bytearray(parquet(2_000))
    whole[10:400] = b"\xff" * 390
    put(s3, "raw/damaged", bytes(whole))
    put(s3, "raw/good", parquet(5))
    found = inspect(s3, "s3://lake/raw/")
    assert len(found.files) == 2, "the footers are whole"
    culprits = undecodable(s3, found.files)
    assert [one.uri for one in culprits] == ["s3://lake/raw/damaged"]
    assert culprits[0].reason.startswith("its pages cannot be decoded: ")


def test_should_remove_only_partitions_that_are_not_kept(s3: Any) -> None:
    for month in ("2025-01", "2025-02"):
        put(s3, f"curated/event_month={month}/f.parquet", b"x")
    put(s3, "curated/readme", b"x")
    assert remove_other_partitions(s3, "s3://lake/curated/", "event_month", ["2025-02"]) == ["2025-01"]
    left = [item.key for item in list_objects(s3, "s3://lake/curated/")]
    assert left == ["curated/event_month=2025-02/f.parquet", "curated/readme"]


def test_should_read_a_partition_value_from_a_key() -> None:
    assert partition_of("a/event_month=2025-01/x", "event_month") == "2025-01"
    assert partition_of("a/b", "event_month") is None
