"""All models of an account on a page: versions, who approved them and why, their worth, what serves.

The same code reads the embedded AWS and an account: SageMaker's descriptions, the endpoints' configs, and the
evaluation that each version names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Group", "Version", "collect", "page"]

_TEMPLATES = Path(__file__).resolve().parent / "report" / "templates"
#: Metrics of an evaluation that the page shows.
_SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of a group. ``missing`` names what a version that one can trust would have."""

    number: int
    arn: str
    created: datetime
    status: str
    why: str
    stage: str | None
    card: str | None
    metrics: dict[str, float]
    serves: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Group:
    """A model package group and its versions, newest first."""

    name: str
    description: str
    versions: tuple[Version, ...] = field(default=())

    @property
    def serving(self) -> Version | None:
        """The version that an endpoint serves; the newest when several do."""
        return next((version for version in self.versions if version.serves), None)


def collect(client: Callable[[str], Any]) -> list[Group]:
    """Read every group of the account, by name. ``client`` makes a boto3 client of a service."""
    sagemaker, s3 = client("sagemaker"), client("s3")
    served = _served(sagemaker)
    groups = []
    for summary in _pages(sagemaker, "list_model_package_groups", "ModelPackageGroupSummaryList"):
        name = summary["ModelPackageGroupName"]
        versions = [
            _version(sagemaker.describe_model_package(ModelPackageName=v["ModelPackageArn"]), served, s3)
            for v in _pages(
                sagemaker, "list_model_packages", "ModelPackageSummaryList", ModelPackageGroupName=name
            )
        ]
        versions.sort(key=lambda version: version.number, reverse=True)
        groups.append(
            Group(
                name=name,
                description=summary.get("ModelPackageGroupDescription", ""),
                versions=tuple(versions),
            )
        )
    return sorted(groups, key=lambda group: group.name)


def _pages(client: Any, operation: str, member: str, **arguments: Any) -> Iterator[dict[str, Any]]:
    for found in client.get_paginator(operation).paginate(**arguments):
        yield from found[member]


def _served(sagemaker: Any) -> dict[str, list[str]]:
    """Return, per model package, the endpoints that serve it now."""
    served: dict[str, list[str]] = {}
    for summary in _pages(sagemaker, "list_endpoints", "Endpoints"):
        endpoint = sagemaker.describe_endpoint(EndpointName=summary["EndpointName"])
        if "EndpointConfigName" not in endpoint:
            continue
        config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
        for variant in config.get("ProductionVariants", ()):
            # The fleet of an endpoint with inference components names no model.
            if "ModelName" not in variant:
                continue
            model = sagemaker.describe_model(ModelName=variant["ModelName"])
            containers = model.get("Containers") or [model.get("PrimaryContainer", {})]
            for container in containers:
                package = container.get("ModelPackageName")
                if package is not None:
                    served.setdefault(package, []).append(summary["EndpointName"])
    return served


def _version(package: dict[str, Any], served: dict[str, list[str]], s3: Any) -> Version:
    metrics = package.get("ModelMetrics", {})
    evaluation = metrics.get("ModelQuality", {}).get("Statistics", {}).get("S3Uri")
    drift = package.get("DriftCheckBaselines", {})
    wanted = {
        "evaluation": evaluation,
        "model card": package.get("ModelCard"),
        "drift baseline": drift.get("ModelDataQuality"),
        "lineage": package.get("CustomerMetadataProperties", {}).get("Lineage"),
    }
    return Version(
        number=int(package["ModelPackageVersion"]),
        arn=package["ModelPackageArn"],
        created=package["CreationTime"],
        status=package.get("ModelApprovalStatus", ""),
        why=package.get("ApprovalDescription", ""),
        stage=package.get("ModelLifeCycle", {}).get("Stage"),
        card=package.get("ModelCard", {}).get("ModelCardStatus"),
        metrics={} if evaluation is None else _metrics(s3, evaluation),
        serves=tuple(sorted(set(served.get(package["ModelPackageArn"], ())))),
        missing=tuple(name for name, value in wanted.items() if not value),
    )


def _metrics(s3: Any, uri: str) -> dict[str, float]:
    parts = urlsplit(uri)
    try:
        body = s3.get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))["Body"].read()
        found = json.loads(body)["metrics"]
    except (s3.exceptions.ClientError, ValueError, KeyError):
        # A version whose evaluation is gone is shown without numbers; "missing" does not say so.
        return {}
    return {
        name: metric["value"]
        for name, metric in list(found.items())[:_SHOWN]
        if isinstance(metric, dict) and isinstance(metric.get("value"), int | float)
    }


def page(groups: list[Group], *, when: datetime) -> str:
    """Return the page, which needs nothing from elsewhere."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("models.html.j2").render(
        groups=groups, when=when, style=(_TEMPLATES / "report.css").read_text(encoding="utf-8")
    )
