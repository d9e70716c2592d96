"""``constraints.json`` and ``constraint_violations.json``.

What a baseline suggests, and where live data breaks it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import polars as pl
from scipy import stats

from ml_statistics.describe import OTHER
from ml_statistics.drift import SIGNIFICANCE, Drift, Rule, correct, counted, measure

#: Shares of values that must have the column's type, and that must be among the known categories.
DATA_TYPE_THRESHOLD = 0.99
DOMAIN_THRESHOLD = 0.99
#: Where a violation concerns whole records and no field.
WHOLE_RECORD = "<record>"

#: Which check a reason of a rejected record belongs to.
CHECK_OF_REASON = {
    "not_utf8": "data_type_check",
    "not_json": "data_type_check",
    "not_an_object": "data_type_check",
    "too_large": "data_type_check",
    "wrong_type": "data_type_check",
    "unparseable_date": "data_type_check",
    "out_of_range": "data_type_check",
    "pattern": "data_type_check",
    "too_long": "data_type_check",
    "missing_required": "completeness_check",
    "unknown_field": "extra_column_check",
    "not_allowed": "categorical_values_check",
    "unknown_label": "categorical_values_check",
}

INFERRED_TYPES = {"integer": "Integral", "number": "Fractional"}


@dataclasses.dataclass(frozen=True)
class RawColumn:
    """What the contract says of a column of the record."""

    name: str
    type: str
    required: bool
    allowed: tuple[str, ...] | None


def _entry(feature: Mapping[str, Any], allowed: tuple[str, ...] | None) -> dict[str, Any]:
    body = feature.get("numerical_statistics") or feature["string_statistics"]
    common = body["common"]
    total = common["num_present"] + common["num_missing"]
    entry: dict[str, Any] = {
        "name": feature["name"],
        "inferred_type": feature["inferred_type"],
        "completeness": common["num_present"] / total if total else 0.0,
    }
    if "numerical_statistics" in feature:
        entry["num_constraints"] = {"is_non_negative": body.get("min", -1.0) >= 0}
    else:
        buckets = body["distribution"]["categorical"]["buckets"]
        values = [bucket["value"] for bucket in buckets]
        # Too many categories to list are no domain: most new values among them are harmless.
        if allowed is not None:
            entry["string_constraints"] = {"domains": list(allowed)}
        elif OTHER not in values:
            entry["string_constraints"] = {"domains": sorted(values)}
    return entry


def suggest_constraints(
    statistics: Mapping[str, Any], columns: Iterable[RawColumn], *, drift_threshold: float
) -> dict[str, Any]:
    """Make ``constraints.json``.

    Of every described feature, and of every column of the record that is no feature.
    """
    known = {column.name: column for column in columns}
    features = []
    for feature in statistics["features"]:
        column = known.pop(feature["name"], None)
        features.append(_entry(feature, column.allowed if column else None))
    for column in known.values():
        entry: dict[str, Any] = {
            "name": column.name,
            "inferred_type": INFERRED_TYPES.get(column.type, "String"),
            "completeness": 1.0 if column.required else 0.0,
        }
        if column.allowed is not None:
            entry["string_constraints"] = {"domains": list(column.allowed)}
        features.append(entry)
    return {
        "version": 0.0,
        "features": features,
        "monitoring_config": {
            "evaluate_constraints": "Enabled",
            "emit_metrics": "Enabled",
            "datatype_check_threshold": DATA_TYPE_THRESHOLD,
            "domain_content_threshold": DOMAIN_THRESHOLD,
            "distribution_constraints": {
                "perform_comparison": "Enabled",
                "comparison_threshold": drift_threshold,
                "comparison_method": "Robust",
                "categorical_comparison_threshold": drift_threshold,
                "categorical_drift_method": "LInfinity",
            },
        },
    }


@dataclasses.dataclass(frozen=True)
class Observed:
    """What a window of traffic held.

    Args:
        total: records in the window.
        frame: features of the records that the contract accepts.
        named: for each column of the record, in how many records it stands at all, with or without a value.
        reasons: why records were refused: (code, field) to the number of records.
        segments: for each row of ``frame`` its value of every field that is judged apart.
    """

    total: int
    frame: pl.DataFrame
    named: Mapping[str, int]
    reasons: Mapping[tuple[str, str | None], int]
    segments: pl.DataFrame | None = None


@dataclasses.dataclass(frozen=True)
class Violation:
    """One entry of ``constraint_violations.json``."""

    feature_name: str
    constraint_check_type: str
    description: str


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Violations, and the distance of every column that could be compared.

    Args:
        violations: what is wrong.
        drift: distances, of all records and of each segment.
        segments: records of each segment, ``field=value``.
        unjudged_segments: why a segment was not judged apart.
    """

    violations: tuple[Violation, ...]
    drift: tuple[Drift, ...]
    segments: Mapping[str, int] = dataclasses.field(default_factory=dict)
    unjudged_segments: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return ``constraint_violations.json``."""
        return {"violations": [dataclasses.asdict(violation) for violation in self.violations]}


def _refused(observed: Observed, constraints: Mapping[str, Any]) -> Iterator[Violation]:
    config = constraints["monitoring_config"]
    tolerated = {
        "data_type_check": 1 - config["datatype_check_threshold"],
        "categorical_values_check": 1 - config["domain_content_threshold"],
        "completeness_check": 0.0,
        "extra_column_check": 0.0,
    }
    per_check: dict[tuple[str, str], dict[str, int]] = {}
    for (code, field), count in observed.reasons.items():
        check = CHECK_OF_REASON.get(code, "data_type_check")
        per_check.setdefault((field or WHOLE_RECORD, check), {})[code] = count
    for (field, check), codes in sorted(per_check.items()):
        count = sum(codes.values())
        if check == "completeness_check" and count == observed.total and not observed.named.get(field):
            continue  # the whole column is missing: said once, by missing_column_check
        if count / observed.total > tolerated[check]:
            why = ", ".join(f"{code} {number}" for code, number in sorted(codes.items()))
            text = f"{count} of {observed.total} records were refused ({why})"
            yield Violation(field, check, text)


def _missing_columns(observed: Observed, constraints: Mapping[str, Any]) -> Iterator[Violation]:
    for entry in constraints["features"]:
        name = entry["name"]
        if observed.named.get(name) == 0 and entry["completeness"] > 0:
            text = (
                f"no record of {observed.total} has the column;"
                f" its baseline completeness is {entry['completeness']:.3f}"
            )
            yield Violation(name, "missing_column_check", text)


def _values(
    observed: Observed,
    constraints: Mapping[str, Any],
    counts: Mapping[str, pl.DataFrame],
    *,
    minimum_completeness: float,
    ignored: frozenset[str],
    rate: float,
) -> Iterator[Violation]:
    rows = observed.frame.height
    domain_threshold = constraints["monitoring_config"]["domain_content_threshold"]
    for entry in constraints["features"]:
        name = entry["name"]
        if name not in observed.frame.columns or name in ignored or observed.named.get(name) == 0 or not rows:
            continue
        column = observed.frame[name]
        present = rows - column.null_count()
        # The baseline is a sample too: fewer values than it promised count when chance does not explain it.
        promised = entry["completeness"] * minimum_completeness
        if present / rows < promised:
            chance = stats.binomtest(present, rows, entry["completeness"], alternative="less").pvalue
            if chance < rate:
                text = (
                    f"{present / rows:.3f} of {rows} records have a value; the baseline has"
                    f" {entry['completeness']:.3f}, of which {minimum_completeness:.2f} must remain"
                )
                yield Violation(name, "completeness_check", text)
        domains = entry.get("string_constraints", {}).get("domains")
        if domains is not None and present:
            values = counts[name]
            unknown = values.filter(~values["value"].is_in(domains))
            known = present - int(unknown["count"].sum())
            if known / present < domain_threshold:
                chance = stats.binomtest(known, present, domain_threshold, alternative="less").pvalue
                if chance < rate:
                    text = (
                        f"{known / present:.3f} of {present} values are known categories,"
                        f" {domain_threshold:.3f} must be; {unknown.height} new ones"
                    )
                    yield Violation(name, "categorical_values_check", text)


def segment_name(field: str, value: str) -> str:
    """How a segment is called: in reports, and in the description of a violation."""
    return f"{field}={value}"


def _segments(
    observed: Observed, statistics: Mapping[str, Any], minimum: int
) -> tuple[list[tuple[str, Mapping[str, Any], pl.DataFrame]], dict[str, int], dict[str, str]]:
    """Return the segments to judge with baselines and rows, the size of all, and why some are left out."""
    known = {(one["field"], one["value"]): one for one in statistics.get("segments", ())}
    chosen, sizes, left_out = [], {}, {}
    for column in () if observed.segments is None else observed.segments.iter_columns():
        for value in sorted(column.drop_nulls().unique()):
            rows = observed.frame.filter(column == value)
            name = segment_name(column.name, value)
            sizes[name] = rows.height
            described = known.get((column.name, value))
            if described is None:
                left_out[name] = "the baseline has too few records of it"
            elif rows.height < minimum:
                left_out[name] = f"{rows.height} records, at least {minimum} are needed"
            else:
                chosen.append((name, described, rows))
        for field, value in known:
            name = segment_name(field, value)
            if field == column.name and name not in sizes:
                sizes[name], left_out[name] = 0, "no record of it"
    return chosen, sizes, left_out


def judge(
    observed: Observed,
    statistics: Mapping[str, Any],
    constraints: Mapping[str, Any],
    *,
    rule_of: Callable[[str], Rule],
    minimum_completeness: float,
    ignored: frozenset[str] = frozenset(),
    rate: float = SIGNIFICANCE,
    minimum_records: int = 1,
) -> Judgement:
    """Compare a window of at least one record with its baseline, by Model Monitor's six checks.

    Args:
        observed: the window.
        statistics: of the baseline.
        constraints: of the baseline.
        rule_of: from a feature to its drift rule.
        minimum_completeness: share of the baseline's share of values that must remain.
        ignored: features that are not judged.
        rate: false discovery rate over all fields and segments.
        minimum_records: of a segment; one with fewer is not judged apart.
    """
    if observed.total < 1:
        raise ValueError("an empty window cannot be judged")
    # Model Monitor's SDK switches single features off so (Constraints.set_monitoring).
    ignored |= {
        entry["name"]
        for entry in constraints["features"]
        if entry.get("monitoring_config_overrides", {}).get("evaluate_constraints") == "Disabled"
    }
    segments, sizes, left_out = _segments(observed, statistics, minimum_records)
    counts = {
        column.name: counted(column)
        for column in observed.frame.iter_columns()
        if column.dtype == pl.String and column.name not in ignored
    }
    measured = [
        drift
        for name, described, rows in [(None, statistics, observed.frame), *segments]
        for feature in described["features"]
        if feature["name"] in rows.columns
        and feature["name"] not in ignored
        # All records of a segment share its value.
        and (name is None or not name.startswith(f"{feature['name']}="))
        for drift in [
            measure(
                feature,
                rows[feature["name"]],
                rule_of(feature["name"]),
                segment=name,
                counts=counts.get(feature["name"]) if name is None else None,
            )
        ]
        if drift is not None
    ]
    drifts = correct(measured, rate=rate)
    violations = [
        *_refused(observed, constraints),
        *_missing_columns(observed, constraints),
        *_values(
            observed,
            constraints,
            counts,
            minimum_completeness=minimum_completeness,
            ignored=ignored,
            rate=rate,
        ),
        *(_drifted(drift) for drift in drifts if drift.drifted),
    ]
    return Judgement(tuple(violations), drifts, sizes, left_out)


def _drifted(drift: Drift) -> Violation:
    among = "" if drift.segment is None else f"among {drift.segment}: "
    return Violation(
        drift.feature,
        "baseline_drift_check",
        f"{among}{drift.distance} distance {drift.value:.3f} exceeds {drift.threshold:g}"
        f" on {drift.records} values (chance {drift.chance:.1g})",
    )
