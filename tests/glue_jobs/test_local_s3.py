"""``s3://`` paths of Spark through boto3: the save modes do to the bucket what they do in AWS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto import mock_aws

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.slow
URI = "s3://lake/table/"


@pytest.fixture
def s3(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from awsglue import local_s3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        local_s3.install()
        local_s3.mirror.cache_clear()
        client = boto3.client("s3")
        client.create_bucket(Bucket="lake")
        yield client
    local_s3.mirror.cache_clear()


def keys(s3: Any) -> list[str]:
    return sorted(item["Key"] for item in s3.list_objects_v2(Bucket="lake").get("Contents", ()))


def months(s3: Any) -> set[str]:
    return {key.split("/")[1] for key in keys(s3) if "month=" in key}


def test_should_write_and_read_back(s3: Any, spark: SparkSession) -> None:
    spark.range(5).coalesce(1).write.parquet(URI)
    s3.put_object(Bucket="lake", Key="table/_hidden/x.parquet", Body=b"no parquet")
    s3.put_object(Bucket="lake", Key="table2/x.parquet", Body=b"no parquet")
    assert spark.read.parquet(URI).count() == 5
    (part,) = [key for key in keys(s3) if "part-" in key]
    assert spark.read.parquet(f"s3://lake/{part}").count() == 5


def test_should_refuse_to_write_over_data_unless_told(s3: Any, spark: SparkSession) -> None:
    from pyspark.errors import AnalysisException

    spark.range(5).write.parquet(URI)
    before = keys(s3)
    with pytest.raises(AnalysisException, match="PATH_ALREADY_EXISTS"):
        spark.range(1).write.parquet(URI)
    spark.range(1).write.mode("ignore").parquet(URI)
    assert keys(s3) == before
    spark.range(2).write.parquet(URI, mode="append")
    assert spark.read.parquet(URI).count() == 7
    spark.range(3).write.mode("overwrite").parquet(URI)
    assert spark.read.parquet(URI).count() == 3


def test_should_replace_only_written_partitions_when_overwrite_is_dynamic(
    s3: Any, spark: SparkSession
) -> None:
    def write(months: list[int], mode: str) -> None:
        rows = spark.createDataFrame([(m, m) for m in months], "value int, month int")
        rows.write.mode("overwrite").option("partitionOverwriteMode", mode).partitionBy("month").parquet(URI)

    write([1, 2], "static")
    write([2, 3], "dynamic")
    assert months(s3) == {"month=1", "month=2", "month=3"}
    assert spark.read.parquet(URI).count() == 3
    (part,) = [key for key in keys(s3) if "month=2/" in key]
    assert spark.read.parquet(f"s3://lake/{part}").count() == 1, "a file of a partition by its own path"
    write([4], "static")
    assert months(s3) == {"month=4"}
    write([], "dynamic")
    assert months(s3) == {"month=4"}, "no row replaces no partition"


def test_should_say_which_path_is_missing(s3: Any, spark: SparkSession) -> None:
    from pyspark.errors import AnalysisException

    with pytest.raises(AnalysisException, match=r"Path does not exist: s3://lake/nothing/"):
        spark.read.parquet("s3://lake/nothing/")
    with pytest.raises(NotImplementedError, match="globs are not expanded"):
        spark.read.parquet("s3://lake/*/x")


def test_should_leave_local_paths_alone(s3: Any, spark: SparkSession, tmp_path: Any) -> None:
    spark.range(2).write.json(str(tmp_path / "out"))
    assert spark.read.json(str(tmp_path / "out")).count() == 2
    assert keys(s3) == []
