"""The proof that the exported model says what the trained one says."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
from ml_runtime.job import JobError
from ml_runtime.model import INPUT_NAME, Matrix, open_session

#: Rows that are compared at most.
PROOF_ROWS = 100_000


class ExportError(JobError):
    """The exported model does not say what the trained one says; it must not be registered."""


@dataclasses.dataclass(frozen=True)
class Proof:
    """What was compared, and the largest difference found."""

    rows: int
    largest_difference: float
    tolerance: float


def proof_rows(matrix: Matrix) -> Matrix:
    """Return the rows to compare: those given, and some that no data set need hold.

    Everything missing, zeros, the extremes of every column.
    """
    columns = matrix.shape[1]
    with np.errstate(invalid="ignore"):
        known = np.where(np.isfinite(matrix), matrix, 0)
    hard = [np.full(columns, np.nan), np.zeros(columns), known.min(axis=0), known.max(axis=0)]
    return np.vstack([matrix[:PROOF_ROWS], np.vstack(hard).astype(np.float32)])


def compare(expected: npt.NDArray[Any], onnx_model: bytes, rows: Matrix, *, tolerance: float) -> Proof:
    """Score the rows with the ONNX model and hold its answers against those of the trained model.

    Args:
        expected: what the trained model says of the rows: a score each, or one per class.
        onnx_model: the export; its last output is compared, of one score per row the last column.
        rows: see ``proof_rows``.
        tolerance: largest difference allowed, relative to the size of the scores (1 for probabilities).

    Raises:
        ExportError: a score differs by more, or is not finite.
    """
    session = open_session(onnx_model)
    output = session.get_outputs()[-1].name
    actual = session.run([output], {INPUT_NAME: rows})[0]
    if expected.ndim == 1:
        actual = actual[:, -1]
    if not (np.isfinite(expected).all() and np.isfinite(actual).all()):
        raise ExportError("the model answers with numbers that are not finite")
    difference = np.abs(expected.astype(np.float64) - actual.astype(np.float64))
    largest = float((difference / np.maximum(1, np.abs(expected))).max())
    if largest > tolerance:
        row = int(np.unravel_index(difference.argmax(), difference.shape)[0])
        raise ExportError(
            f"the ONNX export differs from the trained model by {largest:.3g} (row {row} of {len(rows)}),"
            f" allowed are {tolerance:g}; the model is not exported"
        )
    return Proof(len(rows), largest, tolerance)
