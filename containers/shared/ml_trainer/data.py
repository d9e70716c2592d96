"""A training job's channels: the contract, the fitted transform, the splits as matrices."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl
from ml_contract.compiled import CompiledContract
from ml_contract.features.fit import Fitted
from ml_runtime import model as files
from ml_runtime.job import BadInputError, base_folder, only_file
from ml_runtime.tables import parquet_files, read_table

from ml_trainer.hyperparameters import job_values

Labels = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Split:
    """One split: the matrix ``[rows, columns]``, a number per row as label, and its weight or None.

    ``frame`` is the table that it was made of.
    """

    matrix: files.Matrix
    labels: Labels
    weights: Labels | None
    frame: pl.DataFrame

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.labels)

    def part(self, positions: npt.NDArray[np.int64]) -> Split:
        """Return the rows at these positions."""
        weights = None if self.weights is None else self.weights[positions]
        return Split(self.matrix[positions], self.labels[positions], weights, self.frame[positions])


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a training job was given, below ``base`` (``/opt/ml``)."""

    base: pathlib.Path
    contract: CompiledContract
    fitted: Fitted
    fitted_text: str
    hyperparameters: dict[str, str]

    @classmethod
    def read(cls) -> Self:
        """Read what every training needs. Raises BadInputError naming what is missing."""
        base = base_folder()
        data = base / "input" / "data"
        contract = CompiledContract.from_json(only_file(data / "contract", ".json").read_text())
        fitted_file = data / "transform" / files.FITTED_FILE
        if not fitted_file.is_file():
            raise BadInputError(f"{fitted_file} is missing; check the job's inputs")
        fitted_text = fitted_file.read_text()
        config = base / "input" / "config" / "hyperparameters.json"
        given = json.loads(config.read_text()) if config.exists() else {}
        return cls(base, contract, Fitted.from_json(fitted_text), fitted_text, given)

    @property
    def settings(self) -> dict[str, Any]:
        """The workload's ``training`` block; the job's own hyperparameters come before it."""
        return {**self.contract.training, **job_values(self.hyperparameters)}

    @property
    def classes(self) -> int:
        """How many classes the label has; 0 for a number."""
        return len(self.contract.label.values or ())

    @property
    def model_folder(self) -> pathlib.Path:
        """Where the model is written."""
        return self.base / "model"

    def channel(self, name: str) -> pathlib.Path:
        """Return the folder of a channel; it need not exist."""
        return self.base / "input" / "data" / name

    def split(self, name: str) -> Split:
        """Read a split, ``train`` or ``validation``. Raises BadInputError for a damaged or empty one."""
        frame, skipped = read_table(self.channel(name), self.contract.training_columns())
        if skipped:
            # These files were written by the prepare step: a damaged one is no bad delivery but a fault.
            raise BadInputError(f"the {name} channel cannot be read: {skipped[0].file}: {skipped[0].reason}")
        if not frame.height:
            raise BadInputError(f"the {name} channel holds no rows")
        # XGBoost refuses infinities; a number too large for 32 bits falls on the same side of every split as
        # the largest one.
        largest = np.finfo(np.float32).max
        matrix = self.fitted.training_matrix(frame) if name == "train" else self.fitted.matrix(frame)
        labels = labels_of(frame, self.contract, name)
        weights = class_weights(labels, self.contract)
        return Split(np.clip(matrix, -largest, largest), labels, weights, frame)

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a channel's files."""
        total = hashlib.sha256()
        for path in parquet_files(self.channel(name)):
            total.update(path.read_bytes())
        return total.hexdigest()

    def fingerprint(self, *more: object) -> str:
        """Return what tells this training from others: its data, its contract, all it was asked for.

        A checkpoint is of use only to a training of the same fingerprint.
        """
        parts = [
            self.contract.to_json(),
            self.fitted_text,
            json.dumps(self.hyperparameters, sort_keys=True),
            self.digest("train"),
            self.digest("validation"),
            *map(str, more),
        ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


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
