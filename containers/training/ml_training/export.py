"""From booster to ONNX, and the proof that both say the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import xgboost as xgb
from ml_runtime.job import JobError
from ml_runtime.model import INPUT_NAME, Matrix, open_session

#: Opset 15 with ML opset 3: what the tree operators need, readable by every ONNX Runtime since 1.10.
OPSET = 15
#: Largest difference allowed between ONNX and booster, relative to the size of the scores (1 for
#: probabilities). Both add the leaves as 32-bit floats, in another order: the sum of a few hundred trees
#: differs by some 1e-7.
TOLERANCE = 1e-5
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


def to_onnx(booster: xgb.Booster, columns: int) -> bytes:
    """Return the booster as an ONNX model of one input, ``features`` [rows, columns], NaN for missing."""
    from onnxmltools.convert import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    model = convert_xgboost(
        booster,
        # Without a name it invents one at random: the same training would give other bytes.
        name="trees",
        initial_types=[(INPUT_NAME, FloatTensorType([None, columns]))],
        target_opset=OPSET,
    )
    data: bytes = model.SerializeToString()
    return data


def _hard_rows(matrix: Matrix) -> Matrix:
    """Return rows that no data set need hold: everything missing, zeros, extremes of every column."""
    columns = matrix.shape[1]
    with np.errstate(invalid="ignore"):
        known = np.where(np.isfinite(matrix), matrix, 0)
    rows = [np.full(columns, np.nan), np.zeros(columns), known.min(axis=0), known.max(axis=0)]
    return np.vstack(rows).astype(np.float32)


def prove_equal(booster: xgb.Booster, onnx_model: bytes, matrix: Matrix) -> Proof:
    """Score the rows with both. Raises ExportError when any score differs by more than the tolerance."""
    rows = np.vstack([matrix[:PROOF_ROWS], _hard_rows(matrix)])
    session = open_session(onnx_model)
    output = session.get_outputs()[-1].name
    expected: npt.NDArray[np.float32] = booster.predict(xgb.DMatrix(rows))
    actual = session.run([output], {INPUT_NAME: rows})[0]
    if expected.ndim == 1:
        actual = actual[:, -1]
    if not (np.isfinite(expected).all() and np.isfinite(actual).all()):
        raise ExportError("the model answers with numbers that are not finite")
    difference = np.abs(expected.astype(np.float64) - actual.astype(np.float64))
    largest = float((difference / np.maximum(1, np.abs(expected))).max())
    if largest > TOLERANCE:
        row = int(np.unravel_index(difference.argmax(), difference.shape)[0])
        raise ExportError(
            f"the ONNX export differs from the booster by {largest:.3g} (row {row} of {len(rows)}),"
            f" allowed are {TOLERANCE:g}; the model is not exported"
        )
    return Proof(len(rows), largest, TOLERANCE)
