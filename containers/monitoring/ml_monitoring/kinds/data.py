"""Data quality: live records beside those that the model learned from, by Model Monitor's six checks."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, Final

import boto3
import numpy as np
import polars as pl
from ml_runtime.job import BadInputError
from ml_statistics.baseline import baseline, rules
from ml_statistics.checks import Judgement, judge
from ml_statistics.describe import OTHER, finite
from ml_statistics.drift import Drift, category_counts, counted, number_counts

from ml_monitoring.capture import Capture, hour_prefixes, read_bucket, read_capture, read_folder
from ml_monitoring.evidence import Approved, UnjudgedError, bucket_and_key, read_document
from ml_monitoring.outcome import Finding, Outcome, Run
from ml_monitoring.settings import ModelMonitorEngine

__all__ = ["judge_data"]

#: Features whose distributions the report draws at most, and categories of one.
DRAWN: Final = 8
CATEGORIES: Final = 12


def _mounted(path: str) -> dict[str, Any]:
    file = pathlib.Path(path)
    if not file.is_file():
        raise UnjudgedError(f"the baseline {file} is not mounted")
    return read_document(file.read_bytes(), path)


def _baseline(run: Run) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return statistics, constraints and where they come from."""
    settings = run.settings
    if isinstance(settings, ModelMonitorEngine) and settings.mounted_baseline is not None:
        place = settings.mounted_baseline[0]
        found = [_mounted(path) for path in settings.mounted_baseline]
    else:
        if settings.approved_model_parameter is None:
            raise BadInputError("no baseline: mount one or set APPROVED_MODEL_PARAMETER")
        approved = Approved.named_by(settings.approved_model_parameter)
        place = approved.arn
        found = [
            approved.baseline("ModelDataQuality", name, called="data quality")
            for name in ("Statistics", "Constraints")
        ]
    for document in found:
        if not isinstance(document.get("features"), list):
            raise UnjudgedError(f"the baseline of {place} has no list of features")
    statistics, constraints = found
    return statistics, constraints, place


def _captured(run: Run) -> tuple[Capture, str]:
    """Return what was captured in the window and where it was looked for."""
    settings = run.settings
    if isinstance(settings, ModelMonitorEngine):
        source = settings.dataset_source
        return read_capture(read_folder(pathlib.Path(source)), run.contract), source
    client = boto3.client("s3")
    bucket, key = bucket_and_key(settings.capture_uri)
    prefix = f"{key.rstrip('/')}/{settings.endpoint}/".lstrip("/")
    folders = hour_prefixes(client, bucket, prefix, settings.window.hours())
    capture = read_capture(read_bucket(client, bucket, folders), run.contract)
    return capture, f"{settings.capture_uri} from {settings.window}"


def _enough(capture: Capture, where: str, minimum: int) -> None:
    if not capture.files:
        raise UnjudgedError(f"nothing was captured in {where}")
    if capture.records < minimum:
        damaged = (
            f"; {sum(capture.damaged.values())} invocations could not be read" if capture.damaged else ""
        )
        raise UnjudgedError(
            f"{capture.records} records were captured, at least {minimum} are needed to judge{damaged}"
        )


def judge_data(run: Run) -> Outcome:
    """Judge the records of the window."""
    contract = run.contract
    statistics, constraints, source = _baseline(run)
    capture, where = _captured(run)
    rules_of = contract.monitoring
    _enough(capture, where, rules_of["minimum_records"])
    observed = capture.observed
    judgement = judge(
        observed,
        statistics,
        constraints,
        rule_of=rules(contract),
        minimum_completeness=rules_of["minimum_completeness"],
        ignored=frozenset(rules_of["ignore"]),
        rate=rules_of["false_discovery_rate"],
        minimum_records=rules_of["minimum_records"],
    )
    live_statistics, live_constraints = baseline(observed.frame, contract)
    violations = judgement.document()["violations"]
    return Outcome(
        documents={
            "statistics.json": live_statistics,
            "constraints.json": live_constraints,
            "constraint_violations.json": judgement.document(),
        },
        violations=violations,
        findings=_findings(judgement),
        judged=observed.total,
        baseline=source,
        report={
            "files": capture.files,
            "invocations": capture.invocations,
            "records": capture.records,
            "records_accepted": observed.frame.height,
            "damaged": capture.damaged,
            "drift": [_drift(drift) for drift in judgement.drift if drift.segment is None],
            "segments": {
                name: {
                    "records": size,
                    "why_not_judged": judgement.unjudged_segments.get(name),
                    "drift": [_drift(drift) for drift in judgement.drift if drift.segment == name],
                }
                for name, size in judgement.segments.items()
            },
        },
        drift={drift.feature: drift.value for drift in judgement.drift if drift.segment is None},
        figures={"distributions": _distributions(statistics, observed.frame, judgement.drift)},
    )


def _drift(drift: Drift) -> dict[str, Any]:
    return {**dataclasses.asdict(drift), "drifted": drift.drifted}


def _findings(judgement: Judgement) -> list[Finding]:
    found = [
        Finding(
            name=drift.feature,
            measure=drift.distance,
            value=drift.value,
            limit=drift.threshold,
            beyond=drift.drifted,
            severity=drift.value / drift.threshold,
            text=f"chance {drift.chance:.2g}",
            segment=drift.segment,
            records=drift.records,
        )
        for drift in judgement.drift
    ]
    # What is broken comes before what has moved.
    others = [v for v in judgement.violations if v.constraint_check_type != "baseline_drift_check"]
    return [
        *(
            Finding(
                name=one.feature_name,
                measure=one.constraint_check_type,
                value=None,
                limit=None,
                beyond=True,
                severity=float("inf"),
                text=one.description,
            )
            for one in others
        ),
        *found,
    ]


def _distributions(
    statistics: dict[str, Any], frame: pl.DataFrame, drifts: tuple[Drift, ...]
) -> list[dict[str, Any]]:
    """Shares of the baseline and of the window, of the features that moved most."""
    entries = {feature["name"]: feature for feature in statistics["features"]}
    moved = sorted(
        (drift for drift in drifts if drift.segment is None),
        key=lambda drift: (drift.drifted, drift.value / drift.threshold),
        reverse=True,
    )
    count = max(3, sum(drift.drifted for drift in moved))
    return [
        {"feature": drift.feature, "drifted": drift.drifted, **_shares(entries[drift.feature], frame)}
        for drift in moved[: min(count, DRAWN)]
    ]


def _shares(entry: dict[str, Any], frame: pl.DataFrame) -> dict[str, Any]:
    column = frame[entry["name"]]
    if "numerical_statistics" in entry:
        described = entry["numerical_statistics"]
        before, now = number_counts(described, np.asarray(finite(column)))
        buckets = described["distribution"]["kll"]["buckets"]
        bounds = [f"{one['lower_bound']:.4g} to {one['upper_bound']:.4g}" for one in buckets]
        labels = [
            f"below {buckets[0]['lower_bound']:.4g}",
            *bounds,
            f"above {buckets[-1]['upper_bound']:.4g}",
        ]
        kept = [i for i, (old, new) in enumerate(zip(before, now, strict=True)) if old or new]
    else:
        described = entry["string_statistics"]
        before, now = category_counts(described, counted(column))
        names = [one["value"] for one in described["distribution"]["categorical"]["buckets"]]
        labels = [*names, *([] if OTHER in names else [OTHER])]
        largest = np.argsort(-np.maximum(before / before.sum(), now / now.sum()), kind="stable")
        kept = [int(i) for i in largest[:CATEGORIES] if before[i] or now[i]]
    return {
        "labels": ["new" if labels[i] == OTHER else labels[i] for i in kept],
        "baseline": [float(before[i] / before.sum()) for i in kept],
        "live": [float(now[i] / now.sum()) for i in kept],
    }
