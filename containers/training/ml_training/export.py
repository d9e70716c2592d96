"""From booster to ONNX, and the proof that both say the same."""

from __future__ import annotations

import xgboost as xgb
from ml_runtime.model import INPUT_NAME, Matrix
from ml_trainer.proof import ExportError, Proof, compare, proof_rows

__all__ = ["OPSET", "TOLERANCE", "ExportError", "Proof", "prove_equal", "to_onnx"]

#: Opset 15 with ML opset 3: what the tree operators need, readable by every ONNX Runtime since 1.10.
OPSET = 15
#: Largest difference allowed between ONNX and booster, relative to the size of the scores (1 for
#: probabilities). Both add the leaves as 32-bit floats, in another order: the sum of a few hundred trees
#: differs by some 1e-7.
TOLERANCE = 1e-5


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


def prove_equal(booster: xgb.Booster, onnx_model: bytes, matrix: Matrix) -> Proof:
    """Score the rows with both. Raises ExportError when any score differs by more than the tolerance."""
    rows = proof_rows(matrix)
    return compare(booster.predict(xgb.DMatrix(rows)), onnx_model, rows, tolerance=TOLERANCE)
