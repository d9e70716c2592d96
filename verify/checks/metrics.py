"""Metrics that alarms and dashboards read against what is really published."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from verify.assembly import Resource
from verify.code.metrics import Published, published
from verify.context import Context
from verify.finding import Check, Finding
from verify.tables.metrics import CHECKED, METRICS

_ID = "metrics"
#: ``{Namespace,Dimension,Dimension} MetricName="x"`` of a search expression.
_SEARCH = re.compile(r"\{([^}]*)\}([^']*)")
_NAMED = re.compile(r'MetricName\s*=\s*\\?"([^"\\]+)')


@dataclass(frozen=True, kw_only=True)
class _Read:
    """A metric that something reads."""

    resource: Resource
    path: str
    namespace: str
    name: str
    dimensions: frozenset[str]


def run(context: Context) -> Iterator[Finding]:
    """Hold every alarm, dashboard and scaling policy against AWS's table and our own publishers."""
    own = [*published(context.deployed), *_by_filters(context)]
    for read in _reads(context):
        yield from _judge(read, own)


def _judge(read: _Read, own: list[Published]) -> Iterator[Finding]:
    place = f"{read.resource.place}: {read.path}"
    shown = f"{read.namespace} {read.name} by {', '.join(sorted(read.dimensions)) or 'no dimension'}"
    if read.namespace in METRICS:
        yield from _judge_aws(read, place, shown)
        return
    here = [metric for metric in own if fnmatchcase(read.namespace, metric.namespace)]
    if not here:
        spaces = sorted({metric.namespace for metric in own} | set(METRICS))
        allowed, fix = f"namespaces {', '.join(spaces)}", "name a namespace that somebody publishes to"
    elif not (named := [metric for metric in here if fnmatchcase(read.name, metric.name)]):
        allowed = ", ".join(sorted({metric.name for metric in here}))
        fix = "name a metric that our code publishes"
    elif not any(metric.dimensions == read.dimensions for metric in named):
        allowed = " or ".join(sorted({", ".join(sorted(metric.dimensions)) for metric in named}))
        fix = "read it by exactly the dimensions it is published with: CloudWatch adds none up"
    else:
        return
    yield Finding(check=_ID, place=place, value=f"nobody publishes {shown}", allowed=allowed, fix=fix)


def _judge_aws(read: _Read, place: str, shown: str) -> Iterator[Finding]:
    sets = METRICS[read.namespace]
    names = sets.get(tuple(sorted(read.dimensions)))
    if names is None:
        yield Finding(
            check=_ID,
            place=place,
            value=f"{read.namespace} publishes nothing by these dimensions: {shown}",
            allowed=" or ".join(", ".join(key) or "no dimension" for key in sets),
            fix="read it by exactly the dimensions it is published with",
        )
    elif "*" not in names and read.name not in names:
        yield Finding(
            check=_ID,
            place=place,
            value=f"{read.namespace} publishes no such metric: {shown}",
            allowed=", ".join(sorted(names)),
            fix="name a metric that the service documents",
        )


# -- who reads ----------------------------------------------------------------------------------------


def _reads(context: Context) -> Iterator[_Read]:
    for alarm in context.assembly.resources("AWS::CloudWatch::Alarm"):
        yield from _of_alarm(context, alarm)
    for policy in context.assembly.resources("AWS::ApplicationAutoScaling::ScalingPolicy"):
        metric = policy.properties.get("TargetTrackingScalingPolicyConfiguration", {}).get(
            "CustomizedMetricSpecification"
        )
        if metric is not None and "MetricName" in metric:
            yield _plain(context, policy, "CustomizedMetricSpecification", metric)
    for dashboard in context.assembly.resources("AWS::CloudWatch::Dashboard"):
        yield from _of_dashboard(context, dashboard)


def _of_alarm(context: Context, alarm: Resource) -> Iterator[_Read]:
    if "MetricName" in alarm.properties:
        yield _plain(context, alarm, "MetricName", alarm.properties)
    for number, part in enumerate(alarm.properties.get("Metrics", ())):
        metric = part.get("MetricStat", {}).get("Metric")
        if metric is not None:
            yield _plain(context, alarm, f"Metrics/{number}", metric)
        elif "Expression" in part:
            text = context.assembly.text(alarm.stack, part["Expression"])
            yield from _of_search(alarm, f"Metrics/{number}/Expression", text)


def _plain(context: Context, resource: Resource, path: str, metric: Mapping[str, Any]) -> _Read:
    return _Read(
        resource=resource,
        path=path,
        namespace=context.assembly.text(resource.stack, metric["Namespace"]),
        name=context.assembly.text(resource.stack, metric["MetricName"]),
        dimensions=frozenset(part["Name"] for part in metric.get("Dimensions", ())),
    )


def _of_dashboard(context: Context, dashboard: Resource) -> Iterator[_Read]:
    text = context.assembly.text(dashboard.stack, dashboard.properties["DashboardBody"])
    try:
        body = json.loads(text)
    except ValueError:
        return
    for number, widget in enumerate(body.get("widgets", ())):
        before: list[Any] = []
        for place, row in enumerate(widget.get("properties", {}).get("metrics", ())):
            path = f"DashboardBody/widgets/{number}/metrics/{place}"
            if len(row) == 1 and isinstance(row[0], Mapping):
                yield from _of_search(dashboard, path, str(row[0].get("expression", "")))
                continue
            parts = [part for part in row if isinstance(part, str)]
            # A dot repeats what stands above, three dots all of it (CloudWatch, "Dashboard body structure").
            if parts[:1] == ["..."]:
                parts = [*before[: len(before) - len(parts) + 1], *parts[1:]]
            parts = [
                before[index] if part == "." and index < len(before) else part
                for index, part in enumerate(parts)
            ]
            before = parts
            if len(parts) >= 2:
                yield _Read(
                    resource=dashboard,
                    path=path,
                    namespace=parts[0],
                    name=parts[1],
                    dimensions=frozenset(parts[2::2]),
                )


def _of_search(resource: Resource, path: str, expression: str) -> Iterator[_Read]:
    if "SEARCH(" not in expression:
        return
    for schema, rest in _SEARCH.findall(expression.replace("${", "<").replace("$(", "<")):
        namespace, *dimensions = (part.strip().strip('"') for part in schema.split(","))
        for name in _NAMED.findall(rest):
            yield _Read(
                resource=resource,
                path=path,
                namespace=namespace,
                name=name,
                dimensions=frozenset(dimensions),
            )


def _by_filters(context: Context) -> Iterator[Published]:
    """Metrics that filters of log groups publish."""
    for resource in context.assembly.resources("AWS::Logs::MetricFilter"):
        for part in resource.properties.get("MetricTransformations", ()):
            yield Published(
                namespace=context.assembly.text(resource.stack, part["MetricNamespace"]),
                name=context.assembly.text(resource.stack, part["MetricName"]),
                dimensions=frozenset(item["Key"] for item in part.get("Dimensions", ())),
                place=resource.place,
            )


CHECK = Check(
    id=_ID,
    title="Metrics of alarms and dashboards against what is published",
    proves="every metric that an alarm, a dashboard or a scaling policy reads is published under that name "
    "and by exactly those dimensions, by AWS or by code of ours",
    source=f"the services' CloudWatch pages, {CHECKED}; put_metric_data in the deployed code; metric filters",
    run=run,
)
