"""The curate and the feature job as Glue runs them: raw files in; rows, report, features, records out."""

from __future__ import annotations

import importlib.util
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ml_contract
import narwhals
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from iceberg_table.handler import apply as make_table
from ml_contract.compiled import CompiledContract
from ml_contract.load import load_workload
from ml_contract.quality.rules import dqdl
from ml_contract.records.codec import RecordCodec, Rejected
from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.table import Table

from rehearsal.executors.delivery_format import Column, parquet, row_of
from rehearsal.server import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]

ROOT = Path(__file__).resolve().parents[2]
BUCKET = "batch-lake"
DATABASE, TABLE = "batch_curated", "claims"
ARRIVAL = "2015-06-01T00:00:00.000Z"
#: The curate job, killed by the operating system at a point of its life.
KILLED = {"killed-before-its-commit": "iceberg.replace_rows", "killed-after-its-commit": "Report.write"}
MAIN = 'if __name__ == "__main__":'
KILL = """
import os, signal
from lake_files import iceberg
from lake_files.report import Report

def _die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

{where} = _die

"""


@pytest.fixture(scope="module")
def contract() -> CompiledContract:
    return load_workload(ROOT / "workloads" / "claims_fraud").compiled


def generate(count: int, seed: int) -> list[dict[str, Any]]:
    """Raw records of the worked example, under their source names."""
    path = ROOT / "workloads" / "claims_fraud" / "generate.py"
    spec = importlib.util.spec_from_file_location("claims_generate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    records: list[dict[str, Any]] = module.generate(count, seed)
    return records


@dataclass
class Batch:
    """The lake, the two jobs and what they left."""

    server: ServerProcess
    client: Callable[[str], Any]
    contract: CompiledContract

    def land(self, key: str, records: Sequence[dict[str, Any]], arrival: str = ARRIVAL) -> None:
        """Deliver raw records as one file of the raw zone."""
        codec = RecordCodec(self.contract)
        columns = [Column(name, kind) for name, kind in self.contract.glue_columns()]
        rows = []
        for number, raw in enumerate(records):
            record = codec.decode(json.dumps(raw).encode())
            assert not isinstance(record, Rejected), record
            line = codec.encode(record, record_id=f"{key}-{number:05}", received_at=arrival)
            rows.append(row_of(line, columns))
        self.put(f"raw/ingest_date=2025-06-01/{key}.parquet", parquet(rows, columns, "SNAPPY"))

    def put(self, key: str, body: bytes) -> None:
        self.client("s3").put_object(Bucket=BUCKET, Key=key, Body=body)

    def run(self, job: str, **arguments: str) -> dict[str, Any]:
        glue = self.client("glue")
        given = {f"--{name}": value for name, value in arguments.items()}
        run_id = glue.start_job_run(JobName=job, Arguments=given)["JobRunId"]
        assert self.server.control("GET", "/idle?timeout_seconds=180")["idle"]
        return dict(glue.get_job_run(JobName=job, RunId=run_id)["JobRun"])

    def report(self, run: dict[str, Any]) -> dict[str, Any]:
        body = self.client("s3").get_object(Bucket=BUCKET, Key=f"quality/{run['Id']}.json")["Body"].read()
        found: dict[str, Any] = json.loads(body)
        return found

    def rows(self, zone: str) -> list[dict[str, Any]]:
        listed = self.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=f"{zone}/").get("Contents", ())
        rows: list[dict[str, Any]] = []
        for item in (item for item in listed if item["Key"].endswith(".parquet")):
            body = self.client("s3").get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read()
            rows += pq.read_table(pa.BufferReader(body)).to_pylist()
        return sorted(rows, key=lambda row: str(row["policy_number"]))

    def table(self) -> Table:
        """The curated table, as it is now."""
        properties = {
            "s3.endpoint": self.server.endpoint,
            "s3.region": self.server.region,
            "s3.access-key-id": self.server.account,
            "s3.secret-access-key": "rehearsal",
        }
        catalog = GlueCatalog("test", client=self.client("glue"), **properties)
        table: Table = catalog.load_table((DATABASE, TABLE))
        return table

    def note(self, prefix: str) -> dict[str, Any]:
        body = self.client("s3").get_object(Bucket=BUCKET, Key=f"{prefix}_snapshot.json")["Body"].read()
        found: dict[str, Any] = json.loads(body)
        return found

    def curated(self, snapshot_id: int | None = None) -> list[dict[str, Any]]:
        rows = self.table().scan(snapshot_id=snapshot_id).to_arrow().to_pylist()
        return sorted(rows, key=lambda row: str(row["policy_number"]))


def library() -> bytes:
    """What ``--extra-py-files`` names: the jobs' packages, the contract and narwhals."""
    sink = io.BytesIO()
    packages = [path.parent for path in (ROOT / "glue").glob("*/__init__.py")]
    packages += [Path(str(module.__file__)).parent for module in (ml_contract, narwhals)]
    with zipfile.ZipFile(sink, "w") as packed:
        for package in packages:
            for path in sorted(package.rglob("*.py")):
                packed.write(path, f"{package.name}/{path.relative_to(package).as_posix()}")
    return sink.getvalue()


@pytest.fixture(scope="module")
def batch(
    server: ServerProcess, client: Callable[[str], Any], role: Any, contract: CompiledContract
) -> Batch:
    client("s3").create_bucket(Bucket=BUCKET)
    made = Batch(server, client, contract)
    made.put("code/contract.json", contract.to_json().encode())
    made.put("code/library.zip", library())
    for job in ("curate", "build_features"):
        made.put(f"code/{job}.py", (ROOT / "glue" / job / "main.py").read_bytes())
    source = (ROOT / "glue" / "curate" / "main.py").read_text()
    for name, where in KILLED.items():
        made.put(f"code/{name}.py", source.replace(MAIN, f"{KILL.format(where=where)}{MAIN}").encode())
    objects, bucket = f"arn:aws:s3:::{BUCKET}", {"Action": "s3:ListBucket"}
    code = {"Action": "s3:GetObject", "Resource": f"{objects}/code/*"}
    logs = {"Action": ["logs:CreateLogStream", "logs:PutLogEvents"]}
    change = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
    # What Spark asks of the folders themselves (Zone.grant_folder).
    markers = [
        f"{objects}/{zone}{end}"
        for zone in ("raw", "curated", "features", "snapshots")
        for end in ("", "/", "_$folder$")
    ]
    folders = {"Action": change, "Resource": markers}
    catalog = {"Action": ["glue:GetDatabase", "glue:GetTable"]}
    curate = role(
        "batch-curate",
        "glue.amazonaws.com",
        [
            *(bucket, folders, code, logs),
            {"Action": "s3:GetObject", "Resource": f"{objects}/raw/*"},
            {"Action": change, "Resource": f"{objects}/curated/*"},
            {"Action": "s3:PutObject", "Resource": f"{objects}/quality/*"},
            {"Action": "glue:GetDataQualityRuleset"},
            *(catalog, {"Action": "glue:UpdateTable"}),
        ],
    )
    features = role(
        "batch-features",
        "glue.amazonaws.com",
        [
            *(bucket, folders, code, logs),
            {"Action": "s3:GetObject", "Resource": [f"{objects}/curated/*", f"{objects}/labels/*"]},
            {"Action": change, "Resource": [f"{objects}/features/*", f"{objects}/snapshots/*"]},
            catalog,
            {
                "Action": [
                    f"sagemaker:{verb}"
                    for verb in ("PutRecord", "DescribeFeatureGroup", "BatchGetRecord", "DeleteRecord")
                ]
            },
        ],
    )
    client("sagemaker").create_feature_group(
        FeatureGroupName="batch-claims",
        RecordIdentifierFeatureName=contract.identifier,
        EventTimeFeatureName=contract.event_time,
        FeatureDefinitions=[
            {"FeatureName": name, "FeatureType": kind} for name, kind in contract.feature_definitions()
        ],
        OnlineStoreConfig={"EnableOnlineStore": True},
        RoleArn=role("batch-store", "sagemaker.amazonaws.com", [{"Action": "s3:PutObject"}]),
    )
    client("glue").create_database(DatabaseInput={"Name": DATABASE})
    table = {
        "Database": DATABASE,
        "Name": TABLE,
        "Location": f"s3://{BUCKET}/curated",
        "Columns": [list(column) for column in contract.glue_columns()],
        "PartitionBy": [["month", contract.event_time]],
        "OnDelete": "keep",
    }
    make_table({"RequestType": "Create", "ResourceProperties": table}, client("glue"), client("s3"))
    client("glue").create_data_quality_ruleset(Name="batch-rules", Ruleset=dqdl(contract))
    common = {"--contract": f"s3://{BUCKET}/code/contract.json"}
    common["--extra-py-files"] = f"s3://{BUCKET}/code/library.zip"
    arguments = {
        "curate": {
            "--raw_uri": f"s3://{BUCKET}/raw/",
            "--curated_uri": f"s3://{BUCKET}/curated/",
            "--curated_database": DATABASE,
            "--curated_table": TABLE,
            "--quality_uri": f"s3://{BUCKET}/quality/",
            "--ruleset_name": "batch-rules",
        },
        "build_features": {
            "--curated_database": DATABASE,
            "--curated_table": TABLE,
            "--features_uri": f"s3://{BUCKET}/features/",
            "--snapshots_uri": f"s3://{BUCKET}/snapshots/",
            "--feature_group_name": "batch-claims",
            # Nobody has labelled yet: there is no such table.
            "--labels_table": f"{DATABASE}.{TABLE}_labels",
        },
    }
    owners = {"curate": curate, "build_features": features, **dict.fromkeys(KILLED, curate)}
    for job, owner in owners.items():
        client("glue").create_job(
            Name=job,
            Role=owner,
            Command={"Name": "glueetl", "ScriptLocation": f"s3://{BUCKET}/code/{job}.py"},
            DefaultArguments={**common, **arguments.get(job, arguments["curate"])},
            GlueVersion="5.0",
        )
    return made


def test_should_fail_with_one_sentence_when_nothing_has_arrived(batch: Batch) -> None:
    run = batch.run("curate")
    assert run["JobRunState"] == "FAILED"
    assert run["ErrorMessage"].endswith(f"no file under s3://{BUCKET}/raw/: nothing was written")
    assert batch.report(run)["passed"] is False
    run = batch.run("build_features")
    assert "run the curate job first" in run["ErrorMessage"]


@pytest.fixture(scope="module")
def curated(batch: Batch) -> dict[str, Any]:
    """The raw zone with all that can go wrong, curated once."""
    claims = generate(300, seed=5)
    batch.land("a", claims[:200])
    # Delivered twice; the second time later and with another amount.
    again = [{**claim, "witnesses": 9} for claim in claims[:20]]
    batch.land("b", [*claims[200:], *again], "2015-06-02T00:00:00.000Z")
    late = {**claims[0], "policy_number": "99999", "incident_date": "01/01/1999"}
    batch.land("c", [late])
    batch.put("raw/ingest_date=2025-06-01/cut.parquet", b"PAR1 this file was cut short")
    batch.put("raw/ingest_date=2025-06-01/nothing.parquet", b"")
    batch.put("raw/ingest_date=2025-06-01/no-rows.parquet", pq_file(rows=0))
    whole = bytearray(pq_file(rows=3_000))
    whole[60:2_000] = b"\xff" * 1_940
    batch.put("raw/ingest_date=2025-06-01/damaged.parquet", bytes(whole))
    run = batch.run("curate")
    assert run["JobRunState"] == "SUCCEEDED", run["ErrorMessage"]
    return batch.report(run)


def pq_file(rows: int) -> bytes:
    sink = io.BytesIO()
    columns = {
        "policy_number": [str(n) for n in range(rows)],
        "incident_date": [datetime(2025, 1, 1, tzinfo=UTC).date()] * rows,
    }
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def test_should_account_for_every_row_and_file(batch: Batch, curated: dict[str, Any]) -> None:
    assert (curated["rows_read"], curated["duplicates_dropped"], curated["rows_written"]) == (321, 20, 301)
    assert (curated["rows_rejected"], curated["late"]) == (0, 1)
    assert curated["files_read"] == 4, "a file without rows is a file"
    reasons = {Path(one["uri"]).name: one["reason"] for one in curated["files_unreadable"]}
    assert "truncated" in reasons["cut.parquet"]
    assert "0 bytes" in reasons["nothing.parquet"]
    assert "cannot be decoded" in reasons["damaged.parquet"]
    assert curated["passed"] is True
    assert {rule["outcome"] for rule in curated["rules"]} == {"Passed"}
    rows = batch.curated()
    assert len({row["policy_number"] for row in rows}) == len(rows) == 301
    assert sum(row["witnesses"] == 9 for row in rows) == 20, "the later delivery wins"
    assert "1999-01" in curated["months"]
    snapshot = batch.table().current_snapshot()
    assert snapshot is not None
    assert str(snapshot.snapshot_id) == curated["snapshot_id"]


def test_should_build_features_and_ingest_only_what_changed(batch: Batch, curated: dict[str, Any]) -> None:
    run = batch.run("build_features")
    assert run["JobRunState"] == "SUCCEEDED", run["ErrorMessage"]
    before = batch.rows("features")
    assert len(before) == curated["rows_written"]
    names = [name for name, _ in batch.contract.feature_columns()]
    assert sorted(before[0]) == sorted(names)
    runtime = batch.client("sagemaker-featurestore-runtime")
    for row in (before[0], before[-1]):
        answer = runtime.get_record(
            FeatureGroupName="batch-claims", RecordIdentifierValueAsString=row["policy_number"]
        )
        online = {item["FeatureName"]: item["ValueAsString"] for item in answer["Record"]}
        present = {name: value for name, value in row.items() if value is not None}
        assert set(online) == set(present), "what is missing is left out"
        assert all(
            online[name] == (repr(value) if isinstance(value, float) else value)
            for name, value in present.items()
        )
    said = summary(batch, run)
    assert (said["ingested"], said["unchanged"]) == (301, 0)
    again = batch.run("build_features")
    assert (summary(batch, again)["ingested"], summary(batch, again)["unchanged"]) == (0, 301)
    assert batch.rows("features") == before, "a rerun gives the same rows"


def test_should_fill_in_what_stands_wrong_online_and_keep_to_the_bounds(
    batch: Batch, curated: dict[str, Any]
) -> None:
    assert curated["passed"]
    rows = batch.rows("features")
    row = rows[0]
    runtime = batch.client("sagemaker-featurestore-runtime")
    moment = row["incident_date"]
    wanted = {"FeatureGroupName": "batch-claims", "RecordIdentifierValueAsString": row["policy_number"]}
    # The same event, with another amount: a put alone would not reach the online store.
    runtime.delete_record(
        **wanted, EventTime=moment.replace("T00:00:00", "T00:00:01"), DeletionMode="HardDelete"
    )
    wrong = {k: str(v) for k, v in row.items() if v is not None} | {"witnesses": "77.0"}
    runtime.put_record(
        FeatureGroupName="batch-claims",
        Record=[{"FeatureName": k, "ValueAsString": v} for k, v in wrong.items()],
    )
    until = moment.replace("T00:00:00", "T00:00:01")
    run = batch.run("build_features", ingest="all", ingest_from=moment, ingest_until=until)
    assert run["JobRunState"] == "SUCCEEDED", run["ErrorMessage"]
    same_day = sum(one["incident_date"] == moment for one in rows)
    assert summary(batch, run)["ingested"] == same_day < len(rows)
    online = runtime.get_record(**wanted, FeatureNames=["witnesses"])["Record"]
    assert online == [{"FeatureName": "witnesses", "ValueAsString": repr(row["witnesses"])}]


def summary(batch: Batch, run: dict[str, Any]) -> dict[str, Any]:
    log = batch.server.state / "glue" / "build_features" / run["Id"] / "job.log"
    (line,) = [line for line in log.read_text().splitlines() if line.startswith("features: ")]
    found: dict[str, Any] = json.loads(line.removeprefix("features: "))
    return found


def test_should_keep_the_curated_zone_when_a_rule_fails(batch: Batch, curated: dict[str, Any]) -> None:
    before = batch.curated()
    glue = batch.client("glue")
    glue.create_data_quality_ruleset(Name="too-strict", Ruleset="Rules = [ RowCount > 100000 ]")
    run = batch.run("curate", ruleset_name="too-strict")
    assert run["JobRunState"] == "FAILED"
    assert "1 of 1 rules failed, nothing was written: RowCount > 100000" in run["ErrorMessage"]
    report = batch.report(run)
    assert (report["passed"], report["rows_written"]) == (False, 0)
    assert batch.curated() == before
    assert curated["passed"]


def test_should_follow_a_drifted_schema_and_drop_months_that_are_empty_now(
    batch: Batch, curated: dict[str, Any]
) -> None:
    assert curated["passed"]
    before = batch.curated()
    # The late claim is corrected: its month empties. The file comes with another type and an unknown column.
    (row,) = [row for row in before if row["policy_number"] == "99999"]
    day = datetime(2025, 2, 3, tzinfo=UTC).date()
    drifted = {**row, "incident_date": day, "age": str(row["age"]), "colour": "red"}
    broken = {**drifted, "policy_number": "88888", "age": "old", "record_id": "broken"}
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([drifted, broken]), sink)
    batch.put("raw/ingest_date=2025-06-03/drifted.parquet", sink.getvalue())
    run = batch.run("curate")
    assert run["JobRunState"] == "SUCCEEDED", run["ErrorMessage"]
    report = batch.report(run)
    drift = {(one["column"], one["kind"]) for one in report["schema_drift"]}
    assert {("age", "type"), ("colour", "unknown")} <= drift
    assert report["rows_rejected"] == 1
    assert report["rejected"] == [{"record_id": "broken", "reasons": ["age: a string that is no bigint"]}]
    assert report["months_removed"] == ["1999-01"]
    (moved,) = [row for row in batch.curated() if row["policy_number"] == "99999"]
    assert (moved["incident_date"], moved["age"]) == (day, row["age"])


def versions(batch: Batch, prefix: str) -> dict[str, set[bytes]]:
    """Content of the files of each month."""
    s3 = batch.client("s3")
    found: dict[str, set[bytes]] = {}
    for item in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ()):
        if item["Key"].endswith(".parquet"):
            body = s3.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read()
            month = next(part for part in item["Key"].split("/") if part.startswith("event_month="))
            found.setdefault(month, set()).add(body)
    return found


def test_should_show_nothing_of_a_run_that_was_killed_before_its_commit_and_repair_it_by_the_next(
    batch: Batch, curated: dict[str, Any]
) -> None:
    assert curated["passed"]
    before, snapshots = batch.curated(), len(batch.table().snapshots())
    new = [{**claim, "policy_number": f"7{n:05}"} for n, claim in enumerate(generate(12, seed=9))]
    batch.land("killed", new, "2015-06-04T00:00:00.000Z")
    run = batch.run("killed-before-its-commit")
    assert run["JobRunState"] == "FAILED"
    assert "exit status -9" in run["ErrorMessage"], "the process was killed, no handler of its own ran"
    listed = batch.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=f"curated/data/{run['Id']}/")
    orphans = {f"s3://{BUCKET}/{item['Key']}" for item in listed["Contents"]}
    assert any(uri.endswith(".parquet") for uri in orphans), "it had written its files"
    assert batch.curated() == before
    assert len(batch.table().snapshots()) == snapshots
    again = batch.run("curate")
    assert again["JobRunState"] == "SUCCEEDED", again["ErrorMessage"]
    rows = batch.curated()
    assert len(rows) == len(before) + len(new)
    assert len({row["policy_number"] for row in rows}) == len(rows)
    named = {task.file.file_path for task in batch.table().scan().plan_files()}
    assert not named & orphans, "what the killed run left belongs to no snapshot"
    once_more = batch.run("curate")
    assert once_more["JobRunState"] == "SUCCEEDED"
    assert batch.curated() == rows, "the same files give the same rows"


def test_should_not_write_rows_twice_after_a_run_that_was_killed_after_its_commit(
    batch: Batch, curated: dict[str, Any]
) -> None:
    assert curated["passed"]
    before = batch.curated()
    run = batch.run("killed-after-its-commit")
    assert run["JobRunState"] == "FAILED"
    assert batch.curated() == before, "its commit holds the same rows"
    assert batch.run("curate")["JobRunState"] == "SUCCEEDED"
    assert batch.curated() == before


def test_should_build_the_very_training_set_of_an_earlier_day_again(
    batch: Batch, curated: dict[str, Any]
) -> None:
    assert curated["passed"]
    assert batch.run("build_features")["JobRunState"] == "SUCCEEDED"
    then, note = versions(batch, "features/"), batch.note("features/")
    snapshot = batch.table().current_snapshot()
    assert snapshot is not None
    assert note["curated_snapshot_id"] == str(snapshot.snapshot_id)
    assert note["rows"] == len(batch.curated())
    # The next day: more rows, and one that changes.
    changed = [{**claim, "witnesses": 8} for claim in generate(300, seed=5)[:1]]
    batch.land("next", [*generate(5, seed=77), *changed], "2015-06-07T00:00:00.000Z")
    assert batch.run("curate")["JobRunState"] == "SUCCEEDED"
    assert batch.run("build_features")["JobRunState"] == "SUCCEEDED"
    assert versions(batch, "features/") != then
    online = batch.client("sagemaker-featurestore-runtime")
    wanted = {
        "FeatureGroupName": "batch-claims",
        "RecordIdentifierValueAsString": str(changed[0]["policy_number"]),
    }
    of_today = online.get_record(**wanted)["Record"]
    run = batch.run("build_features", curated_snapshot_id=str(snapshot.snapshot_id))
    assert run["JobRunState"] == "SUCCEEDED", run["ErrorMessage"]
    assert versions(batch, f"snapshots/{snapshot.snapshot_id}/") == then, "byte by byte"
    assert batch.note(f"snapshots/{snapshot.snapshot_id}/") == note
    assert online.get_record(**wanted)["Record"] == of_today, "the news stay in the store"
    gone = batch.run("build_features", curated_snapshot_id="1")
    assert gone["JobRunState"] == "FAILED"
    assert "has no snapshot 1; it keeps:" in gone["ErrorMessage"]


def test_should_learn_from_the_labels_that_people_gave_and_say_which(
    batch: Batch, curated: dict[str, Any]
) -> None:
    assert curated["passed"]
    field = batch.contract.label.field
    unlabelled = batch.run("build_features")
    assert unlabelled["JobRunState"] == "SUCCEEDED", unlabelled["ErrorMessage"]
    assert batch.note("features/")["labels_snapshot_id"] is None
    before = {row["policy_number"]: row[field] for row in batch.rows("features")}
    policy, own = min(before.items())
    (other,) = [value for value in batch.contract.label.values or () if value != own]
    table = GlueCatalog("labels", client=batch.client("glue"), **batch.table().io.properties).create_table(
        (DATABASE, f"{TABLE}_labels"),
        schema=pa.schema(
            [
                ("identifier", pa.string()),
                ("label", pa.string()),
                ("labelled_at", pa.timestamp("us", "UTC")),
                ("task", pa.string()),
            ]
        ),
        location=f"s3://{BUCKET}/labels",
    )
    moment = datetime(2026, 11, 1, tzinfo=UTC)
    row = {"identifier": str(policy), "label": other, "labelled_at": moment, "task": "t"}
    table.append(pa.Table.from_pylist([row], schema=table.schema().as_arrow()))
    run = batch.run("build_features")
    assert run["JobRunState"] == "SUCCEEDED", run["ErrorMessage"]
    snapshot = table.refresh().current_snapshot()
    assert snapshot is not None
    assert batch.note("features/")["labels_snapshot_id"] == str(snapshot.snapshot_id)
    assert {row["policy_number"]: row[field] for row in batch.rows("features")} == {**before, policy: other}
    # The set of before the label, again.
    curated_now = batch.table().current_snapshot()
    assert curated_now is not None
    run = batch.run(
        "build_features", curated_snapshot_id=str(curated_now.snapshot_id), labels_snapshot_id="none"
    )
    assert run["JobRunState"] == "SUCCEEDED", run["ErrorMessage"]
    again = batch.rows(f"snapshots/{curated_now.snapshot_id}")
    assert {row["policy_number"]: row[field] for row in again} == before
