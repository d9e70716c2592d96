"""The window job on a real Flink: its rows are what a naive reading of the words makes of the records."""

from __future__ import annotations

import datetime as dt
import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ml_contract.compiled import CompiledContract
from ml_contract.load import ContractError, load_workload
from ml_contract.windows.flink_job import window_definitions, window_job

from rehearsal.executors.flink import flink_environment

ROOT = Path(__file__).resolve().parents[2]

YAML = """
version: 1
name: metered
title: Readings of meters
owner: team@example.com
record:
  identifier: reading_id
  event_time: read_at
  fields:
    reading_id: {type: string, required: true}
    read_at: {type: timestamp, required: true, source: "Read At"}
    site: {type: string, required: true, allowed: [a, "b's"]}
    load: {type: number, minimum: -100, maximum: 100}
    next_load: {type: number}
label: {task: regression, field: next_load}
windows:
  key: site
  engine: flink
  features:
    readings_6h: {aggregate: count, over_hours: 6}
    load_6h: {aggregate: sum, field: load, over_hours: 6}
    load_mean_2d: {aggregate: mean, field: load, over_hours: 48}
    load_low_2d: {aggregate: minimum, field: load, over_hours: 48}
acceptance: {metric: r2, at_least: 0}
"""
START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def loaded(folder: Path, text: str = YAML) -> CompiledContract:
    (folder / "workload.yaml").write_text(text)
    return load_workload(folder).compiled


def run(folder: Path, contract: CompiledContract, lines: list[str]) -> list[dict[str, Any]]:
    """Rows of the job over these lines, by the program that is deployed."""
    code = folder / "code"
    code.mkdir()
    program = (ROOT / "flink" / "window_features" / "main.py").read_text()
    (code / "main.py").write_text(program)
    (code / "job.sql").write_text(window_job(contract, lateness_hours=1))
    (folder / "in.json").write_text("".join(line + "\n" for line in lines))
    groups = [
        {
            "PropertyGroupId": "job",
            "PropertyMap": {"source_arn": "arn:source", "sink_arn": "arn:sink", "region": "eu-central-1"},
        }
    ]
    (folder / "properties.json").write_text(json.dumps(groups))
    done = subprocess.run(
        [sys.executable, str(code / "main.py")],
        env={
            **flink_environment(),
            "APPLICATION_PROPERTIES": str(folder / "properties.json"),
            "FLINK_STREAMS": json.dumps(
                {"arn:source": str(folder / "in.json"), "arn:sink": str(folder / "out")}
            ),
        },
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    files = [path for path in (folder / "out").rglob("*") if path.is_file()]
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def written(moment: dt.datetime, form: int) -> str:
    """The same moment in the forms that the contract reads."""
    if form == 0:
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    if form == 1:
        zone = dt.timezone(dt.timedelta(hours=5, minutes=30))
        return moment.astimezone(zone).isoformat(timespec="seconds")
    if form == 2:
        zone = dt.timezone(-dt.timedelta(hours=8))
        return moment.astimezone(zone).isoformat(timespec="milliseconds")
    return moment.strftime("%Y-%m-%d %H:%M:%S")


@pytest.mark.slow
def test_should_make_of_the_stream_what_the_words_say(tmp_path: Path) -> None:
    contract = loaded(tmp_path)
    rng = random.Random(5)
    readings = [
        {
            "reading_id": f"r{i}",
            "read_at": START + dt.timedelta(minutes=30 * (i // 2)),
            "site": rng.choice(["a", "b's"]),
            "load": rng.choice([None, float(rng.randint(-50, 50))]),
        }
        for i in range(220)
    ]
    lines = [
        json.dumps({**reading, "read_at": None, "Read At": written(reading["read_at"], i % 4)})
        for i, reading in enumerate(readings)
    ]
    spoilt = [
        "no JSON",
        "{}",
        json.dumps({"reading_id": "x", "Read At": "yesterday", "site": "a", "load": 1}),
        json.dumps({"reading_id": "x", "Read At": "2026-03-01T00:00:00Z", "site": "nowhere", "load": 1}),
        json.dumps({"reading_id": "x", "Read At": "2026-03-01T00:00:00Z", "site": "a", "load": 101}),
        json.dumps({"reading_id": None, "Read At": "2026-03-01T00:00:00Z", "site": "a", "load": 1}),
        json.dumps({"reading_id": "x", "site": "a", "load": 1}),
    ]
    # Spoilt ones and repeated ones in between.
    for i, line in enumerate([*spoilt, *lines[:40:7]]):
        lines.insert(45 + i, line)
    rows = run(tmp_path, contract, lines)

    def expected(reading: dict[str, Any]) -> dict[str, float | None]:
        def near(hours: int) -> list[dict[str, Any]]:
            since = reading["read_at"] - dt.timedelta(hours=hours)
            same = (r for r in readings if r["site"] == reading["site"])
            return [r for r in same if since <= r["read_at"] <= reading["read_at"]]

        six = [r["load"] for r in near(6) if r["load"] is not None]
        two = [r["load"] for r in near(48) if r["load"] is not None]
        return {
            "readings_6h": float(len(near(6))),
            "load_6h": math.fsum(six) if six else None,
            "load_mean_2d": math.fsum(two) / len(two) if two else None,
            "load_low_2d": min(two) if two else None,
        }

    assert len(rows) == len(readings)
    wanted = sorted(
        [{"site": r["site"], "read_at": written(r["read_at"], 0), **expected(r)} for r in readings], key=str
    )
    for row, want in zip(sorted(rows, key=str), wanted, strict=True):
        assert row.keys() == want.keys() == {name for name, _ in window_definitions(contract)}
        for name, value in want.items():
            assert row[name] == (pytest.approx(value, abs=1e-9) if isinstance(value, float) else value), name


@pytest.mark.slow
def test_should_read_dates_in_a_format_of_their_own(tmp_path: Path) -> None:
    text = YAML.replace(
        'read_at: {type: timestamp, required: true, source: "Read At"}',
        'read_at: {type: date, required: true, format: "%d.%m.%Y"}',
    )
    rows = run(
        tmp_path,
        loaded(tmp_path, text),
        [
            json.dumps({"reading_id": f"r{i}", "read_at": f"0{i + 1}.03.2026", "site": "a", "load": i})
            for i in range(3)
        ],
    )
    assert [(row["read_at"], row["load_mean_2d"]) for row in sorted(rows, key=str)] == [
        ("2026-03-01T00:00:00Z", 0.0),
        ("2026-03-02T00:00:00Z", 0.5),
        ("2026-03-03T00:00:00Z", 1.0),
    ]


def test_should_refuse_a_format_that_flink_cannot_read(tmp_path: Path) -> None:
    text = YAML.replace('source: "Read At"}', 'format: "%Y-%jT%H:%M"}')
    with pytest.raises(ContractError, match=r"record.fields.read_at.format: got the format '%Y-%jT%H:%M'"):
        loaded(tmp_path, text)
