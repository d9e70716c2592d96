"""Optimizers of Iceberg tables: what they remove, what they leave, when they run, what they may."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError
from lake_files import iceberg
from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.table import Table

from rehearsal.server import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]

BUCKET, DATABASE = "upkeep-lake", "upkeep"
SCHEMA = pa.schema([("id", pa.string()), ("at", pa.date32())])


@dataclass
class Lake:
    """A table by its name, and the optimizers' role."""

    server: ServerProcess
    client: Callable[[str], Any]
    role: str

    def catalog(self) -> GlueCatalog:
        return GlueCatalog(
            "test",
            client=self.client("glue"),
            **{
                "s3.endpoint": self.server.endpoint,
                "s3.region": self.server.region,
                "s3.access-key-id": self.server.account,
                "s3.secret-access-key": "rehearsal",
            },
        )

    def table(self, name: str) -> Table:
        table: Table = self.catalog().load_table((DATABASE, name))
        return table

    def make(self, name: str) -> Table:
        return self.catalog().create_table(
            (DATABASE, name),
            schema=SCHEMA,
            location=f"s3://{BUCKET}/{name}",
            properties={"format-version": "2"},
        )

    def optimize(self, name: str, kind: str, configuration: dict[str, Any], role: str | None = None) -> None:
        self.client("glue").create_table_optimizer(
            **self.place(name, kind),
            TableOptimizerConfiguration={"roleArn": role or self.role, "enabled": True, **configuration},
        )

    def place(self, name: str, kind: str) -> dict[str, str]:
        account = self.server.account
        return {"CatalogId": account, "DatabaseName": DATABASE, "TableName": name, "Type": kind}

    def pass_days(self, days: float) -> None:
        self.server.control(
            "POST", "/clock/advance", {"days": days, "skip_schedules": True}, timeout_seconds=120
        )
        assert self.server.control("GET", "/idle?timeout_seconds=60")["idle"]

    def last_run(self, name: str, kind: str) -> dict[str, Any]:
        found = self.client("glue").get_table_optimizer(**self.place(name, kind))["TableOptimizer"]
        run: dict[str, Any] = found["lastRun"]
        return run

    def keys(self, name: str) -> set[str]:
        listed = self.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=f"{name}/").get("Contents", ())
        return {item["Key"] for item in listed}


@pytest.fixture(scope="module")
def lake(
    server: ServerProcess,
    client: Callable[[str], Any],
    role: Callable[[str, str, Sequence[dict[str, Any]]], str],
) -> Lake:
    client("s3").create_bucket(Bucket=BUCKET)
    client("glue").create_database(DatabaseInput={"Name": DATABASE})
    arn = role(
        "optimizer",
        "glue.amazonaws.com",
        [
            {"Action": ["glue:GetTable", "glue:GetDatabase", "glue:UpdateTable"]},
            {
                "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
                "Resource": f"arn:aws:s3:::{BUCKET}/*",
            },
            {"Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{BUCKET}"},
        ],
    )
    return Lake(server, client, arn)


def rows(count: int, start: int = 0) -> pa.Table:
    day = pa.array([20_000 + n % 3 for n in range(count)], pa.int32()).cast(pa.date32())
    return pa.table({"id": [str(start + n) for n in range(count)], "at": day}, schema=SCHEMA)


def test_should_expire_old_snapshots_with_their_files_and_keep_the_newest(lake: Lake) -> None:
    table = lake.make("expired")
    table.append(rows(5))
    for count in (6, 7, 8):
        table.overwrite(rows(count))
    settings = {"snapshotRetentionPeriodInDays": 2, "numberOfSnapshotsToRetain": 3, "cleanExpiredFiles": True}
    lake.optimize("expired", "retention", {"retentionConfiguration": {"icebergConfiguration": settings}})
    before = lake.table("expired")
    files = lake.keys("expired")
    lake.pass_days(1.1)
    assert len(lake.table("expired").snapshots()) == len(before.snapshots()), "they are younger than two days"
    lake.pass_days(2.1)
    after = lake.table("expired")
    newest = sorted(before.snapshots(), key=lambda one: one.timestamp_ms)[-3:]
    assert {one.snapshot_id for one in after.snapshots()} == {one.snapshot_id for one in newest}
    assert after.scan().to_arrow().num_rows == 8
    # Every snapshot that is kept can still be read.
    assert [after.scan(snapshot_id=one.snapshot_id).to_arrow().num_rows for one in newest] == [7, 0, 8]
    metrics = lake.last_run("expired", "retention")["retentionMetrics"]["IcebergMetrics"]
    assert lake.last_run("expired", "retention")["eventType"] == "completed"
    lost = {key for key in files - lake.keys("expired") if key.endswith(".parquet")}
    assert len(lost) >= 2
    runs = lake.client("glue").list_table_optimizer_runs(**lake.place("expired", "retention"))[
        "TableOptimizerRuns"
    ]
    removed = [run["retentionMetrics"]["IcebergMetrics"]["NumberOfDataFilesDeleted"] for run in runs]
    assert sum(removed) == len(lost)
    assert metrics["NumberOfManifestListsDeleted"] >= 0


def test_should_remove_what_no_snapshot_ever_named_once_it_is_old(lake: Lake) -> None:
    table = lake.make("orphaned")
    table.append(rows(4))
    sink = io.BytesIO()
    pq.write_table(rows(9), sink)
    lake.client("s3").put_object(
        Bucket=BUCKET, Key="orphaned/data/run-1/part-0.parquet", Body=sink.getvalue()
    )
    known = lake.keys("orphaned")
    settings = {"orphanFileRetentionPeriodInDays": 3}
    lake.optimize(
        "orphaned",
        "orphan_file_deletion",
        {"orphanFileDeletionConfiguration": {"icebergConfiguration": settings}},
    )
    lake.pass_days(2.1)
    assert lake.keys("orphaned") == known, "a run that is under way has such files"
    lake.pass_days(2.1)
    assert known - lake.keys("orphaned") == {"orphaned/data/run-1/part-0.parquet"}
    assert lake.table("orphaned").scan().to_arrow().num_rows == 4


def test_should_make_one_file_of_many(lake: Lake) -> None:
    table = lake.make("scattered")
    for number in range(6):
        table.append(rows(2, start=10 * number))
    settings = {"strategy": "binpack", "minInputFiles": 5, "deleteFileThreshold": 1}
    lake.optimize("scattered", "compaction", {"compactionConfiguration": {"icebergConfiguration": settings}})
    before = sorted(table.scan().to_arrow()["id"].to_pylist())
    lake.pass_days(1.1)
    after = lake.table("scattered")
    assert len(list(after.scan().plan_files())) == 1
    assert sorted(after.scan().to_arrow()["id"].to_pylist()) == before
    metrics = lake.last_run("scattered", "compaction")["compactionMetrics"]["IcebergMetrics"]
    assert metrics["NumberOfFilesCompacted"] == 6


def test_should_fail_a_run_whose_role_may_not_delete(
    lake: Lake, role: Callable[[str, str, Sequence[dict[str, Any]]], str]
) -> None:
    timid = role(
        "timid-optimizer",
        "glue.amazonaws.com",
        [
            {"Action": "glue:GetTable"},
            {"Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/*"},
            {"Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{BUCKET}"},
        ],
    )
    lake.make("guarded").append(rows(3))
    lake.client("s3").put_object(Bucket=BUCKET, Key="guarded/data/orphan.parquet", Body=b"x")
    settings = {"icebergConfiguration": {"orphanFileRetentionPeriodInDays": 1}}
    lake.optimize(
        "guarded", "orphan_file_deletion", {"orphanFileDeletionConfiguration": settings}, role=timid
    )
    lake.pass_days(2.1)
    run = lake.last_run("guarded", "orphan_file_deletion")
    assert run["eventType"] == "failed"
    assert "guarded/data/orphan.parquet" in lake.keys("guarded")
    lake.client("glue").delete_table_optimizer(**lake.place("guarded", "orphan_file_deletion"))


def test_should_refuse_what_glue_refuses(lake: Lake) -> None:
    glue = lake.client("glue")
    glue.create_table(DatabaseName=DATABASE, TableInput={"Name": "plain"})
    with pytest.raises(ClientError, match="work on Iceberg tables only"):
        lake.optimize("plain", "retention", {})
    lake.make("refused")
    with pytest.raises(ClientError, match="unable to assume"):
        lake.optimize("refused", "retention", {}, role="arn:aws:iam::123456789012:role/nobody")
    with pytest.raises(ClientError, match="there is no compaction optimizer"):
        glue.get_table_optimizer(**lake.place("refused", "compaction"))
    lake.optimize("refused", "retention", {})
    with pytest.raises(ClientError, match="there is a retention optimizer"):
        lake.optimize("refused", "retention", {})


def test_should_lose_no_row_of_writers_that_commit_at_once(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iceberg, "ATTEMPTS", 40)
    monkeypatch.setattr(iceberg, "WAIT", 0.01)
    lake.make("busy")
    names = [f"w{number}" for number in range(8)]
    for name in names:
        sink = io.BytesIO()
        pq.write_table(rows(1, start=int(name[1:])), sink)
        lake.client("s3").put_object(
            Bucket=BUCKET, Key=f"busy/data/{name}/part.parquet", Body=sink.getvalue()
        )

    def append(name: str) -> None:
        iceberg.append_rows(lake.table("busy"), [f"s3://{BUCKET}/busy/data/{name}/part.parquet"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(append, names))
    assert sorted(lake.table("busy").scan().to_arrow()["id"].to_pylist()) == [str(n) for n in range(8)]
    assert len(lake.table("busy").snapshots()) == 8
