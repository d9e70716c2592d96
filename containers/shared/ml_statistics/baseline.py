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


def baseline(frame: pl.DataFrame, contract: CompiledContract) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make ``statistics.json`` and ``constraints.json`` of a feature table."""
    kinds = feature_kinds(contract)
    integers = frozenset(
        name for name in kinds if name in contract.by_name and contract.by_name[name].type == "integer"
    )
    statistics = describe(frame, kinds, integers=integers)
    constraints = suggest_constraints(
        statistics, raw_columns(contract), drift_threshold=contract.monitoring["drift"]["threshold"]
    )
    return statistics, constraints
