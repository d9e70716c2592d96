"""The report's plots: matplotlib figures as inline SVG whose colours are the page's own.

Each colour of a figure is a stand-in that is replaced by one of the page's CSS variables, so that a plot
follows the reader's light or dark theme; text stays text, so that it can be selected and read aloud.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["confusion", "drift", "load", "metric_bars", "roc", "seconds_bars", "traffic_share"]

#: Stand-in -> CSS variable of the page.
INK, FAINT, GRID, FIRST, SECOND, BAD, PAPER = (
    "#010203",
    "#040506",
    "#070809",
    "#0a0b0c",
    "#0d0e0f",
    "#101112",
    "#131415",
)
VARIABLES = {
    INK: "--ink",
    FAINT: "--faint",
    GRID: "--line",
    FIRST: "--first",
    SECOND: "--second",
    BAD: "--bad",
    PAPER: "--card",
}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": FAINT,
    "axes.labelsize": 9.5,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.labelcolor": INK,
}


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    # The object interface without pyplot: no global state, no display.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def _svg(figure: Figure, name: str, label: str) -> str:
    """Return the figure as an ``<svg>`` element that scales with its container."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Ids are unique per document, and one page holds many figures.
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    for stand_in, variable in VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    size = re.search(r'<svg[^>]*?\bwidth="([\d.]+)pt"', text)
    limit = f"max-width:{float(size.group(1)) * 1.45:.0f}px" if size else ""
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', rf'\1 style="{limit}"', text, count=1)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--sans)", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def roc(curves: Mapping[str, tuple[Sequence[Sequence[float]], float | None]]) -> str:
    """ROC curves by title: points ``[false positive rate, true positive rate]`` and the area."""
    with _figure(4.1, 3.7) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GRID, linewidth=1.2, linestyle=(0, (4, 3)))
        for (title, (points, area)), colour in zip(curves.items(), (FIRST, SECOND, FAINT), strict=False):
            label = title if area is None else f"{title} · {area:.3f}"
            axes.plot([p[0] for p in points], [p[1] for p in points], color=colour, linewidth=2, label=label)
        axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc="lower right")
        return _svg(figure, "roc", "ROC curves")


def confusion(counts: Sequence[Sequence[float]], labels: Sequence[str], *, name: str) -> str:
    """Confusion matrix: rows are what was, columns what the model said."""
    size = len(counts)
    with _figure(1.6 + 0.75 * size, 1.3 + 0.65 * size) as (figure, axes):
        axes.grid(visible=False)
        for row, line in enumerate(counts):
            total = sum(line) or 1
            for column, count in enumerate(line):
                colour = FIRST if row == column else BAD
                share = count / total
                axes.add_patch(_cell(column, row, colour, 0.10 + 0.55 * share))
                axes.text(column + 0.5, row + 0.5, f"{count:,.0f}", ha="center", va="center", fontsize=12)
        axes.set(xlim=(0, size), ylim=(size, 0), xlabel="predicted", ylabel="actual")
        ticks = [i + 0.5 for i in range(size)]
        axes.set_xticks(ticks, [str(x) for x in labels])
        axes.set_yticks(ticks, [str(x) for x in labels])
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return _svg(figure, name, "confusion matrix")


def _cell(column: int, row: int, colour: str, alpha: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column + 0.03, row + 0.03), 0.94, 0.94, facecolor=colour, alpha=alpha, edgecolor="none")


def metric_bars(values: Mapping[str, float | None], *, axis: str) -> str:
    """One metric of several models or data sets, as horizontal bars."""
    present = {title: value for title, value in values.items() if value is not None}
    with _figure(9.6, 0.6 + 0.38 * max(1, len(present))) as (figure, axes):
        titles = list(present)
        colours = [FAINT, BAD, SECOND, FIRST]
        axes.barh(titles, list(present.values()), color=colours[: len(titles)], height=0.55)
        for position, value in enumerate(present.values()):
            axes.text(value, position, f" {value:.3f}", va="center", ha="left", fontsize=10)
        axes.invert_yaxis()
        axes.set(xlabel=axis, xlim=(0, max(present.values(), default=1) * 1.15 or 1))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        return _svg(figure, "metric-bars", axis)


def drift(features: Sequence[Mapping[str, Any]]) -> str:
    """Drift of each feature before and after the change, with its threshold."""
    ordered = sorted(features, key=lambda f: -(f.get("after") or 0.0))[:40]
    with _figure(9.6, 0.9 + 0.22 * max(1, len(ordered))) as (figure, axes):
        names = [str(f["feature"]) for f in ordered]
        after = [float(f.get("after") or 0.0) for f in ordered]
        before = [float(f.get("before") or 0.0) for f in ordered]
        limits = [float(f["threshold"]) for f in ordered]
        rows = range(len(names))
        colours = [BAD if a > t else SECOND for a, t in zip(after, limits, strict=True)]
        axes.hlines(rows, before, after, color=GRID, linewidth=2.2, zorder=1)
        axes.scatter(before, rows, color=FIRST, s=26, zorder=3, label="usual traffic")
        axes.scatter(after, rows, color=colours, s=34, zorder=3)
        axes.scatter([], [], color=BAD, s=34, label="changed traffic, over the threshold")
        axes.scatter([], [], color=SECOND, s=34, label="changed traffic, within it")
        axes.scatter(limits, rows, color=FAINT, marker="|", s=110, zorder=2, label="threshold")
        axes.set_yticks(list(rows), names)
        # Room for the dots at zero, which would be cut in half at the axis.
        axes.set_xlim(left=-0.012 * max([*after, *limits, 0.1]))
        axes.set_ylim(len(names) - 0.4, -0.6)
        distances = sorted({str(f.get("distance", "")) for f in ordered})
        axes.set_xlabel(f"distance from the baseline ({', '.join(distances)})")
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.grid(visible=False, axis="y")
        axes.legend(loc="lower right", fontsize=9)
        return _svg(figure, "drift", "drift per feature")


def traffic_share(series: Sequence[Mapping[str, float | None]], *, name: str) -> str:
    """Answers per second of the old and the new model, and failed requests, over the seconds of a rollout.

    A point's ``plan``, the share that the new model was meant to have then, is drawn as a line over them.
    """
    with _figure(9.6, 2.7) as (figure, axes):
        at = [point["at"] or 0.0 for point in series]
        parts = [[point.get(key) or 0.0 for point in series] for key in ("old", "new", "failed")]
        axes.stackplot(
            at,
            *parts,
            colors=[FIRST, SECOND, BAD],
            labels=["old model", "new model", "failed"],
            alpha=0.85,
            step="post",
        )
        shares = [point.get("plan") for point in series]
        if any(share is not None for share in shares):
            # From above: the new model's answers lie on the old one's, so its share ends at 1 - share.
            totals = [sum(values) for values in zip(*parts, strict=True)]
            planned = [
                math.nan if share is None else (1 - share) * total
                for share, total in zip(shares, totals, strict=True)
            ]
            axes.step(at, planned, where="post", color=INK, linewidth=1.4, label="planned share")
        axes.set(xlabel="seconds", ylabel="requests a second")
        axes.margins(x=0)
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=4)
        return _svg(figure, name, "answers by model during the rollout")


def load(curve: Mapping[str, Any]) -> str:
    """Latency against offered load, with the limit and the knee (``rehearsal.load_test.drawn.document``)."""
    points = curve["points"]
    with _figure(9.6, 3.6) as (figure, axes):
        for key, colour in (("p50_ms", FAINT), ("p95_ms", SECOND), ("p99_ms", FIRST)):
            known = [(p["offered_per_second"], p[key]) for p in points if p[key] is not None]
            axes.plot(*zip(*known, strict=True), color=colour, marker="o", markersize=4, label=key[:3])
        axes.axhline(curve["limit_ms"], color=BAD, linewidth=1.2, linestyle=(0, (4, 3)), label="limit of p99")
        if curve["knee_per_second"] is not None:
            word = "knee" if curve["bounded"] else "no knee up to"
            label = f"{word} {curve['knee_per_second']:,.0f} a second"
            axes.axvline(curve["knee_per_second"], color=INK, linewidth=1.2, label=label)
        axes.set(xscale="log", yscale="log", xlabel="requests a second, offered", ylabel="milliseconds")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=5)
        return _svg(figure, "load", "latency against load")


def seconds_bars(steps: Sequence[tuple[str, float]]) -> str:
    """Seconds per step, in the order of the story."""
    with _figure(9.6, 0.6 + 0.22 * max(1, len(steps))) as (figure, axes):
        names = [name for name, _ in steps]
        values = [seconds for _, seconds in steps]
        axes.barh(range(len(names)), values, color=FIRST, height=0.6)
        for position, value in enumerate(values):
            axes.text(value, position, f" {value:.1f}", va="center", ha="left", fontsize=8.5, color=FAINT)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlim(0, max(values, default=1.0) * 1.12 or 1)
        axes.set_xlabel("seconds")
        axes.margins(y=0.01)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.grid(visible=False, axis="y")
        return _svg(figure, "seconds", "seconds per step")
