"""The broken model of the story: the real artifact, which answers with no number."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pytest

from rehearsal.story import StoryError
from rehearsal.story.rollback import poisoned


def onnx_model(rows: int = 200) -> bytes:
    import xgboost as xgb
    from ml_training.export import to_onnx

    rng = np.random.default_rng(3)
    features = rng.normal(size=(rows, 4)).astype(np.float32)
    labels = (features[:, 0] + features[:, 1] > 0).astype(int)
    booster = xgb.train(
        {"objective": "binary:logistic", "max_depth": 3},
        xgb.DMatrix(features, label=labels),
        num_boost_round=5,
    )
    body: bytes = to_onnx(booster, columns=4)
    return body


def archive(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, body in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return out.getvalue()


def unpacked(body: bytes) -> dict[str, bytes]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        for member in tar.getmembers():
            content = tar.extractfile(member)
            assert content is not None
            found[member.name] = content.read()
    return found


def scores(model: bytes) -> npt.NDArray[np.float32]:
    import onnxruntime as ort

    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    rows = np.zeros((3, 4), dtype=np.float32)
    answer: npt.NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: rows})[-1]
    return answer


def network_model() -> bytes:
    """A layer and its ReLU, which would hide a weight that is no number; then the layer that answers."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(3)
    weights = {"w": (4, 5), "b": (5,), "v": (5, 2), "c": (2,)}
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["features", "w", "b"], ["inner"]),
            helper.make_node("Relu", ["inner"], ["kept"]),
            helper.make_node("Gemm", ["kept", "v", "c"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["scores"]),
        ],
        "network",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["rows", 2])],
        [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), name) for name, s in weights.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    body: bytes = helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    return body


@pytest.mark.parametrize("make", [onnx_model, network_model])
def test_should_make_a_model_answer_with_no_number_and_leave_the_rest_as_it_was(
    make: Callable[[], bytes],
) -> None:
    model = make()
    good = archive({"model.onnx": model, "fitted.json": b"{}"})

    broken = unpacked(poisoned(good))

    assert np.isfinite(scores(model)).all()
    assert np.isnan(scores(broken["model.onnx"])[:, -1]).all()
    assert broken["fitted.json"] == b"{}"


def test_should_refuse_an_archive_without_a_model() -> None:
    with pytest.raises(StoryError, match=r"holds no model\.onnx"):
        poisoned(archive({"other": b""}))


def test_should_refuse_a_model_that_has_learned_nothing() -> None:
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [out])
    body = helper.make_model(graph).SerializeToString()
    assert onnx.load_from_string(body).graph.node[0].op_type == "Identity"

    with pytest.raises(StoryError, match="neither tree leaves nor weights to spoil"):
        poisoned(archive({"model.onnx": body}))
