"""What botocore's models do not say about a service: how its resources are named and how their ARNs look.

A service needs an entry only where the rule below is wrong for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Traits", "traits"]


def _kebab(noun: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", noun).lower()


@dataclass(frozen=True, kw_only=True)
class Traits:
    """How one service names its resources."""

    service: str
    #: ``noun -> function(params) -> name`` where no member named after the noun names the resource.
    names: Mapping[str, Callable[[Mapping[str, Any]], str | None]] = field(default_factory=dict)
    #: Resource part of an ARN by noun; ``{noun}`` is the noun in kebab case, ``{name}`` the name.
    arn_resources: Mapping[str, str] = field(default_factory=dict)
    arn_resource: str = "{noun}/{name}"
    arn_service: str | None = None
    #: Nouns whose creating operation also updates (RegisterScalableTarget).
    upserts: frozenset[str] = frozenset()
    tag_members: frozenset[str] = frozenset({"Tags", "tags"})

    def arn(self, noun: str, name: str, *, account: str, region: str) -> str:
        """Return the ARN of a resource."""
        form = self.arn_resources.get(noun, self.arn_resource)
        resource = form.format(noun=_kebab(noun), name=name)
        return f"arn:aws:{self.arn_service or self.service}:{region}:{account}:{resource}"

    def name_in(self, noun: str, params: Mapping[str, Any]) -> str | None:
        """Return the name or ARN by which a call's parameters mean a resource, or None."""
        if noun in self.names:
            return self.names[noun](params)
        for key in (*self.name_members(noun), *self.arn_members(noun)):
            value = params.get(key)
            if isinstance(value, str):
                return value
        wrapped = params.get(noun[:1].lower() + noun[1:], params.get(noun))
        if isinstance(wrapped, Mapping):
            name = wrapped.get("name", wrapped.get("Name"))
            return name if isinstance(name, str) else None
        return None

    def name_members(self, noun: str) -> tuple[str, ...]:
        """Return the members that hold the name of a resource, most telling first."""
        lower = noun[:1].lower() + noun[1:]
        own: tuple[str, ...] = (f"{noun}Name", f"{lower}Name", f"{noun}Id", f"{lower}Id")
        # Monitoring job definitions share one member for their name.
        # Members of a tracking server leave out whose it is.
        own = (*own, "TrackingServerName") if noun == "MlflowTrackingServer" else own
        return (*own, "JobDefinitionName") if noun.endswith("JobDefinition") else (*own, "Name", "name")

    def arn_members(self, noun: str) -> tuple[str, ...]:
        """Return the members that hold the ARN of a resource, most telling first."""
        lower = noun[:1].lower() + noun[1:]
        own: tuple[str, ...] = (f"{noun}Arn", f"{noun}ARN", f"{lower}Arn")
        own = (*own, "TrackingServerArn") if noun == "MlflowTrackingServer" else own
        return (*own, "JobDefinitionArn") if noun.endswith("JobDefinition") else (*own, "Arn", "arn")

    def tags_in(self, params: Mapping[str, Any]) -> dict[str, str]:
        """Return the tags of a call, given as a list of key and value or as a map."""
        given = next((params[key] for key in sorted(self.tag_members) if key in params), None)
        if isinstance(given, Mapping):
            return {str(k): str(v) for k, v in given.items()}
        return {tag.get("Key", tag.get("key")): tag.get("Value", tag.get("value", "")) for tag in given or ()}


def _scaling(params: Mapping[str, Any]) -> str | None:
    parts = [params.get(key) for key in ("ServiceNamespace", "ResourceId", "ScalableDimension")]
    return "/".join(str(part) for part in parts) if all(parts) else None


def _scaling_policy(params: Mapping[str, Any]) -> str | None:
    target = _scaling(params)
    return f"{target}:{params['PolicyName']}" if target is not None and "PolicyName" in params else None


_TRAITS = {
    "glue": Traits(
        service="glue",
        # Service authorization reference of AWS Glue.
        arn_resources={"DataQualityRuleset": "dataQualityRuleset/{name}"},
    ),
    "lakeformation": Traits(
        service="lakeformation",
        names={"Resource": lambda p: p.get("ResourceArn"), "LFTag": lambda p: p.get("TagKey")},
    ),
    "codepipeline": Traits(
        service="codepipeline",
        arn_resource="{name}",
    ),
    "application-autoscaling": Traits(
        service="application-autoscaling",
        names={"ScalableTarget": _scaling, "ScalingPolicy": _scaling_policy},
        arn_resources={
            "ScalableTarget": "scalable-target/{name}",
            "ScalingPolicy": "scalingPolicy:{name}",
            "ScheduledAction": "scheduledAction:{name}",
        },
        upserts=frozenset({"ScalableTarget"}),
    ),
    "emr-serverless": Traits(
        service="emr-serverless",
        # Service authorization reference of EMR Serverless.
        names={
            "JobRun": lambda p: f"{p['applicationId']}/jobruns/{p['jobRunId']}" if "jobRunId" in p else None
        },
        arn_resources={"Application": "/applications/{name}", "JobRun": "/applications/{name}"},
    ),
    # Service authorization reference of Quick Sight and FSx.
    "quicksight": Traits(
        service="quicksight",
        arn_resources={"DataSource": "datasource/{name}", "DataSet": "dataset/{name}"},
    ),
    "fsx": Traits(
        service="fsx", arn_resources={"FileSystem": "file-system/{name}", "Association": "association/{name}"}
    ),
    "mwaa": Traits(service="mwaa", arn_service="airflow"),
    "kinesisanalyticsv2": Traits(service="kinesisanalyticsv2", arn_service="kinesisanalytics"),
    "codestar-connections": Traits(service="codestar-connections", arn_resource="connection/{name}"),
    "codeconnections": Traits(service="codeconnections", arn_resource="connection/{name}"),
}


def traits(service: str) -> Traits:
    """Return how a service names its resources."""
    return _TRAITS.get(service, Traits(service=service))
