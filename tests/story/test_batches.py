"""What the chapter of batch sources drops is what it says: good records, bad ones, a file nobody can read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ml_contract.load import load_workload
from ml_contract.records.codec import RecordCodec
from ml_contract.records.landing import LandingSpec, UnreadableFileError, land

from rehearsal.preflight import app_folder
from rehearsal.story.shares import dropping, reading, shares
from rehearsal.story.sources import _enter_reasons, spoilt_file, written
from workloads.claims_fraud.generate import generate

LOADED = load_workload(app_folder(None) / "workloads" / "claims_fraud")
CODEC = RecordCodec(LOADED.compiled)


def counts(folder: Path, body: bytes, source: Any) -> tuple[int, int]:
    file = folder / "file"
    file.write_bytes(body)
    spec = LandingSpec(
        name="s",
        kind="drop",
        owner="o",
        schema_version=1,
        format=source.format,
        delimiter=source.delimiter,
        rename=source.rename,
    )
    landed = land(
        file,
        spec,
        CODEC,
        file="f",
        received_at="2026-11-21T10:00:00.000Z",
        data=folder / "data",
        quarantine=folder / "quarantine",
        deletions=folder / "deletions",
    )
    return landed.delivered, landed.quarantined


@pytest.mark.parametrize("form", ["csv", "json", "ndjson", "parquet"])
@pytest.mark.parametrize("rename", [{}, {"ALTER": "age"}])
def test_should_write_records_that_land_and_bad_ones_that_do_not(
    tmp_path: Path, form: str, rename: dict[str, str]
) -> None:
    source = SimpleNamespace(format=form, delimiter=";", rename=rename)
    records = generate(6, 1)
    bad = [{**records[0], "policy_number": None}]
    assert counts(tmp_path, written(records[1:], source, bad=bad), source) == (5, 1)


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_should_write_a_file_that_nobody_can_read(tmp_path: Path, form: str) -> None:
    source = SimpleNamespace(format=form, delimiter=",", rename={})
    with pytest.raises(UnreadableFileError):
        counts(tmp_path, spoilt_file(source), source)


def test_should_give_each_record_one_way(tmp_path: Path) -> None:
    workload = LOADED.workload
    records = generate(300, 1)
    streamed, batches = shares(records, workload)
    assert set(batches) == {*dropping(workload), *reading(workload)}
    ways = [r["policy_number"] for part in (streamed, *batches.values()) for r in part]
    assert sorted(ways) == sorted(r["policy_number"] for r in records)
    assert all(len(part) >= 10 for part in batches.values())


def test_should_stream_everything_without_batch_sources() -> None:
    bare = LOADED.workload.model_copy(update={"sources": {}})
    records = generate(20, 1)
    assert shares(records, bare) == (records, {})


def test_should_add_reasons_to_those_of_the_stream() -> None:
    records: dict[str, Any] = {"reasons": [{"code": "not_json", "records": 2, "example": "e"}]}
    line = {"reasons": [{"code": "not_json", "message": "m"}, {"code": "pattern", "message": "p"}]}
    _enter_reasons(records, [line])
    assert {r["code"]: r["records"] for r in records["reasons"]} == {"not_json": 3, "pattern": 1}
