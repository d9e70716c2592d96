"""Micro-batches of a stream: the same rows as Firehose's transform, the same files when repeated."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from curate_stream import job
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_contract.compiled import Column, CompiledContract, FitSpec, LabelSpec
from ml_contract.records.codec import RecordCodec
from ml_contract.records.landing import arrow_schema
from record_transform.logic import transform

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CONTRACT = CompiledContract(
    name="parcels",
    identifier="parcel",
    event_time="sent",
    late_after_days=30,
    columns=(
        Column(name="parcel", source="parcel", type="string", required=True, max_length=5),
        Column(name="sent", source="sent", type="timestamp", required=True),
        Column(name="weight", source="weight", type="number", minimum=0),
        Column(name="stops", source="stops", type="integer"),
        Column(name="express", source="express", type="boolean"),
        Column(name="born", source="born", type="date"),
    ),
    label=LabelSpec(task="regression", field="weight"),
    features=(),
    fit=FitSpec(),
    decision_threshold=0.5,
    split={},
    acceptance={},
    monitoring={},
    training={},
    rules=(),
)
CODEC = RecordCodec(CONTRACT)
MIDNIGHT = datetime(2026, 11, 2, tzinfo=UTC)
RECORDS = st.one_of(
    st.fixed_dictionaries(
        {"parcel": st.sampled_from(["a", "b", "c", "too long"]), "sent": st.just("2026-11-01T08:00:00Z")},
        optional={
            "weight": st.one_of(st.floats(-1, 70, allow_nan=False), st.just("heavy")),
            "stops": st.integers(0, 3),
            "express": st.booleans(),
            "born": st.sampled_from(["2020-02-29", "2020-02-30"]),
        },
    ).map(lambda record: json.dumps(record).encode()),
    st.binary(max_size=12),
)
#: Arrivals on both sides of midnight.
ARRIVED = st.integers(-3, 3).map(lambda seconds: MIDNIGHT + timedelta(seconds=seconds, milliseconds=7))
BATCHES = st.lists(st.tuples(ARRIVED, RECORDS), max_size=12)
Batch = list[tuple[datetime, bytes]]


def text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"


def by_transform(batch: Batch) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Lines and quarantine that Firehose's function makes of the same records."""
    made = transform(
        [
            {
                "recordId": str(number),
                "data": base64.b64encode(data).decode(),
                "approximateArrivalTimestamp": round(moment.timestamp() * 1000),
            }
            for number, (moment, data) in enumerate(batch)
        ],
        CODEC,
    )
    lines = [json.loads(base64.b64decode(one["data"])) for one in made.records if one["result"] == "Ok"]
    return lines, made.quarantine


def key(row: dict[str, Any]) -> str:
    return json.dumps(row, sort_keys=True, default=str)


def same(files: dict[str, bytes], batch: Batch) -> None:
    """The files hold what the transform makes of the batch, each below the day of its arrival."""
    lines, refused = by_transform(batch)
    rows, kept = [], []
    for name, body in files.items():
        day = name.split("ingest_date=")[1][:10]
        if name.endswith(".parquet"):
            table = pq.read_table(io.BytesIO(body))
            assert table.schema.names == arrow_schema(CONTRACT).names
            found = table.to_pylist()
            for row in found:
                row["received_at"] = text(row["received_at"].replace(tzinfo=UTC))
            rows += found
        else:
            found = [json.loads(line) for line in body.splitlines()]
            kept += found
        assert {row["received_at"][:10] for row in found} == {day}
    assert sorted(map(key, kept)) == sorted(map(key, refused))
    # A line of JSON leaves out what is null.
    names = ("record_id", "received_at", "weight", "stops", "parcel")
    expected = sorted([str(line.get(name)) for name in names] for line in lines)
    assert sorted([str(row[name]) for name in names] for row in rows) == expected


@given(batch=BATCHES, random=st.randoms(use_true_random=False), number=st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_should_write_the_transforms_rows_and_the_same_files_in_any_order(
    batch: Batch, random: Any, number: int
) -> None:
    records = [(text(moment), data) for moment, data in batch]
    shuffled = list(records)
    random.shuffle(shuffled)
    files = list(job.files_of(records, number, CODEC))
    assert list(job.files_of(shuffled, number, CODEC)) == files
    made = {f"{f.name}.parquet": f.rows for f in files if f.rows is not None}
    made |= {f"{f.name}.jsonl": f.refused for f in files if f.refused}
    assert sum(f.counts.delivered + f.counts.quarantined for f in files) == len(batch)
    same(made, batch)


def test_should_never_write_over_another_batch() -> None:
    one = list(job.files_of([(text(MIDNIGHT), b"1")], 7, CODEC))
    # A checkpoint that was lost counts from nought again.
    other = list(job.files_of([(text(MIDNIGHT), b"2")], 7, CODEC))
    assert {f.name for f in one}.isdisjoint(f.name for f in other)


def writer(folder: Path, *, fail_once: str | None = None) -> Callable[[str, bytes], None]:
    """Writes below a folder on the workers; fails at its first file when told to."""
    target, flag = str(folder), fail_once

    def put(uri: str, body: bytes) -> None:
        path = Path(target) / uri.removeprefix("s3://lake/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        if flag is not None and not Path(flag).exists():
            Path(flag).touch()
            raise OSError("the object is there, its answer got lost")

    return put


def landed(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("batch-*")}


@pytest.fixture
def workers(spark: SparkSession) -> SparkSession:
    """Spark whose workers find the job's packages, as Glue's do by ``--extra-py-files``."""
    spark.sparkContext.environment["PYTHONPATH"] = str(Path(job.__file__).parents[1])
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    return spark


@pytest.mark.slow
@given(batch=BATCHES)
@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_should_land_the_same_files_again_on_spark(
    workers: SparkSession, tmp_path_factory: pytest.TempPathFactory, batch: Batch
) -> None:
    landing = job.Landing(CONTRACT.to_json(), "s3://lake/live/", "s3://lake/refused/", files=2)
    schema = f"{job.ARRIVAL} timestamp, {job.DATA} binary"
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "again")]
    for folder, order in zip(folders, (1, -1), strict=True):
        rows = [(moment, bytearray(data)) for moment, data in batch[::order]]
        counts = job.land(workers.createDataFrame(rows, schema), 3, landing, writer(folder))
        assert counts.delivered + counts.quarantined == len(batch)
    assert landed(folders[0]) == landed(folders[1])
    same(landed(folders[0]), batch)


@pytest.mark.slow
def test_should_take_a_batch_up_again_after_a_failure_and_lose_and_double_nothing(
    workers: SparkSession, tmp_path: Path
) -> None:
    from pyspark.errors import StreamingQueryException

    def some(day: int) -> Batch:
        parcels = [{"parcel": f"{day}{n}", "sent": "2026-11-01T08:00:00Z"} for n in range(6)]
        good = [
            (MIDNIGHT + timedelta(seconds=n), json.dumps(parcel).encode()) for n, parcel in enumerate(parcels)
        ]
        return [*good, (MIDNIGHT, b"not json %d" % day)]

    batches = [some(day) for day in range(3)]
    source, lake = tmp_path / "stream", tmp_path / "lake"
    schema = f"{job.ARRIVAL} timestamp, {job.DATA} binary"
    arguments = {
        "data_uri": "s3://lake/live/",
        "quarantine_uri": "s3://lake/refused/",
        "checkpoint_uri": str(tmp_path / "checkpoint"),
        "window_seconds": "1",
        "files": "2",
    }

    def arrive(batch: Batch) -> None:
        rows = [(moment, bytearray(data)) for moment, data in batch]
        workers.createDataFrame(rows, schema).coalesce(1).write.mode("append").parquet(str(source))

    def go(put: Callable[[str, bytes], None]) -> None:
        frame = workers.readStream.schema(schema).parquet(str(source))
        query = job.start(frame, arguments, CONTRACT.to_json(), put)
        try:
            query.processAllAvailable()
        finally:
            query.stop()

    arrive(batches[0])
    go(writer(lake))
    arrive(batches[1])
    with pytest.raises(StreamingQueryException, match="its answer got lost"):
        go(writer(lake, fail_once=str(tmp_path / "failed")))
    part = landed(lake)
    arrive(batches[2])
    go(writer(lake))
    after = landed(lake)
    assert part.items() <= after.items(), "what was written is written again, byte by byte"
    same(after, [record for batch in batches for record in batch])
    assert {name.split("batch-")[1][:12] for name in after} == {f"{n:012}" for n in range(3)}
