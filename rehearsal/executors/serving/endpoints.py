"""SageMaker's endpoints: create, update, describe, weights and counts, delete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rehearsal.control import ControlError, control
from rehearsal.executors import containers
from rehearsal.executors.serving import deployments, fleet, models
from rehearsal.executors.serving.capture import FLUSH_SECONDS
from rehearsal.executors.serving.fleet import ENDPOINTS, Endpoint, endpoint_of, log_group, variant_of
from rehearsal.executors.serving.programs import FleetError, ship
from rehearsal.services.engine import ApiError, Call, Record, Service, instead

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["desired_instances", "flush_captures", "live_traffic", "set_desired_instances"]

_CHANGEABLE = frozenset({"InService", "Failed"})
_UNDER_WAY = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})


@instead("sagemaker", "CreateEndpoint")
def create(service: Service, call: Call) -> dict[str, Any]:
    """Start an endpoint: Creating, then InService or Failed."""
    config = service.get("EndpointConfig", call.params["EndpointConfigName"])
    deployment = call.params.get("DeploymentConfig")
    deployments.planned(service, deployment, config, None)
    output = service.generic(call)
    record = service.get("Endpoint", call.params["EndpointName"])
    record.status = "Creating"
    record.data["LastDeploymentConfig"] = deployment
    endpoint = ENDPOINTS[record.arn] = Endpoint(service=service, record=record)
    fleet.tell(endpoint)
    containers.start_work(service.runtime, f"endpoint {record.name}", deployments.bring_up, endpoint, config)
    return output


@instead("sagemaker", "UpdateEndpoint")
def update(service: Service, call: Call) -> dict[str, Any]:
    """Deploy another configuration beside the one in service."""
    params = call.params
    record = service.get("Endpoint", params["EndpointName"])
    config = service.get("EndpointConfig", params["EndpointConfigName"])
    endpoint = endpoint_of(record)
    _check_kind(record, endpoint, config)
    deployment = params.get("DeploymentConfig")
    if deployment is None and params.get("RetainDeploymentConfig"):
        deployment = record.data.get("LastDeploymentConfig")
    steps = deployments.planned(service, deployment, config, endpoint.blue)
    excluded = {item["VariantPropertyType"] for item in params.get("ExcludeRetainedVariantProperties", ())}
    if excluded and not params.get("RetainAllVariantProperties"):
        raise ApiError(
            "ValidationException", "ExcludeRetainedVariantProperties needs RetainAllVariantProperties"
        )
    retained = frozenset({"DesiredInstanceCount", "DesiredWeight", "DataCaptureConfig"} - excluded)
    _begin_change(endpoint)
    record.data.pop("FailureReason", None)
    service.update(
        record,
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
    fleet.tell(endpoint)
    containers.start_work(
        service.runtime,
        f"endpoint {record.name} deploys {config.name}",
        deployments.deploy,
        endpoint,
        config,
        steps,
        retained if params.get("RetainAllVariantProperties") else None,
    )
    return {"EndpointArn": record.arn}


def _begin_change(endpoint: Endpoint) -> None:
    """Take the endpoint into Updating; of two changes at the same time one is refused."""
    record = endpoint.record
    with endpoint.lock:
        if record.status not in _CHANGEABLE:
            raise ApiError(
                "ValidationException", f"Cannot update in-progress endpoint {record.arn} ({record.status})."
            )
        endpoint.stop.clear()
        endpoint.service.update(record, status="Updating")


def _check_kind(record: Record, endpoint: Endpoint, config: Record) -> None:
    """Developer guide: an endpoint on instances does not become serverless, nor asynchronous or back."""
    if endpoint.blue is None:
        return
    old, new = endpoint.blue.config, config.data
    if models.is_serverless(new) and not models.is_serverless(old):
        raise ApiError(
            "ValidationException",
            f"Endpoint {record.name} runs on instances; it cannot be updated to a serverless configuration",
        )
    if models.is_asynchronous(new) != models.is_asynchronous(old):
        # As SageMaker words it: seen in aws/sagemaker-python-sdk, pull request 3124.
        done = "removed from" if models.is_asynchronous(old) else "added to"
        raise ApiError(
            "ValidationException",
            f"The AsyncInferenceConfig parameter cannot be {done} this endpoint {record.name}. To change the "
            "endpoint type, create a new endpoint.",
        )


@instead("sagemaker", "DeleteEndpoint")
def delete(service: Service, call: Call) -> dict[str, Any]:
    """Stop the servers of an endpoint and forget it."""
    record = service.get("Endpoint", call.params["EndpointName"])
    if record.status in _UNDER_WAY:
        raise ApiError(
            "ValidationException", f"Cannot delete in-progress endpoint {record.arn} ({record.status})."
        )
    hosted = [
        component.name
        for component in list(service.records.get("InferenceComponent", {}).values())
        if component.data["EndpointName"] == record.name
    ]
    if hosted:
        raise ApiError(
            "ValidationException",
            f"Cannot delete endpoint {record.name}: it hosts the inference components {', '.join(hosted)}",
        )
    record.status = "Deleting"
    endpoint = ENDPOINTS.pop(record.arn)
    fleet.tell(endpoint)
    endpoint.stop.set()
    for one in endpoint.fleets:
        fleet.end_fleet(endpoint, one)
    service.remove("Endpoint", record.name)
    return {}


@instead("sagemaker", "DescribeEndpoint")
def describe(service: Service, call: Call) -> dict[str, Any]:
    """Describe an endpoint with what it runs now."""
    record = service.get("Endpoint", call.params["EndpointName"])
    output = service.describe("Endpoint", record, service.operation("DescribeEndpoint").output_shape)
    endpoint = ENDPOINTS.get(record.arn)
    blue = None if endpoint is None else endpoint.blue
    if blue is None:
        return output
    output["ProductionVariants"] = [variant.summary(record) for variant in blue.variants]
    if blue.shadows:
        output["ShadowProductionVariants"] = [variant.summary(record) for variant in blue.shadows]
    for key in ("AsyncInferenceConfig", "ExplainerConfig"):
        if key in blue.config:
            output[key] = blue.config[key]
    capture = blue.config.get("DataCaptureConfig")
    if capture is not None:
        output["DataCaptureConfig"] = _capture_summary(capture)
    return output


def _capture_summary(capture: Mapping[str, Any]) -> dict[str, Any]:
    enabled = capture.get("EnableCapture", True)
    return {
        "EnableCapture": enabled,
        "CaptureStatus": "Started" if enabled else "Stopped",
        "CurrentSamplingPercentage": capture["InitialSamplingPercentage"],
        "DestinationS3Uri": capture["DestinationS3Uri"],
        "KmsKeyId": capture.get("KmsKeyId", ""),
    }


@instead("sagemaker", "UpdateEndpointWeightsAndCapacities")
def update_weights(service: Service, call: Call) -> dict[str, Any]:
    """Change weights and instance counts of the variants in service: Updating, then InService."""
    record = service.get("Endpoint", call.params["EndpointName"])
    endpoint = endpoint_of(record)
    wanted = [
        (variant_of(endpoint, one["VariantName"]), one) for one in call.params["DesiredWeightsAndCapacities"]
    ]
    for variant, one in wanted:
        least = 0 if models.is_asynchronous(service.get("EndpointConfig", _config(endpoint)).data) else 1
        if one.get("DesiredInstanceCount", least) < least:
            raise ApiError(
                "ValidationException",
                f"DesiredInstanceCount of {variant.name} must be at least {least}, "
                f"got {one['DesiredInstanceCount']}",
            )
    _begin_change(endpoint)
    fleet.tell(endpoint)
    containers.start_work(
        service.runtime, f"endpoint {record.name} changes its weights", _reweigh, endpoint, wanted
    )
    return {"EndpointArn": record.arn}


def _config(endpoint: Endpoint) -> str:
    return endpoint.record.data["EndpointConfigName"] if endpoint.blue is None else endpoint.blue.config_name


def _reweigh(endpoint: Endpoint, wanted: list[tuple[fleet.Variant, Mapping[str, Any]]]) -> None:
    service, record = endpoint.service, endpoint.record
    try:
        for variant, one in wanted:
            if "DesiredInstanceCount" in one:
                fleet.resize(endpoint, variant, one["DesiredInstanceCount"])
    except FleetError as error:
        service.update(record, status="InService", FailureReason=str(error)[:1024])
    else:
        with endpoint.lock:
            for variant, one in wanted:
                variant.weight = one.get("DesiredWeight", variant.weight)
        service.update(record, status="InService")
        service.runtime.ledger.ran(
            "weights", record.name, **{variant.name: dict(one) for variant, one in wanted}
        )
    fleet.tell(endpoint)


def desired_instances(service: Service, endpoint_name: str, variant_name: str) -> int:
    """How many instances a variant is meant to have.

    :raises ApiError: there is no such endpoint or variant
    """
    return variant_of(endpoint_of(service.get("Endpoint", endpoint_name)), variant_name).desired


def set_desired_instances(service: Service, endpoint_name: str, variant_name: str, count: int) -> int:
    """Scale a variant as Application Auto Scaling does; the count before.

    :raises ApiError: there is no such endpoint or variant
    """
    endpoint = endpoint_of(service.get("Endpoint", endpoint_name))
    variant = variant_of(endpoint, variant_name)
    before = variant.desired
    if before != count:
        fleet.resize(endpoint, variant, count)
    return before


def flush_captures() -> int:
    """Write all captured lines that are still buffered; their number."""
    return sum(
        capture.flush()
        for endpoint in list(ENDPOINTS.values())
        for one in endpoint.fleets
        for capture in list(one.captures.values())
    )


def flush_for_ever(runtime: Runtime) -> None:
    """Write captured data regularly until the server stops."""
    while not runtime.stopping.wait(FLUSH_SECONDS):
        flush_captures()


def live_traffic(runtime: Runtime, name: str, region: str | None = None) -> dict[str, Any]:
    """What an endpoint's fleets have served so far, and the share of the one that is being deployed.

    :raises ApiError: there is no such endpoint
    """
    endpoint = endpoint_of(runtime.service("sagemaker", region).get("Endpoint", name))
    with endpoint.lock:
        fleets = {"blue": endpoint.blue, "green": endpoint.green}
        return {
            "status": endpoint.record.status,
            "green_share": endpoint.share,
            "fleets": {
                color: {
                    "config": one.config_name,
                    "variants": {variant.name: variant.invocations for variant in one.all},
                    "instances": {variant.name: len(variant.instances) for variant in one.all},
                    "captured": sum(capture.lines_written for capture in one.captures.values()),
                }
                for color, one in fleets.items()
                if one is not None
            },
        }


def _named(body: Mapping[str, Any]) -> str:
    if "name" not in body:
        raise ControlError("name is required: the name of an endpoint")
    return str(body["name"])


@control("GET", "/endpoints/traffic")
def _traffic(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """The traffic of the endpoint `name`."""
    try:
        return live_traffic(runtime, _named(body))
    except ApiError as error:
        raise ControlError(str(error)) from error


@control("GET", "/endpoints/shares")
def _shares(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Who answered, second by second, and the planned shares; `since` is a time in seconds of the wall clock.

    :raises ControlError: there is no endpoint of that name
    """
    try:
        endpoint = endpoint_of(runtime.service("sagemaker").get("Endpoint", _named(body)))
        since = float(body.get("since", 0))
    except (ApiError, ValueError) as error:
        raise ControlError(str(error)) from error
    return {"rows": endpoint.traffic.rows(since), "plan": endpoint.traffic.plan(since)}


@control("POST", "/endpoints/logs")
def _logs(_runtime: Runtime, _body: dict[str, Any]) -> dict[str, Any]:
    """Put into the log groups what the containers of all endpoints have written so far."""
    shipped = 0
    for endpoint in list(ENDPOINTS.values()):
        for one in endpoint.fleets:
            for variant in one.all:
                for instance in list(variant.instances):
                    ship(endpoint.service, instance, group=log_group(endpoint))
                    shipped += 1
    return {"containers": shipped}


@control("POST", "/endpoints/flush")
def _flush(_runtime: Runtime, _body: dict[str, Any]) -> dict[str, Any]:
    """Write what data capture still buffers."""
    return {"lines": flush_captures()}
