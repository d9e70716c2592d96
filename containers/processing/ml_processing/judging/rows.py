"""Held-out rows, and what travels with them for whoever judges a model by them, this one or a later one."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from ml_contract.compiled import CompiledContract
from ml_contract.records.lineage import record_key
from ml_runtime.job import BadInputError
from ml_runtime.tables import read_table

__all__ = ["before_training", "labels_of", "read_rows", "seen", "write_beside"]

#: Beside the rows; files whose names begin so are no rows of the table.
TRAINED_ON: Final = "_trained_on.parquet"
BEFORE_TRAINING: Final = "_before_training.json"


def keys_of(frame: pl.DataFrame, contract: CompiledContract) -> pl.Series:
    """A name of every record that tells nobody who it is of."""
    texts = frame[contract.identifier].cast(pl.String)
    return pl.Series("record", [record_key(contract.name, text) for text in texts], dtype=pl.String)


def write_beside(
    folder: pathlib.Path,
    trained_on: pl.DataFrame,
    bias: Mapping[str, Any],
    contract: CompiledContract,
) -> None:
    """Write which records the model learns from, and the bias of their labels, beside the held-out rows."""
    keys_of(trained_on, contract).to_frame().write_parquet(folder / TRAINED_ON, compression="zstd")
    (folder / BEFORE_TRAINING).write_text(json.dumps(bias, indent=1, sort_keys=True, allow_nan=False) + "\n")


def seen(folder: pathlib.Path) -> frozenset[str]:
    """Names of the records that the model of these held-out rows learned from."""
    path = folder / TRAINED_ON
    return frozenset(pl.read_parquet(path)["record"]) if path.is_file() else frozenset()


def before_training(folder: pathlib.Path) -> dict[str, Any]:
    """Bias of the labels that the model learned from, by facet."""
    path = folder / BEFORE_TRAINING
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def read_rows(folder: pathlib.Path, contract: CompiledContract, what: str) -> pl.DataFrame:
    """Rows of a split with what they are judged by. Raises BadInputError when files or rows are missing."""
    columns = contract.feature_columns() if what == "test" else contract.training_columns()
    frame, skipped = read_table(folder, columns)
    if skipped:
        raise BadInputError(f"the {what} split cannot be read: {skipped[0].file}: {skipped[0].reason}")
    if not frame.height:
        raise BadInputError(f"the {what} split holds no rows")
    return frame


def labels_of(frame: pl.DataFrame, contract: CompiledContract) -> npt.NDArray[Any]:
    """Labels as numbers: a class is its position."""
    column = frame[contract.label.field]
    if contract.label.values is None:
        numbers: npt.NDArray[Any] = column.to_numpy()
        return numbers
    positions = {value: position for position, value in enumerate(contract.label.values)}
    return np.array([positions[value] for value in column], dtype=np.int64)
