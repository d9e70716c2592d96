"""The page: one row a model, those that need somebody first; it needs nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from html import escape

from model_dashboard.collect import DAYS, Model, Monitor, Series

__all__ = ["page"]

_WIDTH, _HEIGHT = 168, 28
_STYLE = """
:root{color-scheme:light dark;--bg:#fbfbfa;--ink:#1f2328;--faint:#6a737d;--line:#e3e5e8;--good:#1a7f4b;
--warn:#9a6700;--bad:#c0362c;--mark:#2f6feb}
@media (prefers-color-scheme:dark){:root{--bg:#14171a;--ink:#e6e8ea;--faint:#9aa4ae;--line:#2c3238;
--good:#4cc38a;--warn:#e0a83a;--bad:#f2766b;--mark:#79a7ff}}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1180px;margin:0 auto;padding:28px 20px 60px}h1{margin:0}h2{margin:34px 0 2px;font-size:19px}
p{margin:4px 0}.faint{color:var(--faint)}.good,.quiet{color:var(--good)}.unknown,.no-run{color:var(--warn)}
.not-judged{color:var(--warn)}.alarm,.violations{color:var(--bad)}
table{border-collapse:collapse;margin:12px 0}
th,td{text-align:left;padding:5px 22px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--faint);font-weight:500}td.n{font-variant-numeric:tabular-nums}
ul{margin:6px 0;padding-left:18px}
svg{display:block}code{font-size:13px}
"""


def page(models: Sequence[Model], *, environment: str, now: datetime) -> str:
    """Return the page of an environment's models as of ``now``."""
    states = [model.state for model in models]
    parts = "".join(_model(model, now) for model in models)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Models of {escape(environment)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>Models of {escape(environment)}</h1>"
        f'<p class="faint">As of {now:%Y-%m-%d %H:%M} UTC; the last {DAYS} days. {len(models)} models: '
        f"{states.count('alarm')} with an alarm, {states.count('unknown')} not judged, "
        f"{states.count('good')} good.</p>{parts}</main></body></html>"
    )


def _model(model: Model, now: datetime) -> str:
    words = {"alarm": "alarm", "unknown": "not judged", "good": "good"}
    serving = (
        "Nothing is approved" if model.approved is None else f"Approved: {escape(_short(model.approved))}"
    )
    endpoint = "" if model.endpoint is None else f"{escape(model.endpoint)}: "
    alarms = "".join(
        f'<li class="alarm">{escape(alarm.what or alarm.name)}'
        + ("" if alarm.since is None else f' <span class="faint">since {alarm.since:%Y-%m-%d %H:%M}</span>')
        + "</li>"
        for alarm in model.alarms
    )
    return (
        f'<h2>{escape(model.title)} <span class="{model.state}">{words[model.state]}</span></h2>'
        f"<p>{serving}. {endpoint}{escape(model.endpoint_status)}.</p>"
        + (f"<ul>{alarms}</ul>" if alarms else "")
        + _traffic(model, now)
        + _monitors(model.monitors, now)
        + _versions(model)
    )


def _short(arn: str) -> str:
    return "/".join(arn.split("/")[-2:])


def _traffic(model: Model, now: datetime) -> str:
    if model.endpoint is None:
        return ""
    last = model.latency_ms.last
    latency = "" if last is None else f", {last[1]:.1f} ms in its last hour"
    return (
        f'<p class="faint">{model.requests.total:,.0f} requests, {model.errors.total:,.0f} answered 5xx'
        f"{latency}</p>{_line(model.requests, now, 'requests an hour')}"
    )


def _monitors(monitors: Sequence[Monitor], now: datetime) -> str:
    if not monitors:
        return '<p class="faint">Nothing watches it: its requests are not captured.</p>'
    rows = []
    for one in monitors:
        moments = [point[0] for point in (one.violations.last, one.unjudged.last) if point is not None]
        when = f"{max(moments):%Y-%m-%d %H:%M}" if moments else ""
        violations = one.violations.last
        rows.append(
            f'<tr><td>{escape(one.kind)}</td><td class="{one.verdict.replace(" ", "-")}">{one.verdict}</td>'
            f'<td class="n">{"" if violations is None else f"{violations[1]:.0f}"}</td>'
            f'<td class="n">{one.records.total:,.0f}</td><td class="n">{when}</td>'
            f"<td>{_line(one.violations, now, f'violations of {one.kind}')}</td>"
            f"<td>{'' if one.report is None else f'<code>{escape(one.report)}</code>'}</td></tr>"
        )
    return (
        "<table><thead><tr><th>monitor</th><th>says</th><th>violations</th><th>judged</th><th>last run</th>"
        f"<th>violations by the hour</th><th>report</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _versions(model: Model) -> str:
    if not model.versions:
        return '<p class="faint">No version is registered.</p>'
    rows = "".join(
        f'<tr><td class="n">{escape(one["version"])}</td><td>{escape(one["status"])}</td>'
        f'<td class="n">{escape(one["made"])}</td>'
        f"<td>{'serves' if one['arn'] == model.approved else ''}</td></tr>"
        for one in model.versions
    )
    return (
        "<table><thead><tr><th>version</th><th>status</th><th>made</th><th></th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _line(series: Series, now: datetime, title: str) -> str:
    """A small column chart over the days; an hour without a data point is a gap."""
    if not series.points:
        return ""
    start, span = now - timedelta(days=DAYS), timedelta(days=DAYS)
    most = max(value for _, value in series.points) or 1.0
    columns = []
    for at, value in series.points:
        x = (at - start) / span * _WIDTH
        height = max(1.0, value / most * (_HEIGHT - 2))
        columns.append(f"M{x:.1f} {_HEIGHT}v-{height:.1f}")
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}, at most {most:g}"><path d="{"".join(columns)}" stroke="var(--mark)" '
        'stroke-width="1.2" fill="none"/></svg>'
    )
