"""Labels become ground truth once, whatever comes twice, late or never."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from ground_truth import handler as ground_truth
from ground_truth.errors import BadEventError, MisconfiguredError
from ground_truth.files import line
from ground_truth.handler import collect
from ground_truth.settings import Settings
from lake_files.iceberg import Place, ensure_table
from pyiceberg.catalog.memory import InMemoryCatalog

NOW = datetime(2026, 11, 21, 12, 30, 5, tzinfo=UTC)
SETTINGS = Settings(
    curated="curated.parcels",
    labels=None,
    identifier="parcel",
    label="late",
    received="received_at",
    target="s3://artifacts/parcels/ground-truth",
    lookback_hours=72,
)
Row = tuple[str | None, str | None, datetime]


class Bucket:
    """What the function needs of S3."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:  # noqa: N803
        assert (Bucket, ContentType) == ("artifacts", "application/jsonl")
        self.objects[Key] = Body

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        import io

        assert Bucket == "artifacts"
        return {"Body": io.BytesIO(self.objects[Key])}

    def get_paginator(self, name: str) -> Bucket:
        assert name == "list_objects_v2"
        return self

    def paginate(self, *, Bucket: str, Prefix: str) -> list[dict[str, Any]]:  # noqa: N803
        keys = [key for key in sorted(self.objects) if key.startswith(Prefix)]
        return [{"Contents": [{"Key": key} for key in keys]}] if keys else [{}]

    def labels(self) -> list[tuple[str, str]]:
        """Every line in the order in which a reader of the folders sees them."""
        lines = [json.loads(text) for key in sorted(self.objects) for text in self.objects[key].splitlines()]
        return [(one["eventMetadata"]["eventId"], one["groundTruthData"]["data"]) for one in lines]


class Lake:
    """A curated table, and one of labels, in memory."""

    def __init__(self, folder: Path) -> None:
        self.catalog = InMemoryCatalog("test", warehouse=folder.as_uri())
        self.catalog.create_namespace("curated")
        self._make(
            folder, "parcels", [("parcel", "string"), ("late", "string"), ("received_at", "timestamp")]
        )
        self._make(
            folder,
            "parcels_labels",
            [
                ("identifier", "string"),
                ("label", "string"),
                ("labelled_at", "timestamp"),
                ("task", "string"),
                ("inference_id", "string"),
            ],
        )

    def _make(self, folder: Path, name: str, columns: Sequence[tuple[str, str]]) -> None:
        place = Place("curated", name)
        ensure_table(self.catalog, place, location=f"{folder.as_uri()}/{name}", columns=list(columns))

    def add(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        table = self.catalog.load_table(("curated", name))
        schema = table.schema().as_arrow()
        table.append(
            pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)
        )

    def replace(self, rows: Sequence[Row]) -> None:
        table = self.catalog.load_table(("curated", "parcels"))
        if table.current_snapshot() is not None:
            table.delete()
        self.add("parcels", rows)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


def run(lake: Lake, bucket: Bucket, now: datetime = NOW, **changes: Any) -> dict[str, Any]:
    settings = replace(SETTINGS, **changes)
    return collect(lake.catalog, bucket, settings, now=now, hours=settings.lookback_hours)


def test_should_write_what_model_monitor_merges(lake: Lake) -> None:
    lake.add("parcels", [("p-1", "yes", NOW), ("p-2", "no", NOW)])
    bucket = Bucket()
    counts = run(lake, bucket)
    assert (counts["labels"], counts["written"], counts["changed"]) == (2, 2, 0)
    [(key, body)] = bucket.objects.items()
    assert key.startswith("parcels/ground-truth/2026/11/21/12/30-05-")
    assert key.endswith(".jsonl")
    assert json.loads(body.splitlines()[0]) == {
        "groundTruthData": {"data": "yes", "encoding": "CSV"},
        "eventMetadata": {"eventId": "p-1"},
        "eventVersion": "0",
    }


def test_should_write_nothing_of_an_event_that_comes_twice(lake: Lake) -> None:
    lake.add("parcels", [("p-1", "yes", NOW)])
    bucket = Bucket()
    run(lake, bucket)
    before = dict(bucket.objects)
    assert run(lake, bucket)["written"] == 0
    assert run(lake, bucket, NOW + timedelta(hours=5))["files"] == []
    assert bucket.objects == before


def test_should_make_up_for_an_event_that_was_lost(lake: Lake) -> None:
    lake.add("parcels", [("p-1", "yes", NOW - timedelta(hours=40))])
    lake.add("parcels", [("p-2", "no", NOW)])
    bucket = Bucket()
    assert run(lake, bucket)["written"] == 2


def test_should_wait_for_a_label_that_is_not_known_yet(lake: Lake) -> None:
    lake.replace([("p-1", None, NOW), (None, "yes", NOW)])
    bucket = Bucket()
    assert run(lake, bucket)["written"] == 0
    assert bucket.objects == {}
    later = NOW + timedelta(hours=30)
    lake.replace([("p-1", "no", later)])
    assert run(lake, bucket, later)["written"] == 1
    assert bucket.labels() == [("p-1", "no")]


def test_should_write_a_label_that_changed_so_that_the_newest_is_read_last(lake: Lake) -> None:
    lake.replace([("p-1", "no", NOW), ("p-2", "no", NOW)])
    bucket = Bucket()
    run(lake, bucket)
    later = NOW + timedelta(minutes=3)
    lake.replace([("p-1", "yes", later), ("p-2", "no", NOW)])
    counts = run(lake, bucket, later)
    assert (counts["written"], counts["changed"]) == (1, 1)
    assert bucket.labels()[-1] == ("p-1", "yes")


def test_should_leave_alone_what_arrived_before_its_time(lake: Lake) -> None:
    lake.add("parcels", [("p-1", "yes", NOW - timedelta(hours=73))])
    bucket = Bucket()
    assert run(lake, bucket)["labels"] == 0
    assert run(lake, bucket, lookback_hours=74)["written"] == 1


def test_should_prefer_what_people_said_and_know_it_by_both_ids(lake: Lake) -> None:
    lake.add("parcels", [("p-1", "no", NOW)])
    early, late = NOW - timedelta(hours=2), NOW - timedelta(hours=1)
    lake.add(
        "parcels_labels",
        [
            ("p-1", "yes", late, "t-2", "event-7"),
            ("p-1", "no", early, "t-1", "event-7"),
            ("p-9", None, late, "t", None),
        ],
    )
    bucket = Bucket()
    run(lake, bucket, labels="curated.parcels_labels")
    assert bucket.labels() == [("event-7", "yes"), ("p-1", "yes")]


def test_should_count_identifiers_that_no_caller_can_pass(lake: Lake) -> None:
    lake.add("parcels", [("x" * 65, "yes", NOW), ("é", "yes", NOW), ("p-1", "yes", NOW)])
    bucket = Bucket()
    counts = run(lake, bucket)
    assert (counts["unfit_identifiers"], counts["written"]) == (2, 1)


def test_should_quote_a_label_that_holds_a_comma() -> None:
    assert json.loads(line("p", 'a,"b"'))["groundTruthData"]["data"] == '"a,""b"""'


def test_should_say_that_a_table_is_not_there(lake: Lake) -> None:
    with pytest.raises(MisconfiguredError, match="nowhere"):
        run(lake, Bucket(), curated="curated.nowhere")


@pytest.mark.parametrize("event", [[], {"hours": 0}, {"hours": "9"}, {"hours": True}, {"time": "noon"}])
def test_should_refuse_an_event_that_is_none(event: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "CURATED_TABLE": "a.b",
        "IDENTIFIER": "i",
        "LABEL": "l",
        "RECEIVED": "r",
        "GROUND_TRUTH_URI": "s3://b/p",
        "LOOKBACK_HOURS": "72",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadEventError):
        ground_truth.handler(event, None)


def test_should_report_every_wrong_variable_at_once() -> None:
    with pytest.raises(MisconfiguredError) as error:
        Settings.from_environment(
            {"CURATED_TABLE": "parcels", "GROUND_TRUTH_URI": "s3://b", "LOOKBACK_HOURS": "0", "LABEL": "l"}
        )
    for part in (
        "IDENTIFIER is not set",
        "RECEIVED is not set",
        "CURATED_TABLE",
        "GROUND_TRUTH_URI",
        "LOOKBACK",
    ):
        assert part in str(error.value)
