"""Judges a trained model on the test split, through the same files that the serving image loads."""

from __future__ import annotations

import json
import pathlib
import tempfile

import numpy as np
from ml_contract.compiled import CompiledContract
from ml_runtime.archive import unpack
from ml_runtime.job import BadInputError, base_folder, only_file, say
from ml_runtime.model import Model
from ml_runtime.tables import read_table

from ml_processing.metrics import evaluate_scores


def evaluate() -> None:
    """Score the test split and write ``evaluation.json``."""
    folder = base_folder() / "processing"
    contract = CompiledContract.from_json(only_file(folder / "input" / "contract", ".json").read_bytes())
    frame, skipped = read_table(folder / "input" / "test", contract.feature_columns())
    if skipped:
        raise BadInputError(f"the test split cannot be read: {skipped[0].file}: {skipped[0].reason}")
    if not frame.height:
        raise BadInputError("the test split holds no rows")
    with tempfile.TemporaryDirectory() as scratch:
        unpacked = pathlib.Path(scratch)
        unpack(only_file(folder / "input" / "model", ".tar.gz"), unpacked)
        model = Model.load(unpacked)
    if model.contract.to_json() != contract.to_json():
        raise BadInputError(
            "the model was trained by another contract than the one given; run the pipeline as a whole"
        )
    scores = model.scores(model.fitted.matrix(frame))
    if contract.label.values is None:
        labels = frame[contract.label.field].to_numpy()
    else:
        positions = {value: position for position, value in enumerate(contract.label.values)}
        labels = np.array([positions[value] for value in frame[contract.label.field]], dtype=np.int64)
    evaluation = evaluate_scores(contract.label.task, labels, scores, contract.decision_threshold)
    target = folder / "output" / "evaluation" / "evaluation.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(evaluation, indent=1, allow_nan=False) + "\n")
    found = ", ".join(
        f"{name} {metric['value']:.4f} ± {metric['standard_deviation']:.4f}"
        for name, metric in evaluation["metrics"].items()
    )
    say(f"evaluated {evaluation['rows']} rows: {found}")
