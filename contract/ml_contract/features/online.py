"""A record as the feature store's online store has it: keys, label and features. Standard library only.

The batch path computes the same with ``ml_contract.features.frame``; property tests hold the two together.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping
from typing import Final

from ml_contract.compiled import CompiledContract, Feature
from ml_contract.expressions import Expr
from ml_contract.features.row import row_function

__all__ = ["FeatureRecord", "feature_record", "store_text"]

FeatureRecord = Callable[[Mapping[str, object]], dict[str, str]]
#: Under this name the label is computed beside the features; no feature is called so (``ColumnName``).
_LABEL: Final = "=label"


def feature_record(contract: CompiledContract) -> FeatureRecord:
    """Function from typed values under column names to the texts that PutRecord takes, by feature name.

    Identifier, event time (ISO 8601, UTC), label, then each feature, as ``CompiledContract.feature_columns``
    orders them; what has no value is left out.
    """
    label = Expr("col", (), (contract.label.field,))
    number = contract.label.task == "regression"
    computed = Feature(
        name=_LABEL,
        type="number" if number else "category",
        expression=label if number else label.cast("string"),
    )
    stored = (*contract.features, *contract.audit)
    compute = row_function(dataclasses.replace(contract, features=(computed, *stored)))
    identifier, event_time = contract.identifier, contract.event_time
    names = [(contract.label.field, _LABEL), *((feature.name, feature.name) for feature in stored)]

    def record(values: Mapping[str, object]) -> dict[str, str]:
        found = compute(values)
        texts = {identifier: str(values[identifier]), event_time: _moment(values[event_time])}
        for name, key in names:
            value = found[key]
            if value is not None:
                texts[name] = store_text(value)
        return texts

    return record


def store_text(value: float | str) -> str:
    """A value as the feature store's text: of a number the shortest one that reads back the same."""
    return repr(float(value)) if isinstance(value, int | float) else value


def _moment(value: object) -> str:
    moment = dt.datetime.fromisoformat(str(value))
    if moment.tzinfo is not None:
        moment = moment.astimezone(dt.UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="seconds") + "Z"
