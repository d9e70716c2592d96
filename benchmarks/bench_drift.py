"""Drift of a table beside one scan of the same Parquet, and beside Evidently.

Both read the table from its file. Ours judges every column against the stored baseline (its sketches, as they
travel with a model package) as the monitor's image does, chances and their correction included: by every
distance there is, each on the columns that it fits. Evidently, which keeps no sketch, reads the baseline's
rows too and computes the population stability index alone.

Evidently has an environment of its own, which uv makes on demand (``EVIDENTLY_PYTHON`` names another); where
no package index can be reached its row is left out, and why stands in the raw figures. ``BENCH_DRIFT_ROWS``
takes another number of rows.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "containers" / "shared")]

from ml_statistics.checks import Observed, judge, suggest_constraints  # noqa: E402 - what the images share
from ml_statistics.describe import Kind, describe  # noqa: E402
from ml_statistics.drift import Distance, Rule  # noqa: E402

from benchmarks.result import Result, Row  # noqa: E402
from tools.evidently.environment import EvidentlyError  # noqa: E402
from tools.evidently.environment import run as run_evidently  # noqa: E402

NUMBERS, CATEGORIES = 10, 6
ROWS = int(os.environ.get("BENCH_DRIFT_ROWS", "1000000"))
ROUNDS = 3
GOAL_SCAN, GOAL_EVIDENTLY = 4.0, 20.0
#: Of each kind of column the distances that fit it; the first are a workload's default, which has the goal.
DISTANCES: tuple[dict[Kind, Distance], ...] = (
    {"number": "psi", "category": "psi"},
    {"number": "js", "category": "js"},
    {"number": "ks", "category": "ks"},
    {"number": "wasserstein", "category": "chi2"},
)
THRESHOLDS: dict[Distance, float] = {"psi": 0.1, "js": 0.1, "ks": 0.05, "wasserstein": 0.1, "chi2": 0.05}
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


def judged(
    file: Path, statistics: dict[str, Any], constraints: dict[str, Any], which: dict[Kind, Distance]
) -> set[str]:
    """Read a table and return the columns that drifted."""
    frame = pl.read_parquet(file)
    named = dict.fromkeys(frame.columns, frame.height)
    judgement = judge(
        Observed(frame.height, frame, named, {}),
        statistics,
        constraints,
        rule_of=lambda name: Rule(which[KINDS[name]], THRESHOLDS[which[KINDS[name]]]),
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
        for which in DISTANCES:
            found = judged(live, statistics, constraints, which)
            if found != moved:
                raise RuntimeError(f"{_named(which)} must find {sorted(moved)}, found {sorted(found)}")
        seconds = _best_in_turns(
            {
                "scan": lambda: pl.read_parquet(live),
                **{
                    _named(which): partial(judged, live, statistics, constraints, which)
                    for which in DISTANCES
                },
            }
        )
        table = f"{ROWS:,} rows x {len(KINDS)} columns"
        rows = [
            Row(
                what=f"{_named(which)} of {table} against a stored baseline / one scan of the same Parquet",
                value=seconds[_named(which)] / seconds["scan"],
                unit="x",
                goal=GOAL_SCAN if which is DISTANCES[0] else None,
                at_most=True,
            )
            for which in DISTANCES
        ]
        raw: dict[str, Any] = {"rows": ROWS, "seconds": seconds}
        try:
            seconds["evidently"] = _evidently(folder, before, live)
        except EvidentlyError as error:
            raw["evidently_left_out"] = str(error)
        else:
            rows.append(
                Row(
                    what=f"Evidently's psi of the same columns / ours, {table}",
                    value=seconds["evidently"] / seconds["psi"],
                    unit="x",
                    goal=GOAL_EVIDENTLY,
                    at_most=False,
                )
            )
    return Result(name="drift", rows=tuple(rows), raw=raw)


def _best_in_turns(functions: dict[str, Callable[[], object]]) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            seconds[name] = min(seconds.get(name, np.inf), time.perf_counter() - started)
    return seconds


def _named(which: dict[Kind, Distance]) -> str:
    return " and ".join(dict.fromkeys(which.values()))


def _evidently(folder: Path, before: Path, live: Path) -> float:
    """Seconds that Evidently takes from both files to the numbers, its import not counted."""
    columns = folder / "columns.json"
    columns.write_text(
        json.dumps({name: {"kind": kind, "method": "psi", "threshold": 0.1} for name, kind in KINDS.items()})
    )
    return float(run_evidently([str(before), str(live), str(columns), "--time"]).split()[-1])
