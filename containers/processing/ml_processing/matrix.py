"""The splits as matrices: Parquet of numbers, for training programs that know no contract."""

from __future__ import annotations

import pathlib

import numpy as np
import polars as pl
from ml_contract.compiled import CompiledContract
from ml_contract.features.fit import Fitted
from ml_runtime.tables import write_table

#: Algorithms that read them: SageMaker's own images, and scripts that run in one.
READERS = ("built_in", "script")
#: Name of the first column; a class is its position.
LABEL = "label"


def write_matrices(
    parts: dict[str, pl.DataFrame], fitted: Fitted, contract: CompiledContract, output: pathlib.Path
) -> None:
    """Write ``matrix_train`` and ``matrix_validation`` where the workload's algorithm reads them.

    The label comes first, then the fitted features by their names, all 32-bit floats; NaN is missing. That is
    how SageMaker's XGBoost reads Parquet (developer guide, "XGBoost algorithm": input/output interface).
    """
    if contract.training.get("algorithm") not in READERS:
        return
    # XGBoost refuses infinities.
    largest = np.finfo(np.float32).max
    for name in ("train", "validation"):
        part = parts[name]
        matrix = fitted.training_matrix(part) if name == "train" else fitted.matrix(part)
        label = part[contract.label.field]
        if contract.label.values is not None:
            positions = {value: position for position, value in enumerate(contract.label.values)}
            label = pl.Series([positions[value] for value in label])
        columns = dict(zip(fitted.output_names, np.clip(matrix, -largest, largest).T, strict=True))
        frame = pl.DataFrame({LABEL: label.cast(pl.Float32), **columns})
        write_table(frame, output / f"matrix_{name}" / "data.parquet")
