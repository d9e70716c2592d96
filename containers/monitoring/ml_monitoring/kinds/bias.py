"""Bias of live predictions between facets, by Clarify's definitions, as its bias monitor judges it.

A metric is judged by the interval that resampled rows give it, as Clarify's monitor does: it is a violation
when no value of the interval is allowed.
"""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
from typing import Any, Final

import numpy as np
from ml_judging import bias
from ml_judging.bias import Facet, Outcomes

from ml_monitoring.evidence import UnjudgedError
from ml_monitoring.kinds.answers import approved_of, enough, good, mounted_constraints, predictions_of
from ml_monitoring.outcome import Finding, Outcome, Run
from ml_monitoring.predictions import Predictions

__all__ = ["judge_bias"]

#: Times that rows are drawn anew, the level of the interval, and the rows of each draw at most.
RESAMPLES: Final = 200
CONFIDENCE: Final = 0.95
SAMPLE_ROWS: Final = 5_000
SEED: Final = 7


@dataclasses.dataclass(frozen=True)
class _Allowed:
    """How far a metric may be from its fair value, and what it was in the package."""

    distance: float
    baseline: float | None


def _baseline(run: Run) -> tuple[dict[str, Any], str]:
    mounted = mounted_constraints(run)
    if mounted is not None:
        return mounted
    approved = approved_of(run)
    return approved.baseline("Bias", "PostTrainingConstraints", called="bias"), approved.arn


def _values(held: dict[str, Any], facet: str) -> dict[str, float]:
    """The metrics of a facet in Clarify's report."""
    return {
        one["name"]: one["value"]
        for part in ("pre_training_bias_metrics", "post_training_bias_metrics")
        for entry in held.get(part, {}).get("facets", {}).get(facet, ())
        for one in entry["metrics"]
        if one["value"] is not None
    }


def _allowed(run: Run, held: dict[str, Any], facet: str) -> dict[str, _Allowed]:
    """What is judged of a facet: limits of the workload, and what the package keeps within a tolerance."""
    block, known = run.contract.monitoring["bias"], _values(held, facet)
    found = {name: _Allowed(limit, known.get(name)) for name, limit in block["limits"].items()}
    if block["tolerance"] is not None:
        for name in run.contract.evaluation["bias"]["limits"]:
            # Distances between labels are of the data that the model learned from.
            if name not in found and name in known and name not in bias.OF_LABELS:
                most = bias.unfairness(name, known[name]) + block["tolerance"]
                found[name] = _Allowed(most, known[name])
    return found


def judge_bias(run: Run) -> Outcome:
    """Judge the predictions of the window, by their labels too where these have arrived."""
    contract = run.contract
    if contract.monitoring["bias"] is None or not contract.evaluation.get("bias"):
        raise UnjudgedError("the workload has no monitoring.bias, or no facets in evaluation.bias")
    held, source = _baseline(run)
    found = predictions_of(run)
    enough(found, contract.monitoring["minimum_records"])
    findings: list[Finding] = []
    facets: dict[str, dict[str, Any]] = {}
    unjudged: dict[str, str] = {}
    for facet in bias.facets_of(found.frame, contract):
        allowed = _allowed(run, held, facet.name)
        facets[facet.name], judged, why = _facet(run, found, facet, allowed)
        findings += judged
        unjudged |= why
    if not findings:
        reasons = "; ".join(f"{name}: {why}" for name, why in unjudged.items())
        raise UnjudgedError(f"no metric of any facet could be judged: {reasons or 'none has a baseline'}")
    violations = [
        {
            "facet": one.name.partition(" of ")[2],
            "facet_value": facets[one.name.partition(" of ")[2]]["group"],
            "metric_name": one.measure,
            "constraint_check_type": "bias_drift_check",
            "description": one.text,
        }
        for one in findings
        if one.beyond
    ]
    analysis = bias.clarify_report(
        contract.label.field,
        {name: {"group": one["group"], "metrics": one["of_the_rows"]} for name, one in facets.items()},
        {name: {"group": one["group"], "metrics": one["of_the_answers"]} for name, one in facets.items()},
    )
    return Outcome(
        documents={
            "statistics.json": analysis,
            "analysis.json": analysis,
            "constraints.json": held,
            "constraint_violations.json": {"version": "1.0", "violations": violations},
        },
        violations=violations,
        findings=findings,
        judged=found.frame.height,
        baseline=source,
        report={
            **found.about(),
            "labelled": int(found.labelled.sum()),
            "facets": facets,
            "unjudged": unjudged,
        },
    )


def _facet(
    run: Run, found: Predictions, facet: Facet, allowed: dict[str, _Allowed]
) -> tuple[dict[str, Any], list[Finding], dict[str, str]]:
    """Return a facet's metrics, those that were judged, and why others were not."""
    everyone = facet.known
    told = everyone & found.labelled
    with_labels = [name for name in bias.DESCRIPTIONS if name not in bias.WITHOUT_LABELS]
    outcomes = _outcomes(run, found, facet, everyone, needs_matrix="FT" in allowed)
    labelled = _outcomes(run, found, facet, told) if told.any() else None
    values = {name: bias.value_of(name, outcomes) for name in bias.WITHOUT_LABELS}
    values |= {name: None if labelled is None else bias.value_of(name, labelled) for name in with_labels}
    rows = {True: int(outcomes.d.sum()), False: int(outcomes.a.sum())}
    least = run.contract.evaluation.get("minimum_subgroup_rows", 30)
    findings, unjudged = [], {}
    for name, limit in allowed.items():
        key = f"{name} of {facet.name}"
        of = outcomes if name in bias.WITHOUT_LABELS else labelled
        if min(rows.values()) < least:
            unjudged[key] = (
                f"{rows[True]} predictions of {facet.group} and {rows[False]} of others,"
                f" {least} of each are needed"
            )
        elif of is None or min(of.d.sum(), of.a.sum()) < least:
            unjudged[key] = f"fewer than {least} labels of each"
        elif (value := values[name]) is None:
            unjudged[key] = "these predictions do not define it"
        else:
            findings.append(_finding(facet, name, value, limit, of))
    return (
        {
            "group": facet.group,
            "rows": int(everyone.sum()),
            "disadvantaged_rows": rows[True],
            "labelled": int(told.sum()),
            "of_the_rows": {name: value for name, value in values.items() if name not in bias.OF_ANSWERS},
            "of_the_answers": {name: value for name, value in values.items() if name in bias.OF_ANSWERS},
        },
        findings,
        unjudged,
    )


def _outcomes(
    run: Run, found: Predictions, facet: Facet, rows: Any, *, needs_matrix: bool = False
) -> Outcomes:
    observed = np.zeros(len(rows), dtype=bool)
    observed[found.labelled] = good(run, found.labels[found.labelled])
    matrix = None
    if needs_matrix:
        with tempfile.TemporaryDirectory() as scratch:
            model = approved_of(run).model(pathlib.Path(scratch) / "model")
            matrix = bias.comparable(model.fitted.matrix(found.frame))
    everyone = Outcomes(
        facet.disadvantaged,
        observed,
        good(run, found.decided),
        None if run.contract.label.values is None else found.labels,
        bias.strata(found.frame, run.contract),
        matrix,
    )
    return bias.of_rows(everyone, rows)


def _interval(name: str, outcomes: Outcomes) -> tuple[float, float] | None:
    """What resampled rows give; None for FT, whose neighbours a row that is drawn twice would be."""
    if name == "FT":
        return None
    rng = np.random.default_rng(SEED)
    rows = len(outcomes.d)
    size = min(rows, SAMPLE_ROWS)
    drawn = [
        bias.value_of(name, bias.of_rows(outcomes, rng.integers(0, rows, size))) for _ in range(RESAMPLES)
    ]
    known = np.array([value for value in drawn if value is not None])
    if len(known) < RESAMPLES / 2:
        return None
    value = bias.value_of(name, outcomes)
    # Of fewer rows than there are: moved to the value and drawn together to its spread.
    around = known if size == rows or value is None else value + (known - known.mean()) * np.sqrt(size / rows)
    low, high = np.quantile(around, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _finding(facet: Facet, name: str, value: float, allowed: _Allowed, outcomes: Outcomes) -> Finding:
    interval = _interval(name, outcomes)
    fair = 1.0 if name == "DI" else 0.0
    low, high = (value, value) if interval is None else interval
    beyond = low > fair + allowed.distance or high < fair - allowed.distance
    text = f"{value:.4f}, {low:.4f} to {high:.4f} by resampling; within {allowed.distance:.4f} of {fair:g}"
    if beyond:
        text = (
            f"Value {value:.4f} ({low:.4f} to {high:.4f}) does not meet the constraint requirement:"
            f" within {allowed.distance:.4f} of {fair:g}"
        )
    return Finding(
        name=f"{name} of {facet.name}",
        measure=name,
        value=value,
        limit=allowed.distance,
        beyond=beyond,
        severity=bias.unfairness(name, value) / allowed.distance,
        text=text,
        baseline=allowed.baseline,
        records=len(outcomes.d),
    )
