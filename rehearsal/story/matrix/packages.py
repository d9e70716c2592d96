"""Versions that pass for good ones: another's evaluation, and a model file that was spoiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rehearsal.story.rollback import with_model

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["register_like", "slowed"]

#: Of a model package's specification: what a copy takes over.
_SPECIFICATION = (
    "SupportedTransformInstanceTypes",
    "SupportedRealtimeInferenceInstanceTypes",
    "SupportedContentTypes",
    "SupportedResponseMIMETypes",
)
_CONTAINER = ("Image", "Environment", "Framework", "ContainerHostname")
#: Order of the matrices and how many products: about a second of one core.
_ORDER, _PRODUCTS = 1_400, 8


def register_like(tale: Tale, like: str, name: str, spoil: Callable[[bytes], bytes], description: str) -> str:
    """Register a version with another model file and the evaluation of ``like``; return its ARN."""
    sagemaker = tale.cloud.client("sagemaker")
    good: dict[str, Any] = sagemaker.describe_model_package(ModelPackageName=like)
    container = good["InferenceSpecification"]["Containers"][0]
    where: str = container["ModelDataUrl"]
    spoiled = f"{where.rsplit('/', 1)[0]}/{name}/{where.rsplit('/', 1)[1]}"
    tale.cloud.objects.write(spoiled, spoil(tale.cloud.objects.read(where)))
    specification = good["InferenceSpecification"]
    optional = {
        key: good[key]
        for key in ("DriftCheckBaselines", "CustomerMetadataProperties", "ModelCard")
        if key in good
    }
    answer = sagemaker.create_model_package(
        ModelPackageGroupName=good["ModelPackageGroupName"],
        ModelPackageDescription=f"{description}; passed off with a good model's evaluation",
        InferenceSpecification={
            **{key: specification[key] for key in _SPECIFICATION if key in specification},
            "Containers": [
                {**{k: v for k, v in container.items() if k in _CONTAINER}, "ModelDataUrl": spoiled}
            ],
        },
        ModelMetrics=good["ModelMetrics"],
        ModelApprovalStatus="PendingManualApproval",
        **optional,
    )
    arn: str = answer["ModelPackageArn"]
    return arn


def slowed(archive: bytes) -> bytes:
    """Return a model archive that answers as before, after about a second of multiplying matrices.

    Raises:
        StoryError: the archive holds no ONNX model.
    """
    return with_model(archive, _with_work)


def _with_work(model: bytes) -> bytes:
    """Add to the model's input a zero that takes long to compute.

    The matrices are made from the number of rows, which is known only when a request comes: a runtime that
    folds constants cannot do the work in advance.
    """
    import onnx
    from onnx import TensorProto, helper

    loaded = onnx.load_from_string(model)
    graph = loaded.graph
    asked = graph.input[0].name
    one = helper.make_tensor("slow_one", TensorProto.FLOAT, [1], [1.0 / _ORDER])
    size = helper.make_tensor("slow_size", TensorProto.INT64, [2], [_ORDER, _ORDER])
    zero = helper.make_tensor("slow_zero", TensorProto.FLOAT, [1], [0.0])
    first = helper.make_tensor("slow_first", TensorProto.INT64, [1], [0])
    graph.initializer.extend([one, size, zero, first])
    nodes = [
        helper.make_node("Shape", [asked], ["slow_shape"]),
        helper.make_node("Gather", ["slow_shape", "slow_first"], ["slow_rows"]),
        helper.make_node("Cast", ["slow_rows"], ["slow_count"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["slow_count", "slow_one"], ["slow_cell"]),
        helper.make_node("Expand", ["slow_cell", "slow_size"], ["slow_0"]),
    ]
    for number in range(_PRODUCTS):
        nodes.append(helper.make_node("MatMul", [f"slow_{number}", "slow_0"], [f"slow_{number + 1}"]))
    nodes += [
        helper.make_node("ReduceMax", [f"slow_{_PRODUCTS}"], ["slow_most"], keepdims=0),
        helper.make_node("Mul", ["slow_most", "slow_zero"], ["slow_nothing"]),
        helper.make_node("Add", [asked, "slow_nothing"], ["slow_features"]),
    ]
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name == asked:
                node.input[position] = "slow_features"
    before = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *before])
    body: bytes = loaded.SerializeToString()
    return body
