"""The construct of Iceberg tables: defaults, options, errors, exact grants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from cdk_support import Template, actions, only, resources, statements, synthesise_stacks
from ml_lifecycle.data_lake import DataLake, IcebergTable

TABLE = "Custom::IcebergTable"


def define(
    stack: cdk.Stack, construct_id: str = "Parcels", *, governed: bool = False, **options: Any
) -> IcebergTable:
    found = stack.node.try_find_child("Lake")
    lake = (
        found
        if isinstance(found, DataLake)
        else DataLake(stack, "Lake", database_prefix="t", governed=governed)
    )
    key = stack.node.try_find_child("LogKey")
    return IcebergTable(
        stack,
        construct_id,
        log_key=key if isinstance(key, kms.Key) else kms.Key(stack, "LogKey"),
        **{
            "zone": lake.curated,
            "name": "parcels",
            "columns": [("parcel", "string"), ("sent_at", "timestamp")],
            "prefix": "parcels/data/",
            **options,
        },
    )


def grants(stack: cdk.Stack, *, governed: bool) -> None:
    table = define(stack, governed=governed)
    for name, grant in (("Reader", table.grant_read), ("Writer", table.grant_commit)):
        grant(iam.Role(stack, name, assumed_by=iam.ServicePrincipal("glue.amazonaws.com")))


def two(stack: cdk.Stack) -> None:
    define(stack)
    define(
        stack,
        "Labels",
        name="labels",
        prefix="parcels/labels/",
        partition_by=[("identity", "parcel"), ("day", "sent_at")],
        removal_policy=cdk.RemovalPolicy.DESTROY,
    )


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    builds: dict[str, Callable[[cdk.Stack], Any]] = {
        "Default": define,
        "Two": two,
        "Open": lambda stack: grants(stack, governed=False),
        "Governed": lambda stack: grants(stack, governed=True),
    }
    return synthesise_stacks(tmp_path_factory.mktemp("iceberg"), builds)


def test_should_make_a_table_without_partitions_that_outlives_its_stack(
    templates: dict[str, Template],
) -> None:
    ((_, found),) = resources(templates["Default"], TABLE).items()
    assert (found["DeletionPolicy"], found["UpdateReplacePolicy"]) == ("Retain", "Retain")
    properties = found["Properties"]
    assert (properties["Database"], properties["Name"], properties["OnDelete"]) == (
        "t_curated",
        "parcels",
        "keep",
    )
    assert properties["Columns"] == [["parcel", "string"], ["sent_at", "timestamp"]]
    assert properties["PartitionBy"] == []
    assert not resources(templates["Default"], "AWS::Glue::Table"), (
        "CloudFormation's own update would lose it"
    )


def test_should_share_one_function_between_the_tables_of_a_stack(templates: dict[str, Template]) -> None:
    assert len(resources(templates["Two"], "AWS::Lambda::Function")) == 1
    labels = next(
        r for r in resources(templates["Two"], TABLE).values() if r["Properties"]["Name"] == "labels"
    )
    assert labels["Properties"]["PartitionBy"] == [["identity", "parcel"], ["day", "sent_at"]]
    assert (labels["DeletionPolicy"], labels["Properties"]["OnDelete"]) == ("Delete", "delete")


def test_should_let_the_function_touch_metadata_only(templates: dict[str, Template]) -> None:
    found = statements(templates["Default"], "IcebergTablesFunctionRole")
    assert actions(found) == {
        "glue:CreateTable",
        "glue:GetDatabase",
        "glue:GetTable",
        "glue:UpdateTable",
        "kms:Decrypt",
        "kms:GenerateDataKey",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "s3:AbortMultipartUpload",
        "s3:GetBucketLocation",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:ListMultipartUploadParts",
        "s3:PutObject",
    }
    objects = {
        resource["Fn::Join"][1][-1]
        for statement in found
        if "s3:PutObject" in statement["Action"]
        for resource in [statement["Resource"]]
    }
    assert objects == {"/parcels/data/metadata/*"}
    tables = {
        resource["Fn::Join"][1][-1]
        for statement in found
        if "glue:CreateTable" in statement["Action"]
        for resource in statement["Resource"]
    }
    assert tables == {":catalog", ":database/t_curated", ":table/t_curated/parcels"}
    assert "glue:DeleteTable" in actions(statements(templates["Two"], "IcebergTablesFunctionRole"))


def test_should_grant_readers_the_rows_and_writers_the_commit(templates: dict[str, Template]) -> None:
    reader, writer = (actions(statements(templates["Open"], role)) for role in ("Reader", "Writer"))
    assert reader == {"glue:GetTable", "kms:Decrypt", "s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket"}
    assert writer - reader == {
        "glue:GetDatabase",
        "glue:UpdateTable",
        "kms:GenerateDataKey",
        "s3:AbortMultipartUpload",
        "s3:DeleteObject",
        "s3:ListMultipartUploadParts",
        "s3:PutObject",
    }


def test_should_ask_lake_formation_only_where_it_is_in_force(templates: dict[str, Template]) -> None:
    kind = "AWS::LakeFormation::PrincipalPermissions"
    assert not resources(templates["Open"], kind)
    found = [p["Properties"] for p in resources(templates["Governed"], kind).values()]
    by_role = {
        p["Principal"]["DataLakePrincipalIdentifier"]["Fn::GetAtt"][0][:6]: p
        for p in found
        if "Table" in p["Resource"]
    }
    assert by_role["Reader"]["Permissions"] == ["SELECT", "DESCRIBE"]
    assert "ALTER" in by_role["Writer"]["Permissions"]
    name = by_role["Reader"]["Resource"]["Table"]["Name"]
    assert name["Fn::GetAtt"][1] == "Name", "the grant waits for the table"
    assert ["CREATE_TABLE", "DESCRIBE"] in [p["Permissions"] for p in found]


def test_should_tell_every_problem_at_once() -> None:
    stack = cdk.Stack()
    with pytest.raises(ValueError, match="iceberg table: ") as caught:
        define(
            stack,
            name="My-Table",
            prefix="/x",
            columns=[("a", "string"), ("a", "string")],
            partition_by=[("month", "b")],
        )
    for part in ("got 'My-Table'", "got '/x'", "got twice: a", "got month(b)"):
        assert part in str(caught.value)
    with pytest.raises(ValueError, match="columns must not be empty"):
        define(stack, "Empty", columns=[])


def test_should_refuse_a_zone_without_a_database() -> None:
    stack = cdk.Stack()
    lake = DataLake(stack, "Lake", database_prefix="t")
    with pytest.raises(ValueError, match="zone must have a database, got zone Artifacts without one"):
        define(stack, zone=lake.artifacts)


def test_should_name_the_table_by_reference(templates: dict[str, Template]) -> None:
    assert only(templates["Default"], TABLE)["ServiceToken"]["Fn::GetAtt"][1] == "Arn"
