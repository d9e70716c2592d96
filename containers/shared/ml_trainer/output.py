"""The model folder: the same files whatever the algorithm."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from typing import Any

from ml_runtime import model as files

from ml_trainer.data import Inputs
from ml_trainer.proof import Proof


def write_model(inputs: Inputs, onnx_model: bytes, proof: Proof, metadata: dict[str, Any]) -> dict[str, Any]:
    """Write the model, its contract, its transform and what is known of its training; return the latter."""
    target = inputs.model_folder
    target.mkdir(parents=True, exist_ok=True)
    (target / files.MODEL_FILE).write_bytes(onnx_model)
    (target / files.CONTRACT_FILE).write_text(inputs.contract.to_json())
    (target / files.FITTED_FILE).write_text(inputs.fitted_text)
    complete = {
        "task": inputs.contract.label.task,
        "training_job": os.environ.get("TRAINING_JOB_NAME"),
        "columns": inputs.fitted.output_names,
        "balance": inputs.settings.get("balance", "none"),
        "data_sha256": {name: inputs.digest(name) for name in ("train", "validation")},
        "onnx": {**dataclasses.asdict(proof), "sha256": hashlib.sha256(onnx_model).hexdigest()},
        **metadata,
    }
    (target / files.METADATA_FILE).write_text(json.dumps(complete, indent=1, sort_keys=True) + "\n")
    return complete
