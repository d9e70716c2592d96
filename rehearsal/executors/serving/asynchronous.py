"""Asynchronous endpoints: a queue before the instances, results and failures in S3, notifications by SNS.

Source: "Asynchronous inference" in the SageMaker developer guide. With no instance the queue waits; who
scales the variant out (see `scaling`) lets it go on.
"""

from __future__ import annotations

import io
import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from rehearsal.clock import Due
from rehearsal.executors import transfer
from rehearsal.executors.serving import measures, models
from rehearsal.executors.serving.fleet import ENDPOINTS, Endpoint, Variant
from rehearsal.executors.serving.invocations import Answer, Sent, exchange, running_endpoint
from rehearsal.services.engine import ApiError, Call, Service, instead

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["QUEUES", "BacklogClock", "Queue", "invoke_async"]

# InvokeEndpointAsync: RequestTTLSeconds is 6 hours, InvocationTimeoutSeconds 15 minutes, unless asked for.
_TTL_SECONDS, _TIMEOUT_SECONDS = 21_600, 900
# An asynchronous request may have 1 GB ("Asynchronous inference"); a laptop is spared the try.
LARGEST_INPUT = 1024**3
#: So long after its last request a backlog is still published: what scales in looks back 15 minutes.
_QUIET_MINUTES = 20
#: Without MaxConcurrentInvocationsPerInstance SageMaker takes "an optimal value"; here it is:
_CONCURRENT = 4


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request in the queue."""

    params: Mapping[str, Any]
    identifier: str
    output: str
    failure: str | None
    received: datetime


@dataclass(kw_only=True, eq=False)
class Queue:
    """The requests of one endpoint that no instance has taken yet, and who is at work."""

    endpoint: Endpoint
    waiting: deque[Request] = field(default_factory=deque)
    running: int = 0
    last: float = 0.0
    changed: threading.Condition = field(default_factory=threading.Condition)
    dispatching: bool = False

    def add(self, request: Request) -> None:
        """Queue a request and see that somebody takes it."""
        runtime = self.endpoint.service.runtime
        with self.changed:
            self.waiting.append(request)
            self.last = runtime.clock.timestamp()
            self.changed.notify_all()
            if not self.dispatching:
                self.dispatching = True
                threading.Thread(
                    target=self._dispatch, name=f"async {self.endpoint.record.name}", daemon=True
                ).start()

    @property
    def variant(self) -> Variant | None:
        """The one variant that works."""
        blue = self.endpoint.blue
        return None if blue is None else blue.variants[0]

    @property
    def places(self) -> int:
        """How many requests may be at work at once."""
        blue, variant = self.endpoint.blue, self.variant
        if blue is None or variant is None:
            return 0
        client = blue.config.get("AsyncInferenceConfig", {}).get("ClientConfig", {})
        return len(variant.instances) * int(client.get("MaxConcurrentInvocationsPerInstance", _CONCURRENT))

    def _dispatch(self) -> None:
        """Hand out requests as long as there are some; ends with the server or the endpoint."""
        runtime = self.endpoint.service.runtime
        while not runtime.stopping.is_set() and ENDPOINTS.get(self.endpoint.record.arn) is self.endpoint:
            with self.changed:
                if not self.waiting or self.running >= self.places:
                    self.changed.wait(0.1)
                    continue
                request = self.waiting.popleft()
                self.running += 1
            # Counted as work: the clock waits for a request that an instance has taken.
            runtime.background(f"async request {request.identifier}", self._work, request)

    def _work(self, request: Request) -> None:
        try:
            _answer(self.endpoint, request)
        except ApiError:
            # The last instance went while the request was on its way: it waits for the next one.
            with self.changed:
                self.waiting.appendleft(request)
        finally:
            with self.changed:
                self.running -= 1
                self.last = self.endpoint.service.runtime.clock.timestamp()
                self.changed.notify_all()

    def publish(self) -> None:
        """The metrics of the backlog, as of now."""
        variant, now = self.variant, self.endpoint.service.runtime.clock.now()
        with self.changed:
            size = len(self.waiting) + self.running
            oldest = self.waiting[0].received if self.waiting else now
        instances = 0 if variant is None else variant.desired
        measures.publish(
            self.endpoint.service,
            {"EndpointName": self.endpoint.record.name},
            {
                "ApproximateBacklogSize": (size, "Count"),
                "ApproximateBacklogSizePerInstance": (size / max(instances, 1), "Count"),
                "ApproximateAgeOfOldestRequest": ((now - oldest).total_seconds(), "Seconds"),
                "HasBacklogWithoutCapacity": (float(size > 0 and not instances), "Count"),
            },
        )


QUEUES: dict[str, Queue] = {}


@instead("sagemaker-runtime", "InvokeEndpointAsync")
def invoke_async(service: Service, call: Call) -> dict[str, Any]:
    """Queue a request; the answer says where its result will be."""
    params = call.params
    endpoint = running_endpoint(service, params["EndpointName"])
    config = {} if endpoint.blue is None else endpoint.blue.config
    if not models.is_asynchronous(config):
        raise ApiError(
            "ValidationError", f"Endpoint {params['EndpointName']} is not asynchronous; call InvokeEndpoint"
        )
    if ("InputLocation" in params) == bool(params.get("Body")):
        raise ApiError("ValidationError", "give exactly one of InputLocation and Body")
    location = params.get("InputLocation", "s3://")
    if not location.startswith("s3://"):
        raise ApiError("ValidationError", f"InputLocation must be an S3 URI, got {location}")
    output = config["AsyncInferenceConfig"]["OutputConfig"]
    if "S3OutputPath" not in output:
        raise ApiError("ValidationError", "the endpoint's AsyncInferenceConfig names no S3OutputPath")
    identifier, file = params.get("InferenceId", str(uuid.uuid4())), params.get("Filename", str(uuid.uuid4()))
    folder, failure = output["S3OutputPath"].rstrip("/"), output.get("S3FailurePath")
    if "S3OutputPathExtension" in params:
        folder = f"{folder}/{params['S3OutputPathExtension'].strip('/')}"
    request = Request(
        params=params,
        identifier=identifier,
        output=f"{folder}/{file}.out",
        failure=None if failure is None else f"{failure.rstrip('/')}/{file}-error.out",
        received=service.runtime.clock.now(),
    )
    QUEUES.setdefault(endpoint.record.arn, Queue(endpoint=endpoint))
    if QUEUES[endpoint.record.arn].endpoint is not endpoint:
        # An endpoint of that name was deleted and made anew.
        QUEUES[endpoint.record.arn] = Queue(endpoint=endpoint)
    QUEUES[endpoint.record.arn].add(request)
    answer = {"InferenceId": identifier, "OutputLocation": request.output, "FailureLocation": request.failure}
    return {key: value for key, value in answer.items() if value is not None}


def _answer(endpoint: Endpoint, request: Request) -> None:
    """Bring one request to its end: a result or a failure in S3, a notification, the metrics."""
    service = endpoint.service
    runtime, params = service.runtime, request.params
    config = {} if endpoint.blue is None else endpoint.blue.config
    started = runtime.clock.now()
    waited = (started - request.received).total_seconds()
    variant = None if endpoint.blue is None else endpoint.blue.variants[0]
    expired = waited > params.get("RequestTTLSeconds", _TTL_SECONDS)
    answer: Answer | None = None
    reason: str | None
    if expired:
        reason = f"ClientError: the request waited {waited:.0f} seconds and has expired"
    else:
        answer, reason = _ask(endpoint, config, request)
    role = None if variant is None or variant.program is None else variant.program.role
    if reason is not None and request.failure is not None and answer is not None and role is not None:
        try:
            _put(service, config, request.failure, answer, role)
        except transfer.TransferError as error:
            reason = f"{reason}; {error}"
    _measure(endpoint, variant, request, waited=waited, failed=reason is not None, expired=expired)
    runtime.ledger.ran(
        "async-invocation", endpoint.record.name, id=request.identifier, waited=waited, failure=reason
    )
    if role is not None:
        _notify(endpoint, request, answer, reason, role)


def _ask(endpoint: Endpoint, config: Mapping[str, Any], request: Request) -> tuple[Answer | None, str | None]:
    """Put a request to an instance and its answer into S3; the answer, and why it failed.

    :raises ApiError: there is no instance
    """
    service, params = endpoint.service, request.params
    with endpoint.routed(None) as place:
        role = place.instance.program.role
        try:
            body = params.get("Body")
            if not body:
                body = transfer.fetch(
                    service.runtime, params["InputLocation"], role=role, region=service.region
                )
            if len(body) > LARGEST_INPUT:
                return None, f"ClientError: the input has {len(body)} bytes; 1 GB is the most"
            limit = float(params.get("InvocationTimeoutSeconds", _TIMEOUT_SECONDS))
            sent = replace(Sent.of(params, body, began=time.perf_counter()), timeout=limit)
            answer = exchange(place, sent, params)
            if not answer.good:
                return answer, f"ClientError: Received error ({answer.status}): {answer.text}"
            _put(service, config, request.output, answer, role)
        except transfer.TransferError as error:
            return None, str(error)
    return answer, None


def _put(service: Service, config: Mapping[str, Any], uri: str, answer: Answer, role: str) -> None:
    """Write an answer to S3 under the model's role.

    :raises TransferError: the role may not
    """
    from botocore.exceptions import ClientError

    bucket, key = transfer.split_uri(uri)
    kms = config["AsyncInferenceConfig"]["OutputConfig"].get("KmsKeyId")
    extra = {} if kms is None else {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms}
    if answer.content_type is not None:
        extra["ContentType"] = answer.content_type
    client = service.runtime.client("s3", role=role, region=service.region)
    try:
        client.put_object(Bucket=bucket, Key=key, Body=io.BytesIO(answer.body), **extra)
    except ClientError as error:
        raise transfer.TransferError(f"ClientError: {uri}: {error}") from error


def _measure(
    endpoint: Endpoint,
    variant: Variant | None,
    request: Request,
    *,
    waited: float,
    failed: bool,
    expired: bool,
) -> None:
    now = endpoint.service.runtime.clock.now()
    values: dict[str, tuple[float, str]] = {
        "InvocationsProcessed": (1, "None"),
        "InvocationFailures": (float(failed), "None"),
        "ExpiredRequests": (float(expired), "None"),
        "TimeInBacklog": (waited * 1000, "Milliseconds"),
        "TotalProcessingTime": ((now - request.received).total_seconds() * 1000, "Milliseconds"),
    }
    name = {} if variant is None else {"VariantName": variant.name}
    for dimensions in (
        {"EndpointName": endpoint.record.name, **name},
        {"EndpointName": endpoint.record.name},
    ):
        measures.publish(endpoint.service, dimensions, values)


def notification(endpoint: Endpoint, request: Request, answer: Answer | None, reason: str | None) -> str:
    """The message of a notification ("Check prediction results", developer guide)."""
    now = endpoint.service.runtime.clock.now()
    asked = {
        "contentType": request.params.get("ContentType"),
        "endpointName": endpoint.record.name,
        "inputLocation": request.params.get("InputLocation"),
        "accept": request.params.get("Accept"),
    }
    message: dict[str, Any] = {
        "awsRegion": endpoint.service.region,
        "eventTime": _stamp(now),
        "receivedTime": _stamp(request.received),
        "invocationStatus": "Completed" if reason is None else "Failed",
        "requestParameters": {key: value for key, value in asked.items() if value is not None},
        "inferenceId": request.identifier,
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    }
    if reason is None and answer is not None:
        message["responseParameters"] = {
            "contentType": answer.content_type,
            "outputLocation": request.output,
        }
    else:
        message["failureReason"] = reason
        if request.failure is not None and answer is not None:
            message["responseParameters"] = {"failureLocation": request.failure}
    return json.dumps(message)


def _stamp(when: datetime) -> str:
    return f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03d}Z"


def _notify(
    endpoint: Endpoint, request: Request, answer: Answer | None, reason: str | None, role: str
) -> None:
    """Publish the notification under the model's role; one that it may not publish is lost."""
    from botocore.exceptions import ClientError

    service = endpoint.service
    config = {} if endpoint.blue is None else endpoint.blue.config["AsyncInferenceConfig"]["OutputConfig"]
    topic = config.get("NotificationConfig", {}).get("SuccessTopic" if reason is None else "ErrorTopic")
    if topic is None:
        return
    client = service.runtime.client("sns", role=role, region=service.region)
    try:
        client.publish(TopicArn=topic, Message=notification(endpoint, request, answer, reason))
    except ClientError as error:
        service.runtime.ledger.failed("async-notification", endpoint.record.name, f"{topic}: {error}")


class BacklogClock:
    """Due work of the clock: the backlog's metrics every minute, while an endpoint has or had some."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def next_due(self, after: datetime) -> Sequence[Due]:
        """The next full minute, just before the alarms and the scaling look at it."""
        now = self._runtime.clock.timestamp()
        if not any(_lively(queue, now) for queue in list(QUEUES.values())):
            return ()
        since = max(after, self._runtime.clock.now() - timedelta(minutes=1))
        when = since.replace(second=50, microsecond=0)
        when += timedelta(minutes=1) if when <= since else timedelta()
        return [Due(when=when, title="publish backlogs", run=self.publish)]

    def publish(self) -> None:
        """Publish the backlog of every endpoint that has or had one."""
        now = self._runtime.clock.timestamp()
        for queue in list(QUEUES.values()):
            if _lively(queue, now):
                queue.publish()


def _lively(queue: Queue, now: float) -> bool:
    here = ENDPOINTS.get(queue.endpoint.record.arn) is queue.endpoint
    return here and (bool(queue.waiting) or queue.running > 0 or now - queue.last < _QUIET_MINUTES * 60)


def install(runtime: Runtime) -> None:
    """Publish backlogs on the clock."""
    runtime.clock.add_source(BacklogClock(runtime))
