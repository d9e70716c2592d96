"""How good answers are, judged by labels that came later."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_contract.compiled import CompiledContract

    from rehearsal.story.traffic import Answer

__all__ = ["LESS_IS_BETTER", "area_under_roc", "judge", "metric_of", "truth"]

#: The metric of each task that the story compares models by.
METRICS = {"binary": "auc", "multiclass": "accuracy", "regression": "rmse"}
LESS_IS_BETTER = frozenset({"rmse"})


def metric_of(contract: CompiledContract) -> str:
    """Name of the metric that models of this contract are compared by."""
    return METRICS[contract.label.task]


def truth(record: Mapping[str, Any], contract: CompiledContract) -> str | float:
    """The label of a raw record, as the contract's label values are written."""
    field = contract.label.field
    value = record[next(c.source for c in contract.columns if c.name == field)]
    if contract.label.task == "regression":
        return float(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def judge(
    records: Sequence[Mapping[str, Any]], answers: Sequence[Answer], contract: CompiledContract
) -> dict[str, float]:
    """Metrics of the answers given to labelled records, in the order of the records."""
    truths = [truth(record, contract) for record in records]
    label = contract.label
    if label.task == "regression":
        errors = [float(t) - _score(a) for t, a in zip(truths, answers, strict=True)]
        return {"rmse": math.sqrt(sum(e * e for e in errors) / len(errors))}
    accuracy = sum(a.label == t for t, a in zip(truths, answers, strict=True)) / len(truths)
    if label.task == "multiclass" or label.values is None:
        return {"accuracy": accuracy}
    positive = label.values[1]
    area = area_under_roc([t == positive for t in truths], [_score(a) for a in answers])
    return {"auc": area, "accuracy": accuracy}


def _score(answer: Answer) -> float:
    if answer.score is None:
        raise ValueError(f"request {answer.index} failed and cannot be judged: {answer.error}")
    return answer.score


def area_under_roc(positive: Sequence[bool], scores: Sequence[float]) -> float:
    """Share of pairs of a positive and a negative that the scores put in order; ties count half.

    0.5 when there is no pair.
    """
    ordered = sorted(zip(scores, positive, strict=True))
    ranks = 0.0
    start = 0
    while start < len(ordered):
        end = start
        while end < len(ordered) and ordered[end][0] == ordered[start][0]:
            end += 1
        middle = (start + 1 + end) / 2
        ranks += middle * sum(is_positive for _, is_positive in ordered[start:end])
        start = end
    ones = sum(positive)
    pairs = ones * (len(ordered) - ones)
    return 0.5 if pairs == 0 else (ranks - ones * (ones + 1) / 2) / pairs
