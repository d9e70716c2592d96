"""Feature groups on a started server."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError

from rehearsal.server import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]


class Group:
    """A feature group of three features."""

    def __init__(self, server: ServerProcess, client: Callable[[str], Any], name: str) -> None:
        self.server, self.client, self.name = server, client, name
        self.runtime = client("sagemaker-featurestore-runtime")

    def put(self, **features: object) -> None:
        record = [{"FeatureName": name, "ValueAsString": str(value)} for name, value in features.items()]
        self.runtime.put_record(FeatureGroupName=self.name, Record=record)

    def get(self, identifier: str, *names: str) -> dict[str, str] | None:
        more = {"FeatureNames": list(names)} if names else {}
        answer = self.runtime.get_record(
            FeatureGroupName=self.name, RecordIdentifierValueAsString=identifier, **more
        )
        found = answer.get("Record")
        return None if found is None else {item["FeatureName"]: item["ValueAsString"] for item in found}

    def offline(self) -> list[dict[str, Any]]:
        assert self.server.control("GET", "/idle?timeout_seconds=60")["idle"]
        s3 = self.client("s3")
        rows: list[dict[str, Any]] = []
        for item in s3.list_objects_v2(Bucket=self.name).get("Contents", ()):
            body = s3.get_object(Bucket=self.name, Key=item["Key"])["Body"].read()
            rows += pq.read_table(pa.BufferReader(io.BytesIO(body).read())).to_pylist()
        return sorted(rows, key=lambda row: (row["id"], row["at"]))

    def objects(self) -> list[str]:
        return [item["Key"] for item in self.client("s3").list_objects_v2(Bucket=self.name)["Contents"]]


@pytest.fixture
def group(
    request: pytest.FixtureRequest, server: ServerProcess, client: Callable[[str], Any], role: Any
) -> Group:
    name = "f-" + re.sub(r"\W|_", "-", request.node.name.removeprefix("test_should_"))[:36].strip("-")
    client("s3").create_bucket(Bucket=name)
    writer = role(
        name,
        "sagemaker.amazonaws.com",
        [
            {"Action": ["s3:PutObject", "s3:PutObjectAcl"], "Resource": f"arn:aws:s3:::{name}/store/*"},
            {"Action": "s3:GetBucketAcl", "Resource": f"arn:aws:s3:::{name}"},
        ],
    )
    client("sagemaker").create_feature_group(
        FeatureGroupName=name,
        RecordIdentifierFeatureName="id",
        EventTimeFeatureName="at",
        FeatureDefinitions=[
            {"FeatureName": "id", "FeatureType": "String"},
            {"FeatureName": "at", "FeatureType": "String"},
            {"FeatureName": "amount", "FeatureType": "Fractional"},
        ],
        OnlineStoreConfig={"EnableOnlineStore": True},
        OfflineStoreConfig={"S3StorageConfig": {"S3Uri": f"s3://{name}/store"}},
        RoleArn=writer,
    )
    return Group(server, client, name)


DAY = "2025-01-0{}T00:00:00Z"


def test_should_answer_the_newest_event_online_and_keep_all_offline(group: Group) -> None:
    group.put(id="a", at=DAY.format(2), amount=2.5)
    group.put(id="a", at=DAY.format(1), amount=1.5)
    group.put(id="b", at=DAY.format(1))
    assert group.get("a") == {"id": "a", "at": DAY.format(2), "amount": "2.5"}
    assert group.get("a", "amount") == {"amount": "2.5"}
    assert group.get("b") == {"id": "b", "at": DAY.format(1)}, "a missing feature stays missing"
    assert group.get("c") is None
    rows = group.offline()
    assert [(row["id"], row["amount"], row["is_deleted"]) for row in rows] == [
        ("a", 1.5, False),
        ("a", 2.5, False),
        ("b", None, False),
    ]
    assert all(row["write_time"] >= row["api_invocation_time"] for row in rows)
    described = group.client("sagemaker").describe_feature_group(FeatureGroupName=group.name)
    resolved = described["OfflineStoreConfig"]["S3StorageConfig"]["ResolvedOutputS3Uri"]
    folder = resolved.removeprefix(f"s3://{group.name}/")
    assert any(key.startswith(f"{folder}/year=2025/month=01/day=02/hour=00/") for key in group.objects())
    catalog = described["OfflineStoreConfig"]["DataCatalogConfig"]
    table = group.client("glue").get_table(DatabaseName=catalog["Database"], Name=catalog["TableName"])
    assert table["Table"]["StorageDescriptor"]["Location"] == resolved


def test_should_forget_a_deleted_record_unless_a_newer_one_came(group: Group) -> None:
    group.put(id="a", at=DAY.format(2), amount=1)
    delete = group.runtime.delete_record
    delete(FeatureGroupName=group.name, RecordIdentifierValueAsString="a", EventTime=DAY.format(1))
    assert group.get("a") is not None
    delete(FeatureGroupName=group.name, RecordIdentifierValueAsString="a", EventTime=DAY.format(3))
    assert group.get("a") is None
    assert [row["is_deleted"] for row in group.offline()] == [True, False, True]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"id": "a", "at": DAY.format(1), "colour": "red"}, "feature 'colour' is not defined"),
        ({"id": "a", "at": DAY.format(1), "amount": "much"}, "feature 'amount' is Fractional, got 'much'"),
        ({"id": "a", "at": "2025-01-01"}, "event time 'at' must look like"),
        ({"id": "a"}, "the record lacks 'at'"),
    ],
    ids=["unknown", "type", "time", "missing"],
)
def test_should_refuse(group: Group, features: dict[str, object], message: str) -> None:
    with pytest.raises(ClientError, match="ValidationError") as caught:
        group.put(**features)
    assert message in str(caught.value)
    assert group.get("a") is None


def test_should_answer_a_batch_with_its_errors(group: Group) -> None:
    group.put(id="a", at=DAY.format(1))
    answer = group.runtime.batch_get_record(
        Identifiers=[
            {"FeatureGroupName": group.name, "RecordIdentifiersValueAsString": ["a", "b"]},
            {"FeatureGroupName": "nowhere", "RecordIdentifiersValueAsString": ["a"]},
        ]
    )
    assert [record["RecordIdentifierValueAsString"] for record in answer["Records"]] == ["a"]
    assert [error["ErrorCode"] for error in answer["Errors"]] == ["ResourceNotFound"]


def test_should_keep_offline_records_while_its_role_may_not_write(group: Group, allow: Any) -> None:
    allow(group.name, [{"Action": "s3:ListBucket"}])
    group.put(id="a", at=DAY.format(1))
    assert group.offline() == []
    # Feature Store gives each object an ACL: writing alone is not enough.
    allow(group.name, [{"Action": ["s3:PutObject", "s3:GetBucketAcl"]}])
    group.put(id="b", at=DAY.format(1))
    assert group.offline() == []
    allow(group.name, [{"Action": ["s3:PutObject", "s3:PutObjectAcl", "s3:GetBucketAcl"]}])
    group.put(id="c", at=DAY.format(1))
    assert [row["id"] for row in group.offline()] == ["a", "b", "c"]
