"""One training: from the prepared splits to the model folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import xgboost as xgb
from ml_contract.compiled import CompiledContract
from ml_contract.features.fit import Fitted
from ml_runtime import model as files
from ml_runtime.job import BadInputError, base_folder, only_file, say
from ml_runtime.tables import parquet_files, read_table

from ml_training.export import prove_equal, to_onnx
from ml_training.hyperparameters import Hyperparameters, read_hyperparameters

Labels = npt.NDArray[np.float32]


class RoundPrinter(xgb.callback.TrainingCallback):  # type: ignore[misc]
    """Prints ``[12] train-logloss:0.51 validation-auc:0.81``.

    One line a round, for metric definitions to read.
    """

    def after_iteration(self, model: xgb.Booster, epoch: int, evals_log: Any) -> bool:
        """Print the round."""
        del model
        values = [
            f"{split}-{metric}:{series[-1]:.6f}"
            for split, metrics in evals_log.items()
            for metric, series in metrics.items()
        ]
        say(f"[{epoch}] {' '.join(values)}")
        return False


def labels_of(frame: pl.DataFrame, contract: CompiledContract, split: str) -> Labels:
    """Return labels as numbers: a class is its position."""
    column = frame[contract.label.field]
    if column.null_count():
        raise BadInputError(
            f"{column.null_count()} rows of the {split} split have no label; the prepare step drops such rows"
        )
    if contract.label.values is None:
        numbers: Labels = column.cast(pl.Float32).to_numpy()
        return numbers
    positions = {value: position for position, value in enumerate(contract.label.values)}
    unknown = sorted(set(column.unique()) - positions.keys())
    if unknown:
        raise BadInputError(
            f"the {split} split has labels {unknown[:5]}, the contract knows {list(contract.label.values)}"
        )
    return np.array([positions[value] for value in column], dtype=np.float32)


def _digest(folder: pathlib.Path) -> str:
    total = hashlib.sha256()
    for path in parquet_files(folder):
        total.update(path.read_bytes())
    return total.hexdigest()


def _split(
    folder: pathlib.Path, name: str, contract: CompiledContract, fitted: Fitted
) -> tuple[files.Matrix, Labels]:
    frame, skipped = read_table(folder / name, contract.feature_columns())
    if skipped:
        # These files were written by the prepare step: a damaged one is no bad delivery but a fault.
        raise BadInputError(f"the {name} channel cannot be read: {skipped[0].file}: {skipped[0].reason}")
    if not frame.height:
        raise BadInputError(f"the {name} channel holds no rows")
    # XGBoost refuses infinities; a number too large for 32 bits falls on the same side of every split as
    # the largest one.
    largest = np.finfo(np.float32).max
    matrix = fitted.training_matrix(frame) if name == "train" else fitted.matrix(frame)
    return np.clip(matrix, -largest, largest), labels_of(frame, contract, name)


def class_weights(labels: Labels, contract: CompiledContract) -> Labels | None:
    """Return a weight per row that makes all classes count alike, 1 on average; None without balance.

    The validation rows get theirs too: early stopping then judges what is learned. Where training rows were
    repeated or made up they are even already, and all weights are 1.
    """
    if contract.training.get("balance", "none") == "none":
        return None
    positions = labels.astype(np.int64)
    counts = np.bincount(positions, minlength=len(contract.label.values or ()))
    weights: Labels = (len(labels) / ((counts > 0).sum() * counts[positions])).astype(np.float32)
    return weights


def _boost(
    wanted: Hyperparameters, train: xgb.DMatrix, validation: xgb.DMatrix
) -> tuple[xgb.Booster, dict[str, Any]]:
    if wanted.booster.get("device") == "cuda" and not xgb.build_info().get("USE_CUDA"):
        raise BadInputError(
            "hyperparameters: device cuda needs an XGBoost built for it; this image has the CPU one"
        )
    callbacks: list[xgb.callback.TrainingCallback] = [RoundPrinter()]
    if wanted.early_stopping_rounds is not None:
        callbacks.append(
            xgb.callback.EarlyStopping(
                rounds=wanted.early_stopping_rounds,
                data_name="validation",
                metric_name=wanted.booster["eval_metric"][-1],
                save_best=True,
            )
        )
    history: dict[str, dict[str, list[float]]] = {}
    booster = xgb.train(
        wanted.booster,
        train,
        num_boost_round=wanted.rounds,
        evals=[(train, "train"), (validation, "validation")],
        evals_result=history,
        verbose_eval=False,
        callbacks=callbacks,
    )
    best = booster.num_boosted_rounds() - 1
    say(f"best_iteration:{best}")
    metrics = {
        f"{split}-{metric}": series[best] for split, of in history.items() for metric, series in of.items()
    }
    return booster, {
        "rounds": best + 1,
        "rounds_run": len(next(iter(history["train"].values()))),
        "metrics": metrics,
    }


def train() -> None:
    """Train on the channels under ``input/data`` and write the model folder."""
    base = base_folder()
    data = base / "input" / "data"
    contract_text = only_file(data / "contract", ".json").read_text()
    contract = CompiledContract.from_json(contract_text)
    fitted_text = (_present(data / "transform" / files.FITTED_FILE)).read_text()
    fitted = Fitted.from_json(fitted_text)
    config = base / "input" / "config" / "hyperparameters.json"
    given = json.loads(config.read_text()) if config.exists() else {}
    wanted = read_hyperparameters(given, contract.label.task, len(contract.label.values or ()))

    x_train, y_train = _split(data, "train", contract, fitted)
    x_validation, y_validation = _split(data, "validation", contract, fitted)
    say(f"training on {len(y_train)} rows of {x_train.shape[1]} columns, validating on {len(y_validation)}")
    booster, outcome = _boost(
        wanted,
        xgb.DMatrix(x_train, y_train, weight=class_weights(y_train, contract)),
        xgb.DMatrix(x_validation, y_validation, weight=class_weights(y_validation, contract)),
    )

    onnx_model = to_onnx(booster, x_train.shape[1])
    proof = prove_equal(booster, onnx_model, x_validation)
    say(f"onnx equals the booster on {proof.rows} rows within {proof.largest_difference:.2g}")

    target = base / "model"
    target.mkdir(parents=True, exist_ok=True)
    (target / files.MODEL_FILE).write_bytes(onnx_model)
    booster.save_model(target / files.BOOSTER_FILE)
    (target / files.CONTRACT_FILE).write_text(contract.to_json())
    (target / files.FITTED_FILE).write_text(fitted_text)
    metadata = {
        "task": contract.label.task,
        "training_job": os.environ.get("TRAINING_JOB_NAME"),
        "columns": fitted.output_names,
        "hyperparameters": wanted.booster
        | {"rounds": wanted.rounds, "early_stopping_rounds": wanted.early_stopping_rounds},
        **outcome,
        "rows": {"train": len(y_train), "validation": len(y_validation)},
        "balance": contract.training.get("balance", "none"),
        "data_sha256": {name: _digest(data / name) for name in ("train", "validation")},
        "onnx": {**dataclasses.asdict(proof), "sha256": hashlib.sha256(onnx_model).hexdigest()},
        "xgboost": xgb.__version__,
    }
    (target / files.METADATA_FILE).write_text(json.dumps(metadata, indent=1, sort_keys=True) + "\n")


def _present(path: pathlib.Path) -> pathlib.Path:
    if not path.is_file():
        raise BadInputError(f"{path} is missing; check the job's inputs")
    return path
