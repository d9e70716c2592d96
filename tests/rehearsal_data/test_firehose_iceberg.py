"""Delivery streams that commit to an Iceberg table, and records that no invocation holds."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import LongType, NestedField, StringType, TimestamptzType

from rehearsal.server import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]

TRANSFORM = """
import base64, json

def handler(event, context):
    out = []
    for record in event["records"]:
        value = json.loads(base64.b64decode(record["data"]))
        result = "Dropped" if value.get("drop") else "Ok"
        out.append({"recordId": record["recordId"], "result": result, "data": record["data"]})
    return {"records": out}
"""


@dataclass
class Stage:
    """A stream, a function and a table."""

    server: ServerProcess
    client: Callable[[str], Any]
    name: str

    def send(self, *records: dict[str, Any]) -> None:
        entries = [{"Data": json.dumps(record).encode(), "PartitionKey": "k"} for record in records]
        answer = self.client("kinesis").put_records(StreamName=self.name, Records=entries)
        assert answer["FailedRecordCount"] == 0

    def flush(self) -> dict[str, int]:
        answer = self.server.control("POST", "/firehose/flush", {"delivery_stream": self.name})
        counts: dict[str, int] = answer["delivery_streams"][self.name]
        return counts

    def table(self) -> Any:
        return self.catalog().load_table((self.name.replace("-", "_"), "parcels"))

    def catalog(self) -> GlueCatalog:
        environment = self.server.environment()
        properties = {
            "s3.endpoint": self.server.endpoint,
            "s3.region": self.server.region,
            "s3.access-key-id": environment["AWS_ACCESS_KEY_ID"],
            "s3.secret-access-key": environment["AWS_SECRET_ACCESS_KEY"],
        }
        return GlueCatalog("glue", client=self.client("glue"), **properties)

    def rows(self) -> list[dict[str, Any]]:
        found: pa.Table = self.table().scan().to_arrow()
        return sorted(found.to_pylist(), key=lambda row: str(row["id"]))

    def errors(self, prefix: str) -> list[dict[str, Any]]:
        s3 = self.client("s3")
        listed = s3.list_objects_v2(Bucket=self.name, Prefix=prefix).get("Contents", ())
        bodies = [s3.get_object(Bucket=self.name, Key=item["Key"])["Body"].read() for item in listed]
        return [json.loads(line) for body in bodies for line in body.splitlines()]


@pytest.fixture
def stage(
    request: pytest.FixtureRequest,
    server: ServerProcess,
    client: Callable[[str], Any],
    role: Any,
    allow: Any,
) -> Stage:
    name = "i-" + request.node.name.removeprefix("test_should_").replace("_", "-")[:40].strip("-")
    client("s3").create_bucket(Bucket=name)
    client("kinesis").create_stream(StreamName=name, ShardCount=1, MaxRecordSizeInKiB=10_240)
    stream = client("kinesis").describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    made = Stage(server, client, name)
    client("glue").create_database(DatabaseInput={"Name": name.replace("-", "_")})
    schema = Schema(
        NestedField(1, "id", StringType()),
        NestedField(2, "state", StringType()),
        NestedField(3, "stops", LongType()),
        NestedField(4, "received_at", TimestamptzType()),
    )
    made.catalog().create_table(
        (name.replace("-", "_"), "parcels"),
        schema=schema,
        location=f"s3://{name}/data",
        partition_spec=PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "state")),
        properties={"format-version": "2"},
    )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("transform.py", TRANSFORM)
    function = client("lambda").create_function(
        FunctionName=name,
        Runtime="python3.13",
        Handler="transform.handler",
        Role=role(f"{name}-fn", "lambda.amazonaws.com", [{"Action": "logs:*"}]),
        Code={"ZipFile": archive.getvalue()},
    )
    delivery = role(name, "firehose.amazonaws.com", grants_of(name))
    client("firehose").create_delivery_stream(
        DeliveryStreamName=name,
        DeliveryStreamType="KinesisStreamAsSource",
        KinesisStreamSourceConfiguration={"KinesisStreamARN": stream["StreamARN"], "RoleARN": delivery},
        IcebergDestinationConfiguration={
            "RoleARN": delivery,
            "CatalogConfiguration": {"CatalogARN": f"arn:aws:glue:{server.region}:{server.account}:catalog"},
            "AppendOnly": True,
            "DestinationTableConfigurationList": [
                {"DestinationDatabaseName": name.replace("-", "_"), "DestinationTableName": "parcels"}
            ],
            "BufferingHints": {"IntervalInSeconds": 600, "SizeInMBs": 64},
            "S3Configuration": {
                "RoleARN": delivery,
                "BucketARN": f"arn:aws:s3:::{name}",
                "ErrorOutputPrefix": "errors/!{firehose:error-output-type}/",
            },
            "ProcessingConfiguration": {
                "Enabled": True,
                "Processors": [
                    {
                        "Type": "Lambda",
                        "Parameters": [
                            {"ParameterName": "LambdaArn", "ParameterValue": function["FunctionArn"]},
                            {"ParameterName": "NumberOfRetries", "ParameterValue": "1"},
                        ],
                    }
                ],
            },
        },
    )
    return made


def grants_of(name: str) -> list[dict[str, Any]]:
    objects = f"arn:aws:s3:::{name}/*"
    return [
        {"Action": ["kinesis:GetRecords", "kinesis:GetShardIterator", "kinesis:ListShards"]},
        {"Action": ["lambda:InvokeFunction", "glue:GetTable", "glue:GetDatabase", "glue:UpdateTable"]},
        {"Action": ["s3:PutObject", "s3:GetObject", "s3:DeleteObject"], "Resource": objects},
        {"Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{name}"},
    ]


def parcel(identifier: str, state: str = "OH", **more: Any) -> dict[str, Any]:
    return {"id": identifier, "state": state, "stops": 3, "received_at": "2026-11-21T10:00:00.250Z", **more}


def test_should_commit_rows_to_the_partitions_of_their_values(stage: Stage) -> None:
    stage.send(parcel("a"), parcel("b", "IL"), parcel("c", "IL"), parcel("d", drop=True))
    counts = stage.flush()
    assert (counts["received"], counts["delivered"], counts["dropped"]) == (4, 3, 1)
    assert [row["id"] for row in stage.rows()] == ["a", "b", "c"]
    assert stage.rows()[0]["received_at"].isoformat() == "2026-11-21T10:00:00.250000+00:00"
    table = stage.table()
    assert len(table.snapshots()) == 1, "one batch is one commit"
    files = [task.file for task in table.scan().plan_files()]
    assert {(str(file.partition[0]), file.record_count) for file in files} == {("OH", 1), ("IL", 2)}
    # A reader that wants one state opens that state's files only.
    assert len(list(table.scan(row_filter="state == 'OH'").plan_files())) == 1
    stage.send(parcel("e", "IN"))
    stage.flush()
    assert [row["id"] for row in stage.rows()] == ["a", "b", "c", "e"]
    assert len(stage.table().snapshots()) == 2


def test_should_keep_a_record_that_the_table_cannot_hold(stage: Stage) -> None:
    stage.send(parcel("a"), parcel("b", stops="many"))
    counts = stage.flush()
    assert (counts["delivered"], counts["conversion_failed"]) == (1, 1)
    (line,) = stage.errors("errors/iceberg-failed/")
    assert json.loads(base64.b64decode(line["rawData"]))["id"] == "b"
    assert "stops is bigint" in line["errorMessage"]


def test_should_keep_records_buffered_until_its_role_may_commit(stage: Stage, allow: Any) -> None:
    grants = grants_of(stage.name)
    allow(stage.name, [grants[0], {"Action": ["lambda:InvokeFunction", "glue:GetTable"]}, *grants[2:]])
    stage.send(parcel("a"))
    counts = stage.flush()
    assert (counts["delivered"], counts["buffered"]) == (0, 1)
    allow(stage.name, grants)
    counts = stage.flush()
    assert (counts["delivered"], counts["buffered"]) == (1, 0)
    assert [row["id"] for row in stage.rows()] == ["a"]


def test_should_keep_a_record_that_no_invocation_holds_and_deliver_the_others(stage: Stage) -> None:
    large = json.dumps(parcel("z", note="x" * (7 * 1024 * 1024))).encode()
    stage.send(parcel("a"))
    stage.client("kinesis").put_record(StreamName=stage.name, Data=large, PartitionKey="k")
    stage.send(parcel("b"))
    counts = stage.flush()
    assert (counts["received"], counts["delivered"], counts["processing_failed"]) == (3, 2, 1)
    (line,) = stage.errors("errors/processing-failed/")
    assert base64.b64decode(line["rawData"]) == large
    assert "too large for the Invoke operation" in line["errorMessage"]
    assert [row["id"] for row in stage.rows()] == ["a", "b"]
