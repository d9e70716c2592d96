"""Puts the page together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from ml_contract.compiled import CompiledContract
from ml_judging import plots

__all__ = ["page"]

#: Bars of the importance plot.
SHOWN: Final = 20


def page(contract: CompiledContract, report: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """The evaluation as HTML. ``metadata`` is the model folder's."""
    environment = Environment(
        loader=PackageLoader("ml_processing.judging.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment.get_template("evaluation.html.j2").render(
        about=contract.evaluation.get("about", {}),
        name=contract.name,
        labels=contract.label.values or (),
        report=report,
        folds=metadata.get("k_folds"),
        figures=_figures(contract, report),
    )


def _number(value: object) -> str:
    if value is None:
        return "\N{EN DASH}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _figures(contract: CompiledContract, report: Mapping[str, Any]) -> dict[str, Any]:
    labels = contract.label.values or ()
    found: dict[str, Any] = {"dependence": []}
    if report["roc"]:
        area = report["metrics"]["auc"]["value"]
        found["roc"] = plots.curves(
            "roc", {f"area {area:.3f}": report["roc"]},
            across="false positive rate", up="true positive rate", diagonal=True,
        )  # fmt: skip
    if report["precision_recall"]:
        area = report["metrics"]["average_precision"]["value"]
        found["precision_recall"] = plots.curves(
            "precision-recall", {f"average {area:.3f}": report["precision_recall"]},
            across="recall", up="precision",
        )  # fmt: skip
    if report["calibration"]:
        points = [[bin_["mean_score"], bin_["share_positive"]] for bin_ in report["calibration"]]
        found["calibration"] = plots.curves(
            "calibration", {"model": points}, across="mean score", up="share positive", diagonal=True
        )
    if report["confusion"]:
        found["confusion"] = plots.confusion(report["confusion"], labels)
    if report["costs"] is not None:
        found["costs"] = plots.curves(
            "costs", {"cost per row, validation": report["costs"]["curve"]},
            across="decision threshold", up="cost per row", marked=report["costs"]["threshold"],
        )  # fmt: skip
    metric = contract.acceptance["metric"]
    groups = _groups(report, metric)
    if len(groups) > 1:
        found["subgroups"] = plots.intervals("subgroups", groups, across=metric)
    if report["explain"] is not None:
        explained = report["explain"]
        largest = dict(list(explained["importance"].items())[:SHOWN])
        across = f"mean |Shapley value| ({explained['units']})"
        found["importance"] = plots.bars("importance", largest, across=across)
        found["dependence"] = [plots.dependence(one, labels) for one in explained["partial_dependence"]]
    return found


def _groups(report: Mapping[str, Any], metric: str) -> Sequence[tuple[str, float, Sequence[float]]]:
    def row(title: str, metrics: Mapping[str, Any]) -> list[tuple[str, float, Sequence[float]]]:
        one = metrics.get(metric)
        return [] if one is None else [(title, one["value"], one["interval"])]

    rows = row(f"everyone ({report['rows']})", report["metrics"])
    for one in report["subgroups"]:
        if one["metrics"] is not None:
            rows += row(f"{one['field']} {one['value']} ({one['rows']})", one["metrics"])
    return rows
