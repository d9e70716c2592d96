"""Chapter: a broken model is approved by mistake; the alarms bring the old one back."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable
from typing import Any

from rehearsal.story.retraining import MARGIN_SECONDS
from rehearsal.story.serving import (
    ROLLOUT_SECONDS,
    approve,
    await_promotion,
    describe_endpoint,
    parameter_value,
    serving_stack,
)
from rehearsal.story.tale import Tale
from rehearsal.story.telling import Evidence, Step, StoryError, require, wait_until
from rehearsal.story.traffic import SAME_SCORE, Traffic, ask, questions
from rehearsal.story.training import add_version, set_status

__all__ = ["STEPS", "poisoned", "with_model"]

CHAPTER = "Roll back"
MODEL_FILE = "model.onnx"
#: Attributes of ONNX's tree operators that hold what a leaf adds to the score.
LEAF_ATTRIBUTES = frozenset(
    {"target_weights", "class_weights", "leaf_weights", "target_weights_as_tensor", "class_weights_as_tensor"}
)


def with_model(archive: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return a model archive whose ONNX model was changed, and nothing else.

    Raises:
        StoryError: the archive holds no ONNX model.
    """
    source = io.BytesIO(archive)
    target = io.BytesIO()
    found = False
    with tarfile.open(fileobj=source) as old, tarfile.open(fileobj=target, mode="w:gz") as new:
        for member in old.getmembers():
            content = old.extractfile(member)
            if content is None:
                continue
            body = content.read()
            if member.name.removeprefix("./") == MODEL_FILE:
                body, found = change(body), True
            entry = tarfile.TarInfo(member.name)
            entry.size = len(body)
            new.addfile(entry, io.BytesIO(body))
    require(found, f"the model archive holds no {MODEL_FILE}")
    return target.getvalue()


def poisoned(archive: bytes) -> bytes:
    """Return a model archive whose model answers with no number: NaN for what it learned; all else stays.

    Raises:
        StoryError: the archive holds no ONNX model, or one that has learned nothing.
    """
    return with_model(archive, _without_numbers)


def _without_numbers(model: bytes) -> bytes:
    import numpy as np
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_from_string(model)
    spoilt = 0
    for node in graph.graph.node:
        for attribute in node.attribute:
            if attribute.name not in LEAF_ATTRIBUTES:
                continue
            if attribute.type == onnx.AttributeProto.TENSOR:
                values = np.full_like(numpy_helper.to_array(attribute.t), np.nan)
                attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))
                spoilt += values.size
            else:
                spoilt += len(attribute.floats)
                attribute.floats[:] = [float("nan")] * len(attribute.floats)
    if not spoilt:
        # No trees: a network, whose weights are constants of the graph.
        for weights in graph.graph.initializer:
            if weights.data_type == onnx.TensorProto.FLOAT and len(weights.dims):
                values = np.full_like(numpy_helper.to_array(weights), np.nan)
                weights.CopyFrom(numpy_helper.from_array(values, weights.name))
                spoilt += values.size
    if not spoilt:
        raise StoryError(f"{MODEL_FILE} has neither tree leaves nor weights to spoil")
    body: bytes = graph.SerializeToString()
    return body


def _register_broken(tale: Tale, evidence: Evidence) -> None:
    sagemaker = tale.cloud.client("sagemaker")
    good = sagemaker.describe_model_package(ModelPackageName=tale.known["serving"])
    container = dict(good["InferenceSpecification"]["Containers"][0])
    where = container["ModelDataUrl"]
    broken = f"{where.rsplit('/', 1)[0]}/broken/{where.rsplit('/', 1)[1]}"
    tale.cloud.objects.write(broken, poisoned(tale.cloud.objects.read(where)))
    specification = {
        key: good["InferenceSpecification"][key]
        for key in (
            "SupportedTransformInstanceTypes",
            "SupportedRealtimeInferenceInstanceTypes",
            "SupportedContentTypes",
            "SupportedResponseMIMETypes",
        )
        if key in good["InferenceSpecification"]
    }
    wanted = {
        k: v for k, v in container.items() if k in ("Image", "Environment", "Framework", "ContainerHostname")
    }
    answer = sagemaker.create_model_package(
        ModelPackageGroupName=tale.outputs("Models")["ModelPackageGroupName"],
        ModelPackageDescription="it answers with no number; passed off with a good model's evaluation",
        InferenceSpecification={**specification, "Containers": [{**wanted, "ModelDataUrl": broken}]},
        ModelMetrics=good["ModelMetrics"],
        DriftCheckBaselines=good["DriftCheckBaselines"],
        ModelApprovalStatus="PendingManualApproval",
    )
    package = sagemaker.describe_model_package(ModelPackageName=answer["ModelPackageArn"])
    add_version(tale, package, "broken on purpose, with a good model's evaluation")
    tale.report.model["history"][-1] |= {"rows": 0, "roc": [], "confusion": []}
    evidence |= {
        "model_package": package["ModelPackageArn"],
        "version": package["ModelPackageVersion"],
        "artifact": broken,
    }
    tale.known["broken package"] = package["ModelPackageArn"]


def _roll_back(tale: Tale, evidence: Evidence) -> None:
    broken = tale.known["broken package"]
    serving = tale.known["serving"]
    old: list[float] = tale.known["serving scores"]
    bodies = questions(tale, tale.inputs.changed_live)
    before = describe_endpoint(tale)
    updated = serving_stack(tale).get("LastUpdatedTime")

    def over() -> dict[str, Any] | None:
        stack = serving_stack(tale)
        ended = stack.get("LastUpdatedTime") != updated and not stack["StackStatus"].endswith("_IN_PROGRESS")
        return stack if ended else None

    with Traffic(tale, bodies) as traffic:
        time.sleep(MARGIN_SECONDS)
        approve(tale, broken)
        await_promotion(tale, broken)
        stack = wait_until("the end of the serving stack's update", over, seconds=ROLLOUT_SECONDS)
        time.sleep(MARGIN_SECONDS)
    answers = traffic.answers
    evidence |= {
        **answers.summary(),
        "stack": stack["StackStatus"],
        "why": stack.get("StackStatusReason"),
        "alarms": _alarm_history(tale),
    }
    tale.report.traffic["rollback"] = {**answers.summary(), "series": answers.series(old, None)}
    require(
        stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE",
        f"a model that answers with no number must be rolled back; the stack is {stack['StackStatus']}",
    )
    require(answers.failed, "the broken model was rolled back before any request showed that it is broken")
    wrong = [a for a in answers.answers if a.score is not None and abs(a.score - old[a.index]) > SAME_SCORE]
    require(not wrong, f"{len(wrong)} requests were answered with another score than the old model's")
    after = describe_endpoint(tale)
    evidence["endpoint_config"] = after["EndpointConfigName"]
    evidence["endpoint"] = after["EndpointStatus"]
    require(after["EndpointStatus"] == "InService", f"the endpoint is {after['EndpointStatus']}")
    require(
        after["EndpointConfigName"] == before["EndpointConfigName"],
        "the endpoint is not back on its configuration",
    )
    again = ask(tale, bodies)
    same = all(abs((a.score or 0) - old[a.index]) <= SAME_SCORE for a in again)
    evidence["answers_of_the_old_model_after_it"] = len(again)
    require(same, "after the rollback the endpoint answers other scores than the old model's")
    require(serving != broken, "the story lost track of what serves")


def _alarm_history(tale: Tale) -> list[str]:
    config = describe_endpoint(tale).get("LastDeploymentConfig", {})
    names = [a["AlarmName"] for a in config.get("AutoRollbackConfiguration", {}).get("Alarms", ())]
    if not names:
        return []
    found = tale.cloud.client("cloudwatch").describe_alarms(AlarmNames=names)["MetricAlarms"]
    return [f"{a['AlarmName']}: {a['StateValue']}, {a.get('StateReason', '')}" for a in found]


def _restored(tale: Tale, evidence: Evidence) -> None:
    serving, broken = tale.known["serving"], tale.known["broken package"]
    wait_until(
        "the restoring of the approval parameter", lambda: parameter_value(tale) == serving, seconds=120
    )
    status = set_status(tale, broken)
    described = tale.cloud.client("sagemaker").describe_model_package(ModelPackageName=broken)
    name = tale.outputs("Models")["ApprovedModelParameter"]
    history = tale.cloud.client("ssm").get_parameter_history(Name=name)["Parameters"]
    evidence |= {
        "parameter": serving,
        "history": [
            {
                "version": h["Version"],
                "value": h["Value"].rsplit("/", 1)[-1],
                "said": h.get("Description", ""),
            }
            for h in history
        ],
        "broken_version_is": status,
        "why": described.get("ApprovalDescription"),
    }
    require(status == "Rejected", f"the broken version must be Rejected, it is {status}")
    require(described.get("ApprovalDescription"), "the rejection gives no reason")


STEPS = (
    Step(
        id="poison",
        title="A broken model is registered, passed off with a good one's evaluation",
        chapter=CHAPTER,
        run=_register_broken,
        capabilities=lambda _: (),
    ),
    Step(
        id="rollback",
        title="Approved: it fails under canary, the alarm fires, CloudFormation rolls back",
        chapter=CHAPTER,
        run=_roll_back,
        capabilities=lambda _: ("roll.rollback",),
    ),
    Step(
        id="restored",
        title="The parameter is what serves again; the broken version is rejected with the reason",
        chapter=CHAPTER,
        run=_restored,
        capabilities=lambda _: ("registry.versions", "roll.rollback"),
    ),
)
