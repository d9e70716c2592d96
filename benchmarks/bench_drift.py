"""Drift of a table beside one scan of the same Parquet, and beside Evidently.

Both read the table from its file. Ours judges every column against the stored baseline (its sketches, as they
travel with a model package) as the monitor's image does, chances and their correction included. Evidently,
which keeps no sketch, reads the baseline's rows too and computes the population stability index alone.

Evidently is no dependency of this project: name the Python of an environment that has it in
``EVIDENTLY_PYTHON``, or its row is left out. ``BENCH_DRIFT_ROWS`` takes another number of rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from ml_statistics.checks import Observed, judge, suggest_constraints
from ml_statistics.describe import Kind, describe
from ml_statistics.drift import Distance, Rule

from benchmarks.result import Result, Row

NUMBERS, CATEGORIES = 10, 6
ROWS = int(os.environ.get("BENCH_DRIFT_ROWS", "1000000"))
ROUNDS = 3
GOAL_SCAN, GOAL_EVIDENTLY = 4.0, 20.0
THRESHOLDS: dict[Distance, float] = {"psi": 0.1, "ks": 0.05}
KINDS: dict[str, Kind] = {
    **{f"number_{n}": "number" for n in range(NUMBERS)},
    **{f"category_{n}": "category" for n in range(CATEGORIES)},
}


def made_up(rows: int, *, seed: int, moved: float = 0.0) -> pl.DataFrame:
    """Return a table of which every fourth column has moved."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    for place, (name, kind) in enumerate(KINDS.items()):
        shift = moved if place % 4 == 0 else 0.0
        if kind == "number":
            columns[name] = rng.normal(shift, 1, rows) if place % 2 else rng.lognormal(shift, 1, rows)
        else:
            share = np.linspace(1, 2, 12) ** (1 + 4 * shift)
            values = np.array([f"value {letter}" for letter in "abcdefghijkl"])
            columns[name] = values[rng.choice(12, rows, p=share / share.sum())]
    return pl.DataFrame(columns)


def judged(file: Path, statistics: dict[str, Any], constraints: dict[str, Any], which: Distance) -> set[str]:
    """Read a table and return the columns that drifted."""
    frame = pl.read_parquet(file)
    named = dict.fromkeys(frame.columns, frame.height)
    judgement = judge(
        Observed(frame.height, frame, named, {}),
        statistics,
        constraints,
        rule_of=lambda _: Rule(which, THRESHOLDS[which]),
        minimum_completeness=0.95,
    )
    return {drift.feature for drift in judgement.drift if drift.drifted}


def run() -> Result:
    """Measure on a million rows of sixteen columns unless the environment says otherwise."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        before, live = folder / "before.parquet", folder / "live.parquet"
        made_up(ROWS, seed=1).write_parquet(before)
        made_up(ROWS, seed=2, moved=0.5).write_parquet(live)
        statistics = describe(pl.read_parquet(before), KINDS, integers=frozenset())
        constraints = suggest_constraints(statistics, (), drift_threshold=0.1)
        # As it is read back: through JSON.
        statistics, constraints = json.loads(json.dumps(statistics)), json.loads(json.dumps(constraints))
        moved = {name for place, name in enumerate(KINDS) if place % 4 == 0}
        for which in THRESHOLDS:
            found = judged(live, statistics, constraints, which)
            if found != moved:
                raise RuntimeError(f"{which} must find {sorted(moved)}, found {sorted(found)}")
        seconds = _best_in_turns(
            {
                "scan": lambda: pl.read_parquet(live),
                "psi": lambda: judged(live, statistics, constraints, "psi"),
                "ks": lambda: judged(live, statistics, constraints, "ks"),
            }
        )
        table = f"{ROWS:,} rows x {len(KINDS)} columns"
        rows = [
            Row(
                what=f"{which} of {table} against a stored baseline / one scan of the same Parquet",
                value=seconds[which] / seconds["scan"],
                unit="x",
                goal=GOAL_SCAN if which == "psi" else None,
                at_most=True,
            )
            for which in ("psi", "ks")
        ]
        python = os.environ.get("EVIDENTLY_PYTHON")
        if python:
            theirs = seconds["evidently"] = _evidently(python, before, live)
            rows.append(
                Row(
                    what=f"Evidently's psi of the same columns / ours, {table}",
                    value=theirs / seconds["psi"],
                    unit="x",
                    goal=GOAL_EVIDENTLY,
                    at_most=False,
                )
            )
    return Result(name="drift", rows=tuple(rows), raw={"rows": ROWS, "seconds": seconds})


def _best_in_turns(functions: dict[str, Callable[[], object]]) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            seconds[name] = min(seconds.get(name, np.inf), time.perf_counter() - started)
    return seconds


def _evidently(python: str, before: Path, live: Path) -> float:
    """Seconds that Evidently takes from both files to the numbers, its import not counted."""
    program = Path(__file__).with_name("evidently_drift.py")
    done = subprocess.run(
        [python, program, before, live], capture_output=True, text=True, check=True, timeout=1_800
    )
    return float(done.stdout.split()[-1])
