"""What people are told of an event: an alarm, an execution of the pipeline, a new version.

Numbers come from where they were measured: the monitor's report, the version's evaluation, the execution's
steps. What cannot be read is not said; that something happened is said in any case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from lifecycle_notice import Notice, alarm_page, object_page

from retraining_notices.settings import Settings

__all__ = ["BadEventError", "FailedStep", "Sources", "notice_of"]

ALARM = "CloudWatch Alarm State Change"
EXECUTION = "SageMaker Model Building Pipeline Execution Status Change"
PACKAGE = "SageMaker Model Package State Change"
#: Of drifted features, the worst are named.
MOST_FEATURES = 5


class BadEventError(Exception):
    """The event is nothing that this function is subscribed to; no retry can help."""


@dataclass(frozen=True, kw_only=True)
class FailedStep:
    """The step that ended an execution, and what it said."""

    name: str
    why: str


class Sources(Protocol):
    """Where the numbers come from."""

    def newest_report(self, uri: str) -> tuple[str, Mapping[str, Any]] | None:
        """URI and content of the newest ``report.json`` below a URI; None when there is none."""

    def document(self, uri: str) -> Mapping[str, Any] | None:
        """A JSON object in S3; None when there is none."""

    def failure(self, execution_arn: str) -> FailedStep | None:
        """The first step of an execution that failed."""


def notice_of(event: object, sources: Sources, settings: Settings) -> Notice | None:
    """What is to be said of an event; None when it is not worth a word.

    Raises:
        BadEventError: nothing of what this function is subscribed to.
    """
    if not isinstance(event, Mapping) or not isinstance(event.get("detail"), Mapping):
        raise BadEventError("the event must be EventBridge's, with a detail")
    kind, detail, time = event.get("detail-type"), event["detail"], str(event.get("time", ""))
    if kind == ALARM:
        return _drift(detail, time, sources, settings)
    if kind == EXECUTION:
        return _execution(detail, time, sources, settings)
    if kind == PACKAGE:
        return _package(detail, time, sources, settings)
    known = ", ".join(map(repr, (ALARM, EXECUTION, PACKAGE)))
    raise BadEventError(f"cannot read detail-type {kind!r}; known are {known}")


def _drift(detail: Mapping[str, Any], time: str, sources: Sources, settings: Settings) -> Notice | None:
    name, state = str(detail.get("alarmName")), detail.get("state") or {}
    if state.get("value") != "ALARM" or name not in settings.monitors:
        return None
    kind, uri = settings.monitors[name]
    found = sources.newest_report(uri)
    numbers: dict[str, object] = {"monitor": kind}
    links = {"alarm": alarm_page(name, settings.region)}
    run = name
    if found is not None:
        report_uri, report = found
        run = report_uri.removeprefix(uri).strip("/").rpartition("/")[0] or name
        violations: Sequence[Mapping[str, Any]] = report.get("violations", ())
        numbers |= {
            "violations": len(violations),
            "records judged": report.get("records_judged"),
            "found": [_violation(one) for one in violations[:MOST_FEATURES]],
        }
        links["report"] = object_page(report_uri.removesuffix(".json") + ".html", settings.region)
        links["report file"] = report_uri
    return Notice(
        kind="drift.found",
        workload=settings.workload,
        environment=settings.environment,
        title=f"the {kind} monitor found drift",
        why=str(state.get("reason", "the alarm went off")),
        time=time,
        correlation_id=run,
        numbers=numbers,
        links=links,
    )


def _violation(found: Mapping[str, Any]) -> str:
    return f"{found.get('feature_name')}: {found.get('description')}"


def _execution(detail: Mapping[str, Any], time: str, sources: Sources, settings: Settings) -> Notice | None:
    arn, status = str(detail.get("pipelineExecutionArn", "")), detail.get("currentPipelineExecutionStatus")
    reason = str(detail.get("pipelineExecutionDescription") or "no reason given")
    links = {"execution": arn}
    if status == "Executing":
        if detail.get("previousPipelineExecutionStatus") not in (None, "", "Starting"):
            return None
        return Notice(
            kind="retraining.started",
            workload=settings.workload,
            environment=settings.environment,
            title="a training was started",
            why=reason,
            time=time,
            correlation_id=arn,
            links=links,
        )
    # A training that succeeds leaves a version, which has a notice of its own.
    if status not in ("Failed", "Stopped"):
        return None
    failed = sources.failure(arn) if status == "Failed" else None
    refused = failed is not None and failed.name == "Reject"
    why = f"started for: {reason}" if failed is None else f"{failed.why} (started for: {reason})"
    return Notice(
        kind="model.refused" if refused else "retraining.failed",
        workload=settings.workload,
        environment=settings.environment,
        title="the new model was not accepted" if refused else f"a training {status.lower()}",
        why=why,
        time=time,
        correlation_id=arn,
        numbers={
            "step": None if failed is None else failed.name,
            "minutes": _minutes(detail.get("executionStartTime"), detail.get("executionEndTime")),
        },
        links=links,
    )


def _minutes(start: object, end: object) -> float | None:
    try:
        seconds = (datetime.fromisoformat(str(end)) - datetime.fromisoformat(str(start))).total_seconds()
    except (TypeError, ValueError):
        return None
    return round(seconds / 60, 1)


def _package(detail: Mapping[str, Any], time: str, sources: Sources, settings: Settings) -> Notice | None:
    status = detail.get("ModelApprovalStatus")
    # Its description or metadata may be changed later; it waits once.
    if status != "PendingManualApproval" or detail.get("ModelPackageStatus") != "Completed":
        return None
    changed = detail.get("UpdatedModelPackageFields") or ()
    if changed and not {"ModelApprovalStatus", "ModelPackageStatus"} & set(changed):
        return None
    arn = str(detail.get("ModelPackageArn", ""))
    uri = _nested(detail, "ModelMetrics", "ModelQuality", "Statistics", "S3Uri")
    report = None if uri is None else sources.document(uri)
    numbers: dict[str, object] = {"version": detail.get("ModelPackageVersion")}
    said = "its evaluation cannot be read"
    links = {"model package": arn}
    if report is not None and uri is not None:
        judged = report.get("acceptance") or {}
        said = str(judged.get("why") or "it was judged")
        numbers |= {
            f"{check['check']} (limit {check['limit']:g})": check["value"]
            for check in judged.get("checks", ())
            if isinstance(check.get("value"), int | float) and isinstance(check.get("limit"), int | float)
        }
        numbers |= {
            name: metric.get("value")
            for name, metric in report.get("metrics", {}).items()
            if isinstance(metric, Mapping) and name not in numbers
        }
        numbers["held-out rows"] = report.get("rows")
        links["evaluation"] = object_page(uri, settings.region)
        links["evaluation file"] = uri
    return Notice(
        kind="model.waits",
        workload=settings.workload,
        environment=settings.environment,
        title=f"version {detail.get('ModelPackageVersion')} waits for approval",
        why=said,
        time=time,
        correlation_id=arn,
        numbers=numbers,
        links=links,
    )


def _nested(data: Any, *keys: str) -> str | None:
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data if isinstance(data, str) else None
