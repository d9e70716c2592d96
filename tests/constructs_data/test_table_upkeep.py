"""The optimizers of Iceberg tables: defaults, options, errors, exact grants, no finding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_kms as kms
from cdk_support import Template, actions, resources, statements, synthesise_stacks
from ml_lifecycle.data_lake import DataLake, IcebergTable, TableUpkeep

OPTIMIZER = "AWS::Glue::TableOptimizer"


def upkeep(stack: cdk.Stack, *, governed: bool = False, **options: Any) -> TableUpkeep:
    lake = DataLake(stack, "Lake", database_prefix="t", governed=governed)
    table = IcebergTable(
        stack,
        "Parcels",
        zone=lake.curated,
        name="parcels",
        columns=[("parcel", "string")],
        prefix="parcels/data/",
        log_key=kms.Key(stack, "LogKey"),
    )
    return TableUpkeep(stack, "Upkeep", table=table, **options)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    return synthesise_stacks(
        tmp_path_factory.mktemp("upkeep"),
        {
            "Default": upkeep,
            "Options": lambda stack: upkeep(
                stack,
                governed=True,
                snapshot_days=7,
                snapshots_kept=5,
                orphan_days=9,
                compact=False,
            ),
        },
    )


def settings(template: Template) -> dict[str, Any]:
    """What is said of Iceberg tables, by kind."""
    found = {}
    for optimizer in resources(template, OPTIMIZER).values():
        configuration = optimizer["Properties"]["TableOptimizerConfiguration"]
        assert configuration["Enabled"] is True
        (said,) = (
            value
            for value in configuration.values()
            if isinstance(value, dict) and "IcebergConfiguration" in value
        )
        found[optimizer["Properties"]["Type"]] = said["IcebergConfiguration"]
    return found


def test_should_keep_30_days_three_snapshots_and_compact(templates: dict[str, Template]) -> None:
    found = settings(templates["Default"])
    assert found["retention"] == {
        "SnapshotRetentionPeriodInDays": 30,
        "NumberOfSnapshotsToRetain": 3,
        "CleanExpiredFiles": True,
    }
    assert found["orphan_file_deletion"]["OrphanFileRetentionPeriodInDays"] == 3
    assert found["compaction"] == {"Strategy": "binpack", "MinInputFiles": 100, "DeleteFileThreshold": 1}


def test_should_take_other_ages_and_leave_small_files_alone(templates: dict[str, Template]) -> None:
    found = settings(templates["Options"])
    assert set(found) == {"retention", "orphan_file_deletion"}
    assert found["retention"]["SnapshotRetentionPeriodInDays"] == 7
    assert found["retention"]["NumberOfSnapshotsToRetain"] == 5
    assert found["orphan_file_deletion"]["OrphanFileRetentionPeriodInDays"] == 9


def test_should_wait_for_the_table_and_its_role(templates: dict[str, Template]) -> None:
    for optimizer in resources(templates["Default"], OPTIMIZER).values():
        assert optimizer["Properties"]["TableName"]["Fn::GetAtt"][1] == "Name"
        assert any("UpkeepRole" in name for name in optimizer["DependsOn"])


def test_should_let_the_optimizers_change_this_table_only(templates: dict[str, Template]) -> None:
    found = statements(templates["Default"], "UpkeepRole")
    assert actions(found) == {
        "glue:GetDatabase",
        "glue:GetTable",
        "glue:UpdateTable",
        "kms:Decrypt",
        "kms:GenerateDataKey",
        "logs:CreateLogGroup",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "s3:AbortMultipartUpload",
        "s3:DeleteObject",
        "s3:GetBucketLocation",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:ListMultipartUploadParts",
        "s3:PutObject",
    }
    objects = {s["Resource"]["Fn::Join"][1][-1] for s in found if "s3:DeleteObject" in s["Action"]}
    assert objects == {"/parcels/data/*"}
    governed = actions(statements(templates["Options"], "UpkeepRole"))
    assert governed - actions(found) == {"lakeformation:GetDataAccess"}


def test_should_tell_every_problem_at_once(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="table upkeep: snapshot_days must be at least 1, got 0; compact_files"
    ):
        upkeep(cdk.Stack(), snapshot_days=0, compact_files=1)
