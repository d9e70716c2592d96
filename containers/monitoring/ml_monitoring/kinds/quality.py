"""Model quality: live predictions beside what turned out true, by the measures of acceptance."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import polars as pl
from ml_judging import quality
from ml_judging.measures import LOSSES, Measures, measures_of
from ml_judging.resampling import Bootstrap, strata_of, with_intervals

from ml_monitoring.evidence import UnjudgedError
from ml_monitoring.kinds.answers import approved_of, delay_of, enough, mounted_constraints, predictions_of
from ml_monitoring.outcome import Finding, Outcome, Run
from ml_monitoring.predictions import Predictions

__all__ = ["judge_quality"]

#: Labelled records of a segment that is measured apart.
SEGMENT_LABELS: Final = 30


def _limits(run: Run) -> tuple[dict[str, float], set[str], dict[str, Any] | None, str]:
    """Return the value that each measure must keep, those held to the package, its baseline and its name."""
    block, contract = run.contract.monitoring["quality"], run.contract
    if block is None:
        raise UnjudgedError("the workload has no monitoring.quality")
    limits = {
        name: float(one["maximum"] if one["minimum"] is None else one["minimum"])
        for name, one in block["limits"].items()
    }
    wanted, task = contract.acceptance["metric"], contract.label.task
    if block["tolerance"] is None or wanted in limits:
        if "adjusted_r2" not in limits:
            return limits, set(), None, "limits of the workload"
        approved = approved_of(run)
        held = approved.baseline("ModelQuality", "Statistics", called="model quality")
        return limits, set(), held, approved.arn
    mounted = mounted_constraints(run)
    if mounted is not None:
        given = mounted[0].get(quality.CONSTRAINTS[task], {}).get(wanted, {}).get("threshold")
        if given is None:
            raise UnjudgedError(f"the model quality baseline {mounted[1]} has no {wanted}")
        return {**limits, wanted: float(given)}, {wanted}, None, mounted[1]
    approved = approved_of(run)
    statistics, source = approved.baseline("ModelQuality", "Statistics", called="model quality"), approved.arn
    value = statistics.get(quality.METRICS[task], {}).get(wanted)
    if value is None or value.get("value") is None:
        raise UnjudgedError(f"the model quality baseline of {source} has no {wanted}")
    limits[wanted] = quality.threshold_of(wanted, float(value["value"]), block["tolerance"])
    return limits, {wanted}, statistics, source


def _measures(run: Run, found: Predictions, columns: int) -> Measures:
    contract, known = run.contract, found.labelled
    labels, decided = found.labels[known], found.decided[known]
    if contract.label.values is not None and len(set(labels.tolist())) < 2:
        only = contract.label.values[int(labels[0])]
        raise UnjudgedError(f"all {len(labels)} labels are {only!r}: nothing can be told apart")
    return measures_of(
        contract.label.task,
        labels,
        found.scores[known],
        threshold=contract.decision_threshold,
        columns=columns,
        decided=decided.astype(np.int64),
    )


def judge_quality(run: Run) -> Outcome:
    """Judge the predictions of the window whose labels have arrived."""
    contract = run.contract
    limits, by_package, baseline, source = _limits(run)
    found = predictions_of(run)
    block, task = contract.monitoring["quality"], contract.label.task
    known = found.labelled
    labelled = int(known.sum())
    enough(found, 1)
    if labelled < block["minimum_labels"]:
        raise UnjudgedError(
            f"{labelled} of {len(known)} predictions have a label {delay_of(run)} hours later, at least"
            f" {block['minimum_labels']} are needed to judge"
        )
    columns = (baseline or {}).get("dataset", {}).get("columns")
    if "adjusted_r2" in limits and columns is None:
        raise UnjudgedError(f"the model quality baseline of {source} does not say how many columns it has")
    measures = _measures(run, found, columns or 0)
    how = Bootstrap(contract.evaluation.get("confidence", 0.95), contract.evaluation.get("resamples", 1_000))
    labels = found.labels[known]
    metrics = with_intervals(measures, strata_of(task, labels), how)
    if columns is None:
        metrics.pop("adjusted_r2", None)
    unknown = sorted(set(limits) - set(metrics))
    if unknown:
        raise UnjudgedError(f"these labels define no {', '.join(unknown)}")
    findings = [
        _finding(name, limit, metrics[name], _value_in(baseline, task, name), held=name in by_package)
        for name, limit in limits.items()
    ]
    constraints = quality.constraints(task, limits)
    violations = [
        {
            "constraint_check_type": constraints[quality.CONSTRAINTS[task]][one.name]["comparison_operator"],
            "description": one.text,
            "metric_name": one.name,
        }
        for one in findings
        if one.beyond
    ]
    statistics = quality.statistics(
        task,
        labels,
        found.scores[known],
        found.decided[known],
        metrics,
        classes=contract.label.values,
        about={},
    )
    return Outcome(
        documents={
            "statistics.json": statistics,
            "constraints.json": constraints,
            "constraint_violations.json": {"violations": violations},
        },
        violations=violations,
        findings=findings,
        judged=labelled,
        baseline=source,
        report={
            **found.about(),
            "delay_hours": delay_of(run),
            "labelled": labelled,
            "share_without_label": 1 - labelled / len(known),
            "metrics": metrics,
            "segments": _segments(run, found, columns),
        },
        figures={"quality": statistics[quality.METRICS[task]]},
    )


def _value_in(baseline: dict[str, Any] | None, task: str, name: str) -> float | None:
    held = {} if baseline is None else baseline.get(quality.METRICS[task], {}).get(name, {})
    value = held.get("value") if isinstance(held, dict) else None
    return None if value is None else float(value)


def _finding(
    name: str, limit: float, metric: dict[str, Any], baseline: float | None, *, held: bool
) -> Finding:
    value, (low, high) = metric["value"], metric["interval"]
    loss = name in LOSSES
    # A limit that people named is one; a value that the package reached by its rows, as these reached theirs
    # by theirs, must be missed by more than chance.
    reached = (low if loss else high) if held else value
    beyond = reached > limit if loss else reached < limit
    operator = "GreaterThanThreshold" if loss else "LessThanThreshold"
    spread = metric["standard_deviation"]
    text = f"Metric {name} with {value:.4f} +/- {spread:.4f} was {operator} '{limit:.4f}'"
    if not beyond:
        text = f"{value:.4f} +/- {spread:.4f}, {'at most' if loss else 'at least'} {limit:.4f}"
    missed = value - limit if loss else limit - value
    return Finding(
        name=name,
        measure=name,
        value=value,
        limit=limit,
        beyond=beyond,
        severity=1 + missed / (abs(limit) or 1.0),
        text=text,
        baseline=baseline,
    )


def _segments(run: Run, found: Predictions, columns: int | None) -> list[dict[str, Any]]:
    """The measures of each segment's labelled predictions."""
    known = np.flatnonzero(found.labelled)
    report: list[dict[str, Any]] = []
    for field in run.contract.monitoring["segments"]:
        texts = found.frame[field].cast(pl.String).fill_null("(none)").to_numpy()[known]
        for value in sorted(set(texts.tolist())):
            rows = known[texts == value]
            one: dict[str, Any] = {"field": field, "value": value, "labelled": len(rows), "metrics": None}
            labels = found.labels[rows]
            single = run.contract.label.values is not None and len(set(labels.tolist())) < 2
            if len(rows) >= SEGMENT_LABELS and not single:
                one["metrics"] = measures_of(
                    run.contract.label.task,
                    labels,
                    found.scores[rows],
                    threshold=run.contract.decision_threshold,
                    columns=columns or 0,
                    decided=found.decided[rows].astype(np.int64),
                ).values()
                if columns is None:
                    one["metrics"].pop("adjusted_r2", None)
            report.append(one)
    return report
