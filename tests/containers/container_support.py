"""Three small workloads, one per task, and what the images make of them."""

from __future__ import annotations

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from typing import Any

import polars as pl
from ml_contract.compiled import CompiledContract
from ml_contract.features.frame import feature_frame
from ml_contract.load import load_workload
from ml_contract.records.codec import Record, RecordCodec

ROOT = pathlib.Path(__file__).resolve().parents[2]
TASKS = ("binary", "multiclass", "regression")

WORKLOAD = """
version: 1
name: trips
title: Trips of a small fleet
owner: fleet@example.com
record:
  identifier: trip_id
  event_time: started_at
  fields:
    trip_id: {{type: string, required: true, pattern: "[a-z0-9-]{{1,20}}"}}
    started_at: {{type: timestamp, required: true}}
    distance: {{type: number, source: distance-km, minimum: 0}}
    passengers: {{type: integer, minimum: 0, maximum: 9}}
    weather: {{type: string, allowed: [dry, rain, snow], missing: ["?"]}}
    driver: {{type: string}}
    electric: {{type: boolean}}
    booked_on: {{type: date, format: "%d.%m.%Y"}}
    outcome: {label_type}
label: {label}
features:
  derive:
    start_hour: {{kind: date_part, field: started_at, part: hour}}
    lead_days: {{kind: days_between, since: booked_on, until: started_at}}
training:
  hyperparameters: {{max_depth: 3, eta: 0.2}}
  rounds: 40
  early_stopping_rounds: 10
  split: {{train: 0.6, validation: 0.2, test: 0.2, strategy: stratified, seed: 3}}
acceptance: {acceptance}
{serving}
monitoring: {{minimum_records: 50, drift: {{distance: psi, threshold: 0.25}}}}
"""
LABELS = {
    "binary": (
        '{type: string, allowed: ["on time", "late"]}',
        '{task: binary, field: outcome, values: ["on time", "late"]}',
        "{metric: auc, at_least: 0.6}",
    ),
    "multiclass": (
        "{type: string, allowed: [early, even, late]}",
        "{task: multiclass, field: outcome, values: [early, even, late]}",
        "{metric: macro_f1, at_least: 0.4}",
    ),
    "regression": (
        "{type: number}",
        "{task: regression, field: outcome}",
        "{metric: rmse, at_most: 20}",
    ),
}


def make_contract(folder: pathlib.Path, task: str, **replaced: str) -> CompiledContract:
    """Load the trips workload for one task; ``replaced`` swaps texts of its YAML."""
    label_type, label, acceptance = LABELS[task]
    serving = "serving: {decision_threshold: 0.45}" if task == "binary" else ""
    text = WORKLOAD.format(label_type=label_type, label=label, acceptance=acceptance, serving=serving)
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    home = folder / "trips"
    home.mkdir(parents=True, exist_ok=True)
    (home / "workload.yaml").write_text(text)
    return load_workload(home).compiled


def make_records(
    task: str, count: int, seed: int = 1, *, snow: float = 0.1, scale: float = 1.0
) -> list[dict[str, Any]]:
    """Make raw records under source names whose outcome depends on distance, weather and hour."""
    rng = random.Random(seed)
    records = []
    for number in range(count):
        distance = round(rng.lognormvariate(2, 0.6) * scale, 2)
        weather = rng.choices(["dry", "rain", "snow", "?"], [0.6 - snow, 0.3, snow, 0.1])[0]
        hour = rng.randrange(24)
        delay = (
            distance * 2 + {"dry": 0, "rain": 8, "snow": 25, "?": 5}[weather] + (10 if 7 <= hour <= 9 else 0)
        )
        delay += rng.gauss(0, 6)
        outcome: object = round(delay, 3)
        if task == "binary":
            outcome = "late" if delay > 25 else "on time"
        elif task == "multiclass":
            outcome = "late" if delay > 28 else "even" if delay > 16 else "early"
        record: dict[str, Any] = {
            "trip_id": f"t-{seed}-{number}",
            "started_at": f"2026-{1 + number % 6:02d}-{1 + number % 28:02d}T{hour:02d}:30:00Z",
            "distance-km": distance,
            "passengers": rng.randrange(5),
            "weather": weather,
            "driver": rng.choice(["ann", "bob", "çem", "dee, jr"]),
            "electric": rng.random() < 0.4,
            "booked_on": f"{1 + rng.randrange(28):02d}.01.2026",
            "outcome": outcome,
        }
        for name in ("distance-km", "passengers", "driver", "electric", "booked_on"):
            if rng.random() < 0.04:
                del record[name]
        records.append(record)
    return records


POLARS = {
    "integer": pl.Int64,
    "number": pl.Float64,
    "string": pl.String,
    "boolean": pl.Boolean,
    "date": pl.String,
    "timestamp": pl.String,
}


def typed_frame(records: list[dict[str, Any]], contract: CompiledContract) -> pl.DataFrame:
    """Return raw records as the curated table has them."""
    codec = RecordCodec(contract)
    rows = []
    for record in records:
        decoded = codec.decode(json.dumps(record).encode())
        assert isinstance(decoded, Record), decoded
        rows.append(decoded.values)
    frame = pl.DataFrame(rows, schema={c.name: POLARS[c.type] for c in contract.columns}, orient="row")
    dates = [pl.col(c.name).str.to_date() for c in contract.columns if c.type == "date"]
    moments = [
        pl.col(c.name).str.to_datetime(time_unit="us", time_zone="UTC").dt.replace_time_zone(None)
        for c in contract.columns
        if c.type == "timestamp"
    ]
    return frame.with_columns(*dates, *moments)


def features_of(records: list[dict[str, Any]], contract: CompiledContract) -> pl.DataFrame:
    """Return raw records as the features table has them."""
    return feature_frame(typed_frame(records, contract), contract)


def write_features(frame: pl.DataFrame, contract: CompiledContract, folder: pathlib.Path) -> None:
    """Write the features zone: one file per month."""
    for (month,), part in frame.group_by(pl.col(contract.event_time).str.slice(0, 7), maintain_order=True):
        target = folder / f"event_month={month}"
        target.mkdir(parents=True, exist_ok=True)
        part.write_parquet(target / "part-0.parquet")


IMAGE_PATHS = {
    name: os.pathsep.join(
        str(ROOT / part)
        # The lines of the log are those of the functions.
        for part in ("contract", "containers/shared", "lambda", f"containers/{name}", *more)
    )
    for name, more in {
        "processing": (),
        "training": (),
        "training_torch": (),
        "serving": (),
        "monitoring": (),
        "batch": ("glue",),
    }.items()
}


def image_environment(image: str, base: pathlib.Path, **extra: str) -> dict[str, str]:
    """Return the environment of a container: its own packages and nothing else of ours."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "SAGEMAKER_"))}
    return {**kept, "PYTHONPATH": IMAGE_PATHS[image], "SAGEMAKER_BASE_DIR": str(base), **extra}


def run_image(
    image: str, base: pathlib.Path, *arguments: str, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run an image's program as SageMaker does."""
    command = [sys.executable, "-W", "error", "-m", f"ml_{image}", *arguments]
    return subprocess.run(
        command,
        env=image_environment(image, base, **extra),
        cwd=base,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@dataclass(frozen=True)
class Trained:
    """A workload taken through prepare, train and evaluate."""

    task: str
    contract: CompiledContract
    records: list[dict[str, Any]]
    folder: pathlib.Path
    evaluation: dict[str, Any]
    training_log: str

    @property
    def prepared(self) -> pathlib.Path:
        """Where the prepare step wrote."""
        return self.folder / "prepare/processing/output"

    @property
    def model(self) -> pathlib.Path:
        """The model folder."""
        return self.folder / "train/model"


def prepare_inputs(base: pathlib.Path, contract: CompiledContract) -> pathlib.Path:
    """Lay out the prepare step's inputs but the features, whose folder is returned."""
    inputs = base / "processing/input"
    (inputs / "contract").mkdir(parents=True)
    (inputs / "contract" / "any-name.json").write_text(contract.to_json())
    (inputs / "features").mkdir()
    return inputs / "features"


def training_inputs(base: pathlib.Path, prepared: pathlib.Path, contract: CompiledContract) -> None:
    """Lay out the training job's channels and hyperparameters."""
    data = base / "input/data"
    data.mkdir(parents=True)
    for name in ("train", "validation", "transform"):
        shutil.copytree(prepared / name, data / name)
    (data / "contract").mkdir()
    (data / "contract/contract.json").write_text(contract.to_json())
    wanted = {**contract.training["hyperparameters"]}
    wanted |= {name: contract.training[name] for name in ("rounds", "early_stopping_rounds")}
    (base / "input/config").mkdir()
    (base / "input/config/hyperparameters.json").write_text(
        json.dumps({name: str(value) for name, value in wanted.items()})
    )


def evaluation_inputs(
    base: pathlib.Path, model: pathlib.Path, prepared: pathlib.Path, contract: CompiledContract
) -> None:
    """Lay out the evaluate step's inputs."""
    inputs = base / "processing/input"
    (inputs / "model").mkdir(parents=True)
    with tarfile.open(inputs / "model/model.tar.gz", "w:gz") as tar:
        for path in sorted(model.iterdir()):
            tar.add(path, path.name)
    shutil.copytree(prepared / "test", inputs / "test")
    (inputs / "contract").mkdir()
    (inputs / "contract/contract.json").write_text(contract.to_json())


def train_workload(task: str, folder: pathlib.Path) -> Trained:
    contract = make_contract(folder, task)
    records = make_records(task, 500)
    prepare, train, evaluate = (folder / name for name in ("prepare", "train", "evaluate"))
    write_features(features_of(records, contract), contract, prepare_inputs(prepare, contract))
    done = run_image("processing", prepare, "prepare")
    assert done.returncode == 0, done.stderr
    prepared = prepare / "processing/output"
    training_inputs(train, prepared, contract)
    trained = run_image("training", train, "train")
    assert trained.returncode == 0, trained.stderr
    evaluation_inputs(evaluate, train / "model", prepared, contract)
    done = run_image("processing", evaluate, "evaluate")
    assert done.returncode == 0, done.stderr
    evaluation = json.loads((evaluate / "processing/output/evaluation/evaluation.json").read_text())
    return Trained(task, contract, records, folder, evaluation, trained.stdout)
