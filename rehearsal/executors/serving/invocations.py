"""InvokeEndpoint: to a variant by weight or name, to a model of many, to a component; measured, captured."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import urllib3

from rehearsal.executors.serving import measures, models
from rehearsal.executors.serving.capture import Captured, capture_line
from rehearsal.executors.serving.fleet import ENDPOINTS, Endpoint, Fleet, Place, log_group
from rehearsal.executors.serving.programs import INVOCATION_SECONDS, Instance
from rehearsal.services.engine import ApiError, Call, Service, instead, service_model

__all__ = ["ROUTES", "Answer", "Sent", "exchange", "invoke", "model_error", "running_endpoint"]

#: Parameters of InvokeEndpoint and the headers under which containers get them.
_HEADERS = (
    ("Accept", "Accept"),
    ("CustomAttributes", "X-Amzn-SageMaker-Custom-Attributes"),
    ("InferenceId", "X-Amzn-SageMaker-Inference-Id"),
    ("TargetModel", "X-Amzn-SageMaker-Target-Model"),
)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A request to a container."""

    body: bytes
    headers: Mapping[str, str]
    path: str = "/invocations"
    timeout: float = INVOCATION_SECONDS
    began: float = 0.0

    @classmethod
    def of(cls, params: Mapping[str, Any], body: bytes, *, began: float) -> Sent:
        """The request that the parameters of an invocation mean."""
        headers = {"Content-Type": params.get("ContentType", "application/octet-stream")}
        headers |= {header: params[key] for key, header in _HEADERS if key in params}
        return cls(body=body, headers=headers, began=began)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a container answered; status 0: nothing, `body` then says why."""

    status: int
    body: bytes
    content_type: str | None
    attributes: str | None
    latency: float

    @property
    def good(self) -> bool:
        return 0 < self.status < 400

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


def send(instance: Instance, sent: Sent) -> Answer:
    """Send a request to a container; whatever becomes of it is an answer."""
    start = time.perf_counter()
    try:
        answer = instance.pool.request(
            "POST", sent.path, body=sent.body, headers=dict(sent.headers), timeout=sent.timeout
        )
    except urllib3.exceptions.TimeoutError:
        text = f"no answer within {sent.timeout:g} seconds"
    except urllib3.exceptions.HTTPError as error:
        text = f"the container closed the connection: {error}"
    else:
        return Answer(
            status=answer.status,
            body=answer.data,
            content_type=answer.headers.get("Content-Type"),
            attributes=answer.headers.get("X-Amzn-SageMaker-Custom-Attributes"),
            latency=time.perf_counter() - start,
        )
    return Answer(
        status=0, body=text.encode(), content_type=None, attributes=None, latency=time.perf_counter() - start
    )


def exchange(place: Place, sent: Sent, params: Mapping[str, Any]) -> Answer:
    """Send a request to an instance of a variant; measure, count and capture what comes of it."""
    endpoint, fleet, variant, instance = place.endpoint, place.fleet, place.variant, place.instance
    service = endpoint.service
    at = service.runtime.clock.now()
    overhead = time.perf_counter() - sent.began
    answer = send(instance, sent)
    instance.answered += 1
    status = answer.status or 500
    serverless = "ServerlessConfig" in variant.spec
    values = measures.measure_request(status, answer.latency, overhead)
    if not serverless:
        values["InvocationsPerInstance"] = (1 / max(variant.desired, 1), "None")
        running = sum(one.running for one in variant.instances)
        values["ConcurrentRequestsPerModel"] = (running / max(variant.desired, 1), "None")
    measures.publish(service, {"EndpointName": endpoint.record.name, "VariantName": variant.name}, values)
    outcome = "shadow" if variant.shadow else "answered" if answer.good else "failed"
    label = place.label or (fleet.config_name, variant.name)
    endpoint.traffic.answered(*label, outcome, at.timestamp())
    capture = fleet.captures.get(variant.name)
    if answer.good and capture is not None and capture.sampled():
        line = capture_line(
            config=capture.config,
            request=Captured(content_type=params.get("ContentType"), body=sent.body),
            response=Captured(content_type=answer.content_type, body=answer.body),
            inference_time=at,
            event_id=str(uuid.uuid4()),
            inference_id=params.get("InferenceId"),
            custom_attributes=params.get("CustomAttributes"),
        )
        if capture.add(line, at):
            capture.flush()
    return answer


def model_error(endpoint: Endpoint, place: str, answer: Answer) -> ApiError:
    """The error that an invocation gets for the error of its container."""
    kind = "client" if 400 <= answer.status < 500 else "server"
    text = f'Received {kind} error ({answer.status}) from {place} with message "{answer.text}".'
    group = f"log-group:{log_group(endpoint)}"
    service = endpoint.service
    return ApiError(
        "ModelError",
        text,
        424,
        members={
            "OriginalStatusCode": answer.status,
            "OriginalMessage": answer.text,
            "LogStreamArn": f"arn:aws:logs:{service.region}:{service.account}:{group}",
        },
    )


def running_endpoint(service: Service, name: str) -> Endpoint:
    """The endpoint that an invocation names.

    :raises ApiError: it is not there or not in service
    """
    sagemaker = service.runtime.service("sagemaker", service.region)
    record = sagemaker.peek("Endpoint", name)
    endpoint = None if record is None else ENDPOINTS.get(record.arn)
    if endpoint is None or endpoint.blue is None:
        raise ApiError("ValidationError", f"Endpoint {name} of account {service.account} not found.")
    return endpoint


#: Routes of requests that are not for the variants of an endpoint: the first that answers does it.
Route = Callable[[Endpoint, Mapping[str, Any], Sent], "dict[str, Any] | None"]
ROUTES: list[Route] = []
#: Makes a request ready on its instance, as a multi-model container needs it.
READY: list[Callable[[Place, Mapping[str, Any], Sent], Sent]] = []
#: Hears of each request to a production variant: shadow variants get their copy.
HEARD: list[Callable[[Place, Mapping[str, Any], Sent], None]] = []


@instead("sagemaker-runtime", "InvokeEndpoint")
def invoke(service: Service, call: Call) -> dict[str, Any]:
    """Send a request to one of the instances; measure it and capture it."""
    params = call.params
    began = time.perf_counter()
    endpoint = running_endpoint(service, params["EndpointName"])
    sent = Sent.of(params, request_body(params["Body"]), began=began)
    _check_kind(endpoint, params)
    for route in ROUTES:
        output = route(endpoint, params, sent)
        if output is not None:
            return output
    with endpoint.routed(params.get("TargetVariant")) as place:
        for ready in READY:
            sent = ready(place, params, sent)
        for heard in HEARD:
            heard(place, params, sent)
        answer = exchange(place, sent, params)
    if not answer.good:
        raise model_error(endpoint, place.variant.name, answer)
    return rendered(answer, place.variant.name)


def rendered(answer: Answer, variant: str) -> dict[str, Any]:
    """InvokeEndpoint's output."""
    output: dict[str, Any] = {
        "Body": answer.body,
        "ContentType": answer.content_type,
        "InvokedProductionVariant": variant,
        "CustomAttributes": answer.attributes,
    }
    return {key: value for key, value in output.items() if value is not None}


def _check_kind(endpoint: Endpoint, params: Mapping[str, Any]) -> None:
    """Refuse what an endpoint of this kind does not take.

    :raises ApiError: naming the parameter
    """
    config: Mapping[str, Any] = {} if endpoint.blue is None else endpoint.blue.config
    name = params["EndpointName"]
    if models.is_asynchronous(config):
        raise ApiError(
            "ValidationError", f"Endpoint {name} is asynchronous; it is called by InvokeEndpointAsync"
        )
    variants = [] if endpoint.blue is None else endpoint.blue.variants
    multi = any(variant.program is not None and variant.program.multi_model for variant in variants)
    if multi and "TargetModel" not in params:
        raise ApiError("ValidationError", f"TargetModel is required: endpoint {name} serves many models")
    hosts = any("ModelName" not in variant.spec for variant in variants)
    if hosts and "InferenceComponentName" not in params:
        raise ApiError(
            "ValidationError",
            "Inference Component Name header is required for endpoints to which you plan to deploy "
            f"inference components, such as {name}",
        )
    mine = {"TargetModel"} if multi else {"InferenceComponentName"} if hosts else set()
    for key in (
        "TargetModel",
        "TargetContainerHostname",
        "InferenceComponentName",
        "EnableExplanations",
        "SessionId",
    ):
        if key in params and key not in mine:
            raise ApiError("ValidationError", f"{key} is for endpoints of another kind than {name}")


def request_body(value: Any) -> bytes:
    """The body of an invocation.

    :raises ApiError: it is larger than SageMaker takes
    """
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


def shadow_share(fleet: Fleet) -> float:
    """The share of requests that the shadow variant gets: its weight in weights of the production variant."""
    if not fleet.shadows or not fleet.variants[0].weight:
        return 0.0
    return min(1.0, fleet.shadows[0].weight / fleet.variants[0].weight)


def copied(fleet: Fleet) -> bool:
    """Whether the next request is copied to the shadow variant."""
    return bool(fleet.shadows) and random.random() < shadow_share(fleet)  # noqa: S311 - a share of traffic
