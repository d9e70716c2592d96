"""What lies in the lake, looked at: finding files, judging rows, committing a snapshot, per million rows.

``crawl`` reads the footer of each of a hundred files (``lake_files.parquet.inspect_files``), as the curate
job and a crawler do before anything else; ``quality`` judges the rows by the rules of the contract with
polars. Both stand beside reading the same files whole. ``commit`` makes the files one snapshot of an Iceberg
table on this machine's disk, beside writing them. In turns, the best of each counts.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import bench_features
from benchmarks.result import Result, Row

ROOT = Path(__file__).resolve().parents[1]
MILLION = 1_000_000
FILES = 100
ROUNDS = 3

sys.path[:0] = [str(ROOT / "glue")]


class _Disk:
    """As much of S3's client as reading footers takes, over a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def head_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803 - boto3's names
        del Bucket
        found = (self._folder / Key).stat()
        from datetime import UTC, datetime

        return {"ContentLength": found.st_size, "LastModified": datetime.fromtimestamp(found.st_mtime, UTC)}

    def get_object(self, *, Bucket: str, Key: str, Range: str | None = None) -> dict[str, Any]:  # noqa: N803
        del Bucket
        with (self._folder / Key).open("rb") as file:
            if Range is None:
                return {"Body": _Body(file.read())}
            first, last = (int(part) for part in re.findall(r"\d+", Range))
            file.seek(first)
            return {"Body": _Body(file.read(last - first + 1))}


class _Body:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self) -> bytes:
        return self._data


def run() -> Result:
    """Measure at a million rows."""
    import polars as pl
    import pyarrow.parquet as pq
    from lake_files.parquet import inspect_files
    from ml_contract.load import load_workload
    from ml_contract.quality.on_polars import PolarsEngine
    from ml_contract.quality.rules import parsed_rules
    from ml_contract.quality.verdicts import evaluate

    contract = load_workload(ROOT / "workloads" / "claims_fraud").compiled
    with tempfile.TemporaryDirectory(prefix="bench-lake-") as name:
        folder = Path(name)
        bench_features._make(folder / "claims", 1)
        frame = pl.read_parquet(folder / "claims")
        shutil.rmtree(folder / "claims")
        places = [folder / "data" / f"part-{number:03}.parquet" for number in range(FILES)]
        places[0].parent.mkdir()

        def write() -> None:
            for number, place in enumerate(places):
                frame.slice(number * MILLION // FILES, MILLION // FILES).write_parquet(place)

        write()
        uris = [f"s3://lake/{place.relative_to(folder).as_posix()}" for place in places]
        rules = parsed_rules(contract)
        source = str(folder / "data" / "*.parquet")

        def crawl() -> None:
            found = inspect_files(_Disk(folder), uris)
            if sum(file.rows for file in found.files) != MILLION:
                raise RuntimeError("the footers must tell of every row")

        def read() -> None:
            for place in places:
                pq.read_table(place)

        def quality() -> None:
            if not evaluate(PolarsEngine(pl.scan_parquet(source)), rules):
                raise RuntimeError("the contract must have rules")

        tables = folder / "tables"
        seconds = _in_turns(
            {
                "write": write,
                "read": read,
                "crawl": crawl,
                "quality": quality,
                "commit": lambda: _commit(tables, contract, places),
            }
        )
    best = {what: min(values) for what, values in seconds.items()}
    return Result(
        name="lake",
        rows=(
            Row(
                what="crawl: footers of 100 files of 1 M rows / reading them",
                value=best["crawl"] / best["read"],
            ),
            Row(what="quality: rules over 1 M rows / reading them", value=best["quality"] / best["read"]),
            Row(what="commit: 100 files of 1 M rows / writing them", value=best["commit"] / best["write"]),
            *(
                Row(what=f"{what} of 1 M rows", value=best[what], unit="s")
                for what in ("crawl", "quality", "commit")
            ),
        ),
        raw={"seconds": seconds, "rules": len(rules), "files": FILES},
    )


def _commit(folder: Path, contract: Any, places: list[Path]) -> None:
    """One snapshot of a new table, whose catalog stands in memory."""
    import boto3
    from lake_files import iceberg
    from moto import mock_aws

    shutil.rmtree(folder, ignore_errors=True)
    given = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        with mock_aws():
            glue = boto3.client("glue", region_name="us-east-1")
            glue.create_database(DatabaseInput={"Name": "bench"})
            table = iceberg.ensure_table(
                iceberg.glue_catalog(glue),
                iceberg.Place("bench", contract.name),
                location=f"file://{folder}/",
                columns=contract.glue_columns(),
            )
            iceberg.replace_rows(table, [f"file://{place}" for place in places])
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _in_turns(work: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {what: [] for what in work}
    for _ in range(ROUNDS):
        for what, function in work.items():
            started = time.perf_counter()
            function()
            seconds[what].append(time.perf_counter() - started)
    return seconds
