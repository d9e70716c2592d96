"""The baseline of a workload, and the rules by which its live data is judged.

What the contract says, applied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
from ml_contract.compiled import CompiledContract

from ml_statistics.checks import RawColumn, suggest_constraints
from ml_statistics.describe import Kind, describe
from ml_statistics.drift import Rule

#: Values of a field that are described apart, the most frequent ones, and how many rows each needs for it.
SEGMENTS = 20
SEGMENT_ROWS = 30


def feature_kinds(contract: CompiledContract) -> dict[str, Kind]:
    """Return the features whose distribution is described. None identifies a person.

    The contract sees to it.
    """
    return {feature.name: feature.type for feature in contract.features}


def raw_columns(contract: CompiledContract) -> tuple[RawColumn, ...]:
    """Return the columns that live records are expected to have: all but the label, which comes later."""
    return tuple(
        RawColumn(column.name, column.type, column.required, column.allowed)
        for column in contract.for_requests.columns
        if column.name != contract.label.field
    )


def rules(contract: CompiledContract) -> Callable[[str], Rule]:
    """Return the function from a feature to its drift rule."""
    default = contract.monitoring["drift"]
    special = contract.monitoring["fields"]

    def rule_of(name: str) -> Rule:
        rule = special.get(name, default)
        return Rule(rule["distance"], rule["threshold"])

    return rule_of


def segments_of(frame: pl.DataFrame, contract: CompiledContract) -> pl.DataFrame:
    """Return what the rows are told apart by, as texts; fields that the frame lacks are left out."""
    named = [name for name in contract.monitoring.get("segments", ()) if name in frame.columns]
    return frame.select(pl.col(name).cast(pl.String) for name in named)


def _segments(
    frame: pl.DataFrame, contract: CompiledContract, integers: frozenset[str]
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for column in segments_of(frame, contract).iter_columns():
        counted = column.drop_nulls().value_counts(name="rows").sort(["rows", column.name], descending=True)
        for value, rows in counted.head(SEGMENTS).iter_rows():
            if rows < SEGMENT_ROWS:
                continue
            described = describe(frame.filter(column == value), feature_kinds(contract), integers=integers)
            found.append(
                {
                    "field": column.name,
                    "value": value,
                    "item_count": rows,
                    "features": described["features"],
                }
            )
    return found


def baseline(frame: pl.DataFrame, contract: CompiledContract) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make ``statistics.json`` and ``constraints.json`` of a feature table.

    Where the workload judges segments apart, ``segments`` describes each of them beside the whole: a key that
    Model Monitor's own readers pass over.
    """
    kinds = feature_kinds(contract)
    integers = frozenset(
        name for name in kinds if name in contract.by_name and contract.by_name[name].type == "integer"
    )
    statistics = describe(frame, kinds, integers=integers)
    if contract.monitoring.get("segments"):
        statistics["segments"] = _segments(frame, contract, integers)
    constraints = suggest_constraints(
        statistics, raw_columns(contract), drift_threshold=contract.monitoring["drift"]["threshold"]
    )
    return statistics, constraints
