"""What holds between ``monitoring`` and the record, the label, the features and ``evaluation``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_contract.checks.evaluation import told_apart_by
from ml_contract.problems import Location, suggest
from ml_contract.spec.evaluation import BIAS_BEFORE
from ml_contract.spec.judging import METRICS
from ml_contract.spec.monitoring import DISTANCES

if TYPE_CHECKING:
    from ml_contract.checks.workload import Checks

__all__ = ["WITHOUT_LABELS", "check_monitoring"]

#: Bias metrics of live predictions that need no label; CI counts rows, FT looks at neighbours.
WITHOUT_LABELS = ("CI", "DPPL", "DI", "CDDPL", "FT")
#: Of these Clarify's monitor knows nothing, and our own neither: they compare labels, not predictions.
_OF_LABELS_ONLY = tuple(name for name in BIAS_BEFORE if name != "CI")


def check_monitoring(checks: Checks, field_features: list[str], derived: dict[str, str]) -> None:
    """Fields, distances that fit them, and what each kind of monitor needs.

    Args:
        checks: of the workload.
        field_features: fields that are features by themselves.
        derived: type of every derived feature by name: number or category.
    """
    _names(checks, derived)
    _distances(checks, field_features, derived)
    monitoring = checks.workload.monitoring
    for i, name in enumerate(monitoring.segments):
        here: Location = ("monitoring", "segments", i)
        if told_apart_by(checks, here, name, derived) == "number":
            checks.wrong(here, f"{name} is a number; derive a bin of it and name that")
    if len(set(monitoring.segments)) != len(monitoring.segments):
        checks.wrong(("monitoring", "segments"), "names a field twice")
    _quality(checks)
    _bias(checks)
    if monitoring.attribution is not None and checks.workload.evaluation.explain is None:
        checks.wrong(
            ("monitoring", "attribution"),
            "is judged against the explanation that travels with the model; add evaluation.explain",
        )


def _names(checks: Checks, derived: dict[str, str]) -> None:
    monitoring = checks.workload.monitoring
    known = [*checks.fields, *derived]
    for where, listed in (("fields", list(monitoring.fields)), ("ignore", list(monitoring.ignore))):
        for i, name in enumerate(listed):
            if name not in known:
                key: str | int = name if where == "fields" else i
                checks.wrong(
                    ("monitoring", where, key),
                    f"got {name!r}, which is no field and no feature{suggest(name, known)}",
                )


def _distances(checks: Checks, field_features: list[str], derived: dict[str, str]) -> None:
    monitoring = checks.workload.monitoring
    kinds = {
        name: "category" if checks.fields[name].type == "string" else "number" for name in field_features
    } | derived
    for name, rule in monitoring.fields.items():
        kind = kinds.get(name)
        if kind is not None and rule.distance not in DISTANCES[kind]:
            checks.wrong(
                ("monitoring", "fields", name),
                f"{rule.distance} does not measure a {kind}; allowed: {', '.join(DISTANCES[kind])}",
            )
    unfit = [
        name
        for name, kind in kinds.items()
        if name not in monitoring.fields
        and name not in monitoring.ignore
        and monitoring.drift.distance not in DISTANCES[kind]
    ]
    if unfit:
        more = f" and {len(unfit) - 3} more" if len(unfit) > 3 else ""
        checks.wrong(
            ("monitoring", "drift"),
            f"{monitoring.drift.distance} does not measure {', '.join(unfit[:3])}{more}; take psi, ks or js "
            "here, and give it to the fields that it fits in monitoring.fields",
        )


def _quality(checks: Checks) -> None:
    quality, label = checks.workload.monitoring.quality, checks.workload.label
    allowed = METRICS[label.task]
    for name in () if quality is None else quality.limits:
        if name not in allowed:
            checks.wrong(
                ("monitoring", "quality", "limits", name),
                f"got {name!r}; for a {label.task} label: {', '.join(allowed)}",
            )


def _bias(checks: Checks) -> None:
    bias, judged = checks.workload.monitoring.bias, checks.workload.evaluation.bias
    if bias is None:
        return
    path: Location = ("monitoring", "bias")
    if judged is None:
        checks.wrong(path, "watches the facets of evaluation.bias, which is not there; add it")
        return
    if not bias.limits and not judged.limits:
        checks.wrong(
            path, "nothing is judged: give limits here, or limits in evaluation.bias for tolerance to hold to"
        )
    for name in bias.limits:
        if name in _OF_LABELS_ONLY:
            checks.wrong((*path, "limits", name), f"{name} is of labels, not of predictions; name another")
        elif name not in WITHOUT_LABELS and checks.workload.monitoring.quality is None:
            checks.wrong(
                (*path, "limits", name),
                f"{name} needs labels, which monitoring.quality brings; add it, or take one of "
                f"{', '.join(WITHOUT_LABELS)}",
            )
        elif name == "CDDPL" and judged.group is None:
            checks.wrong((*path, "limits", name), "needs evaluation.bias.group, whose strata it averages")
