"""Puts the page together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from ml_contract.compiled import CompiledContract

__all__ = ["page"]

#: Bars of the plot of everything that was judged, and lines of the plot over time.
SHOWN: Final = 25
LINES: Final = 5
TITLES: Final = {
    "data": "Data quality",
    "quality": "Model quality",
    "bias": "Bias",
    "attribution": "Feature attribution",
}


def page(contract: CompiledContract, report: Mapping[str, Any], drawn: Mapping[str, Any]) -> str:
    """One run as HTML.

    Args:
        contract: of the workload.
        report: what ``report.json`` says.
        drawn: what plots need beyond it.
    """
    environment = Environment(
        loader=PackageLoader("ml_monitoring.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["moment"] = _moment
    return environment.get_template("monitoring.html.j2").render(
        about=contract.evaluation.get("about", {}),
        name=contract.name,
        title=TITLES[report["kind"]],
        report=report,
        figures=_figures(contract, report, drawn) if report["judged"] else {},
    )


def _number(value: object) -> str:
    if value is None:
        return "\N{EN DASH}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _moment(text: str | None) -> str:
    return "\N{EN DASH}" if text is None else text[:16].replace("T", " ") + " UTC"


def _figures(
    contract: CompiledContract, report: Mapping[str, Any], drawn: Mapping[str, Any]
) -> dict[str, Any]:
    from ml_judging import plots

    found: dict[str, Any] = {"distributions": []}
    measured = [one for one in report["findings"] if one["value"] is not None and one["segment"] is None]
    if len(measured) > 1:
        ranked = sorted(measured, key=lambda one: -(one["severity"] or 0))[:SHOWN]
        found["limits"] = plots.limits(
            "limits",
            {one["name"]: one["severity"] or 0.0 for one in ranked},
            across="times what is allowed",
        )
    if sum(run["violations"] is not None for run in report["history"]) > 1 and measured:
        names = [one["name"] for one in measured[:LINES]]
        lines = {
            name: [
                [run["end"], run["values"][name]]
                for run in report["history"]
                if run["end"] is not None and run["values"].get(name) is not None
            ]
            for name in names
        }
        same = {one["limit"] for one in measured[:LINES]}
        found["history"] = plots.over_time(
            "history",
            {name: points for name, points in lines.items() if points},
            limit=same.pop() if len(same) == 1 else None,
            up=measured[0]["measure"] if len({one["measure"] for one in measured[:LINES]}) == 1 else "value",
        )
    for one in drawn.get("distributions", ()):
        figure = plots.pairs(
            f"distribution {one['feature']}",
            one["labels"],
            {"training": one["baseline"], "live": one["live"]},
            across="share",
        )
        found["distributions"].append((one["feature"], one["drifted"], figure))
    if report["kind"] == "attribution":
        largest = dict(list(report["importance"].items())[:SHOWN])
        found["importance"] = plots.pairs(
            "importance",
            list(largest),
            {
                "held out": [one["baseline"] or 0.0 for one in largest.values()],
                "live": [one["live"] or 0.0 for one in largest.values()],
            },
            across=f"mean |Shapley value| ({report['units']})",
            wide=True,
        )
    found |= _of_quality(contract, drawn.get("quality", {}))
    return found


def _of_quality(contract: CompiledContract, metrics: Mapping[str, Any]) -> dict[str, Any]:
    from ml_judging import plots

    found: dict[str, Any] = {}
    if "confusion_matrix" in metrics:
        table = [list(row.values()) for row in metrics["confusion_matrix"].values()]
        found["confusion"] = plots.confusion(table, contract.label.values or ())
    if "receiver_operating_characteristic_curve" in metrics:
        curve = metrics["receiver_operating_characteristic_curve"]
        points = list(zip(curve["false_positive_rates"], curve["true_positive_rates"], strict=True))
        found["roc"] = plots.curves(
            "roc",
            {f"area {metrics['auc']['value']:.3f}": points},
            across="false positive rate",
            up="true positive rate",
            diagonal=True,
        )
    return found
