"""What must hold between the alternatives and the rest of a workload."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ml_contract.problems import Location

if TYPE_CHECKING:
    from ml_contract.checks.workload import Checks
    from ml_contract.spec.alternatives import FoundationModel, Wrangler

__all__ = ["check_alternatives"]

#: Metrics of Autopilot by task ("AutoMLJobObjective").
_METRICS: Final = {
    "binary": ("Accuracy", "AUC", "BalancedAccuracy", "F1", "Precision", "Recall"),
    "multiclass": ("Accuracy", "BalancedAccuracy", "F1macro", "PrecisionMacro", "RecallMacro"),
    "regression": ("MSE", "R2", "RMSE"),
}
#: Ids of Bedrock's foundation models: maker, a dot, model; CreateModelCustomizationJob.
_BEDROCK = re.compile(r"[a-z0-9-]{1,63}\.[a-z0-9-]{1,63}(\.?[a-z0-9-]{1,63})?(:[a-z0-9-]{1,63}){0,2}")
#: A model of SageMaker's public hub, perhaps with its version; ServerlessJobConfig, BaseModelArn.
_HUB = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}(/\d{1,4}\.\d{1,4}\.\d{1,4})?")


def check_alternatives(checks: Checks) -> None:
    """Metric of the task, form of a model's id, a flow that is there and has the node."""
    wanted = checks.workload.alternatives
    if wanted.autopilot is not None and wanted.autopilot.objective is not None:
        allowed = _METRICS[checks.workload.label.task]
        if wanted.autopilot.objective not in allowed:
            checks.wrong(
                ("alternatives", "autopilot", "objective"),
                f"got {wanted.autopilot.objective!r}; for a {checks.workload.label.task} label: "
                f"{', '.join(allowed)}",
            )
    if wanted.foundation_model is not None:
        _check_model(checks, wanted.foundation_model)
    if wanted.wrangler is not None:
        _check_flow(checks, wanted.wrangler)


def _check_model(checks: Checks, wanted: FoundationModel) -> None:
    path: Location = ("alternatives", "foundation_model", "model")
    if wanted.service == "bedrock" and not _BEDROCK.fullmatch(wanted.model):
        checks.wrong(path, f"got {wanted.model!r}; Bedrock's ids look like amazon.nova-micro-v1:0:128k")
    if wanted.service == "jumpstart" and not _HUB.fullmatch(wanted.model):
        checks.wrong(
            path, f"got {wanted.model!r}; the hub's names look like huggingface-llm-qwen3-8b, perhaps /1.0.0"
        )


def _check_flow(checks: Checks, wanted: Wrangler) -> None:
    path: Location = ("alternatives", "wrangler")
    file = Path(checks.file).parent / wanted.flow
    if not file.is_file():
        checks.wrong(
            (*path, "flow"), f"there is no {wanted.flow} beside the workload; export it or name another"
        )
        return
    try:
        nodes = [str(node["node_id"]) for node in json.loads(file.read_text(encoding="utf-8"))["nodes"]]
    except (ValueError, KeyError, TypeError) as error:
        checks.wrong((*path, "flow"), f"{wanted.flow} is no flow of Data Wrangler: {error!r}")
        return
    node = wanted.output.partition(".")[0]
    if node not in nodes:
        checks.wrong((*path, "output"), f"got node {node!r}; the flow has {', '.join(nodes)}")
