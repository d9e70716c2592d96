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
from ml_contract.compiled import CompiledContract
from ml_contract.load import load_workload
from ml_contract.records import RecordCodec, Rejected
from ml_contract.rules import dqdl
from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.table import Table

from rehearsal.executors.delivery_format import Column, parquet, row_of
from rehearsal.server import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]

ROOT = Path(__file__).resolve().parents[2]
BUCKET = "batch-lake"
DATABASE, TABLE = "batch_curated", "claims"
ARRIVAL = "2015-06-01T00:00:00.000Z"


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
            *(catalog, {"Action": ["glue:CreateTable", "glue:UpdateTable"]}),
        ],
    )
    features = role(
        "batch-features",
        "glue.amazonaws.com",
        [
            *(bucket, folders, code, logs),
            {"Action": "s3:GetObject", "Resource": f"{objects}/curated/*"},
            {"Action": change, "Resource": [f"{objects}/features/*", f"{objects}/snapshots/*"]},
            *(catalog, {"Action": "sagemaker:PutRecord"}),
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
        },
    }
    for job, owner in (("curate", curate), ("build_features", features)):
        client("glue").create_job(
            Name=job,
            Role=owner,
            Command={"Name": "glueetl", "ScriptLocation": f"s3://{BUCKET}/code/{job}.py"},
            DefaultArguments={**common, **arguments[job]},
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
    assert curated["files_read"] == 3
    reasons = {Path(one["uri"]).name: one["reason"] for one in curated["files_unreadable"]}
    assert "truncated" in reasons["cut.parquet"]
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
