"""The custom resource of Iceberg tables: made once, given columns, never broken, never lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from iceberg_table import handler as module
from iceberg_table.metadata import TableDefinition, TableRefusedError, evolved, first
from moto import mock_aws
from pyiceberg.partitioning import PartitionField
from pyiceberg.table.metadata import TableMetadataUtil, TableMetadataV2
from pyiceberg.transforms import MonthTransform
from pyiceberg.types import ListType, LongType, StringType, TimestamptzType

COLUMNS = [["parcel", "string"], ["sent_at", "timestamp"], ["stops", "bigint"]]
PROPERTIES: dict[str, Any] = {
    "Database": "t_curated",
    "Name": "parcels",
    "Location": "s3://lake/parcels/data",
    "Columns": COLUMNS,
    "PartitionBy": [["month", "sent_at"]],
    "OnDelete": "keep",
}
MORE = [*COLUMNS, ["carrier", "string"], ["tags", "array<string>"], ["paid", "decimal(10,2)"]]


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        glue, s3 = boto3.client("glue"), boto3.client("s3")
        glue.create_database(DatabaseInput={"Name": "t_curated"})
        s3.create_bucket(Bucket="lake")
        yield glue, s3


def request(kind: str, **properties: Any) -> dict[str, Any]:
    event = {"RequestType": kind, "ResourceProperties": {**PROPERTIES, **properties}}
    if kind != "Create":
        event["PhysicalResourceId"] = "t_curated.parcels"
    return event


def table(glue: Any) -> dict[str, Any]:
    found: dict[str, Any] = glue.get_table(DatabaseName="t_curated", Name="parcels")["Table"]
    return found


def metadata(aws: tuple[Any, Any]) -> TableMetadataV2:
    """What the table points at, as another reader of Iceberg understands it."""
    glue, s3 = aws
    location = table(glue)["Parameters"]["metadata_location"]
    key = location.removeprefix("s3://lake/")
    assert key.startswith("parcels/data/metadata/")
    found = TableMetadataUtil.parse_raw(s3.get_object(Bucket="lake", Key=key)["Body"].read().decode())
    assert isinstance(found, TableMetadataV2)
    return found


def test_should_make_a_table_that_other_engines_read(aws: tuple[Any, Any]) -> None:
    assert module.apply(request("Create"), *aws) == ("t_curated.parcels", "parcels")
    shown = table(aws[0])
    assert shown["Parameters"]["table_type"] == "ICEBERG"
    assert shown["StorageDescriptor"]["Location"] == "s3://lake/parcels/data"
    assert [(c["Name"], c["Type"]) for c in shown["StorageDescriptor"]["Columns"]] == [
        ("parcel", "string"),
        ("sent_at", "timestamp"),
        ("stops", "bigint"),
    ]
    made = metadata(aws)
    assert [(f.field_id, f.name, f.field_type, f.required) for f in made.schema().fields] == [
        (1, "parcel", StringType(), False),
        (2, "sent_at", TimestamptzType(), False),
        (3, "stops", LongType(), False),
    ]
    assert made.spec().fields == (
        PartitionField(source_id=2, field_id=1000, transform=MonthTransform(), name="sent_at_month"),
    )
    assert (made.format_version, made.last_column_id, made.last_partition_id) == (2, 3, 1000)
    assert made.current_snapshot() is None
    assert made.name_mapping() == made.schema().name_mapping


def test_should_leave_a_table_alone_that_has_every_column(aws: tuple[Any, Any]) -> None:
    module.apply(request("Create"), *aws)
    before = table(aws[0])["Parameters"]
    module.apply(request("Create"), *aws)
    module.apply(request("Update"), *aws)
    module.apply(request("Update", Columns=COLUMNS[:2]), *aws)
    assert table(aws[0])["Parameters"] == before, "a column that the template no longer names stays"


def test_should_add_columns_and_keep_what_the_table_points_at(aws: tuple[Any, Any]) -> None:
    glue, _ = aws
    module.apply(request("Create"), *aws)
    before = table(glue)["Parameters"]["metadata_location"]
    module.apply(request("Update", Columns=MORE), *aws)
    shown = table(glue)
    assert shown["Parameters"]["previous_metadata_location"] == before
    assert [c["Name"] for c in shown["StorageDescriptor"]["Columns"]] == [name for name, _ in MORE]
    made = metadata(aws)
    assert [f.field_id for f in made.schema().fields] == [1, 2, 3, 4, 5, 6]
    tags = made.schema().find_field("tags").field_type
    assert isinstance(tags, ListType)
    assert (tags.element_id, made.last_column_id) == (7, 7)
    assert len(made.schemas) == 2, "the former schema stays for the snapshots that were made with it"
    assert [entry.metadata_file for entry in made.metadata_log] == [before]
    assert made.name_mapping() == made.schema().name_mapping


def test_should_keep_snapshots_and_whatever_else_an_engine_has_written() -> None:
    wanted = TableDefinition.of(PROPERTIES)
    committed = first(wanted, now=1_000) | {
        "current-snapshot-id": 7,
        "snapshots": [{"snapshot-id": 7, "timestamp-ms": 2_000, "manifest-list": "s3://lake/x.avro"}],
        "refs": {"main": {"snapshot-id": 7, "type": "branch"}},
        "last-updated-ms": 2_000,
        "statistics": [{"snapshot-id": 7}],
    }
    more = TableDefinition.of({**PROPERTIES, "Columns": MORE})
    changed = evolved(committed, more, metadata_file="s3://lake/old.json", now=1_500)
    assert changed is not None
    for key in ("table-uuid", "snapshots", "refs", "current-snapshot-id", "statistics", "partition-specs"):
        assert changed[key] == committed[key], key
    assert changed["last-updated-ms"] == 2_000, "time never runs backwards"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"Columns": [["parcel", "bigint"], *COLUMNS[1:]]},
            "column parcel is string and would become bigint",
        ),
        ({"PartitionBy": []}, r"partitioned by month\(sent_at\), not nothing"),
        ({"Location": "s3://lake/elsewhere"}, "files lie below s3://lake/parcels/data, not"),
    ],
)
def test_should_refuse_what_would_break_readers(
    aws: tuple[Any, Any], changes: dict[str, Any], reason: str
) -> None:
    module.apply(request("Create"), *aws)
    before = table(aws[0])
    with pytest.raises(TableRefusedError, match=reason):
        module.apply(request("Update", **changes), *aws)
    assert table(aws[0]) == before


def test_should_refuse_a_table_that_is_something_else(aws: tuple[Any, Any]) -> None:
    aws[0].create_table(DatabaseName="t_curated", TableInput={"Name": "parcels", "Parameters": {}})
    with pytest.raises(TableRefusedError, match="is no Iceberg table"):
        module.apply(request("Create"), *aws)


def test_should_look_again_when_another_writer_was_quicker(
    aws: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    glue, s3 = aws
    module.apply(request("Create"), *aws)
    calls: list[str] = []
    update = glue.update_table

    def busy(**params: Any) -> Any:
        calls.append(params["VersionId"])
        if len(calls) == 1:
            error = {"Error": {"Code": "ConcurrentModificationException", "Message": "x"}}
            raise ClientError(error, "UpdateTable")  # type: ignore[arg-type]
        return update(**params)

    monkeypatch.setattr(glue, "update_table", busy)
    module.apply(request("Update", Columns=MORE), glue, s3)
    assert len(calls) == 2
    assert metadata(aws).last_column_id == 7


def test_should_keep_the_table_when_the_resource_goes_unless_told(aws: tuple[Any, Any]) -> None:
    glue, s3 = aws
    module.apply(request("Create"), *aws)
    module.apply(request("Delete"), *aws)
    assert table(glue)["Name"] == "parcels"
    module.apply(request("Delete", OnDelete="delete"), *aws)
    with pytest.raises(ClientError, match="EntityNotFoundException"):
        table(glue)
    module.apply(request("Delete", OnDelete="delete"), *aws)
    assert s3.list_objects_v2(Bucket="lake")["KeyCount"] == 1, "files are the zone's"


def test_should_wait_until_the_roles_policy_is_in_force(
    aws: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    glue, s3 = aws
    monkeypatch.setattr("custom_resource.PAUSE_SECONDS", 0.0)
    denied = [True, True, False]
    get = glue.get_table

    def late(**params: Any) -> Any:
        if denied.pop(0):
            error = {"Error": {"Code": "AccessDeniedException", "Message": "not yet"}}
            raise ClientError(error, "GetTable")  # type: ignore[arg-type]
        return get(**params)

    with monkeypatch.context() as patched:
        patched.setattr(glue, "get_table", late)
        module.apply(request("Create"), glue, s3)
    assert table(glue)["Name"] == "parcels"


def test_should_answer_cloudformation_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[dict[str, Any]] = []

    class Answered:
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    def opened(sent: Any, timeout: float) -> Answered:
        answers.append(json.loads(sent.data))
        return Answered()

    monkeypatch.setattr("urllib.request.urlopen", opened)
    event = {
        **request("Create", Columns=[["x", "map<string,string>"]], PartitionBy=[]),
        "RequestId": "r",
        "StackId": "s",
        "LogicalResourceId": "T",
        "ResponseURL": "http://127.0.0.1:1/",
    }
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        boto3.client("glue").create_database(DatabaseInput={"Name": "t_curated"})
        with pytest.raises(TableRefusedError):
            module.handler(event, None)
    assert answers[0]["Status"] == "FAILED"
    assert "got 'map<string,string>'" in answers[0]["Reason"]
    assert answers[0]["PhysicalResourceId"] == "t_curated.parcels"


_KINDS = st.sampled_from(
    ["string", "bigint", "timestamp", "array<double>", "decimal(12,3)", "array<array<int>>"]
)
_COLUMNS = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True), _KINDS, min_size=1, max_size=9
)


@given(before=_COLUMNS, after=_COLUMNS)
def test_should_number_every_field_once_however_the_columns_grow(
    before: dict[str, str], after: dict[str, str]
) -> None:
    after = {**after, **before}

    def wanted(columns: dict[str, str]) -> TableDefinition:
        return TableDefinition.of(
            {**PROPERTIES, "Columns": [list(pair) for pair in columns.items()], "PartitionBy": []}
        )

    made = first(wanted(before), now=1)
    grown = evolved(made, wanted(after), metadata_file="s3://lake/m.json", now=2) or made
    read = TableMetadataUtil.parse_raw(json.dumps(grown))
    schema = read.schema()
    assert {field.name for field in schema.fields} == set(after)
    ids = set(schema._lazy_id_to_field)
    assert max(ids) == read.last_column_id
    assert len(ids) == len(schema.column_names)
    assert evolved(grown, wanted(after), metadata_file="x", now=3) is None
