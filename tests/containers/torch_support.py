"""Training jobs for the PyTorch image, laid out without the prepare step."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from container_support import features_of, make_contract, make_records
from ml_contract.compiled import CompiledContract
from ml_contract.features.fit import fit

#: A network small enough that a round is a matter of milliseconds.
SMALL = {"width": 8, "blocks": 1, "batch_size": 32, "learning_rate": 0.01, "threads": 1, "rounds": 6}


def lay_out(
    base: pathlib.Path, task: str, *, rows: int = 160, given: dict[str, Any] | None = None, **replaced: str
) -> CompiledContract:
    """Write the channels and hyperparameters of a training job below ``base``; return its contract."""
    contract = make_contract(base / "workload", task, **replaced)
    frame = features_of(make_records(task, rows), contract)
    held = rows // 4
    data = base / "input/data"
    for name, part in (("train", frame[held:]), ("validation", frame[:held])):
        (data / name).mkdir(parents=True)
        part.write_parquet(data / name / "data.parquet")
    (data / "transform").mkdir()
    (data / "transform/fitted.json").write_text(fit(frame[held:], contract).to_json())
    (data / "contract").mkdir()
    (data / "contract/contract.json").write_text(contract.to_json())
    (base / "input/config").mkdir(parents=True)
    ask(base, {**SMALL, **(given or {})})
    return contract


def ask(base: pathlib.Path, given: dict[str, Any]) -> None:
    """Write the hyperparameters, as texts."""
    path = base / "input/config/hyperparameters.json"
    path.write_text(json.dumps({name: str(value) for name, value in given.items()}))
