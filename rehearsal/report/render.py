"""``report.html`` from ``report.json``: one file that fetches nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from markupsafe import Markup, escape

from rehearsal.report import plots
from rehearsal.report.architecture import picture

__all__ = ["render"]

#: Items of a list of evidence that the page shows; report.json holds them all.
MOST_ITEMS = 12


def render(document: Mapping[str, Any]) -> str:
    """Return the whole HTML page of a report."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("rehearsal.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = _seconds
    environment.filters["count"] = _count
    environment.filters["evidence"] = _evidence
    environment.filters["number"] = _number
    environment.filters["short"] = _short
    steps = list(document["steps"])
    page = environment.get_template("report.html.j2").render(
        report=document,
        chapters=[(title, list(group)) for title, group in groupby(steps, key=lambda step: step["chapter"])],
        tally={
            status: sum(1 for s in steps if s["status"] == status)
            for status in ("passed", "recorded", "failed")
        },
        longest=max((s["seconds"] for s in steps), default=1.0) or 1.0,
        capabilities=sorted({c for s in steps if s["status"] != "failed" for c in s["capabilities"]}),
        started=_moment(str(document["started"])),
        plots={name: Markup(svg) for name, svg in _plots(document).items()},  # noqa: S704 - our own SVG
        stacks=Markup(picture(document["stacks"])),  # noqa: S704 - our own SVG, its texts escaped
        ran=_by_kind(document["ledger"]["ran"]),
        recorded=document["ledger"]["recorded"],
        failed=document["ledger"]["failed"],
    )
    return "\n".join(line for line in page.splitlines() if line.strip()) + "\n"


def _plots(document: Mapping[str, Any]) -> dict[str, str]:
    """Every plot that the facts allow; a story that ended early has fewer."""
    found: dict[str, str] = {}
    history = [entry for entry in document["model"]["history"] if entry.get("rows")]
    curves = {f"version {e['version']}": (e["roc"], e["metrics"].get("auc")) for e in history if e.get("roc")}
    if curves:
        found["roc"] = plots.roc(curves)
    for entry in history:
        if entry.get("confusion"):
            labels = entry.get("labels") or [str(i) for i in range(len(entry["confusion"]))]
            name = f"confusion-{entry['version']}"
            found[name] = plots.confusion(entry["confusion"], labels, name=name)
    judged = document["drift"]
    metric = judged.get("metric")
    if metric:
        bars = {
            "first model, usual records": judged.get("usual", {}).get(metric),
            "first model, changed records": judged["before"].get(metric),
            "retrained model, changed records": judged["after"].get(metric),
        }
        if any(value is not None for value in bars.values()):
            found["bars"] = plots.metric_bars(bars, axis=metric)
    if judged["features"]:
        found["drift"] = plots.drift(judged["features"])
    for name in ("canary", "rollback"):
        series = document["traffic"].get(name, {}).get("series")
        if series:
            found[name] = plots.traffic_share(series, name=name)
    for row in document.get("matrix", ()):
        if row["series"]:
            name = f"matrix-{row['cell'].replace('.', '-')}"
            found[name] = plots.traffic_share(row["series"], name=name)
    if document["steps"]:
        found["seconds"] = plots.seconds_bars([(s["id"], float(s["seconds"])) for s in document["steps"]])
    return found


def _by_kind(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Group what ran by kind: how often, and which."""
    ordered = sorted(entries, key=lambda e: str(e["kind"]))
    kinds = []
    for kind, group in groupby(ordered, key=lambda e: str(e["kind"])):
        names = [_short(str(e["name"])) for e in group]
        kinds.append({"kind": kind, "times": len(names), "names": sorted(set(names))})
    return kinds


def _seconds(value: float) -> str:
    if value < 60:
        return f"{value:.1f} s"
    return f"{int(value // 60)} min {value % 60:02.0f} s"


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _number(value: object) -> str:
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return _count(value)


#: A name that CloudFormation has made: stack, logical id with its hash, and a random part.
_GENERATED = re.compile(r"(.+?)[0-9A-F]{8}-[A-Za-z0-9]{12,14}")
_IMAGE = re.compile(r"\d+\.dkr\.ecr\..+:([0-9a-f]{10})[0-9a-f]+")


def _short(name: str) -> str:
    """A generated name without what only tells it apart from an earlier one."""
    image = _IMAGE.fullmatch(name)
    if image is not None:
        return f"image {image[1]}"
    generated = _GENERATED.fullmatch(name)
    return name if generated is None else generated[1]


def _moment(text: str) -> str:
    return datetime.fromisoformat(text).strftime("%-d %B %Y, %H:%M UTC")


def _evidence(value: object) -> Markup:
    """Render evidence of any shape: tables of equal dicts, lists, key and value, or text."""
    if isinstance(value, Mapping) and value:
        rows = Markup("").join(
            Markup("<dt>{}</dt><dd>{}</dd>").format(str(key).replace("_", " "), _evidence(item))
            for key, item in value.items()
        )
        return Markup("<dl>{}</dl>").format(rows)
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return _evidence_list(value)
    if value is None or value in ([], (), {}):
        return Markup('<span class="faint">none</span>')
    if isinstance(value, bool):
        return escape("yes" if value else "no")
    text = _number(value)
    is_name = text.startswith(("arn:", "s3://", "{"))
    return Markup("<code>{}</code>").format(text) if is_name else escape(text)


def _evidence_list(items: Sequence[object]) -> Markup:
    rest = len(items) - MOST_ITEMS
    more = (
        Markup('<span class="faint">and {} more in report.json</span>').format(rest)
        if rest > 0
        else Markup("")
    )
    shown = list(items[:MOST_ITEMS])
    if all(isinstance(item, Mapping) for item in shown):
        rows = [item for item in shown if isinstance(item, Mapping)]
        columns = list(dict.fromkeys(str(key) for row in rows for key in row))
        head = Markup("").join(Markup("<th>{}</th>").format(c.replace("_", " ")) for c in columns)
        body = Markup("").join(
            Markup("<tr>{}</tr>").format(
                Markup("").join(Markup("<td>{}</td>").format(_evidence(row.get(c, ""))) for c in columns)
            )
            for row in rows
        )
        return Markup(
            '<div class="scroll"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>{}'
        ).format(head, body, more)
    if all(isinstance(item, str | int | float) for item in shown):
        return Markup("{} {}").format(", ".join(_number(item) for item in shown), more)
    return Markup("<ul>{}</ul>{}").format(
        Markup("").join(Markup("<li>{}</li>").format(_evidence(item)) for item in shown), more
    )
