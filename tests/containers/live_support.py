"""Live traffic with its answers, what turned out true, and a package that carries baselines."""

from __future__ import annotations

import json
import pathlib
import random
from typing import Any

import numpy as np
from container_support import (
    make_records,
)
from ml_contract.compiled import CompiledContract
from ml_judging import bias, quality
from ml_judging.measures import measures_of
from ml_monitoring.predictions import read_predictions
from monitor_support import BUCKET, Account

WATCHED = """
evaluation:
  bias:
    facets: {electric: {disadvantaged: [true]}}
    limits: {DPPL: 0.5, RD: 0.9}
  explain: {shap_rows: 40}
monitoring:
  quality: {delay_hours: 2, minimum_labels: 40, limits: {recall: {minimum: 0.5}}}
  bias: {limits: {DI: 0.9}, tolerance: 0.2}
  attribution: {rows: 60, ndcg: 0.9}
  minimum_records: 50
"""
#: At 16:20 predictions of 13:00 to 14:00 are judged by the labels that there are by then.
HOUR = "2026/11/21/13"
TRUTH_HOUR = "2026/11/21/15"


def invocation(
    record: dict[str, Any], name: str, answer: dict[str, Any], truth: str | None = None
) -> dict[str, Any]:
    """Return one captured invocation; with ``truth`` a merged one."""
    body = {key: value for key, value in record.items() if key != "outcome"}
    return {
        "captureData": {
            "endpointInput": {"data": json.dumps(body), "encoding": "JSON", "mode": "INPUT"},
            "endpointOutput": {
                "observedContentType": "application/json",
                "data": json.dumps({"predictions": [answer], "model": "dev-trips/1"}),
                "encoding": "JSON",
            },
        },
        "eventMetadata": {"eventId": f"event-{name}", "inferenceId": name},
        "eventVersion": "0",
        **({} if truth is None else {"groundTruthData": {"data": truth, "encoding": "CSV"}}),
    }


def truth(name: str, data: str, encoding: str = "CSV") -> dict[str, Any]:
    """Return a line of a ground-truth file."""
    return {
        "groundTruthData": {"data": data, "encoding": encoding},
        "eventMetadata": {"eventId": name},
        "eventVersion": "0",
    }


def jsonl(entries: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(entry) for entry in entries).encode()


class Live:
    """Traffic whose answers are right to a degree, and what turned out true of it."""

    def __init__(self, count: int, *, right: float, seed: int = 5) -> None:
        rng = random.Random(seed)
        self.invocations, self.truths, self.labels, self.scores = [], [], [], []
        for record in make_records("binary", count, seed=seed):
            late = record["outcome"] == "late"
            said = late if rng.random() < right else not late
            score = 0.5 + (0.4 if said else -0.4) * rng.random()
            answer = {"score": score, "label": "late" if score >= 0.45 else "on time"}
            self.invocations.append(invocation(record, record["trip_id"], answer))
            self.truths.append(truth(record["trip_id"], record["outcome"]))
            self.labels.append(int(late))
            self.scores.append(score)


def baselines(contract: CompiledContract, live: Live) -> dict[str, dict[str, Any]]:
    """Return what the package of a model that does as ``live`` does carries."""
    labels, scores = np.array(live.labels), np.array(live.scores)
    measures = measures_of("binary", labels, scores, threshold=0.45, columns=1)
    metrics = {n: {"value": v, "standard_deviation": 0.01} for n, v in measures.values().items()}
    decided = (scores >= 0.45).astype(np.int64)
    found = read_predictions([jsonl(live.invocations)], contract)
    later = bias.after_training(found.frame, labels, decided, np.zeros((len(labels), 1)), contract)
    return {
        "quality": quality.statistics(
            "binary", labels, scores, decided, metrics, classes=contract.label.values, about={}
        ),
        "bias": bias.clarify_report(
            "outcome",
            {},
            {name: {"group": one["group"], "metrics": one["metrics"]} for name, one in later.items()},
        ),
    }


def approve(account: Account, documents: dict[str, dict[str, Any]], model: pathlib.Path | None = None) -> str:
    """Register and approve a package with these baselines."""
    places = {"quality": ("ModelQuality", "Statistics"), "bias": ("Bias", "PostTrainingConstraints")}
    places["explained"] = ("Explainability", "Constraints")
    carried: dict[str, Any] = {}
    for name, document in documents.items():
        account.put(f"baseline/{name}.json", json.dumps(document).encode())
        kind, part = places[name]
        uri = f"s3://{BUCKET}/baseline/{name}.json"
        carried[kind] = {part: {"ContentType": "application/json", "S3Uri": uri}}
    given: dict[str, Any] = {"DriftCheckBaselines": carried}
    if model is not None:
        account.put("models/model.tar.gz", model.read_bytes())
        container = {"Image": "x", "ModelDataUrl": f"s3://{BUCKET}/models/model.tar.gz"}
        given["InferenceSpecification"] = {
            "Containers": [container],
            "SupportedContentTypes": ["text/csv"],
            "SupportedResponseMIMETypes": ["text/csv"],
        }
    sagemaker = account.client("sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName="dev-trips")
    arn: str = sagemaker.create_model_package(ModelPackageGroupName="dev-trips", **given)["ModelPackageArn"]
    account.parameter(arn)
    return arn
