"""What people are told of a promotion: which version, for which reason, by which numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lifecycle_notice import Notice, object_page

from model_promotion.cloud import NONE, Cloud, Event, Outcome
from model_promotion.settings import Settings, Telling

__all__ = ["notice_of"]

#: What an outcome is called, and what is said of it.
_TOLD: Final[Mapping[str, tuple[str, str]]] = {
    "promoted": ("model.promoted", "is promoted; the serving stack brings it into service"),
    "testing": ("model.testing", "is being tried beside the model in service"),
    "refused": ("model.refused", "is not promoted"),
    "rejected": ("model.refused", "has not passed its test"),
    "restored": ("model.rolled_back", "was rolled back; the model before it serves on"),
}


def notice_of(
    outcome: Outcome, event: Event, cloud: Cloud, settings: Settings, telling: Telling
) -> Notice | None:
    """The notice of an outcome; None for what changes nothing."""
    if outcome.action not in _TOLD or outcome.package is None:
        return None
    kind, said = _TOLD[outcome.action]
    package = cloud.package(outcome.package)
    uri = None if package is None else package.evaluation_uri
    numbers: dict[str, object] = {"version": _version(outcome.package)}
    for name, key in (("replaces", "replaces"), ("serves", "serves")):
        value = outcome.fields.get(key)
        if isinstance(value, str) and value != NONE:
            numbers[name] = _version(value)
    links = {"model package": outcome.package, "stack": settings.stack_name}
    if uri is not None:
        numbers |= _measured(cloud.evaluation(uri), settings)
        links["evaluation"] = object_page(uri, telling.region)
    if package is not None and package.approved_by:
        numbers["approved by"] = package.approved_by
    return Notice(
        kind=kind,
        workload=telling.workload,
        environment=telling.environment,
        title=f"version {_version(outcome.package)} {said}",
        why=outcome.why,
        time=event.time.isoformat(),
        correlation_id=outcome.package,
        numbers=numbers,
        links=links,
    )


def _version(arn: str) -> str:
    """The number of a version, the end of its ARN."""
    return arn.rpartition("/")[2]


def _measured(report: object, settings: Settings) -> dict[str, object]:
    """The metric that the workload is accepted by, and its bound."""
    metrics = report.get("metrics") if isinstance(report, Mapping) else None
    metric = metrics.get(settings.acceptance.metric) if isinstance(metrics, Mapping) else None
    value = metric.get("value") if isinstance(metric, Mapping) else None
    return {
        settings.acceptance.metric: value,
        "at least": settings.acceptance.at_least,
        "at most": settings.acceptance.at_most,
    }
