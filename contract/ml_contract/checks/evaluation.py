"""What holds between ``evaluation`` and the record, the label and the features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_contract.problems import Location, short, suggest
from ml_contract.spec.record import RegressionLabel, class_text

if TYPE_CHECKING:
    from ml_contract.checks.workload import Checks
    from ml_contract.spec.evaluation import Bias, Facet

__all__ = ["check_evaluation", "told_apart_by"]


def check_evaluation(checks: Checks, features: dict[str, str]) -> None:
    """Fields, values and what goes with which label.

    Args:
        checks: of the workload.
        features: type of every derived feature by name: number or category.
    """
    evaluation = checks.workload.evaluation
    for i, name in enumerate(evaluation.subgroups):
        here: Location = ("evaluation", "subgroups", i)
        kind = told_apart_by(checks, here, name, features)
        if kind == "number":
            checks.wrong(here, f"{name} is a number; derive a bin of it and name that")
    if len(set(evaluation.subgroups)) != len(evaluation.subgroups):
        checks.wrong(("evaluation", "subgroups"), "names a field twice")
    if evaluation.bias is not None:
        for name, facet in evaluation.bias.facets.items():
            _facet(checks, name, facet, features)
        _favourable(checks, evaluation.bias)
        if evaluation.bias.group is not None:
            told_apart_by(checks, ("evaluation", "bias", "group"), evaluation.bias.group, features)
    task = checks.workload.label.task
    if evaluation.costs is not None and task != "binary":
        checks.wrong(
            ("evaluation", "costs"),
            f"a threshold is chosen for a binary label, this one is {task}; remove it",
        )


def told_apart_by(checks: Checks, path: Location, name: str, features: dict[str, str]) -> str | None:
    """Type of a field or derived feature that rows are told apart by: text, boolean or number."""
    if name in features:
        return "number" if features[name] == "number" else "text"
    field = checks.fields.get(name)
    if field is None:
        known = [*checks.fields, *features]
        checks.wrong(path, f"got {name!r}, which is no field and no derived feature{suggest(name, known)}")
        return None
    record = checks.workload.record
    if name in (record.identifier, record.event_time, checks.workload.label.field):
        checks.wrong(path, f"got {name!r}, which is the identifier, the event time or the label")
    elif field.sensitive == "pii":
        checks.wrong(path, f"{name} is pii and never leaves the curated table; use another field")
    elif field.type in ("date", "timestamp"):
        checks.wrong(path, f"{name} is {field.type}; derive a date_part of it and name that")
    else:
        return {"string": "text", "boolean": "boolean"}.get(field.type, "number")
    return None


def _facet(checks: Checks, name: str, facet: Facet, features: dict[str, str]) -> None:
    path: Location = ("evaluation", "bias", "facets", name)
    kind = told_apart_by(checks, path, name, features)
    if kind is None:
        return
    if facet.above is not None and kind != "number":
        checks.wrong((*path, "above"), f"{name} is {kind}; give disadvantaged: [values]")
    if facet.disadvantaged is None:
        return
    if kind == "number":
        checks.wrong((*path, "disadvantaged"), f"{name} is a number; give above: number")
    field = checks.fields.get(name)
    for value in facet.disadvantaged:
        if (kind == "boolean") != isinstance(value, bool) or (
            field is not None and field.allowed is not None and value not in field.allowed
        ):
            allowed = (
                "true, false" if kind == "boolean" else ", ".join((field and field.allowed) or ("texts",))
            )
            checks.wrong((*path, "disadvantaged"), f"got {short(value)}; {name} allows {allowed}")
    if field is not None and field.allowed and set(field.allowed) <= set(facet.disadvantaged):
        checks.wrong((*path, "disadvantaged"), "names every value; nobody is left to compare with")


def _favourable(checks: Checks, bias: Bias) -> None:
    label = checks.workload.label
    path: Location = ("evaluation", "bias")
    if isinstance(label, RegressionLabel):
        if bias.favourable is not None or bias.favourable_above is None:
            checks.wrong(path, "the label is a number; give favourable_above, and no favourable")
        return
    if bias.favourable_above is not None:
        checks.wrong((*path, "favourable_above"), "the label has classes; give favourable: [values]")
    if bias.favourable is None:
        if label.task == "multiclass":
            checks.wrong(path, "a multiclass label needs favourable: [values]")
        return
    known = [class_text(value) for value in label.values]
    named = [class_text(value) for value in bias.favourable]
    for value in named:
        if value not in known:
            checks.wrong((*path, "favourable"), f"got {value!r}; the label has {', '.join(known)}")
    if set(known) <= set(named):
        checks.wrong((*path, "favourable"), "names every class; nothing is left to be unfavourable")
