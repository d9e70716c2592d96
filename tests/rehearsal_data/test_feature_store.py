"""Feature groups on a started server."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta
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

    def put(self, _options: dict[str, Any] | None = None, **features: object) -> None:
        record = [{"FeatureName": name, "ValueAsString": str(value)} for name, value in features.items()]
        self.runtime.put_record(FeatureGroupName=self.name, Record=record, **(_options or {}))

    def update(self, **change: Any) -> None:
        self.client("sagemaker").update_feature_group(FeatureGroupName=self.name, **change)

    def describe(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client("sagemaker").describe_feature_group(FeatureGroupName=self.name)
        return found

    def table(self) -> dict[str, Any]:
        catalog = self.describe()["OfflineStoreConfig"]["DataCatalogConfig"]
        found: dict[str, Any] = self.client("glue").get_table(
            DatabaseName=catalog["Database"], Name=catalog["TableName"]
        )["Table"]
        return found

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


def made(
    request: pytest.FixtureRequest,
    server: ServerProcess,
    client: Callable[[str], Any],
    role: Any,
    *,
    table_format: str = "Glue",
    online: bool = True,
) -> Group:
    name = "f-" + re.sub(r"\W|_", "-", request.node.name.removeprefix("test_should_"))[:36].strip("-")
    client("s3").create_bucket(Bucket=name)
    more = (
        [
            {"Action": ["glue:GetTable", "glue:UpdateTable"]},
        ]
        if table_format == "Iceberg"
        else []
    )
    writer = role(
        name,
        "sagemaker.amazonaws.com",
        [
            {"Action": ["s3:PutObject", "s3:PutObjectAcl"], "Resource": f"arn:aws:s3:::{name}/store/*"},
            {"Action": "s3:GetBucketAcl", "Resource": f"arn:aws:s3:::{name}"},
            *more,
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
        **({"OnlineStoreConfig": {"EnableOnlineStore": True}} if online else {}),
        OfflineStoreConfig={"S3StorageConfig": {"S3Uri": f"s3://{name}/store"}, "TableFormat": table_format},
        RoleArn=writer,
    )
    return Group(server, client, name)


@pytest.fixture
def group(
    request: pytest.FixtureRequest, server: ServerProcess, client: Callable[[str], Any], role: Any
) -> Group:
    return made(request, server, client, role)


@pytest.fixture
def iceberg(
    request: pytest.FixtureRequest, server: ServerProcess, client: Callable[[str], Any], role: Any
) -> Group:
    return made(request, server, client, role, table_format="Iceberg")


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


def iceberg_rows(group: Group) -> list[dict[str, Any]]:
    from pyiceberg.catalog.glue import GlueCatalog

    assert group.server.control("GET", "/idle?timeout_seconds=60")["idle"]
    catalog = GlueCatalog(
        "glue",
        client=group.client("glue"),
        **{
            "s3.endpoint": group.server.endpoint,
            "s3.region": group.server.region,
            "s3.access-key-id": group.server.account,
            "s3.secret-access-key": "rehearsal",
        },
    )
    place = group.describe()["OfflineStoreConfig"]["DataCatalogConfig"]
    rows = catalog.load_table((place["Database"], place["TableName"])).scan().to_arrow().to_pylist()
    return sorted(rows, key=lambda row: (row["id"], row["at"]))


def test_should_keep_the_history_in_an_iceberg_table_by_the_day_of_the_event(iceberg: Group) -> None:
    iceberg.put(id="a", at=DAY.format(1), amount=1.5)
    iceberg.put(id="a", at=DAY.format(2), amount=2.5)
    rows = iceberg_rows(iceberg)
    assert [(r["id"], r["at"], r["amount"], r["is_deleted"]) for r in rows] == [
        ("a", DAY.format(1), 1.5, False),
        ("a", DAY.format(2), 2.5, False),
    ]
    assert iceberg.table()["Parameters"]["table_type"] == "ICEBERG"
    data = [key for key in iceberg.objects() if key.endswith(".parquet")]
    assert any("at_trunc=2025-01-01" in key for key in data), data


def test_should_add_features_where_an_iceberg_table_stands(iceberg: Group) -> None:
    iceberg.put(id="a", at=DAY.format(1), amount=1.5)
    assert len(iceberg_rows(iceberg)) == 1
    iceberg.update(FeatureAdditions=[{"FeatureName": "colour", "FeatureType": "String"}])
    iceberg.put(id="b", at=DAY.format(1), colour="red")
    assert [(r["id"], r["amount"], r["colour"]) for r in iceberg_rows(iceberg)] == [
        ("a", 1.5, None),
        ("b", None, "red"),
    ]


def test_should_add_features_where_the_group_stands(group: Group) -> None:
    group.put(id="a", at=DAY.format(1), amount=1)
    group.update(FeatureAdditions=[{"FeatureName": "colour", "FeatureType": "String"}])
    assert group.get("a") == {"id": "a", "at": DAY.format(1), "amount": "1"}
    group.put(id="a", at=DAY.format(2), amount=2, colour="red")
    assert group.get("a", "colour") == {"colour": "red"}
    columns = [c["Name"] for c in group.table()["StorageDescriptor"]["Columns"]]
    assert columns == ["id", "at", "amount", "colour", "write_time", "api_invocation_time", "is_deleted"]
    assert [d["FeatureName"] for d in group.describe()["FeatureDefinitions"]] == [
        "id",
        "at",
        "amount",
        "colour",
    ]
    with pytest.raises(ClientError, match="colour are there already"):
        group.update(FeatureAdditions=[{"FeatureName": "colour", "FeatureType": "Integral"}])
    with pytest.raises(ClientError, match="at a time"):
        group.update(
            FeatureAdditions=[{"FeatureName": "size", "FeatureType": "String"}],
            ThroughputConfig={"ThroughputMode": "OnDemand"},
        )


def test_should_forget_a_record_when_its_time_to_live_is_over(group: Group) -> None:
    def moment(hours: float) -> str:
        now = datetime.fromisoformat(group.server.control("GET", "/clock")["now"])
        return (now + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")

    group.update(OnlineStoreConfig={"TtlDuration": {"Unit": "Days", "Value": 1}})
    group.put(id="old", at=moment(-25))
    group.put(id="young", at=moment(0))
    group.put({"TtlDuration": {"Unit": "Hours", "Value": 2}}, id="brief", at=moment(0))
    assert group.get("old") is None, "its time was over before it came"
    answer = group.runtime.get_record(
        FeatureGroupName=group.name, RecordIdentifierValueAsString="brief", ExpirationTimeResponse="Enabled"
    )
    assert answer["ExpiresAt"] > moment(1)
    group.server.control("POST", "/clock/advance", {"hours": 3})
    assert group.get("brief") is None
    assert group.get("young") is not None
    group.server.control("POST", "/clock/advance", {"hours": 22})
    assert group.get("young") is None
    assert sorted(row["id"] for row in group.offline()) == ["brief", "old", "young"]


def test_should_write_to_the_stores_that_are_named(group: Group) -> None:
    group.put({"TargetStores": ["OfflineStore"]}, id="a", at=DAY.format(1), amount=1)
    group.put({"TargetStores": ["OnlineStore"]}, id="b", at=DAY.format(1), amount=2)
    assert (group.get("a"), group.get("b", "amount")) == (None, {"amount": "2"})
    assert [row["id"] for row in group.offline()] == ["a"]


def test_should_write_a_batch_and_name_the_entries_that_are_wrong(group: Group) -> None:
    def entry(**features: str) -> dict[str, Any]:
        return {
            "FeatureGroupName": group.name,
            "Record": [{"FeatureName": k, "ValueAsString": v} for k, v in features.items()],
        }

    answer = group.runtime.batch_write_record(
        Entries=[entry(id="a", at=DAY.format(1)), entry(id="b", at="yesterday")]
    )
    assert [e["ErrorCode"] for e in answer["Errors"]] == ["ValidationError"]
    assert (group.get("a") is not None, group.get("b")) == (True, None)


def test_should_erase_for_good_or_leave_a_mark(group: Group) -> None:
    delete = group.runtime.delete_record
    for identifier in ("soft", "hard"):
        group.put(id=identifier, at=DAY.format(2), amount=1)
    delete(FeatureGroupName=group.name, RecordIdentifierValueAsString="soft", EventTime=DAY.format(3))
    delete(
        FeatureGroupName=group.name,
        RecordIdentifierValueAsString="hard",
        EventTime=DAY.format(3),
        DeletionMode="HardDelete",
    )
    assert (group.get("soft"), group.get("hard")) == (None, None)
    for identifier in ("soft", "hard"):
        group.put(id=identifier, at=DAY.format(1), amount=5)
    # The mark of a soft deletion is newer than what comes late; a hard one leaves none.
    assert (group.get("soft"), group.get("hard", "amount")) == (None, {"amount": "5"})
    marks = [row["id"] for row in group.offline() if row["is_deleted"]]
    assert marks == ["hard", "soft"]


def test_should_follow_a_template_where_it_can_and_refuse_what_would_replace_the_group(
    server: ServerProcess, client: Callable[[str], Any]
) -> None:
    cloudformation, sagemaker = client("cloudformation"), client("sagemaker")
    stack = name = "f-by-template"

    def template(*features: str, online: dict[str, Any] | None = None, **more: Any) -> str:
        definitions = [{"FeatureName": n, "FeatureType": "String"} for n in ("id", "at", *features)]
        group = {
            "FeatureGroupName": name,
            "RecordIdentifierFeatureName": "id",
            "EventTimeFeatureName": "at",
            "FeatureDefinitions": definitions,
            "OnlineStoreConfig": {"EnableOnlineStore": True, **(online or {})},
            **more,
        }
        return json.dumps(
            {"Resources": {"Group": {"Type": "AWS::SageMaker::FeatureGroup", "Properties": group}}}
        )

    def settled() -> str:
        assert server.control("GET", "/idle?timeout_seconds=60")["idle"]
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            status = str(cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"])
            if not status.endswith("IN_PROGRESS"):
                return status
            time.sleep(0.1)
        raise AssertionError(f"{stack} is still {status}")

    def updated(*features: str, **more: Any) -> str:
        cloudformation.update_stack(StackName=stack, TemplateBody=template(*features, **more))
        return settled()

    cloudformation.create_stack(StackName=stack, TemplateBody=template("a"))
    assert settled() == "CREATE_COMPLETE"
    made = sagemaker.describe_feature_group(FeatureGroupName=name)["CreationTime"]
    days = {"TtlDuration": {"Unit": "Days", "Value": 3}}
    # Two things at once, which the API takes one at a time.
    assert (
        updated("a", "b", online=days, ThroughputConfig={"ThroughputMode": "OnDemand"}) == "UPDATE_COMPLETE"
    )
    found = sagemaker.describe_feature_group(FeatureGroupName=name)
    assert [d["FeatureName"] for d in found["FeatureDefinitions"]] == ["id", "at", "a", "b"]
    assert found["OnlineStoreConfig"]["TtlDuration"] == {"Unit": "Days", "Value": 3}
    assert updated("a", "b") == "UPDATE_COMPLETE"
    found = sagemaker.describe_feature_group(FeatureGroupName=name)
    assert "TtlDuration" not in found["OnlineStoreConfig"]
    for refused in (
        {"features": ("b",)},
        {"features": ("a", "b"), "Description": "other"},
        {"features": ("a", "b"), "Tags": [{"Key": "k", "Value": "v"}]},
    ):
        features = refused.pop("features")
        assert updated(*features, **refused) == "UPDATE_ROLLBACK_COMPLETE"
    reasons = [
        event.get("ResourceStatusReason", "")
        for event in cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
        if event["ResourceStatus"] == "UPDATE_FAILED"
    ]
    assert sum("custom-named resource requires replacing" in reason for reason in reasons) == 2
    assert any("UpdateFeatureGroup only adds features" in reason for reason in reasons)
    found = sagemaker.describe_feature_group(FeatureGroupName=name)
    assert found["CreationTime"] == made
    cloudformation.delete_stack(StackName=stack)
