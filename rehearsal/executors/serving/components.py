"""Inference components: models with copies of their own, placed on the instances of one endpoint.

Source: "Deploy models with inference components", "Auto scale ... to zero instances" in the developer guide,
and the reference of the operations.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rehearsal.executors import containers
from rehearsal.executors.serving import deployments, fleet, measures, programs, rollout
from rehearsal.executors.serving.capacity import Need
from rehearsal.executors.serving.fleet import ENDPOINTS, Endpoint, Place
from rehearsal.executors.serving.hosts import (
    COMPONENTS,
    Component,
    HostVariant,
    drop,
    room,
    scale,
    start,
)
from rehearsal.executors.serving.invocations import ROUTES, Sent, exchange, model_error, rendered
from rehearsal.executors.serving.programs import FleetError, Instance, Program
from rehearsal.executors.transfer import TransferError
from rehearsal.services.engine import ApiError, Call, Service, instead

__all__ = ["desired_copies", "set_desired_copies"]


@instead("sagemaker", "CreateInferenceComponent")
def create(service: Service, call: Call) -> dict[str, Any]:
    """Place and start the copies of a component: Creating, then InService or Failed."""
    params = call.params
    for key in ("Specification", "RuntimeConfig"):
        if key not in params:
            raise ApiError("ValidationException", f"{key} is required; adapters are not served here")
    record = service.get("Endpoint", params["EndpointName"])
    endpoint = ENDPOINTS.get(record.arn)
    if endpoint is None or record.status != "InService":
        raise ApiError("ValidationException", f"Endpoint {record.name} is not InService ({record.status})")
    hosts = [v for v in fleet.all_variants(endpoint) if isinstance(v, HostVariant)]
    name = params.get("VariantName", hosts[0].name if len(hosts) == 1 else None)
    if name not in [variant.name for variant in hosts]:
        raise ApiError(
            "ValidationException",
            f"VariantName must be one of the variants without a model, got {name}; there are "
            f"{', '.join(v.name for v in hosts) or 'none'}",
        )
    program, need, model = _specified(service, endpoint, params["Specification"])
    output = service.generic(call)
    made = service.get("InferenceComponent", params["InferenceComponentName"])
    made.status = "Creating"
    made.data |= {"VariantName": name, "EndpointName": record.name, "EndpointArn": record.arn}
    component = COMPONENTS[made.arn] = Component(
        endpoint=endpoint, record=made, variant_name=str(name), program=program, need=need, model=model
    )
    count = params["RuntimeConfig"]["CopyCount"]
    containers.start_work(service.runtime, f"component {made.name}", _bring_up, component, count)
    return output


def _specified(service: Service, endpoint: Endpoint, given: Mapping[str, Any]) -> tuple[Program, Need, str]:
    """What a specification runs, what a copy needs, and what the model is called."""
    if "BaseInferenceComponentName" in given:
        raise ApiError("ValidationException", "the rehearsal serves no adapters of a base component")
    if ("ModelName" in given) == ("Container" in given):
        raise ApiError("ValidationException", "a component takes exactly one of ModelName and Container")
    if "ComputeResourceRequirements" not in given:
        raise ApiError("ValidationException", "ComputeResourceRequirements is required")
    if "ModelName" in given:
        model = service.peek("Model", given["ModelName"])
        if model is None:
            raise ApiError("ValidationException", f'Could not find model "{given["ModelName"]}".')
        program, name = programs.program_of(service, model), model.name
    else:
        container = given["Container"]
        config = {} if endpoint.blue is None else endpoint.blue.config
        if "Image" not in container:
            raise ApiError("ValidationException", "Container needs Image")
        program = Program(
            image=container["Image"],
            role=config["ExecutionRoleArn"],
            environment=container.get("Environment", {}),
            data=container.get("ArtifactUrl"),
        )
        name = container.get("ArtifactUrl", container["Image"])
    asked = given["ComputeResourceRequirements"]
    need = Need(
        cpus=float(asked.get("NumberOfCpuCoresRequired", 0)),
        memory_mb=int(asked["MinMemoryRequiredInMb"]),
        accelerators=float(asked.get("NumberOfAcceleratorDevicesRequired", 0)),
    )
    return program, need, name


def _bring_up(component: Component, count: int) -> None:
    try:
        scale(component, count)
    except (FleetError, TransferError, ApiError) as error:
        scale(component, 0)
        component.endpoint.service.update(component.record, status="Failed", FailureReason=str(error)[:1024])
        component.endpoint.service.runtime.ledger.failed("component", component.record.name, str(error))
        return
    component.endpoint.service.update(component.record, status="InService")
    component.endpoint.service.runtime.ledger.ran(
        "component", component.record.name, copies=count, model=component.model
    )


def _component(service: Service, name: str) -> Component:
    record = service.get("InferenceComponent", name)
    return COMPONENTS[record.arn]


@instead("sagemaker", "DescribeInferenceComponent")
def describe(service: Service, call: Call) -> dict[str, Any]:
    """Describe a component with the copies it has."""
    record = service.get("InferenceComponent", call.params["InferenceComponentName"])
    shape = service.operation("DescribeInferenceComponent").output_shape
    output = service.describe("InferenceComponent", record, shape)
    component = COMPONENTS.get(record.arn)
    current = 0 if component is None else len(component.places)
    desired = 0 if component is None else component.desired
    output["RuntimeConfig"] = {"DesiredCopyCount": desired, "CurrentCopyCount": current}
    specification = dict(record.data["Specification"])
    if "Container" in specification:
        given = dict(specification["Container"])
        image = given.pop("Image", "")
        shown = {"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": record.created}
        specification["Container"] = {**given, "DeployedImage": shown}
    output["Specification"] = specification
    return output


@instead("sagemaker", "DeleteInferenceComponent")
def delete(service: Service, call: Call) -> dict[str, Any]:
    """End the copies of a component and forget it."""
    component = _component(service, call.params["InferenceComponentName"])
    record = component.record
    if record.status in ("Creating", "Updating"):
        raise ApiError("ValidationException", f"Cannot delete {record.name} while it is {record.status}")
    record.status = "Deleting"
    scale(component, 0)
    COMPONENTS.pop(record.arn)
    service.remove("InferenceComponent", record.name)
    return {}


@instead("sagemaker", "UpdateInferenceComponentRuntimeConfig")
def update_runtime(service: Service, call: Call) -> dict[str, Any]:
    """Change the number of copies: Updating, then InService."""
    component = _component(service, call.params["InferenceComponentName"])
    _begin_change(component)
    count = call.params["DesiredRuntimeConfig"]["CopyCount"]
    containers.start_work(
        service.runtime, f"component {component.record.name} scales", _rescale, component, count
    )
    return {"InferenceComponentArn": component.record.arn}


@instead("sagemaker", "UpdateInferenceComponent")
def update(service: Service, call: Call) -> dict[str, Any]:
    """Change what a component runs, its new copies beside the old ones batch by batch, or how many it has."""
    params = call.params
    if "Specifications" in params:
        raise ApiError("ValidationException", "the rehearsal takes one Specification, not Specifications")
    component = _component(service, params["InferenceComponentName"])
    given = params.get("Specification", component.record.data["Specification"])
    wanted = _specified(service, component.endpoint, given)
    _begin_change(component)
    component.record.data.pop("FailureReason", None)
    if "DeploymentConfig" in params:
        component.record.data["LastDeploymentConfig"] = params["DeploymentConfig"]
    containers.start_work(
        service.runtime,
        f"component {component.record.name} is updated",
        _update,
        component,
        given,
        wanted,
        params.get("RuntimeConfig", {}).get("CopyCount", component.desired),
        params.get("DeploymentConfig"),
    )
    return {"InferenceComponentArn": component.record.arn}


def _begin_change(component: Component) -> None:
    with component.lock:
        if component.record.status not in ("InService", "Failed"):
            raise ApiError(
                "ValidationException",
                f"Cannot update {component.record.name} while it is {component.record.status}",
            )
        component.endpoint.service.update(component.record, status="Updating")


def _rescale(component: Component, count: int) -> None:
    service = component.endpoint.service
    try:
        scale(component, count)
    except (FleetError, TransferError, ApiError) as error:
        service.update(component.record, status="InService", FailureReason=str(error)[:1024])
        service.runtime.ledger.failed("component", component.record.name, str(error))
        return
    component.record.data.pop("FailureReason", None)
    service.update(component.record, status="InService")


def desired_copies(service: Service, name: str) -> int:
    """How many copies a component is meant to have.

    :raises ApiError: there is no such component
    """
    return _component(service, name).desired


def set_desired_copies(service: Service, name: str, count: int) -> None:
    """Scale a component as Application Auto Scaling does.

    :raises ApiError: there is no such component, or it is being changed
    """
    component = _component(service, name)
    _begin_change(component)
    _rescale(component, count)


# ---------------------------------------------------------------------- updates


def _update(
    component: Component,
    specification: Mapping[str, Any],
    wanted: tuple[Program, Need, str],
    count: int,
    deployment: Mapping[str, Any] | None,
) -> None:
    """Bring new copies in batches and end as many old ones; an alarm brings the old ones back."""
    service = component.endpoint.service
    runtime, record = service.runtime, component.record
    before = (component.program, component.need, component.model), component.desired
    old = list(component.copies)
    began = runtime.clock.now()
    try:
        if wanted[:2] != before[0][:2]:
            _replace(component, wanted, old, deployment, began)
        scale(component, count)
    except (FleetError, TransferError, ApiError) as error:
        reason = str(error)
        component.program, component.need, component.model = before[0]
        for copy in [one for one in component.copies if one not in old]:
            drop(component, copy)
        scale(component, before[1])
        text = f"The update of {record.name} failed and was rolled back: {reason}"
        service.update(record, status="InService", FailureReason=text[:1024])
        runtime.ledger.ran("component-update", record.name, outcome="rolled back", why=reason)
        return
    service.update(record, status="InService", Specification=dict(specification))
    runtime.ledger.ran(
        "component-update",
        record.name,
        outcome="deployed",
        copies=count,
        seconds=(runtime.clock.now() - began).total_seconds(),
    )


def _replace(
    component: Component,
    wanted: tuple[Program, Need, str],
    old: list[Instance],
    deployment: Mapping[str, Any] | None,
    began: datetime,
) -> None:
    policy = {} if deployment is None else deployment["RollingUpdatePolicy"]
    alarms = () if deployment is None else deployment.get("AutoRollbackConfiguration", {}).get("Alarms", ())
    names = tuple(alarm["AlarmName"] for alarm in alarms)
    batch = _batch(policy.get("MaximumBatchSize"), len(old))
    component.program, component.need, component.model = wanted
    remaining = list(old)
    while remaining:
        going, remaining = remaining[:batch], remaining[batch:]
        for _ in going:
            component.places.append(room(component, wanted[1]))
            try:
                copy = start(component, wanted[0])
            except (FleetError, TransferError, ApiError):
                component.places.pop()
                raise
            with component.lock:
                component.copies.append(copy)
        reason = _bake(component, names, policy, began)
        if reason is not None:
            raise FleetError(reason)
        for one in going:
            drop(component, one)


def _batch(size: Mapping[str, Any] | None, copies: int) -> int:
    if size is None:
        return max(1, copies)
    if size["Type"] == "COPY_COUNT":
        return int(size["Value"])
    return max(1, rollout.batches(copies, [size["Value"] / 100])[0])


def _bake(
    component: Component, alarms: tuple[str, ...], policy: Mapping[str, Any], began: datetime
) -> str | None:
    clock = component.endpoint.service.runtime.clock
    end = clock.timestamp() + float(policy.get("WaitIntervalInSeconds", 0))
    while True:
        found = deployments.ringing(component.endpoint.service, alarms)
        if found:
            return f"the alarm {', '.join(found)} is in ALARM"
        limit = policy.get("MaximumExecutionTimeoutInSeconds")
        if limit is not None and (clock.now() - began).total_seconds() > limit:
            return f"the update took longer than {limit} seconds"
        left = end - clock.timestamp()
        if left <= 0 or component.endpoint.service.runtime.stopping.is_set():
            return None
        clock.sleep(min(left, 10.0))


# ---------------------------------------------------------------------- requests


def route(endpoint: Endpoint, params: Mapping[str, Any], sent: Sent) -> dict[str, Any] | None:
    """Send a request that names a component to one of its copies."""
    name = params.get("InferenceComponentName")
    if name is None:
        return None
    component = next(
        (c for c in list(COMPONENTS.values()) if c.record.name == name and c.endpoint is endpoint), None
    )
    if component is None:
        raise ApiError("ValidationError", f"Inference component {name} of this endpoint not found.")
    service, blue = endpoint.service, endpoint.blue
    try:
        copy = component.take()
    except ApiError:
        measures.publish(
            service, {"InferenceComponentName": name}, {"NoCapacityInvocationFailures": (1, "Count")}
        )
        raise
    try:
        if blue is None:
            raise ApiError("ValidationError", f"Endpoint {endpoint.record.name} is not in service")
        place = Place(
            endpoint=endpoint,
            fleet=blue,
            variant=component.variant,
            instance=copy,
            label=(copy.program.data or component.model, name),
        )
        answer = exchange(place, sent, params)
    finally:
        copy.leave()
    _measure(component, answer.status or 500, answer.latency, sent)
    if not answer.good:
        raise model_error(endpoint, name, answer)
    return rendered(answer, component.variant_name)


def _measure(component: Component, status: int, latency: float, sent: Sent) -> None:
    copies = max(1, len(component.places))
    values = measures.measure_request(status, latency, time.perf_counter() - sent.began - latency)
    values["InvocationsPerCopy"] = (1 / copies, "None")
    running = sum(copy.running for copy in component.copies) + 1
    values["ConcurrentRequestsPerCopy"] = (running / copies, "None")
    service = component.endpoint.service
    measures.publish(service, {"InferenceComponentName": component.record.name}, values)


ROUTES.append(route)
