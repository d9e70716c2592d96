"""What is known of every model: SageMaker's registry and endpoints, CloudWatch's metrics and alarms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from model_dashboard.settings import Settings, Watched

__all__ = ["Alarm", "Model", "Monitor", "Series", "collect"]

#: What the page looks back on.
DAYS = 7
HOUR = 3_600
#: Versions that the page shows.
VERSIONS = 5
#: What the monitors' metrics are called (``ml_lifecycle.monitoring.KINDS``).
PREFIXES: Mapping[str, str] = {"data": "", "quality": "Quality", "bias": "Bias", "attribution": "Attribution"}
FOLDERS: Mapping[str, str] = {
    "data": "monitoring",
    "quality": "monitoring-quality",
    "bias": "monitoring-bias",
    "attribution": "monitoring-attribution",
}


@dataclass(frozen=True, kw_only=True)
class Series:
    """A metric by the hour, oldest first; hours without a data point are not there."""

    points: tuple[tuple[datetime, float], ...] = ()

    @property
    def last(self) -> tuple[datetime, float] | None:
        """The newest point."""
        return self.points[-1] if self.points else None

    @property
    def total(self) -> float:
        """The sum of all."""
        return sum(value for _, value in self.points)


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """An alarm that is not OK."""

    name: str
    state: str
    since: datetime | None
    what: str


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """What one kind of monitor has told. ``report`` is the key of its newest report."""

    kind: str
    violations: Series
    unjudged: Series
    records: Series
    report: str | None

    @property
    def verdict(self) -> str:
        """``no run``, ``not judged``, ``violations`` or ``quiet``, by the newest run."""
        judged, unjudged = self.violations.last, self.unjudged.last
        if unjudged is None and judged is None:
            return "no run"
        if unjudged is not None and unjudged[1] > 0 and (judged is None or unjudged[0] >= judged[0]):
            return "not judged"
        return "violations" if judged is not None and judged[1] > 0 else "quiet"


@dataclass(frozen=True, kw_only=True)
class Model:
    """One workload's model."""

    name: str
    title: str
    group: str
    approved: str | None
    endpoint: str | None
    endpoint_status: str
    versions: tuple[dict[str, str], ...]
    monitors: tuple[Monitor, ...]
    requests: Series
    errors: Series
    latency_ms: Series
    alarms: tuple[Alarm, ...] = field(default=())

    @property
    def state(self) -> str:
        """``alarm``, ``unknown`` or ``good``: what a person looks at first."""
        if any(alarm.state == "ALARM" for alarm in self.alarms):
            return "alarm"
        nothing = any(monitor.verdict in ("no run", "not judged") for monitor in self.monitors)
        return "unknown" if nothing or self.approved is None else "good"

    def document(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            **asdict(self),
            "state": self.state,
            "monitors": [{**asdict(one), "verdict": one.verdict} for one in self.monitors],
        }


def collect(clients: Mapping[str, Any], settings: Settings, *, now: datetime) -> list[Model]:
    """Ask about every workload; those that need somebody first."""
    models = [_model(clients, settings, watched, now) for watched in settings.workloads]
    order = {"alarm": 0, "unknown": 1, "good": 2}
    return sorted(models, key=lambda model: (order[model.state], model.title))


def _model(clients: Mapping[str, Any], settings: Settings, watched: Watched, now: datetime) -> Model:
    sagemaker = clients["sagemaker"]
    found = _metrics(clients["cloudwatch"], settings, watched, now)
    latency = found.get("latency", Series())
    return Model(
        name=watched.name,
        title=watched.title,
        group=watched.group,
        approved=_approved(clients["ssm"], watched.approved),
        endpoint=watched.endpoint,
        endpoint_status=_endpoint(sagemaker, watched.endpoint),
        versions=tuple(_versions(sagemaker, watched.group)),
        monitors=tuple(
            Monitor(
                kind=kind,
                violations=found[f"{kind}_violations"],
                unjudged=found[f"{kind}_unjudged"],
                records=found[f"{kind}_records"],
                report=_report(clients["s3"], settings.bucket, f"{watched.slug}/{FOLDERS[kind]}/"),
            )
            for kind in watched.kinds
        ),
        requests=found.get("requests", Series()),
        errors=found.get("errors", Series()),
        # CloudWatch counts microseconds.
        latency_ms=Series(points=tuple((at, value / 1_000) for at, value in latency.points)),
        alarms=tuple(_alarms(clients["cloudwatch"], watched.alarms)),
    )


def _approved(ssm: Any, name: str) -> str | None:
    try:
        value: str = ssm.get_parameter(Name=name)["Parameter"]["Value"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ParameterNotFound":
            raise
        return None
    return None if value == "none" else value


def _endpoint(sagemaker: Any, name: str | None) -> str:
    if name is None:
        return "no endpoint"
    try:
        status: str = sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"]
    except ClientError as error:
        # SageMaker's way to say that it is not there.
        if error.response["Error"]["Code"] != "ValidationException":
            raise
        return "not there"
    return status


def _versions(sagemaker: Any, group: str) -> Iterator[dict[str, str]]:
    try:
        page = sagemaker.list_model_packages(
            ModelPackageGroupName=group, SortBy="CreationTime", SortOrder="Descending", MaxResults=VERSIONS
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationException":
            raise
        return
    for package in page["ModelPackageSummaryList"]:
        yield {
            "arn": package["ModelPackageArn"],
            "version": str(package["ModelPackageVersion"]),
            "status": package.get("ModelApprovalStatus", ""),
            "made": f"{package['CreationTime']:%Y-%m-%d %H:%M}",
        }


def _report(s3: Any, bucket: str, prefix: str) -> str | None:
    newest: tuple[datetime, str] | None = None
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", ()):
            if item["Key"].endswith("/report.html") and (newest is None or item["LastModified"] > newest[0]):
                newest = item["LastModified"], item["Key"]
    return None if newest is None else newest[1]


def _alarms(cloudwatch: Any, prefixes: tuple[str, ...]) -> Iterator[Alarm]:
    for prefix in prefixes:
        pages = cloudwatch.get_paginator("describe_alarms").paginate(AlarmNamePrefix=prefix)
        for page in pages:
            for one in page["MetricAlarms"]:
                if one["StateValue"] == "ALARM":
                    yield Alarm(
                        name=one["AlarmName"],
                        state=one["StateValue"],
                        since=one.get("StateUpdatedTimestamp"),
                        what=one.get("AlarmDescription", ""),
                    )


def _metrics(cloudwatch: Any, settings: Settings, watched: Watched, now: datetime) -> dict[str, Series]:
    """Every metric of a workload over the last days, by the hour."""
    own = {"Environment": settings.environment, "Workload": watched.name}
    asked: dict[str, tuple[str, str, dict[str, str], str]] = {}
    for kind in watched.kinds:
        prefix = PREFIXES[kind]
        asked |= {
            f"{kind}_violations": ("MLLifecycle", f"{prefix}Violations", own, "Maximum"),
            f"{kind}_unjudged": ("MLLifecycle", f"{prefix}Unjudged", own, "Maximum"),
            f"{kind}_records": ("MLLifecycle", f"{prefix}RecordsJudged", own, "Sum"),
        }
    if watched.endpoint is not None:
        serving = {"EndpointName": watched.endpoint, "VariantName": watched.variant}
        asked |= {
            "requests": ("AWS/SageMaker", "Invocations", serving, "Sum"),
            "errors": ("AWS/SageMaker", "Invocation5XXErrors", serving, "Sum"),
            "latency": ("AWS/SageMaker", "ModelLatency", serving, "Average"),
        }
    queries = [
        {
            "Id": name,
            "MetricStat": {
                "Metric": {
                    "Namespace": namespace,
                    "MetricName": metric,
                    "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
                },
                "Period": HOUR,
                "Stat": statistic,
            },
        }
        for name, (namespace, metric, dimensions, statistic) in asked.items()
    ]
    found: dict[str, list[tuple[datetime, float]]] = {name: [] for name in asked}
    pages = cloudwatch.get_paginator("get_metric_data").paginate(
        MetricDataQueries=queries, StartTime=now - timedelta(days=DAYS), EndTime=now + timedelta(hours=1)
    )
    for page in pages:
        for one in page["MetricDataResults"]:
            found[one["Id"]] += zip(one["Timestamps"], one["Values"], strict=True)
    return {name: Series(points=tuple(sorted(points))) for name, points in found.items()}
