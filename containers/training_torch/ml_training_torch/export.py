"""From network to ONNX, and on request to what AWS's own chips run."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import pathlib
import warnings
from typing import Any

import numpy as np
import torch
from ml_runtime.job import BadInputError
from ml_runtime.model import INPUT_NAME, Matrix
from ml_trainer.proof import Proof, compare, proof_rows

from ml_training_torch.network import Scorer

#: What the oldest ONNX Runtime that serves it reads (1.14 and later), with LayerNormalization.
OPSET = 18
#: Largest difference allowed between ONNX and the network, relative to the size of the scores (1 for
#: probabilities) or, where it is more, to the spread of the labels. Both multiply 32-bit floats, in another
#: order.
TOLERANCE = 1e-4
#: Rows of a request that Neuron compiles for; its shapes are fixed.
NEURON_ROWS = (1, 64)


def to_onnx(scorer: Scorer, columns: int) -> bytes:
    """Return the scorer as an ONNX model of one input, ``features`` [rows, columns], NaN for missing."""
    scorer = scorer.to("cpu").eval()
    rows = torch.export.Dim("rows")
    # The exporter tells of each of its steps; what matters is proven afterwards.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            scorer,
            (torch.zeros(2, columns),),
            input_names=[INPUT_NAME],
            output_names=["scores"],
            dynamic_shapes=({0: rows},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for node in proto.graph.node:
        # Where in our sources a node comes from: other paths would be other bytes.
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
    del proto.graph.metadata_props[:]
    del proto.metadata_props[:]
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def prove_equal(scorer: Scorer, onnx_model: bytes, matrix: Matrix) -> Proof:
    """Score the rows with both. Raises ExportError when any score differs by more than the tolerance."""
    rows = proof_rows(matrix)
    expected = np.concatenate(
        [_scores(scorer, part) for part in np.array_split(rows, -(-len(rows) // 16_384))]
    )
    if scorer.task != "multiclass":
        expected = expected[:, -1]
    return compare(expected, onnx_model, rows, tolerance=TOLERANCE * max(1.0, scorer.width))


def _scores(scorer: Scorer, rows: Matrix) -> Matrix:
    with torch.no_grad():
        scores: Matrix = scorer.to("cpu").eval()(torch.from_numpy(rows)).numpy()
    return scores


def check_neuron() -> None:
    """Raise BadInputError where nothing can be compiled for Neuron."""
    if importlib.util.find_spec("torch_neuronx") is None:
        raise BadInputError(
            "hyperparameters: compile_for neuron needs torch_neuronx, which this image does not have; build "
            "it on AWS's Neuron image (docs/pytorch.md) or leave compile_for out"
        )


def to_neuron(scorer: Scorer, columns: int, folder: pathlib.Path) -> dict[str, Any]:
    """Compile for inf2 and trn1, a file per number of rows in ``folder``; return what the metadata says."""
    check_neuron()
    torch_neuronx: Any = importlib.import_module("torch_neuronx")
    folder.mkdir(parents=True, exist_ok=True)
    scorer = scorer.to("cpu").eval()
    files = {}
    for rows in NEURON_ROWS:
        traced = torch_neuronx.trace(scorer, torch.zeros(rows, columns))
        path = folder / f"rows-{rows}.pt"
        torch.jit.save(traced, str(path))
        files[str(rows)] = path.name
    return {"torch_neuronx": torch_neuronx.__version__, "files": files}
