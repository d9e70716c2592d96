"""A forecast as text for a terminal, and as a page with a plot."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cost.forecast import Forecast, Sum
from cost.pricing import PriceTable

__all__ = ["bars", "page", "table"]

#: Of services in the plot; the rest is one bar.
MOST_BARS: Final = 12
FIRST, SECOND, THIRD = "#1f4e79", "#4f8fc0", "#c3d7e8"
PAGE: Final = Path(__file__).with_name("page.html.jinja")
LEGEND: Final = ("at rest", "models served, nobody asks", "at the stated load")


def table(found: Forecast, advice: Sequence[str]) -> str:
    """Lines for a terminal."""
    lines = [f"USD a month in {found.region}, list prices of {found.prices}; rest < idle < load", ""]
    for name in ("stack", "workload", "service"):
        rows = found.by(name)
        width = max((len(key) for key in rows), default=0)
        lines.append(f"{name:<{max(width, 8)}}  {'at rest':>10}  {'idle':>10}  {'at load':>10}")
        lines += [_row(key, value, max(width, 8)) for key, value in rows.items()]
        lines += [_row("total", found.total, max(width, 8)), ""]
    lines += [
        "at rest: deployed, nothing sent; no model approved, or all stopped because nobody uses it",
        "idle: the approved models are served and nobody asks",
        "at load:",
    ]
    lines += [
        f"  {name}: {load.records_per_day} records and {load.predictions_per_day} predictions a day"
        for name, load in found.loads.items()
    ]
    if found.not_priced:
        lines += ["", "not priced, and in none of the sums:"]
        lines += [f"  {name} ({why})" for name, why in found.not_priced.items()]
    lines += ["", f"{found.share_seen:.0%} of the sum at load rests on prices whose source was seen."]
    if advice:
        lines += ["", "cheaper:", *(f"  - {text}" for text in advice)]
    return "\n".join(lines)


def _row(name: str, value: Sum, width: int) -> str:
    return f"{name:<{width}}  {value.rest:>10.2f}  {value.idle:>10.2f}  {value.load:>10.2f}"


def bars(found: Forecast) -> str:
    """An SVG with a bar for each service: at rest, what serving adds, what the load adds."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    services = dict(list(found.by("service").items())[:MOST_BARS])
    others = [value for name, value in found.by("service").items() if name not in services]
    if others:
        services["others"] = Sum(
            rest=sum(o.rest for o in others),
            idle=sum(o.idle for o in others),
            load=sum(o.load for o in others),
        )
    names = list(services)[::-1]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cost", "font.size": 10}):
        figure = Figure(figsize=(7.6, 0.8 + 0.34 * len(names)), layout="constrained")
        axes = figure.subplots()
        parts: tuple[tuple[str, list[float]], ...] = (
            (FIRST, [services[n].rest for n in names]),
            (SECOND, [services[n].idle - services[n].rest for n in names]),
            (THIRD, [services[n].load - services[n].idle for n in names]),
        )
        left = [0.0] * len(names)
        for (colour, widths), label in zip(parts, LEGEND, strict=True):
            axes.barh(names, widths, left=left, color=colour, label=label, height=0.7)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for at, name in enumerate(names):
            axes.text(left[at], at, f" {services[name].load:.2f}", va="center", fontsize=9)
        axes.set_xlabel("USD a month")
        axes.set_xlim(0, max([*left, 1.0]) * 1.12)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def page(found: Forecast, *, title: str, prices: PriceTable, advice: Sequence[str]) -> str:
    """A page: sums, plot, lines, prices with their sources, what is assumed and what is not priced."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    used = {line.price for line in found.lines}
    context: Mapping[str, Any] = {
        "title": title,
        "found": found,
        "plot": bars(found),
        "groups": {name: found.by(name) for name in ("stack", "workload", "service")},
        "lines": sorted(found.lines, key=lambda line: -(line.usd or 0)),
        "prices": [price for name, price in prices.prices.items() if name in used],
        "notes": prices.note,
        "advice": advice,
    }
    return environment.from_string(PAGE.read_text(encoding="utf-8")).render(context)
