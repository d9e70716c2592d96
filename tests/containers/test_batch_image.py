"""The single-node engine: raw files in; an Iceberg table, a report, features and records out."""

from __future__ import annotations

import contextlib
import json
import pathlib
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from container_support import make_contract, make_records, run_image
from lake_files import iceberg
from ml_batch import features as features_job
from ml_batch.__main__ import main
from ml_contract.compiled import CompiledContract
from ml_contract.records.codec import Record, RecordCodec
from moto.server import ThreadedMotoServer

BUCKET = "lake"
ARRIVAL = "2026-07-01T00:00:00.000Z"


class Lake:
    """An account with one bucket and one database."""

    def __init__(self, contract: CompiledContract, base: pathlib.Path) -> None:
        self.s3 = boto3.client("s3")
        self.s3.create_bucket(Bucket=BUCKET)
        boto3.client("glue").create_database(DatabaseInput={"Name": "curated"})
        self.base = base
        self.runs = 0
        self.use(contract)
        # The stack makes the table.
        iceberg.ensure_table(
            iceberg.glue_catalog(boto3.client("glue")),
            iceberg.Place("curated", "trips"),
            location=f"s3://{BUCKET}/curated/",
            columns=contract.glue_columns(),
            partition_by=[("month", contract.event_time)],
        )

    def use(self, contract: CompiledContract) -> None:
        """Run by this contract from now on."""
        self.contract = contract
        self.put("contract.json", contract.to_json().encode())

    def put(self, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)

    def land(self, name: str, records: list[dict[str, Any]], arrival: str = ARRIVAL, **changed: Any) -> None:
        """Deliver records as one file of the raw zone; ``changed`` casts or drops columns."""
        self.put(
            f"raw/ingest_date=2026-07-01/{name}.parquet",
            raw_file(self.contract, records, name, arrival, **changed),
        )

    def run(self, command: str, **more: str) -> int:
        """Run the image's program; returns its exit status."""
        self.runs += 1
        given = {
            "contract": f"s3://{BUCKET}/contract.json",
            "curated_database": "curated",
            "curated_table": "trips",
            "run_id": f"run-{self.runs}",
        }
        if command == "curate":
            given |= {"raw_uri": f"s3://{BUCKET}/raw/", "curated_uri": f"s3://{BUCKET}/curated/"}
            given |= {"quality_uri": f"s3://{BUCKET}/quality/"}
            given |= {"quarantine_uri": f"s3://{BUCKET}/aside/"}
        else:
            given |= {"features_uri": f"s3://{BUCKET}/features/", "snapshots_uri": f"s3://{BUCKET}/old/"}
            given |= {"feature_group_name": "trips"}
        return main([command, *(part for k, v in {**given, **more}.items() for part in (f"--{k}", v))])

    def report(self) -> dict[str, Any]:
        """The report of the latest run."""
        body = self.s3.get_object(Bucket=BUCKET, Key=f"quality/run-{self.runs}.json")["Body"].read()
        found: dict[str, Any] = json.loads(body)
        return found

    def message(self) -> str:
        return (self.base / "output" / "message").read_text()

    def rows(self, snapshot_id: int | None = None) -> pl.DataFrame:
        """The curated table."""
        table = iceberg.open_table(
            iceberg.glue_catalog(boto3.client("glue")), iceberg.Place("curated", "trips")
        )
        found = table.scan(snapshot_id=snapshot_id).to_arrow()
        return pl.DataFrame(pl.from_arrow(found)).sort(self.contract.identifier)

    def files(self, prefix: str) -> list[str]:
        listed = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())
        return [item["Key"] for item in listed]

    def features(self) -> pl.DataFrame:
        bodies = [
            self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            for key in self.files("features/")
            if key.endswith(".parquet")
        ]
        return pl.concat(pl.read_parquet(body) for body in bodies).sort(self.contract.identifier)


def moment(text: str) -> datetime:
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def raw_file(
    contract: CompiledContract, records: list[dict[str, Any]], name: str, arrival: str, **changed: Any
) -> bytes:
    """A file of the raw zone as delivery writes it."""
    codec = RecordCodec(contract)
    kinds = {"bigint": pa.int64(), "double": pa.float64(), "string": pa.string(), "boolean": pa.bool_()}
    kinds |= {"date": pa.date32(), "timestamp": pa.timestamp("us", tz="UTC")}
    rows = []
    for number, raw in enumerate(records):
        record = codec.decode(json.dumps(raw).encode())
        assert isinstance(record, Record), record
        rows.append({**record.values, "record_id": f"{name}-{number:05}", "received_at": arrival})
    columns: dict[str, Any] = {}
    for column, kind in contract.glue_columns():
        texts = pa.array([row[column] for row in rows])
        if kind == "timestamp":
            values = [None if text is None else moment(text) for text in texts.to_pylist()]
            columns[column] = pa.array(values, kinds[kind])
        else:
            columns[column] = texts.cast(kinds[kind])
    for column, kind in changed.items():
        if kind is None:
            del columns[column]
        else:
            columns[column] = kind if isinstance(kind, pa.Array) else columns[column].cast(kind)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


class Store:
    """Stands for the Feature Store: moto has none."""

    def __init__(self) -> None:
        self.taken: dict[str, dict[str, str]] = {}
        self.calls = 0

    def put_record(self, *, FeatureGroupName: str, Record: list[dict[str, str]]) -> dict[str, Any]:  # noqa: N803
        values = {item["FeatureName"]: item["ValueAsString"] for item in Record}
        self.calls += 1
        self.taken[values["trip_id"]] = values
        return {}

    def describe_feature_group(self, *, FeatureGroupName: str) -> dict[str, Any]:  # noqa: N803
        return {"OnlineStoreConfig": {"EnableOnlineStore": True}}

    def batch_get_record(self, *, Identifiers: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        (asked,) = Identifiers
        found = [
            {
                "RecordIdentifierValueAsString": name,
                "Record": [
                    {"FeatureName": feature, "ValueAsString": value}
                    for feature, value in self.taken[name].items()
                ],
            }
            for name in asked["RecordIdentifiersValueAsString"]
            if name in self.taken
        ]
        return {"Records": found, "Errors": [], "UnprocessedIdentifiers": []}

    def delete_record(self, *, RecordIdentifierValueAsString: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        del self.taken[RecordIdentifierValueAsString]
        return {}


@pytest.fixture
def lake(
    tmp_path: pathlib.Path, contract: CompiledContract, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lake]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "SAGEMAKER_BASE_DIR": str(tmp_path / "ml"),
    }.items():
        monkeypatch.setenv(name, value)
    try:
        # State of an earlier server of this process.
        urllib.request.urlopen(
            urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
        ).close()
        yield Lake(contract, tmp_path / "ml")
    finally:
        server.stop()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store()
    known = boto3.client

    def client(name: str, **options: Any) -> Any:
        return store if name.startswith("sagemaker") else known(name, **options)

    monkeypatch.setattr(features_job.boto3, "client", client)
    return store


def test_should_curate_into_one_snapshot_and_account_for_every_row(lake: Lake) -> None:
    trips = make_records("binary", 200)
    lake.land("a", trips[:150])
    lake.land(
        "b", [*trips[150:], *({**trip, "passengers": 7} for trip in trips[:10])], "2026-07-02T00:00:00Z"
    )
    whole = raw_file(lake.contract, trips[:50], "d", ARRIVAL)
    lake.put("raw/ingest_date=2026-07-01/cut.parquet", whole[:300])
    damaged = bytearray(whole)
    damaged[60:1_500] = b"\xff" * 1_440
    lake.put("raw/ingest_date=2026-07-01/damaged.parquet", bytes(damaged))
    assert lake.run("curate") == 0
    report = lake.report()
    assert (report["rows_read"], report["duplicates_dropped"], report["rows_written"]) == (210, 10, 200)
    assert report["rows_rejected"] == 0
    assert report["passed"]
    assert report["files_read"] == 2
    assert [one["uri"].rsplit("/", 1)[1] for one in report["files_unreadable"]] == [
        "cut.parquet",
        "damaged.parquet",
    ]
    rows = lake.rows()
    assert rows.height == 200
    assert rows.filter(pl.col("trip_id") == trips[0]["trip_id"])["passengers"].to_list() == [7]
    assert report["months"] == sorted({trip["started_at"][:7] for trip in trips})
    assert all(rule["severity"] == "stop" and rule["outcome"] == "Passed" for rule in report["rules"])


def test_should_give_the_same_rows_again_and_keep_the_earlier_snapshot(lake: Lake) -> None:
    lake.land("a", make_records("binary", 60))
    assert lake.run("curate") == 0
    first = lake.report()
    before = lake.rows()
    assert lake.run("curate") == 0
    assert lake.rows().equals(before)
    lake.land("b", make_records("binary", 5, seed=2))
    assert lake.run("curate") == 0
    assert lake.rows().height == 65
    assert lake.rows(int(first["snapshot_id"])).equals(before)


def test_should_say_in_one_sentence_that_there_is_nothing(lake: Lake, store: Store) -> None:
    assert lake.run("curate") == 1
    assert lake.message().endswith(f"no file under s3://{BUCKET}/raw/: nothing was written")
    assert lake.report()["passed"] is False
    assert lake.run("build_features") == 1
    assert "run the curate job first" in lake.message()


def test_should_refuse_the_run_and_keep_the_table_when_a_rule_that_stops_is_broken(lake: Lake) -> None:
    trips = make_records("binary", 30)
    lake.land("a", trips)
    assert lake.run("curate") == 0
    bad = pa.array([-5.0] + [1.0] * 29)
    lake.land("b", [{**t, "trip_id": f"x-{i}"} for i, t in enumerate(trips)], distance=bad)
    assert lake.run("curate") == 1
    assert 'ColumnValues "distance" >= 0' in lake.message()
    assert lake.report()["rows_written"] == 0
    assert lake.rows().height == 30


def severe(tmp_path: pathlib.Path, severity: str) -> CompiledContract:
    return make_contract(
        tmp_path / severity.replace(" ", ""),
        "binary",
        **{"acceptance:": f"batch: {{severity: {{ColumnValues: {severity}}}}}\nacceptance:"},
    )


def test_should_set_offending_rows_aside_and_let_the_good_version_win(
    lake: Lake, tmp_path: pathlib.Path
) -> None:
    lake.use(severe(tmp_path, "quarantine"))
    trips = make_records("binary", 30)
    lake.land("a", trips)
    lake.land("b", trips[:2], "2026-07-02T00:00:00Z", distance=pa.array([-5.0, 3.0]))
    for _ in range(2):
        assert lake.run("curate") == 0
        report = lake.report()
        assert (report["rows_read"], report["rows_quarantined"]) == (32, 1)
        assert (report["duplicates_dropped"], report["rows_written"], report["passed"]) == (1, 30, True)
        (key,) = lake.files("aside/")
        (line,) = lake.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode().splitlines()
        aside = json.loads(line)
        assert aside["record_id"] == "b-00000"
        assert aside["reasons"][0]["field"] == "distance"
        assert aside["reasons"][0]["value"] == "-5.0"
        assert aside["received_at"] == "2026-07-02T00:00:00.000Z"
    kept = {row["trip_id"]: row["distance"] for row in lake.rows().iter_rows(named=True)}
    assert kept[trips[0]["trip_id"]] == trips[0].get("distance-km")
    assert kept[trips[1]["trip_id"]] == 3.0


def test_should_only_report_a_broken_rule_that_warns(lake: Lake, tmp_path: pathlib.Path) -> None:
    lake.use(severe(tmp_path, "warn"))
    lake.land("a", make_records("binary", 2), distance=pa.array([-5.0, 3.0]))
    assert lake.run("curate") == 0
    report = lake.report()
    assert report["warnings"] == ['ColumnValues "distance" >= 0 where "distance is not null"']
    assert (report["passed"], report["rows_written"], report["rows_quarantined"]) == (True, 2, 0)


@pytest.mark.parametrize(
    ("keep", "passengers"), [("latest_event", 1), ("latest_arrival", 2), ("first_arrival", 0)]
)
def test_should_keep_the_record_that_dedup_says(
    lake: Lake, tmp_path: pathlib.Path, keep: str, passengers: int
) -> None:
    changed = {"acceptance:": f"batch: {{dedup: {{keep: {keep}}}}}\nacceptance:"}
    lake.use(make_contract(tmp_path / keep, "binary", **changed))
    (trip,) = make_records("binary", 1)
    for number, (start, arrival) in enumerate((("02", "01"), ("03", "02"), ("01", "03"))):
        record = {**trip, "passengers": number, "started_at": f"2026-05-{start}T10:00:00Z"}
        lake.land(f"f{number}", [record], f"2026-07-{arrival}T00:00:00Z")
    assert lake.run("curate") == 0
    assert lake.rows()["passengers"].to_list() == [passengers]


def test_should_say_that_features_are_half_written_until_a_run_has_ended(
    lake: Lake, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.land("a", make_records("binary", 20))
    assert lake.run("curate") == 0
    seen: list[dict[str, Any]] = []

    def die(*_: object) -> None:
        seen.append(_note(lake))
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("ml_batch.features.replace", die)
        with contextlib.suppress(RuntimeError):
            lake.run("build_features")
    assert [note["writing"] for note in (*seen, _note(lake))] == [True, True]
    assert lake.run("build_features") == 0
    assert _note(lake)["rows"] == lake.features().height == 20
    assert "writing" not in _note(lake)


def _note(lake: Lake) -> dict[str, Any]:
    body = lake.s3.get_object(Bucket=BUCKET, Key="features/_snapshot.json")["Body"].read()
    note: dict[str, Any] = json.loads(body)
    return note


def test_should_build_the_features_that_the_expressions_say_and_put_only_changes(
    lake: Lake, store: Store
) -> None:
    trips = make_records("binary", 80)
    lake.land("a", trips)
    assert lake.run("curate") == 0
    snapshot = lake.report()["snapshot_id"]
    assert lake.run("build_features") == 0
    first = lake.features()
    assert first.columns == [name for name, _ in lake.contract.feature_columns()]
    assert first.height == store.calls == 80
    note = _note(lake)
    assert (note["curated_snapshot_id"], note["rows"]) == (snapshot, 80)
    assert lake.run("build_features") == 0
    assert store.calls == 80, "nothing changed, nothing is put"
    lake.land("b", [{**trips[0], "passengers": 8}], "2026-07-02T00:00:00Z")
    assert lake.run("curate") == 0
    assert lake.run("build_features") == 0
    assert store.calls == 81
    assert lake.features().height == 80
    assert float(store.taken[trips[0]["trip_id"]]["passengers"]) == 8
    assert lake.run("build_features", curated_snapshot_id=snapshot) == 0
    assert store.calls == 81, "an earlier snapshot is no news"
    assert [key for key in lake.files(f"old/{snapshot}/") if key.endswith(".parquet")]


def test_should_refuse_unknown_arguments(lake: Lake, tmp_path: pathlib.Path) -> None:
    done = run_image("batch", tmp_path, "curate", "--contract", "s3://x/y")
    assert done.returncode == 2
    assert "--raw_uri" in done.stderr
