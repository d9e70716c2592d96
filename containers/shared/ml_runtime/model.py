"""A trained model as its files: read, checked, scored. No pickle, no code: JSON and ONNX only."""

from __future__ import annotations

import dataclasses
import pathlib
import struct
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
from ml_contract.compiled import CompiledContract
from ml_contract.features.fit import Fitted

from ml_runtime.job import BadInputError

if TYPE_CHECKING:
    import onnxruntime as ort

MODEL_FILE = "model.onnx"
CONTRACT_FILE = "contract.json"
FITTED_FILE = "fitted.json"
METADATA_FILE = "metadata.json"
BOOSTER_FILE = "model.ubj"
INPUT_NAME = "features"

Matrix = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]


def open_session(model: bytes, *, threads: int = 1) -> ort.InferenceSession:
    """Open an ONNX model. One thread a session.

    A server scales by processes, and one row is no work to share.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@dataclasses.dataclass(frozen=True)
class Model:
    """A model ready to score: its contract, its fitted transform, its ONNX session."""

    contract: CompiledContract
    fitted: Fitted
    session: ort.InferenceSession
    output: str

    @classmethod
    def load(cls, folder: pathlib.Path, *, threads: int = 1) -> Self:
        """Read a model folder. Raises BadInputError when files are missing or do not belong together."""
        missing = [name for name in (MODEL_FILE, CONTRACT_FILE, FITTED_FILE) if not (folder / name).is_file()]
        if missing:
            raise BadInputError(
                f"the model in {folder} lacks {', '.join(missing)}; it was not made by the training image"
            )
        contract = CompiledContract.from_json((folder / CONTRACT_FILE).read_bytes())
        fitted = Fitted.from_json((folder / FITTED_FILE).read_bytes())
        session = open_session((folder / MODEL_FILE).read_bytes(), threads=threads)
        inputs = session.get_inputs()
        wanted = len(fitted.output_names)
        if [i.name for i in inputs] != [INPUT_NAME] or inputs[0].shape[-1] != wanted:
            shapes = ", ".join(f"{i.name} {i.shape}" for i in inputs)
            raise BadInputError(
                f"model.onnx takes {shapes}, the fitted transform makes {INPUT_NAME} [rows, {wanted}];"
                " the files are of different trainings"
            )
        # Trees of classes answer a label and probabilities, trees of numbers one column.
        return cls(contract, fitted, session, session.get_outputs()[-1].name)

    def scores(self, matrix: Matrix) -> Scores:
        """Return per row the positive class's probability, each class's probability, or the number."""
        answer: Scores = self.session.run([self.output], {INPUT_NAME: matrix})[0]
        if self.contract.label.task == "multiclass":
            return answer
        return answer[:, -1]


class OneRow:
    """Scores one row at a time in memory that is bound to the session once.

    Half of what a single row costs through ``Model.scores`` is arrays that come and go. Not for several
    threads at once, nor for classes: it answers the last column, the positive class or the number.
    """

    def __init__(self, model: Model) -> None:
        import onnxruntime as ort

        columns = len(model.fitted.output_names)
        width = 2 if model.contract.label.task == "binary" else 1
        self._row = np.zeros((1, columns), dtype=np.float32)
        self._answer = np.zeros((1, width), dtype=np.float32)
        bound = ort.OrtValue.ortvalue_from_numpy(self._row), ort.OrtValue.ortvalue_from_numpy(self._answer)
        if [value.data_ptr() for value in bound] != [a.ctypes.data for a in (self._row, self._answer)]:
            raise RuntimeError("this ONNX Runtime copies what is bound; rows would never change")
        self._binding = model.session.io_binding()
        self._binding.bind_ortvalue_input(INPUT_NAME, bound[0])
        self._binding.bind_ortvalue_output(model.output, bound[1])
        self._run = model.session.run_with_iobinding
        self._pack = struct.Struct(f"{columns}f").pack_into
        self._memory = self._row.data.cast("B")
        self._last = width - 1

    def score(self, vector: list[float]) -> float:
        """Return the score of one row, as 64 bits."""
        try:
            self._pack(self._memory, 0, *vector)
        except OverflowError:
            # Beyond 32 bits is infinite, as in a table.
            with np.errstate(over="ignore"):
                self._row[0] = vector
        self._run(self._binding)
        return self._answer.item(self._last)
