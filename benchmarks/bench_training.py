"""The training image beside the bare library: XGBoost's hist method on the same rows, side by side.

Two things are compared, in turns, so that a busy machine slows both. The rounds: our loop, which measures,
reports, judges and could stop after each, against ``xgboost.train`` that measures the same. And all of it:
our program from the Parquet of its channels to the model folder, against a script that reads the same
Parquet, trains and saves the booster; what the image does beyond that (the ONNX export and its proof, the
digests) is told apart.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import Result, Row

ROOT = Path(__file__).resolve().parents[1]
#: Rows of the training split; ``BENCH_TRAINING_ROWS`` takes fewer for a quick look.
ROWS = 1_000_000
COLUMNS = 20
TREES = 30
TURNS = 3
#: How much longer than the bare library, at most.
GOAL = 1.05
IMAGE_PATHS = ("contract", "containers/shared", "lambda", "containers/training")
PARAMETERS = {"max_depth": "6", "eta": "0.1", "subsample": "0.8", "colsample_bytree": "0.8"}

#: What somebody would write by hand.
BARE = """
import sys
import numpy as np, polars as pl, xgboost as xgb
data = sys.argv[1] + "/input/data/"
parts = {name: pl.read_parquet(f"{data}{name}/*.parquet") for name in ("train", "validation")}
columns = [name for name in parts["train"].columns if name.startswith("x")]
matrices = [
    xgb.DMatrix(part.select(columns).to_numpy().astype(np.float32), (part["label"] == "yes").to_numpy())
    for part in parts.values()
]
booster = xgb.train(
    {"objective": "binary:logistic", "tree_method": "hist", "eval_metric": ["auc", "logloss"],
     "max_depth": 6, "eta": 0.1, "subsample": 0.8, "colsample_bytree": 0.8},
    matrices[0], int(sys.argv[2]), evals=list(zip(matrices, parts)), verbose_eval=False)
booster.save_model(sys.argv[1] + "/bare.ubj")
"""


def run() -> Result:
    """Measure in turns; the first turn of each warms up."""
    for folder in IMAGE_PATHS:
        sys.path.insert(0, str(ROOT / folder))
    rows = int(os.environ.get("BENCH_TRAINING_ROWS", ROWS))
    table, labels = _table(rows)
    loops = _in_turns({"bare": _bare_loop(table, labels), "ours": _our_loop(table, labels)})
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        _lay_out(base, table, labels)
        programs = _in_turns({"bare": _program(base, bare=True), "ours": _program(base, bare=False)})
    typical = {
        f"{what} {who}": statistics.median(of[1:])
        for what, found in (("loop", loops), ("program", programs))
        for who, of in found.items()
    }
    return Result(
        name="training",
        rows=(
            Row(
                what=f"rounds of the image / of xgboost.train, {rows:,} rows of {COLUMNS} columns",
                value=typical["loop ours"] / typical["loop bare"],
                goal=GOAL,
            ),
            Row(
                what="the image from Parquet to model folder / a script by hand that saves a booster",
                value=typical["program ours"] / typical["program bare"],
            ),
        ),
        raw={"rows": rows, "trees": TREES, "loops": loops, "programs": programs},
    )


def _table(rows: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return numbers with gaps, and labels that depend on some of them; a tenth more rows for validation."""
    rng = np.random.default_rng(7)
    table = rng.normal(size=(rows + rows // 10, COLUMNS)).astype(np.float32)
    score = table[:, 0] + table[:, 1] * table[:, 2] + rng.normal(size=len(table))
    table[rng.random(table.shape) < 0.05] = np.nan
    return table, (score > 0).astype(np.float32)


def _in_turns(works: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Return seconds of each, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(TURNS + 1):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def _parts(table: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    import xgboost as xgb

    held = len(table) // 11
    return xgb.DMatrix(table[:-held], labels[:-held]), xgb.DMatrix(table[-held:], labels[-held:])


def _bare_loop(table: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> Callable[[], None]:
    def work() -> None:
        import xgboost as xgb

        train, validation = _parts(table, labels)
        xgb.train(
            {
                "objective": "binary:logistic",
                "tree_method": "hist",
                "eval_metric": ["auc", "logloss"],
                **{name: float(value) for name, value in PARAMETERS.items() if name != "max_depth"},
                "max_depth": int(PARAMETERS["max_depth"]),
            },
            train,
            TREES,
            evals=[(train, "train"), (validation, "validation")],
            verbose_eval=False,
        )

    return work


def _our_loop(table: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> Callable[[], None]:
    def work() -> None:
        from ml_trainer.checkpoints import Checkpoints
        from ml_trainer.interruption import Interruption
        from ml_trainer.rules import Rules
        from ml_trainer.tracking import Tracking
        from ml_training.boost import boost
        from ml_training.hyperparameters import read_hyperparameters
        from ml_training.train import Attendant

        # All that judge a round; none ends the measurement.
        rules = {name: {"action": "note"} for name in ("loss_not_decreasing", "overfit", "exploding")}
        attendant = Attendant(
            rules=Rules(rules, loss="logloss"),
            tracking=Tracking("bench", {}),
            checkpoints=Checkpoints(None, training="bench"),
            interruption=Interruption(),
            state={},
        )
        wanted = read_hyperparameters({**PARAMETERS, "rounds": str(TREES)}, "binary", 2)
        with contextlib.redirect_stdout(io.StringIO()):
            boost(wanted, *_parts(table, labels), watch=attendant)

    return work


def _lay_out(base: Path, table: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
    """Write the channels of a training job, as the prepare step would."""
    import polars as pl
    from ml_contract.features.fit import fit
    from ml_contract.load import load_workload

    fields = "\n".join(f"    x{number}: {{type: number}}" for number in range(COLUMNS))
    home = base / "bench"
    home.mkdir()
    (home / "workload.yaml").write_text(
        "version: 1\nname: bench\ntitle: Bench\nowner: bench@example.com\n"
        "record:\n  identifier: id\n  event_time: at\n  fields:\n"
        "    id: {type: string, required: true, max_length: 20}\n"
        "    at: {type: timestamp, required: true}\n"
        f"{fields}\n    label: {{type: string, allowed: ['no', 'yes']}}\n"
        "label: {task: binary, field: label, values: ['no', 'yes']}\n"
        "acceptance: {metric: auc, at_least: 0.5}\n"
    )
    contract = load_workload(home).compiled
    frame = pl.DataFrame(
        {
            "id": [str(number) for number in range(len(table))],
            "at": ["2026-01-01T00:00:00Z"] * len(table),
            "label": np.where(labels > 0, "yes", "no"),
            **{f"x{number}": table[:, number].astype(np.float64) for number in range(COLUMNS)},
        }
    ).fill_nan(None)
    held = len(table) // 11
    data = base / "input" / "data"
    for name, part in (("train", frame[:-held]), ("validation", frame[-held:])):
        (data / name).mkdir(parents=True)
        part.write_parquet(data / name / "data.parquet")
    (data / "contract").mkdir()
    (data / "contract" / "contract.json").write_text(contract.to_json())
    (data / "transform").mkdir()
    (data / "transform" / "fitted.json").write_text(fit(frame[:-held], contract).to_json())
    (base / "input" / "config").mkdir()
    (base / "input" / "config" / "hyperparameters.json").write_text(
        json.dumps({**PARAMETERS, "rounds": str(TREES)})
    )


def _program(base: Path, *, bare: bool) -> Callable[[], None]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(ROOT / path) for path in IMAGE_PATHS),
        "SAGEMAKER_BASE_DIR": str(base),
    }
    words = ["-c", BARE, str(base), str(TREES)] if bare else ["-m", "ml_training", "train"]

    def work() -> None:
        done = subprocess.run(
            [sys.executable, *words], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])

    return work
