"""Export: a model that another image trained becomes a model folder, or is refused with the reason.

SageMaker's XGBoost leaves a booster, a script a booster or an ONNX model of its own. The folder gets the
contract and the fitted transform of the same execution, so that serving and judging need nothing else.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import pathlib
import tarfile
import tempfile
from typing import Any

import numpy as np
import polars as pl
import xgboost as xgb
from ml_contract.algorithms.xgboost import OBJECTIVES
from ml_contract.compiled import CompiledContract
from ml_contract.features.fit import Fitted
from ml_runtime import model as files
from ml_runtime.archive import unpack
from ml_runtime.job import BadInputError, base_folder, only_file, say
from ml_runtime.tables import parquet_files
from ml_trainer.proof import Proof, compare

from ml_training.export import TOLERANCE, prove_equal, to_onnx

#: Names that a booster has: SageMaker's XGBoost, ours, and XGBoost's JSON.
BOOSTERS = ("xgboost-model", files.BOOSTER_FILE, "model.json")
#: What a script's own model says of the validation matrix, one row each; NumPy's format without objects.
SCORES_FILE = "validation-scores.npy"


def adopt() -> None:
    """Read ``input/{contract,model,transform,validation}``, write ``output/exported/model.tar.gz``."""
    folder = base_folder() / "processing"
    given = folder / "input"
    contract_text = only_file(given / "contract", ".json").read_text()
    contract = CompiledContract.from_json(contract_text)
    fitted_file = given / "transform" / files.FITTED_FILE
    if not fitted_file.is_file():
        raise BadInputError(f"{fitted_file} is missing; check the job's inputs")
    fitted_text = fitted_file.read_text()
    columns = Fitted.from_json(fitted_text).output_names
    matrix = _matrix(given / "validation", columns)
    with tempfile.TemporaryDirectory() as scratch:
        unpacked = pathlib.Path(scratch)
        unpack(only_file(given / "model", ".tar.gz"), unpacked)
        content = _model(unpacked, contract, matrix)
        content |= {
            files.CONTRACT_FILE: contract.to_json().encode(),
            files.FITTED_FILE: fitted_text.encode(),
        }
        (unpacked / "folder").mkdir()
        for name, data in content.items():
            (unpacked / "folder" / name).write_bytes(data)
        # Read as serving reads it: what does not belong together fails here.
        model = files.Model.load(unpacked / "folder")
        _check_scores(model.scores(matrix), contract)
    target = folder / "output" / "exported" / "model.tar.gz"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(_packed(content))


def _matrix(folder: pathlib.Path, columns: list[str]) -> files.Matrix:
    found = parquet_files(folder)
    if not found:
        raise BadInputError(f"{folder} holds no Parquet file; check the job's inputs")
    frame = pl.concat([pl.read_parquet(path) for path in found])
    return np.ascontiguousarray(frame.select(columns).to_numpy(), dtype=np.float32)


def _model(unpacked: pathlib.Path, contract: CompiledContract, matrix: files.Matrix) -> dict[str, bytes]:
    """Return the model's files, ONNX first; what a booster says is proven to be the same."""
    known = _metadata(unpacked)
    if (unpacked / files.MODEL_FILE).is_file():
        onnx_model = (unpacked / files.MODEL_FILE).read_bytes()
        proof = _proof_of_scores(unpacked / SCORES_FILE, onnx_model, matrix)
        return {
            files.MODEL_FILE: onnx_model,
            files.METADATA_FILE: _told(contract, onnx_model, proof, known),
        }
    found = [unpacked / name for name in BOOSTERS if (unpacked / name).is_file()]
    if len(found) != 1:
        names = sorted(path.name for path in unpacked.rglob("*") if path.is_file())
        raise BadInputError(
            f"model.tar.gz must hold {files.MODEL_FILE} or one of {', '.join(BOOSTERS)}, got {names}"
        )
    booster = _booster(found[0], contract, matrix.shape[1])
    onnx_model = to_onnx(booster, matrix.shape[1])
    proof = prove_equal(booster, onnx_model, matrix)
    say(f"onnx equals the booster on {proof.rows} rows within {proof.largest_difference:.2g}")
    return {
        files.MODEL_FILE: onnx_model,
        files.BOOSTER_FILE: bytes(booster.save_raw("ubj")),
        files.METADATA_FILE: _told(
            contract, onnx_model, proof, {"rounds": booster.num_boosted_rounds(), **known}
        ),
    }


def _booster(path: pathlib.Path, contract: CompiledContract, columns: int) -> xgb.Booster:
    booster = xgb.Booster()
    try:
        booster.load_model(bytearray(path.read_bytes()))
    except xgb.core.XGBoostError as error:
        reason = str(error).strip().splitlines()[-1]
        raise BadInputError(
            f"{path.name} is no model that XGBoost {xgb.__version__} reads: {reason}"
        ) from error
    task = contract.label.task
    objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    if objective not in OBJECTIVES[task]:
        raise BadInputError(
            f"the model was trained for {objective!r}; a {task} label needs {' or '.join(OBJECTIVES[task])}, "
            "set training.hyperparameters.objective"
        )
    if booster.num_features() != columns:
        raise BadInputError(
            f"the model takes {booster.num_features()} columns, the fitted transform makes {columns}; "
            "they are of different trainings"
        )
    best = booster.attributes().get("best_iteration")
    # Early stopping keeps the trees after the best one.
    return booster if best is None else booster[: int(best) + 1]


def _proof_of_scores(path: pathlib.Path, onnx_model: bytes, matrix: files.Matrix) -> Proof | None:
    """Return the proof, when the script left its own scores of the validation matrix to compare with."""
    if not path.is_file():
        say(f"there is no {path.name}: nothing to compare the ONNX model with")
        return None
    try:
        expected = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise BadInputError(f"{path.name} is no array of numbers: {error}") from error
    if len(expected) != len(matrix):
        raise BadInputError(f"{path.name} has {len(expected)} rows, the validation matrix {len(matrix)}")
    return compare(np.asarray(expected), onnx_model, matrix, tolerance=TOLERANCE)


def _check_scores(scores: files.Scores, contract: CompiledContract) -> None:
    """Refuse answers that are none: not finite, of the wrong width, no probabilities."""
    task, classes = contract.label.task, len(contract.label.values or ())
    wanted = (len(scores), classes) if task == "multiclass" else (len(scores),)
    if scores.shape != wanted:
        raise BadInputError(f"model.onnx answers {scores.shape}, a {task} label needs {wanted}")
    if not np.isfinite(scores).all():
        raise BadInputError("model.onnx answers with numbers that are not finite")
    if task != "regression" and (scores.min() < 0 or scores.max() > 1 + TOLERANCE):
        raise BadInputError(
            f"model.onnx answers {scores.min():g} to {scores.max():g}; a {task} label needs probabilities"
        )


def _metadata(unpacked: pathlib.Path) -> dict[str, Any]:
    path = unpacked / files.METADATA_FILE
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise BadInputError(f"{path.name} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadInputError(f"{path.name} must hold an object, got {type(found).__name__}")
    return found


def _told(contract: CompiledContract, onnx_model: bytes, proof: Proof | None, known: dict[str, Any]) -> bytes:
    metadata = {
        **known,
        "task": contract.label.task,
        "algorithm": contract.training.get("algorithm"),
        "balance": contract.training.get("balance", "none"),
        "onnx": {
            **({} if proof is None else dataclasses.asdict(proof)),
            "sha256": hashlib.sha256(onnx_model).hexdigest(),
        },
    }
    return (json.dumps(metadata, indent=1, sort_keys=True) + "\n").encode()


def _packed(content: dict[str, bytes]) -> bytes:
    """The same files give the same bytes."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for name, data in sorted(content.items()):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()
