"""Features as they were known, beside a plain sort-merge of the same tables.

The join takes labels and a history of ten features with write times, corrections and deletions, and a cutoff.
The plain sort-merge sorts both tables by record and time and walks them side by side: no write times, no
deletions, no ties. polars on one machine; Spark beside its own sort-merge join on the same keys. Each runs in
a process of its own, so that its peak memory is its own. ``POINT_IN_TIME_ROWS=100000x10000`` measures less
than the 10 million x 1 million rows it is meant for, ``POINT_IN_TIME_ENGINES=polars`` one engine only.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.result import Result, Row

ROOT = Path(__file__).resolve().parents[1]
ROWS = "10000000x1000000"
ROUNDS = 3
#: Rows of the history that a record has on average.
DEPTH = 10
FEATURES = tuple(f"f{number}" for number in range(10))
CUTOFF = datetime(2025, 11, 1, tzinfo=UTC)


def run() -> Result:
    """Measure each engine in a process of its own."""
    history, labels = (
        int(part) for part in os.environ.get("POINT_IN_TIME_ROWS", ROWS).replace("_", "").split("x")
    )
    engines = os.environ.get("POINT_IN_TIME_ENGINES", "polars,spark").split(",")
    rows: list[Row] = []
    raw: dict[str, Any] = {"history": history, "labels": labels}
    with tempfile.TemporaryDirectory() as folder:
        _worker("make", folder, history, labels)
        for engine in engines:
            seconds = {
                name: _worker(f"{engine}-{name}", folder, history, labels) for name in ("as_of", "plain")
            }
            raw[engine] = seconds
            rows += [
                Row(
                    what=f"{engine}: as known then / plain sort-merge, {history:,} x {labels:,} rows",
                    value=min(seconds["as_of"]["seconds"]) / min(seconds["plain"]["seconds"]),
                ),
                Row(what=f"{engine}: as known then", value=min(seconds["as_of"]["seconds"]), unit="s"),
            ]
            if engine == "polars":  # Spark's memory is its Java process's, as large as it is told
                rows.append(
                    Row(what=f"{engine}: peak memory", value=seconds["as_of"]["peak_gib"], unit="GiB")
                )
        if len(engines) > 1:
            same = {engine: raw[engine]["as_of"]["checksum"] for engine in engines}
            if len(set(same.values())) != 1:
                raise RuntimeError(f"the engines disagree: {same}")
    return Result(name="point_in_time", rows=tuple(rows), raw=raw)


def _worker(task: str, folder: str, history: int, labels: int) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_point_in_time", task, folder, str(history), str(labels)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{task}: {done.stderr.strip().splitlines()[-3:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


# --- in the process of its own ------------------------------------------------------------------------------


def _make(folder: Path, history: int, labels: int) -> None:
    import numpy as np
    import polars as pl

    random = np.random.default_rng(7)
    records = max(1, history // DEPTH)
    start, year = 1_735_689_600, 365 * 86_400

    def moments(count: int) -> Any:
        return pl.from_epoch(pl.Series(random.integers(start, start + year, count)), "s").dt.cast_time_unit(
            "us"
        )

    at = moments(history)
    frame = pl.DataFrame(
        {
            "id": random.integers(0, records, history),
            "at": at,
            "write_time": at
            + pl.Series(random.integers(0, 30 * 86_400, history) * 1_000_000).cast(pl.Duration("us")),
            "is_deleted": random.random(history) < 0.01,
            **{name: random.random(history) for name in FEATURES},
        }
    ).with_columns(pl.col("at", "write_time").dt.replace_time_zone("UTC"))
    frame.write_parquet(folder / "history.parquet")
    pl.DataFrame(
        {
            "id": random.integers(0, records, labels),
            "asked_at": moments(labels),
            "label": random.integers(0, 2, labels),
        }
    ).with_columns(pl.col("asked_at").dt.replace_time_zone("UTC")).write_parquet(folder / "labels.parquet")


def _spec() -> Any:
    from ml_contract.features.as_of import AsOf

    return AsOf(
        identifier="id",
        label_time="asked_at",
        event_time="at",
        features=FEATURES,
        write_time="write_time",
        deleted="is_deleted",
        cutoff=CUTOFF,
    )


def _timed(work: Callable[[], float]) -> dict[str, Any]:
    seconds, checksum = [], 0.0
    for _ in range(ROUNDS):
        started = time.perf_counter()
        checksum = work()
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes on Linux
    return {"seconds": seconds, "checksum": round(checksum, 3), "peak_gib": peak / 2**20}


def _polars(task: str, folder: Path) -> dict[str, Any]:
    import polars as pl
    from ml_contract.features.as_of import as_of

    def as_known() -> float:
        made = as_of(
            pl.read_parquet(folder / "labels.parquet"), pl.read_parquet(folder / "history.parquet"), _spec()
        )
        return float(made["f0"].sum())

    def plain() -> float:
        labels = pl.read_parquet(folder / "labels.parquet").sort("asked_at")
        history = pl.read_parquet(folder / "history.parquet").sort("at")
        joined = labels.join_asof(history, left_on="asked_at", right_on="at", by="id", check_sortedness=False)
        return float(joined["f0"].sum())

    return _timed(as_known if task == "as_of" else plain)


def _spark(task: str, folder: Path) -> dict[str, Any]:
    from ml_contract.features.as_of import as_of
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as sf

    from rehearsal.executors.spark import spark_environment

    os.environ.update(spark_environment(folder))
    os.environ["PYSPARK_SUBMIT_ARGS"] = os.environ["PYSPARK_SUBMIT_ARGS"].replace(
        "spark.driver.memory=1g", "spark.driver.memory=6g"
    )
    spark = SparkSession.builder.getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    # A join of its own, not one that a small table shortens.
    spark.conf.set("spark.sql.autoBroadcastJoinThreshold", "-1")

    def tables() -> tuple[Any, Any]:
        return (
            spark.read.parquet(str(folder / "labels.parquet")),
            spark.read.parquet(str(folder / "history.parquet")),
        )

    def total(frame: Any) -> float:
        # Every column is asked for, so that every one is computed.
        return float(frame.agg(*(sf.sum(name) for name in FEATURES)).first()[0] or 0.0)

    def as_known() -> float:
        labels, history = tables()
        return total(as_of(labels, history, _spec()))

    def plain() -> float:
        labels, history = tables()
        return total(labels.withColumnRenamed("asked_at", "at").join(history, ["id", "at"], "left"))

    return _timed(as_known if task == "as_of" else plain)


def main(arguments: list[str]) -> None:
    """Run one task and print its figures as JSON."""
    task, place, history, labels = arguments
    folder = Path(place)
    if task == "make":
        _make(folder, int(history), int(labels))
        print("{}")
        return
    engine, _, what = task.partition("-")
    print(json.dumps((_polars if engine == "polars" else _spark)(what, folder)))


if __name__ == "__main__":
    main(sys.argv[1:])
