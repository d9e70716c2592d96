"""SageMaker real-time endpoints: local servers behind InvokeEndpoint, with capture, metrics and rollouts.

A variant's instances are processes that run the model's image under the `/opt/ml` contract. An update starts
a second fleet beside the first and moves the traffic as the deployment configuration says, on the rehearsal's
clock; an alarm in ALARM brings the first fleet back.
"""

from __future__ import annotations

import io
import itertools
import random
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from subprocess import Popen
from typing import TYPE_CHECKING, Any

import urllib3

from rehearsal import ministack_bridge as bridge
from rehearsal.control import ControlError, control
from rehearsal.executors import containers, registry, transfer
from rehearsal.executors.capture import FLUSH_SECONDS, Capture, Captured, capture_line
from rehearsal.executors.containers import JobFolder
from rehearsal.executors.rollout import DeploymentConfigError, Plan, plan
from rehearsal.services.engine import ApiError, Call, Record, Service, instead, service_model

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["desired_instances", "flush_captures", "invoke", "live_traffic", "set_desired_instances"]

# One laptop stands for a fleet: at most so many processes per variant, however many instances it has.
PROCESSES_PER_VARIANT = 2
# "A customer's model containers must respond to requests within 60 seconds" (InvokeEndpoint's reference).
INVOCATION_SECONDS = 60.0
# Real seconds for a container to answer /ping; SageMaker's own limit may only shorten it.
HEALTH_CHECK_SECONDS = 120.0
# How often the alarms are looked at while a deployment bakes, in virtual seconds.
_WATCH_SECONDS = 10.0
_CHANGEABLE = frozenset({"InService", "Failed"})


class FleetError(Exception):
    """A fleet that did not come up; the text is the endpoint's failure reason."""


@dataclass(kw_only=True)
class _Instance:
    """One process that serves."""

    process: Popen[bytes]
    folder: JobFolder
    pool: urllib3.HTTPConnectionPool


@dataclass(kw_only=True)
class _Variant:
    """One production variant of a fleet."""

    name: str
    weight: float
    desired: int
    image: str
    role: str
    instances: list[_Instance] = field(default_factory=list)
    invocations: int = 0
    turn: itertools.count[int] = field(default_factory=itertools.count)

    def next_instance(self) -> _Instance:
        return self.instances[next(self.turn) % len(self.instances)]


@dataclass(kw_only=True)
class _Fleet:
    """The variants of one endpoint configuration."""

    config_name: str
    config: Mapping[str, Any]
    variants: list[_Variant] = field(default_factory=list)
    captures: dict[str, Capture] = field(default_factory=dict)


@dataclass(kw_only=True)
class _Endpoint:
    """What an endpoint runs now: the fleet in service and, during a deployment, the next one."""

    service: Service
    record: Record
    blue: _Fleet | None = None
    green: _Fleet | None = None
    share: float = 0.0
    lock: threading.RLock = field(default_factory=threading.RLock)
    stop: threading.Event = field(default_factory=threading.Event)

    def pick(self) -> _Fleet | None:
        with self.lock:
            if self.green is not None and random.random() < self.share:  # noqa: S311 - a share of traffic, no secret
                return self.green
            return self.blue


_ENDPOINTS: dict[str, _Endpoint] = {}


def _endpoint(record: Record) -> _Endpoint:
    return _ENDPOINTS[record.arn]


# ---------------------------------------------------------------------- models and configurations


@instead("sagemaker", "CreateModel")
def create_model(service: Service, call: Call) -> dict[str, Any]:
    """Keep a model; a package it is made from must be approved."""
    params = call.params
    given = _model_containers(params)
    if not given:
        raise ApiError("ValidationException", "a model needs PrimaryContainer or Containers")
    if "PrimaryContainer" in params and "Containers" in params:
        raise ApiError("ValidationException", "give PrimaryContainer or Containers, not both")
    if "ExecutionRoleArn" not in params:
        raise ApiError("ValidationException", "ExecutionRoleArn is required to run the containers of a model")
    for container in given:
        if ("ModelPackageName" in container) == ("Image" in container):
            raise ApiError(
                "ValidationException", "a container takes exactly one of Image and ModelPackageName"
            )
        if "ModelPackageName" in container:
            registry.approved_containers(service, container["ModelPackageName"])
    return service.generic(call)


def _model_containers(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    if "PrimaryContainer" in data:
        return [data["PrimaryContainer"]]
    containers_: list[dict[str, Any]] = data.get("Containers", [])
    return containers_


@instead("sagemaker", "CreateEndpointConfig")
def create_config(service: Service, call: Call) -> dict[str, Any]:
    """Keep a configuration whose models exist."""
    params = call.params
    names = [variant["VariantName"] for variant in params["ProductionVariants"]]
    if len(set(names)) != len(names):
        raise ApiError("ValidationException", f"Variant names must be unique, got {', '.join(names)}")
    for variant in params["ProductionVariants"]:
        if "ModelName" not in variant:
            raise ApiError("ValidationException", f"variant {variant['VariantName']} needs ModelName")
        if service.peek("Model", variant["ModelName"]) is None:
            raise ApiError("ValidationException", f'Could not find model "{variant["ModelName"]}".')
        if ("ServerlessConfig" in variant) == ("InstanceType" in variant):
            raise ApiError(
                "ValidationException",
                f"variant {variant['VariantName']} takes exactly one of InstanceType and ServerlessConfig",
            )
    for key in ("AsyncInferenceConfig", "ShadowProductionVariants", "ExplainerConfig"):
        if params.get(key):
            service.runtime.ledger.recorded(
                "endpoint-config", params["EndpointConfigName"], f"{key} was kept, but is not acted upon"
            )
    return service.generic(call)


# ---------------------------------------------------------------------- endpoints


@instead("sagemaker", "CreateEndpoint")
def create(service: Service, call: Call) -> dict[str, Any]:
    """Start an endpoint: Creating, then InService or Failed."""
    config = service.get("EndpointConfig", call.params["EndpointConfigName"])
    deployment = call.params.get("DeploymentConfig")
    _planned(deployment, config)
    output = service.generic(call)
    record = service.get("Endpoint", call.params["EndpointName"])
    record.status = "Creating"
    record.data["LastDeploymentConfig"] = deployment
    endpoint = _ENDPOINTS[record.arn] = _Endpoint(service=service, record=record)
    _tell(endpoint)
    containers.start_work(service.runtime, f"endpoint {record.name}", _bring_up, endpoint, config)
    return output


@instead("sagemaker", "UpdateEndpoint")
def update(service: Service, call: Call) -> dict[str, Any]:
    """Deploy another configuration beside the one in service."""
    params = call.params
    record = service.get("Endpoint", params["EndpointName"])
    config = service.get("EndpointConfig", params["EndpointConfigName"])
    if record.status not in _CHANGEABLE:
        raise ApiError(
            "ValidationException", f"Cannot update in-progress endpoint {record.arn} ({record.status})."
        )
    deployment = params.get("DeploymentConfig")
    if deployment is None and params.get("RetainDeploymentConfig"):
        deployment = record.data.get("LastDeploymentConfig")
    steps = _planned(deployment, config)
    endpoint = _endpoint(record)
    endpoint.stop.clear()
    record.data.pop("FailureReason", None)
    service.update(
        record,
        status="Updating",
        LastDeploymentConfig=deployment,
        PendingDeploymentSummary={
            "EndpointConfigName": config.name,
            "ProductionVariants": [
                {"VariantName": v["VariantName"], "DesiredInstanceCount": v.get("InitialInstanceCount", 1)}
                for v in config.data["ProductionVariants"]
            ],
            "StartTime": service.runtime.clock.now(),
        },
    )
    _tell(endpoint)
    containers.start_work(
        service.runtime,
        f"endpoint {record.name} deploys {config.name}",
        _deploy,
        endpoint,
        config,
        steps,
        bool(params.get("RetainAllVariantProperties")),
    )
    return {"EndpointArn": record.arn}


def _planned(deployment: Mapping[str, Any] | None, config: Record) -> Plan:
    count = sum(int(v.get("InitialInstanceCount", 1)) for v in config.data["ProductionVariants"])
    try:
        return plan(deployment, count)
    except DeploymentConfigError as error:
        raise ApiError("ValidationException", str(error)) from None


@instead("sagemaker", "DeleteEndpoint")
def delete(service: Service, call: Call) -> dict[str, Any]:
    """Stop the servers of an endpoint and forget it."""
    record = service.get("Endpoint", call.params["EndpointName"])
    if record.status in ("Creating", "Updating", "RollingBack"):
        raise ApiError(
            "ValidationException", f"Cannot delete in-progress endpoint {record.arn} ({record.status})."
        )
    record.status = "Deleting"
    endpoint = _ENDPOINTS.pop(record.arn)
    _tell(endpoint)
    for fleet in (endpoint.blue, endpoint.green):
        if fleet is not None:
            _end(endpoint, fleet)
    service.remove("Endpoint", record.name)
    return {}


@instead("sagemaker", "DescribeEndpoint")
def describe(service: Service, call: Call) -> dict[str, Any]:
    """Describe an endpoint with what it runs now."""
    record = service.get("Endpoint", call.params["EndpointName"])
    output = service.describe("Endpoint", record, service.operation("DescribeEndpoint").output_shape)
    endpoint = _ENDPOINTS.get(record.arn)
    fleet = None if endpoint is None else endpoint.blue
    if fleet is None:
        return output
    output["ProductionVariants"] = [_summary(variant, record) for variant in fleet.variants]
    capture = fleet.config.get("DataCaptureConfig")
    if capture is not None:
        enabled = capture.get("EnableCapture", True)
        output["DataCaptureConfig"] = {
            key: value
            for key, value in {
                "EnableCapture": enabled,
                "CaptureStatus": "Started" if enabled else "Stopped",
                "CurrentSamplingPercentage": capture["InitialSamplingPercentage"],
                "DestinationS3Uri": capture["DestinationS3Uri"],
                "KmsKeyId": capture.get("KmsKeyId", ""),
            }.items()
            if value is not None
        }
    return output


def _summary(variant: _Variant, record: Record) -> dict[str, Any]:
    image = {
        "SpecifiedImage": variant.image,
        "ResolvedImage": variant.image,
        "ResolutionTime": record.created,
    }
    return {
        "VariantName": variant.name,
        "DeployedImages": [image],
        "CurrentWeight": variant.weight,
        "DesiredWeight": variant.weight,
        "CurrentInstanceCount": variant.desired,
        "DesiredInstanceCount": variant.desired,
    }


@instead("sagemaker", "UpdateEndpointWeightsAndCapacities")
def update_weights(service: Service, call: Call) -> dict[str, Any]:
    """Change weights and instance counts of the variants in service."""
    record = service.get("Endpoint", call.params["EndpointName"])
    if record.status != "InService":
        raise ApiError(
            "ValidationException", f"Cannot update in-progress endpoint {record.arn} ({record.status})."
        )
    endpoint = _endpoint(record)
    for wanted in call.params["DesiredWeightsAndCapacities"]:
        variant = _variant(endpoint, wanted["VariantName"])
        if variant is None:
            raise ApiError("ValidationException", f"{record.name} has no variant {wanted['VariantName']}")
        if "DesiredWeight" in wanted:
            variant.weight = wanted["DesiredWeight"]
        if "DesiredInstanceCount" in wanted:
            _resize(endpoint, variant, wanted["DesiredInstanceCount"])
    return {"EndpointArn": record.arn}


def desired_instances(service: Service, endpoint_name: str, variant_name: str) -> int:
    """How many instances a variant is meant to have.

    :raises ApiError: there is no such endpoint or variant
    """
    variant = _variant(_endpoint(service.get("Endpoint", endpoint_name)), variant_name)
    if variant is None:
        raise ApiError("ValidationException", f"{endpoint_name} has no variant {variant_name}")
    return variant.desired


def set_desired_instances(service: Service, endpoint_name: str, variant_name: str, count: int) -> int:
    """Scale a variant as Application Auto Scaling does; the count before.

    :raises ApiError: there is no such endpoint or variant
    """
    endpoint = _endpoint(service.get("Endpoint", endpoint_name))
    variant = _variant(endpoint, variant_name)
    if variant is None:
        raise ApiError("ValidationException", f"{endpoint_name} has no variant {variant_name}")
    before = variant.desired
    if before != count:
        _resize(endpoint, variant, count)
    return before


def _variant(endpoint: _Endpoint, name: str) -> _Variant | None:
    variants = [] if endpoint.blue is None else endpoint.blue.variants
    return next((variant for variant in variants if variant.name == name), None)


def _resize(endpoint: _Endpoint, variant: _Variant, count: int) -> None:
    variant.desired = count
    fleet = endpoint.blue
    while fleet is not None and len(variant.instances) < min(count, PROCESSES_PER_VARIANT):
        spec = next(v for v in fleet.config["ProductionVariants"] if v["VariantName"] == variant.name)
        instance = _start_instance(endpoint, spec, variant)
        _await_ping(endpoint, instance, variant.name, HEALTH_CHECK_SECONDS)
        variant.instances.append(instance)
    while len(variant.instances) > max(1, min(count, PROCESSES_PER_VARIANT)):
        endpoint.service.runtime.end_child(variant.instances.pop().process)


# ---------------------------------------------------------------------- fleets


def _bring_up(endpoint: _Endpoint, config: Record) -> None:
    service, record = endpoint.service, endpoint.record
    try:
        fleet = _start_fleet(endpoint, config, None)
    except FleetError as error:
        service.update(record, status="Failed", FailureReason=str(error))
        service.runtime.ledger.failed("endpoint", record.name, str(error))
        _tell(endpoint)
        return
    endpoint.blue = fleet
    service.update(record, status="InService")
    service.runtime.ledger.ran("endpoint", record.name, config=config.name)
    _tell(endpoint)


def _start_fleet(endpoint: _Endpoint, config: Record, keep: _Fleet | None) -> _Fleet:
    """Start every variant of a configuration; none is left behind when one fails.

    :param keep: the fleet whose weights and instance counts are retained
    """
    fleet = _Fleet(config_name=config.name, config=config.data)
    try:
        for spec in config.data["ProductionVariants"]:
            retained = (
                next((v for v in keep.variants if v.name == spec["VariantName"]), None) if keep else None
            )
            fleet.variants.append(_start_variant(endpoint, fleet, spec, retained))
    except (FleetError, transfer.TransferError, ApiError) as error:
        _end(endpoint, fleet)
        raise FleetError(str(error)) from error
    return fleet


def _start_variant(
    endpoint: _Endpoint, fleet: _Fleet, spec: Mapping[str, Any], retained: _Variant | None
) -> _Variant:
    runtime = endpoint.service.runtime
    model = endpoint.service.get("Model", spec["ModelName"])
    desired = int(spec.get("InitialInstanceCount", 1)) if retained is None else retained.desired
    container = _container(endpoint.service, model)
    containers.assume(model.data["ExecutionRoleArn"])
    variant = _Variant(
        name=spec["VariantName"],
        weight=float(spec.get("InitialVariantWeight", 1.0)) if retained is None else retained.weight,
        desired=desired,
        image=container["Image"],
        role=model.data["ExecutionRoleArn"],
    )
    count = max(1, min(desired, PROCESSES_PER_VARIANT))
    if desired > count:
        runtime.ledger.recorded(
            "endpoint",
            endpoint.record.name,
            f"{count} processes stand for the {desired} instances of {variant.name}",
        )
    limit = min(
        float(spec.get("ContainerStartupHealthCheckTimeoutInSeconds", HEALTH_CHECK_SECONDS)),
        HEALTH_CHECK_SECONDS,
    )
    try:
        for _ in range(count):
            instance = _start_instance(endpoint, spec, variant)
            variant.instances.append(instance)
            _await_ping(endpoint, instance, variant.name, limit)
    except FleetError:
        for instance in variant.instances:
            runtime.end_child(instance.process)
        raise
    capture = fleet.config.get("DataCaptureConfig")
    if capture is not None:
        fleet.captures[variant.name] = _capture(endpoint, capture, variant)
    return variant


def _container(service: Service, model: Record) -> dict[str, Any]:
    """The one container of a model, with what its model package says filled in."""
    given = _model_containers(model.data)
    if len(given) != 1:
        raise FleetError(f"the rehearsal serves models of one container, {model.name} has {len(given)}")
    container = dict(given[0])
    if "ModelPackageName" in container:
        packaged = registry.approved_containers(service, container["ModelPackageName"])
        if len(packaged) != 1:
            raise FleetError(f"the rehearsal serves packages of one container, got {len(packaged)}")
        environment = {**packaged[0].get("Environment", {}), **container.get("Environment", {})}
        container = {**packaged[0], **container, "Environment": environment}
    return container


def _start_instance(endpoint: _Endpoint, spec: Mapping[str, Any], variant: _Variant) -> _Instance:
    service = endpoint.service
    runtime, region = service.runtime, service.region
    model = service.get("Model", spec["ModelName"])
    container = _container(service, model)
    folder = JobFolder.of(runtime, "endpoints", f"{endpoint.record.name}-{model.name}")
    data = container.get("ModelDataUrl") or (
        container.get("ModelDataSource", {}).get("S3DataSource", {}).get("S3Uri")
    )
    (folder.base / "model").mkdir(parents=True, exist_ok=True)
    if data is not None and data.endswith(".tar.gz"):
        transfer.download_tar(runtime, data, folder.base / "model", role=variant.role, region=region)
    elif data is not None:
        transfer.download(runtime, data, folder.base / "model", role=variant.role, region=region)
    port = _free_port()
    process = containers.start_program(
        runtime,
        folder,
        image=variant.image,
        role=variant.role,
        region=region,
        variables={
            **container.get("Environment", {}),
            "SAGEMAKER_BIND_TO_PORT": str(port),
            "ENDPOINT_NAME": endpoint.record.name,
            "VARIANT_NAME": variant.name,
        },
        arguments=("serve",),
        isolated=bool(model.data.get("EnableNetworkIsolation")),
    )
    pool = urllib3.HTTPConnectionPool("127.0.0.1", port, maxsize=32, retries=False)
    return _Instance(process=process, folder=folder, pool=pool)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_ping(endpoint: _Endpoint, instance: _Instance, variant: str, limit: float) -> None:
    """Wait until the container answers its health check.

    :raises FleetError: it ended, or did not answer 200 in time
    """
    deadline = time.monotonic() + limit
    last = "no answer"
    while time.monotonic() < deadline and not endpoint.service.runtime.stopping.is_set():
        if instance.process.poll() is not None:
            last = f"its process ended with exit code {instance.process.returncode}"
            break
        try:
            # A container has 2 seconds to answer a health check (developer guide, custom inference code).
            answer = instance.pool.request("GET", "/ping", timeout=2.0)
        except urllib3.exceptions.HTTPError:
            time.sleep(0.05)
            continue
        if answer.status == 200:
            return
        last = f"/ping answered {answer.status}"
        time.sleep(0.1)
    endpoint.service.runtime.end_child(instance.process)
    raise FleetError(
        f"The container for production variant {variant} did not pass the ping health check: {last}. "
        f"{containers.tail(instance.folder.log)}"[:1024]
    )


def _end(endpoint: _Endpoint, fleet: _Fleet) -> None:
    runtime = endpoint.service.runtime
    for capture in fleet.captures.values():
        capture.flush()
    for variant in fleet.variants:
        for instance in variant.instances:
            runtime.end_child(instance.process)
            instance.pool.close()
            containers.ship_log(
                runtime,
                instance.folder,
                role=variant.role,
                region=endpoint.service.region,
                group=f"/aws/sagemaker/Endpoints/{endpoint.record.name}",
                stream=f"{variant.name}/{instance.folder.root.name}",
            )


# ---------------------------------------------------------------------- deployments


def _deploy(endpoint: _Endpoint, config: Record, steps: Plan, retain: bool) -> None:
    service, record = endpoint.service, endpoint.record
    runtime = service.runtime
    began = runtime.clock.now()
    history: list[dict[str, Any]] = []
    try:
        green = _start_fleet(endpoint, config, endpoint.blue if retain else None)
    except FleetError as error:
        _roll_back(endpoint, config, str(error), history)
        return
    with endpoint.lock:
        endpoint.green, endpoint.share = green, 0.0
    for shift in steps.shifts:
        with endpoint.lock:
            endpoint.share = shift.share
        reason = _bake(endpoint, steps, shift.wait_seconds, began)
        history.append({"share": shift.share, "served": _served(endpoint)})
        if reason is not None:
            _roll_back(endpoint, config, reason, history)
            return
    with endpoint.lock:
        old, endpoint.blue, endpoint.green, endpoint.share = endpoint.blue, green, None, 0.0
    if old is not None:
        runtime.clock.sleep(steps.termination_wait_seconds, stop=runtime.stopping)
        _end(endpoint, old)
    record.data.pop("PendingDeploymentSummary", None)
    service.update(record, status="InService", EndpointConfigName=config.name)
    runtime.ledger.ran(
        "deployment",
        record.name,
        strategy=steps.strategy,
        config=config.name,
        traffic=history,
        outcome="deployed",
    )
    _tell(endpoint)


def _bake(endpoint: _Endpoint, steps: Plan, seconds: float, began: Any) -> str | None:
    """Watch the alarms for some virtual seconds; the reason to roll back, or None."""
    runtime = endpoint.service.runtime
    end = runtime.clock.timestamp() + seconds
    while True:
        ringing = _ringing(endpoint, steps.alarms)
        if ringing:
            return f"the alarm {', '.join(ringing)} is in ALARM"
        if steps.timeout_seconds is not None:
            spent = (runtime.clock.now() - began).total_seconds()
            if spent > steps.timeout_seconds:
                return f"the deployment took longer than {steps.timeout_seconds:g} seconds"
        if endpoint.stop.is_set() or runtime.stopping.is_set():
            return "the deployment was stopped"
        left = end - runtime.clock.timestamp()
        if left <= 0:
            return None
        runtime.clock.sleep(min(left, _WATCH_SECONDS))


def _ringing(endpoint: _Endpoint, alarms: tuple[str, ...]) -> list[str]:
    service = endpoint.service
    states = {
        name: bridge.alarm_state(name, account=service.account, region=service.region) for name in alarms
    }
    missing = sorted(name for name, state in states.items() if state is None)
    if missing:
        # SageMaker cannot vouch for a deployment whose alarm is gone.
        return [f"{name} (which does not exist)" for name in missing]
    return sorted(name for name, state in states.items() if state == "ALARM")


def _served(endpoint: _Endpoint) -> dict[str, int]:
    return {
        color: sum(variant.invocations for variant in fleet.variants)
        for color, fleet in (("blue", endpoint.blue), ("green", endpoint.green))
        if fleet is not None
    }


def _roll_back(endpoint: _Endpoint, config: Record, reason: str, history: list[dict[str, Any]]) -> None:
    """Give all traffic back to the old fleet; without one the endpoint has failed."""
    service, record = endpoint.service, endpoint.record
    service.update(record, status="RollingBack")
    _tell(endpoint)
    with endpoint.lock:
        green, endpoint.green, endpoint.share = endpoint.green, None, 0.0
    if green is not None:
        _end(endpoint, green)
    record.data.pop("PendingDeploymentSummary", None)
    text = f"Endpoint deployment of {config.name} failed and was rolled back: {reason}"
    service.update(
        record, status="InService" if endpoint.blue is not None else "Failed", FailureReason=text[:1024]
    )
    service.runtime.ledger.ran(
        "deployment", record.name, config=config.name, traffic=history, outcome="rolled back", why=reason
    )
    _tell(endpoint)


def _tell(endpoint: _Endpoint) -> None:
    """Raise the endpoint's state change; the event spells the status in capitals."""
    service, record = endpoint.service, endpoint.record
    detail = containers.event_detail(service, "Endpoint", record)
    status = {"InService": "IN_SERVICE", "RollingBack": "ROLLING_BACK"}.get(
        str(record.status), str(record.status).upper()
    )
    service.runtime.emit(
        "aws.sagemaker",
        "SageMaker Endpoint State Change",
        {**detail, "EndpointStatus": status},
        [record.arn],
        region=service.region,
    )


# ---------------------------------------------------------------------- invocations


@instead("sagemaker-runtime", "InvokeEndpoint")
def invoke(service: Service, call: Call) -> dict[str, Any]:
    """Send a request to one of the instances; measure it and capture it."""
    params = call.params
    sagemaker = service.runtime.service("sagemaker", service.region)
    record = sagemaker.peek("Endpoint", params["EndpointName"])
    endpoint = None if record is None else _ENDPOINTS.get(record.arn)
    fleet = None if endpoint is None else endpoint.pick()
    if endpoint is None or fleet is None:
        raise ApiError(
            "ValidationError", f"Endpoint {params['EndpointName']} of account {service.account} not found."
        )
    body = _body(params["Body"])
    for key in (
        "TargetModel",
        "TargetContainerHostname",
        "InferenceComponentName",
        "EnableExplanations",
        "SessionId",
    ):
        if key in params:
            raise ApiError(
                "ValidationError", f"{key} is for endpoints of another kind than {params['EndpointName']}"
            )
    variant = _chosen(fleet, params.get("TargetVariant"))
    return _forward(endpoint, fleet, variant, params, body)


def _body(value: Any) -> bytes:
    body: bytes = (
        value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else value.read()
    )
    # The service model names the limit of a request: BodyBlob, 6 MiB.
    limit = service_model("sagemaker-runtime").shape_for("BodyBlob").metadata["max"]
    if len(body) > limit:
        raise ApiError(
            "ValidationError", f"the body has {len(body)} bytes; InvokeEndpoint takes at most {limit}", 413
        )
    return body


def _chosen(fleet: _Fleet, target: str | None) -> _Variant:
    if target is not None:
        found = next((variant for variant in fleet.variants if variant.name == target), None)
        if found is None:
            raise ApiError("ValidationError", f"the endpoint has no variant {target}")
        return found
    weights = [variant.weight for variant in fleet.variants]
    if not any(weights):
        raise ApiError("ValidationError", "every variant of the endpoint has the weight 0")
    return random.choices(fleet.variants, weights)[0]  # noqa: S311 - a share of traffic, no secret


def _forward(
    endpoint: _Endpoint, fleet: _Fleet, variant: _Variant, params: Mapping[str, Any], body: bytes
) -> dict[str, Any]:
    clock = endpoint.service.runtime.clock
    began = time.perf_counter()
    at = clock.now()
    headers = {"Content-Type": params.get("ContentType", "application/octet-stream")}
    for key, header in (
        ("Accept", "Accept"),
        ("CustomAttributes", "X-Amzn-SageMaker-Custom-Attributes"),
        ("InferenceId", "X-Amzn-SageMaker-Inference-Id"),
    ):
        if key in params:
            headers[header] = params[key]
    variant.invocations += 1
    instance = variant.next_instance()
    sent = time.perf_counter()
    try:
        answer = instance.pool.request(
            "POST", "/invocations", body=body, headers=headers, timeout=INVOCATION_SECONDS
        )
    except urllib3.exceptions.TimeoutError:
        _measure(endpoint, variant, 500, time.perf_counter() - sent, 0.0)
        raise _model_error(endpoint, variant, 0, f"no answer within {INVOCATION_SECONDS:g} seconds") from None
    except urllib3.exceptions.HTTPError as error:
        _measure(endpoint, variant, 500, time.perf_counter() - sent, 0.0)
        raise _model_error(endpoint, variant, 0, f"the container closed the connection: {error}") from None
    latency = time.perf_counter() - sent
    _measure(endpoint, variant, answer.status, latency, sent - began)
    if answer.status >= 400:
        raise _model_error(endpoint, variant, answer.status, answer.data.decode("utf-8", "replace"))
    content_type = answer.headers.get("Content-Type")
    capture = fleet.captures.get(variant.name)
    if capture is not None and capture.sampled():
        line = capture_line(
            config=capture.config,
            request=Captured(content_type=params.get("ContentType"), body=body),
            response=Captured(content_type=content_type, body=answer.data),
            inference_time=at,
            event_id=str(uuid.uuid4()),
            inference_id=params.get("InferenceId"),
            custom_attributes=params.get("CustomAttributes"),
        )
        if capture.add(line, at):
            capture.flush()
    output: dict[str, Any] = {
        "Body": answer.data,
        "ContentType": content_type,
        "InvokedProductionVariant": variant.name,
        "CustomAttributes": answer.headers.get("X-Amzn-SageMaker-Custom-Attributes"),
    }
    return {key: value for key, value in output.items() if value is not None}


def _model_error(endpoint: _Endpoint, variant: _Variant, status: int, message: str) -> ApiError:
    kind = "client" if 400 <= status < 500 else "server"
    text = f'Received {kind} error ({status}) from {variant.name} with message "{message}".'
    service = endpoint.service
    group = f"/aws/sagemaker/Endpoints/{endpoint.record.name}"
    return ApiError(
        "ModelError",
        text,
        424,
        members={
            "OriginalStatusCode": status,
            "OriginalMessage": message,
            "LogStreamArn": f"arn:aws:logs:{service.region}:{service.account}:log-group:{group}",
        },
    )


def _measure(endpoint: _Endpoint, variant: _Variant, status: int, latency: float, overhead: float) -> None:
    """Publish what SageMaker publishes for one request; its latencies are in microseconds."""
    service = endpoint.service
    now = service.runtime.clock.timestamp()
    values: dict[str, tuple[float, str]] = {
        "Invocations": (1, "None"),
        "InvocationsPerInstance": (1 / max(variant.desired, 1), "None"),
        "Invocation4XXErrors": (float(400 <= status < 500), "None"),
        "Invocation5XXErrors": (float(status >= 500), "None"),
        "InvocationModelErrors": (float(status >= 300), "None"),
        "ModelLatency": (latency * 1e6, "Microseconds"),
        "OverheadLatency": (overhead * 1e6, "Microseconds"),
    }
    for name, (value, unit) in values.items():
        bridge.put_metric(
            account=service.account,
            region=service.region,
            namespace="AWS/SageMaker",
            name=name,
            dimensions={"EndpointName": endpoint.record.name, "VariantName": variant.name},
            timestamp=now,
            unit=unit,
            values=[value],
        )


# ---------------------------------------------------------------------- capture


def _capture(endpoint: _Endpoint, config: Mapping[str, Any], variant: _Variant) -> Capture:
    service = endpoint.service
    runtime, region = service.runtime, service.region

    def write(uri: str, content: bytes) -> None:
        bucket, key = transfer.split_uri(uri)
        extra = {}
        if config.get("KmsKeyId"):
            extra = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": config["KmsKeyId"]}
        runtime.client("s3", role=variant.role, region=region).put_object(
            Bucket=bucket, Key=key, Body=io.BytesIO(content), **extra
        )

    return Capture(
        config=config,
        endpoint=endpoint.record.name,
        variant=variant.name,
        write=write,
        on_error=lambda error: runtime.ledger.failed("data-capture", endpoint.record.name, str(error)),
    )


def flush_captures() -> int:
    """Write all captured lines that are still buffered; their number."""
    return sum(
        capture.flush()
        for endpoint in list(_ENDPOINTS.values())
        for fleet in (endpoint.blue, endpoint.green)
        if fleet is not None
        for capture in fleet.captures.values()
    )


def _flush_for_ever(runtime: Runtime) -> None:
    while not runtime.stopping.wait(FLUSH_SECONDS):
        flush_captures()


def live_traffic(runtime: Runtime, name: str, region: str | None = None) -> dict[str, Any]:
    """What an endpoint's fleets have served so far, and the share of the one that is being deployed.

    :raises ApiError: there is no such endpoint
    """
    endpoint = _endpoint(runtime.service("sagemaker", region).get("Endpoint", name))
    with endpoint.lock:
        fleets = {"blue": endpoint.blue, "green": endpoint.green}
        return {
            "status": endpoint.record.status,
            "green_share": endpoint.share,
            "fleets": {
                color: {
                    "config": fleet.config_name,
                    "variants": {variant.name: variant.invocations for variant in fleet.variants},
                    "captured": sum(capture.lines_written for capture in fleet.captures.values()),
                }
                for color, fleet in fleets.items()
                if fleet is not None
            },
        }


@control("GET", "/endpoints/traffic")
def _traffic(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """The traffic of the endpoint `name`."""
    if "name" not in body:
        raise ControlError("name is required: the name of an endpoint")
    try:
        return live_traffic(runtime, str(body["name"]))
    except ApiError as error:
        raise ControlError(str(error)) from error


@control("POST", "/endpoints/flush")
def _flush(_runtime: Runtime, _body: dict[str, Any]) -> dict[str, Any]:
    """Write what data capture still buffers."""
    return {"lines": flush_captures()}


def install(runtime: Runtime) -> None:
    """Write captured data regularly; not counted as work, since it never ends."""
    threading.Thread(target=_flush_for_ever, args=(runtime,), name="data-capture", daemon=True).start()
