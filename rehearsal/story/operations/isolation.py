"""Which jobs an assembly describes, and whether each is cut off from the network and encrypts its traffic.

A job is found wherever its request stands: as a property, or as the JSON text of a pipeline, a schedule or a
state machine. Which of the two settings a kind of job knows is read from SageMaker's service model. A job
without one needs a reason, which stands in the Metadata of the resource that describes it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["REASONS", "Job", "jobs_of"]

#: Key of a resource's Metadata: the reason of each job without a setting, by the job's kind, or ``*``.
REASONS = "MLLifecycle::OpenJobs"
ISOLATION, ENCRYPTION = "EnableNetworkIsolation", "EnableInterContainerTrafficEncryption"
#: What only the request of that operation has.
_MARKS: Mapping[str, frozenset[str]] = {
    "CreateProcessingJob": frozenset({"AppSpecification", "ProcessingResources"}),
    "CreateTrainingJob": frozenset({"AlgorithmSpecification", "OutputDataConfig"}),
    "CreateAutoMLJobV2": frozenset({"AutoMLJobInputDataConfig"}),
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One description of a job. ``missing`` are settings that its kind knows and that are not switched on."""

    stack: str
    resource: str
    kind: str
    missing: tuple[str, ...]
    reason: str | None


def jobs_of(stack: str, template: Path) -> list[Job]:
    """Return the jobs that a template describes."""
    found = []
    resources: Mapping[str, Any] = json.loads(template.read_text(encoding="utf-8")).get("Resources", {})
    for logical_id, resource in resources.items():
        reasons = resource.get("Metadata", {}).get(REASONS, {})
        properties = resource.get("Properties", {})
        own = _own_operation(resource["Type"])
        if own == "CreateEndpointConfig" and _names_models(properties):
            continue
        described = [(own, properties)] if own is not None else list(_requests(properties))
        for operation, request in described:
            kind = operation.removeprefix("Create")
            missing = tuple(
                name for name, path in _settings(operation).items() if not _switched_on(request, path)
            )
            reason = reasons.get(kind, reasons.get("*")) if missing else None
            found.append(Job(stack=stack, resource=logical_id, kind=kind, missing=missing, reason=reason))
    return found


def _names_models(properties: Mapping[str, Any]) -> bool:
    """Whether an endpoint's variants name models, which say themselves whether they are isolated."""
    return all("ModelName" in variant for variant in properties.get("ProductionVariants", ()))


def _own_operation(resource_type: str) -> str | None:
    """The operation that makes a resource of SageMaker's which has one of the settings itself."""
    from rehearsal.services.engine import service_model

    if not resource_type.startswith("AWS::SageMaker::"):
        return None
    operation = f"Create{resource_type.rsplit('::', 1)[-1]}"
    if operation not in service_model("sagemaker").operation_names or not _settings(operation):
        return None
    return operation


@functools.cache
def _settings(operation: str) -> dict[str, tuple[str, ...]]:
    """Where the request of an operation has the two settings; those that it knows."""
    from rehearsal.services.engine import service_model

    shape_of_request = service_model("sagemaker").operation_model(operation).input_shape
    members = {} if shape_of_request is None else shape_of_request.members
    found: dict[str, tuple[str, ...]] = {}
    for name in (ISOLATION, ENCRYPTION):
        if name in members:
            found[name] = (name,)
        for member, shape in members.items():
            # The settings of a network or of security; not those of a nested job.
            if member.endswith("Config") and name in getattr(shape, "members", {}):
                found[name] = (member, name)
    return found


def _switched_on(request: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    value: Any = request
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value in (True, "true", "True")


def _requests(value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, Mapping):
        text = _text(value)
        if text is not None:
            yield from _requests(text)
            return
        for operation, marks in _MARKS.items():
            if marks <= set(value):
                yield operation, value
        for part in value.values():
            yield from _requests(part)
    elif isinstance(value, list):
        for part in value:
            yield from _requests(part)
    elif isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            yield from _requests(json.loads(value))
        except ValueError:
            return


def _text(value: Mapping[str, Any]) -> str | None:
    """A text that is put together at deployment, with ``0`` for what only then is known."""
    if set(value) == {"Fn::Join"}:
        separator, parts = value["Fn::Join"]
        return str(separator).join(part if isinstance(part, str) else "0" for part in parts)
    if set(value) == {"Fn::Sub"}:
        text = value["Fn::Sub"]
        return str(text[0] if isinstance(text, list) else text)
    return None
