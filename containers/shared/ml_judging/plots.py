"""Plots of pages: matplotlib figures as inline SVG in the page's own colours; text stays text.

Each colour of a figure is a stand-in that becomes one of the page's CSS variables, so that a plot follows the
reader's light or dark theme.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["bars", "confusion", "curves", "dependence", "intervals", "limits", "over_time", "pairs"]

INK, FAINT, GRID, FIRST, SECOND, BAD = "#010203", "#040506", "#070809", "#0a0b0c", "#0d0e0f", "#101112"
VARIABLES = {
    INK: "--ink",
    FAINT: "--faint",
    GRID: "--line",
    FIRST: "--first",
    SECOND: "--second",
    BAD: "--bad",
}
STYLE: Any = {
    "svg.fonttype": "none",
    # Ids of the same figure are the same in every run.
    "svg.hashsalt": "evaluation",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": FAINT,
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
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.labelcolor": INK,
}

Points = Sequence[Sequence[float]]


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    # The object interface without pyplot: no global state, no display.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def _svg(figure: Figure, name: str, label: str) -> Markup:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Ids are unique per document, and one page holds many figures.
    key = re.sub(r"\W+", "-", name)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{key}-\1"', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{key}-", text)
    for stand_in, variable in VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    # Namespaces mean nothing within HTML, and look like addresses that a page would fetch.
    text = re.sub(r' (?:xmlns(?::\w+)?|version)="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--sans)", text)
    return Markup(text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1))  # noqa: S704


def curves(
    name: str,
    lines: Mapping[str, Points],
    *,
    across: str,
    up: str,
    diagonal: bool = False,
    marked: float | None = None,
    steps: bool = False,
) -> Markup:
    """Lines by title, each of points ``[x, y]``; ``marked`` is a place on the horizontal axis."""
    with _figure(4.4, 3.6) as (figure, axes):
        if diagonal:
            axes.plot([0, 1], [0, 1], color=GRID, linewidth=1.2, linestyle=(0, (4, 3)))
        for (title, points), colour in zip(lines.items(), (FIRST, SECOND, BAD, FAINT) * 9, strict=False):
            across_values, up_values = [p[0] for p in points], [p[1] for p in points]
            if steps:
                axes.step(across_values, up_values, color=colour, linewidth=1.8, label=title, where="post")
            else:
                axes.plot(across_values, up_values, color=colour, linewidth=1.8, label=title)
        if marked is not None:
            axes.axvline(marked, color=BAD, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set(xlabel=across, ylabel=up)
        axes.legend(loc="best")
        return _svg(figure, name, f"{name}: {up} by {across}")


def confusion(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> Markup:
    """Rows are what was, columns what the model said."""
    from matplotlib.patches import Rectangle

    size = len(counts)
    with _figure(1.8 + 0.8 * size, 1.4 + 0.6 * size) as (figure, axes):
        axes.grid(visible=False)
        for row, line in enumerate(counts):
            for column, count in enumerate(line):
                share = count / (sum(line) or 1)
                axes.add_patch(
                    Rectangle(
                        (column + 0.03, row + 0.03), 0.94, 0.94, edgecolor="none",
                        facecolor=FIRST if row == column else BAD, alpha=0.1 + 0.55 * share,
                    )
                )  # fmt: skip
                axes.text(column + 0.5, row + 0.5, f"{count:,}", ha="center", va="center", fontsize=12)
        axes.set(xlim=(0, size), ylim=(size, 0), xlabel="predicted", ylabel="actual")
        ticks = [place + 0.5 for place in range(size)]
        axes.set_xticks(ticks, labels)
        axes.set_yticks(ticks, labels)
        axes.tick_params(length=0)
        return _svg(figure, "confusion", "confusion matrix")


def intervals(name: str, rows: Sequence[tuple[str, float, Sequence[float]]], *, across: str) -> Markup:
    """A value with its interval per row: ``(title, value, [low, high])``; the first is everyone's."""
    with _figure(8.6, 0.9 + 0.3 * len(rows)) as (figure, axes):
        places = range(len(rows))
        axes.axvline(rows[0][1], color=GRID, linewidth=1.2)
        axes.hlines(
            places, [row[2][0] for row in rows], [row[2][1] for row in rows], color=SECOND, linewidth=2.2
        )
        axes.scatter([row[1] for row in rows], places, color=FIRST, s=30, zorder=3)
        axes.set_yticks(list(places), [row[0] for row in rows])
        axes.invert_yaxis()
        axes.set(xlabel=across)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        return _svg(figure, name, f"{across} with its interval")


def bars(name: str, values: Mapping[str, float], *, across: str) -> Markup:
    """Horizontal bars, largest first."""
    with _figure(8.6, 0.8 + 0.26 * len(values)) as (figure, axes):
        axes.barh(list(values), list(values.values()), color=FIRST, height=0.6)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set(xlabel=across)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        return _svg(figure, name, across)


def dependence(one: Mapping[str, Any], labels: Sequence[str]) -> Markup:
    """The mean score by a feature's value; of classes a line each."""
    scores = one["scores"]
    many = isinstance(scores[0], list)
    lines = {label: [row[i] for row in scores] for i, label in enumerate(labels)} if many else {"": scores}
    with _figure(4.4, 3.2) as (figure, axes):
        for (title, values), colour in zip(lines.items(), (FIRST, SECOND, BAD, FAINT) * 9, strict=False):
            if one["type"] == "number":
                axes.plot(one["values"], values, color=colour, linewidth=1.8, marker="o", ms=3, label=title)
            else:
                axes.scatter([str(value) for value in one["values"]], values, color=colour, s=26, label=title)
        if one["type"] != "number":
            axes.tick_params(axis="x", rotation=40)
        if many:
            axes.legend(loc="best")
        axes.set(xlabel=one["feature"], ylabel="mean score")
        return _svg(figure, f"dependence {one['feature']}", f"mean score by {one['feature']}")


def limits(name: str, values: Mapping[str, float], *, across: str, limit: float = 1.0) -> Markup:
    """Horizontal bars, those beyond a limit in another colour."""
    with _figure(8.6, 0.8 + 0.26 * len(values)) as (figure, axes):
        colours = [BAD if value > limit else FIRST for value in values.values()]
        axes.barh(list(values), list(values.values()), color=colours, height=0.6)
        axes.axvline(limit, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set(xlabel=across)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        return _svg(figure, name, across)


def pairs(
    name: str, labels: Sequence[str], sides: Mapping[str, Sequence[float]], *, across: str, wide: bool = False
) -> Markup:
    """Two horizontal bars a label, one of each side."""
    with _figure(8.6 if wide else 4.4, 1.1 + 0.34 * len(labels)) as (figure, axes):
        for (title, values), colour, shift in zip(sides.items(), (FAINT, FIRST), (-0.19, 0.19), strict=True):
            places = [place + shift for place in range(len(labels))]
            axes.barh(places, list(values), color=colour, height=0.36, label=title)
        axes.set_yticks(range(len(labels)), labels)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set(xlabel=across)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.legend(loc="best")
        return _svg(figure, name, f"{name}: {across}")


def over_time(name: str, lines: Mapping[str, Points], *, limit: float | None, up: str) -> Markup:
    """Lines by title, each of points ``[moment, y]``; moments are ISO 8601 texts."""
    from datetime import datetime

    from matplotlib import dates

    with _figure(8.6, 2.8) as (figure, axes):
        for (title, points), colour in zip(lines.items(), (FIRST, SECOND, BAD, FAINT, INK) * 9, strict=False):
            moments: Any = [datetime.fromisoformat(str(point[0])) for point in points]
            axes.plot(
                moments, [p[1] for p in points], color=colour, linewidth=1.6, marker="o", ms=3, label=title
            )
        if limit is not None:
            axes.axhline(limit, color=BAD, linewidth=1.2, linestyle=(0, (4, 3)))
        locator = dates.AutoDateLocator(maxticks=8)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        axes.set(ylabel=up)
        axes.legend(loc="best")
        return _svg(figure, name, f"{name}: {up} over time")
