"""Feature attribution: does the model go by live what it went by when it was judged?

As Clarify's monitor has it (Amazon SageMaker Developer Guide, "Feature attribution drift"): the package's
mean absolute Shapley values say how much each feature is worth, the live ones give the ranking, and the
normalised discounted cumulative gain says how much of the worth stands where it belongs. 1: the same ranking.
"""

from __future__ import annotations

import pathlib
import tempfile
from typing import Any

import numpy as np
from ml_judging import explain
from sklearn.metrics import ndcg_score

from ml_monitoring.evidence import UnjudgedError
from ml_monitoring.kinds.answers import approved_of, enough, mounted_constraints, predictions_of
from ml_monitoring.outcome import Finding, Outcome, Run

__all__ = ["judge_attribution", "ndcg"]


def ndcg(baseline: dict[str, float], live: dict[str, float]) -> float:
    """Return the gain of the live ranking: 1 when the features stand in the baseline's order."""
    worth = np.array([[baseline[name] for name in baseline]])
    ranked = np.array([[live.get(name, 0.0) for name in baseline]])
    return float(ndcg_score(worth, ranked))


def _worth(held: dict[str, Any], source: str) -> dict[str, float]:
    for one in held.get("explanations", {}).get("kernel_shap", {}).values():
        found: dict[str, float] = one.get("global_shap_values") or {}
        if len(found) > 1 and any(found.values()):
            return found
    raise UnjudgedError(
        f"the explainability baseline of {source} has no Shapley values of two features or more"
    )


def judge_attribution(run: Run) -> Outcome:
    """Explain drawn records of the window and compare the ranking of the features."""
    contract = run.contract
    block = contract.monitoring["attribution"]
    if block is None:
        raise UnjudgedError("the workload has no monitoring.attribution")
    approved = approved_of(run)
    mounted = mounted_constraints(run)
    held, source = mounted or (
        approved.baseline("Explainability", "Constraints", called="explainability"),
        approved.arn,
    )
    worth = _worth(held, source)
    found = predictions_of(run, limit=max(block["rows"], contract.monitoring["minimum_records"]))
    enough(found, min(contract.monitoring["minimum_records"], block["rows"]))
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "model"
        model = approved.model(folder)
        matrix = model.fitted.matrix(found.frame)
        # Without trees the window's own rows stand for "not known".
        shares = explain.shares_of(folder, model, matrix[: block["rows"]], background=matrix)
    live = shares.importance()
    if not any(live.values()):
        raise UnjudgedError("the model goes by nothing in these records: every Shapley value is 0")
    gain = ndcg(worth, live)
    beyond = gain < block["ndcg"]
    said = f"Feature attribution drift {gain:.4f} exceeds threshold {block['ndcg']:g}"
    label = contract.label.field
    violations = [
        {
            "label": label,
            "metric_name": "shap",
            "constraint_check_type": "feature_attribution_drift_check",
            "description": said,
        }
    ] * beyond
    analysis = {
        "version": "1.0",
        "explanations": {
            "kernel_shap": {label: {"global_shap_values": live, "expected_value": shares.expected.tolist()}}
        },
    }
    return Outcome(
        documents={
            "statistics.json": analysis,
            "analysis.json": analysis,
            "constraints.json": held,
            "constraint_violations.json": {"version": "1.0", "violations": violations},
        },
        violations=violations,
        findings=[
            Finding(
                name="ndcg",
                measure="ndcg",
                value=gain,
                limit=block["ndcg"],
                beyond=beyond,
                # How much of the gain is lost, in times of what may be.
                severity=(1 - gain) / ((1 - block["ndcg"]) or 1e-9),
                text=said if beyond else f"{gain:.4f}, at least {block['ndcg']:g}",
                baseline=1.0,
                records=len(matrix[: block["rows"]]),
            )
        ],
        judged=len(matrix[: block["rows"]]),
        baseline=source,
        report={
            **found.about(),
            "method": shares.method,
            "units": shares.units,
            "ndcg": gain,
            "importance": {
                name: {
                    "baseline": worth.get(name),
                    "live": live.get(name),
                    "baseline_rank": _rank(worth, name),
                    "live_rank": _rank(live, name),
                }
                for name in sorted({*worth, *live}, key=lambda name: -worth.get(name, 0.0))
            },
        },
    )


def _rank(values: dict[str, float], name: str) -> int | None:
    """Its place by value, 1 the largest."""
    return None if name not in values else 1 + sum(value > values[name] for value in values.values())
