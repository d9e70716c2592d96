"""Delivery streams on a started server."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq
import pytest

from rehearsal.server import ServerError, ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]

TRANSFORM = """
import base64, json

def handler(event, context):
    out = []
    for record in event["records"]:
        value = json.loads(base64.b64decode(record["data"]))
        if value.get("crash"):
            raise RuntimeError("this batch cannot be handled")
        result = "Dropped" if value.get("drop") else "ProcessingFailed" if value.get("fail") else "Ok"
        data = json.dumps({"ID": value["id"], "amount": value["amount"]}).encode()
        data = base64.b64encode(data).decode()
        out.append({"recordId": record["recordId"], "result": result, "data": data})
    return {"records": out}
"""


@dataclass
class Stage:
    """A delivery stream from a Kinesis stream through a function into a bucket."""

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

    def objects(self, prefix: str) -> dict[str, bytes]:
        s3 = self.client("s3")
        listed = s3.list_objects_v2(Bucket=self.name, Prefix=prefix).get("Contents", ())
        return {
            item["Key"]: s3.get_object(Bucket=self.name, Key=item["Key"])["Body"].read() for item in listed
        }

    def rows(self) -> list[dict[str, Any]]:
        found = []
        for body in self.objects("data/").values():
            found += pq.read_table(io.BytesIO(body)).to_pylist()
        return sorted(found, key=lambda row: row["id"])

    def errors(self, kind: str) -> list[dict[str, Any]]:
        return [
            json.loads(line)
            for body in self.objects(f"errors/{kind}/").values()
            for line in body.splitlines()
        ]


@pytest.fixture
def stage(
    request: pytest.FixtureRequest, server: ServerProcess, client: Callable[[str], Any], role: Any
) -> Stage:
    name = "t-" + request.node.name.removeprefix("test_should_").replace("_", "-")[:40].strip("-")
    client("s3").create_bucket(Bucket=name)
    client("kinesis").create_stream(StreamName=name, ShardCount=1)
    stream = client("kinesis").describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    client("glue").create_database(DatabaseInput={"Name": name.replace("-", "_")})
    client("glue").create_table(
        DatabaseName=name.replace("-", "_"),
        TableInput={
            "Name": "records",
            "StorageDescriptor": {
                "Columns": [{"Name": "id", "Type": "string"}, {"Name": "amount", "Type": "bigint"}]
            },
        },
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
    delivery = role(
        name,
        "firehose.amazonaws.com",
        [
            {"Action": ["kinesis:GetRecords", "kinesis:GetShardIterator", "kinesis:ListShards"]},
            {"Action": ["lambda:InvokeFunction", "glue:GetTable"]},
            {"Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{name}/*"},
        ],
    )
    client("firehose").create_delivery_stream(
        DeliveryStreamName=name,
        DeliveryStreamType="KinesisStreamAsSource",
        KinesisStreamSourceConfiguration={"KinesisStreamARN": stream["StreamARN"], "RoleARN": delivery},
        ExtendedS3DestinationConfiguration={
            "BucketARN": f"arn:aws:s3:::{name}",
            "RoleARN": delivery,
            "Prefix": "data/day=!{timestamp:yyyy-MM-dd}/",
            "ErrorOutputPrefix": "errors/!{firehose:error-output-type}/",
            "FileExtension": ".parquet",
            "BufferingHints": {"IntervalInSeconds": 600, "SizeInMBs": 64},
            "ProcessingConfiguration": {
                "Enabled": True,
                "Processors": [
                    {
                        "Type": "Lambda",
                        "Parameters": [
                            {"ParameterName": "LambdaArn", "ParameterValue": function["FunctionArn"]},
                            {"ParameterName": "NumberOfRetries", "ParameterValue": "1"},
                            {"ParameterName": "BufferSizeInMBs", "ParameterValue": "0.2"},
                        ],
                    }
                ],
            },
            "DataFormatConversionConfiguration": {
                "Enabled": True,
                "InputFormatConfiguration": {"Deserializer": {"OpenXJsonSerDe": {}}},
                "OutputFormatConfiguration": {"Serializer": {"ParquetSerDe": {}}},
                "SchemaConfiguration": {
                    "RoleARN": delivery,
                    "DatabaseName": name.replace("-", "_"),
                    "TableName": "records",
                    "Region": server.region,
                },
            },
        },
    )
    return Stage(server, client, name)


def test_should_deliver_every_record_to_where_it_belongs(stage: Stage) -> None:
    stage.send(*({"id": f"r{n:03}", "amount": n} for n in range(100)))
    stage.send({"id": "bad", "amount": "much"}, {"id": "x", "amount": 1, "drop": True})
    stage.send({"id": "y", "amount": 1, "fail": True})
    counts = stage.flush()
    assert counts["received"] == 103
    assert (counts["delivered"], counts["dropped"], counts["buffered"]) == (100, 1, 0)
    assert (counts["processing_failed"], counts["conversion_failed"]) == (1, 1)
    assert [row["amount"] for row in stage.rows()] == list(range(100)), "one object, no duplicate"
    (key,) = stage.objects("data/")
    assert key.startswith("data/day=20")
    assert key.endswith(".parquet")
    (refused,) = stage.errors("format-conversion-failed")
    assert refused["lastErrorCode"] == "DataFormatConversion.MalformedData"
    assert "amount is bigint" in refused["lastErrorMessage"]
    (failed,) = stage.errors("processing-failed")
    assert json.loads(base64.b64decode(failed["rawData"]))["id"] == "y"


def test_should_keep_the_records_of_a_failing_function(stage: Stage) -> None:
    stage.send({"id": "a", "amount": 1, "crash": True}, {"id": "b", "amount": 2})
    counts = stage.flush()
    assert counts["processing_failed"] == 2
    failed = stage.errors("processing-failed")
    assert sorted(json.loads(base64.b64decode(line["rawData"]))["id"] for line in failed) == ["a", "b"]
    assert {line["attemptsMade"] for line in failed} == {2}
    assert {line["errorCode"] for line in failed} == {"Lambda.FunctionError"}
    assert "cannot be handled" in failed[0]["errorMessage"]


def test_should_hold_records_while_its_role_may_not_write(stage: Stage, allow: Any) -> None:
    allow(
        stage.name,
        [{"Action": ["kinesis:*", "lambda:InvokeFunction", "glue:GetTable"]}],
    )
    stage.send({"id": "a", "amount": 1})
    counts = stage.flush()
    assert (counts["delivered"], counts["buffered"]) == (0, 1)
    failures = stage.server.control("GET", "/ledger?outcome=failed&kind=firehose")["entries"]
    assert any("s3:PutObject" in entry["why"] for entry in failures if entry["name"] == stage.name)
    allow(stage.name, [{"Action": ["kinesis:*", "lambda:*", "glue:*", "s3:PutObject"]}])
    counts = stage.flush()
    assert (counts["delivered"], counts["buffered"]) == (1, 0)
    assert [row["id"] for row in stage.rows()] == ["a"]


def test_should_deliver_when_the_buffering_interval_is_over(stage: Stage) -> None:
    stage.send({"id": "a", "amount": 1})
    assert stage.server.control("GET", "/idle?timeout_seconds=60")["idle"]
    assert stage.rows() == []
    stage.server.control("POST", "/clock/advance", {"minutes": 11})
    assert stage.server.control("GET", "/idle?timeout_seconds=60")["idle"]
    assert [row["id"] for row in stage.rows()] == ["a"]


def test_should_read_on_where_it_was_when_the_stream_throttles(stage: Stage) -> None:
    throttled = {"action": "kinesis:GetRecords", "steps": ["ProvisionedThroughputExceededException"] * 2}
    stage.server.control("POST", "/faults", throttled | {"who": stage.name})
    stage.send({"id": "a", "amount": 1}, {"id": "b", "amount": 2})
    assert stage.server.control("GET", "/idle?timeout_seconds=60")["idle"]
    stage.server.control("POST", "/clock/advance", {"minutes": 1})
    assert stage.server.control("GET", "/idle?timeout_seconds=60")["idle"]
    assert stage.server.control("GET", "/faults")["left"] == {}
    stage.server.control("POST", "/clock/advance", {"minutes": 11})
    assert stage.server.control("GET", "/idle?timeout_seconds=60")["idle"]
    assert [row["id"] for row in stage.rows()] == ["a", "b"]
    failures = stage.server.control("GET", "/ledger?outcome=failed&kind=firehose")["entries"]
    assert sum("could not read" in e["why"] for e in failures if e["name"] == stage.name) == 2


def test_should_not_read_an_encrypted_stream_whose_key_its_role_may_not_use(stage: Stage, allow: Any) -> None:
    key = stage.client("kms").create_key()["KeyMetadata"]["Arn"]
    stage.client("kinesis").start_stream_encryption(StreamName=stage.name, EncryptionType="KMS", KeyId=key)
    stage.send({"id": "a", "amount": 1})
    with pytest.raises(ServerError, match="kms:Decrypt"):
        stage.flush()
    allow(stage.name, [{"Action": ["kinesis:*", "lambda:*", "glue:*", "s3:PutObject", "kms:Decrypt"]}])
    assert stage.flush()["delivered"] == 1
