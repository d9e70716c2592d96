"""Every way to serve: deployed, asked, and a new version brought into service."""

from __future__ import annotations

import base64
import json
import time
import urllib.request
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rehearsal.story.matrix.cells import Block, Cell, Row
from rehearsal.story.matrix.ground import INSTANCE, ground, model_of, see_again
from rehearsal.story.matrix.load import Load, Send, endpoint_sender, read_prediction
from rehearsal.story.matrix.rollouts import ENDED_SECONDS, MARGIN_SECONDS
from rehearsal.story.serving import approve, parameter_value, serving_stack
from rehearsal.story.telling import require, wait_until
from rehearsal.story.traffic import questions

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS"]

#: A rollout that ends soon, for the styles that bake.
SOON = {"strategy": "all_at_once", "bake_minutes": 2, "max_error_percent": 5, "max_latency_ms": 5_000}
ALARMS = {"max_error_percent": 5, "max_latency_ms": 5_000}
#: Requests a second for styles that answer one by one.
SLOW_RATE = 8.0
ASKED_SECONDS = 3.0
#: Records of a batch, and requests of a queue.
BATCH_RECORDS, QUEUED = 40, 12
#: Minutes by the clock after which a fleet without requests must have gone.
QUIET_MINUTES = 30


def promote(tale: Tale, row: Row, send: Send, *, rate: float = SLOW_RATE) -> None:
    """Ask all the time while the other good version comes into service; no request may fail."""
    old = parameter_value(tale)
    new = ground(tale).other(old)
    updated = serving_stack(tale).get("LastUpdatedTime")

    def over() -> str | None:
        see_again(tale)
        stack = serving_stack(tale)
        ended = stack.get("LastUpdatedTime") != updated and not stack["StackStatus"].endswith("_IN_PROGRESS")
        return str(stack["StackStatus"]) if ended else None

    with Load(send, questions(tale, tale.inputs.live), rate=rate) as load:
        time.sleep(ASKED_SECONDS)
        started = time.monotonic()
        approve(tale, new)
        status = wait_until("the end of the serving stack's update", over, seconds=ENDED_SECONDS)
        row.seconds = round(time.monotonic() - started, 1)
        ended = load.at
        time.sleep(MARGIN_SECONDS)
    row.requests, row.failed = len(load.replies), len(load.failed)
    row.series = load.series(model_of(old))
    row.facts |= {**load.summary(), "stack": status}
    require(status == "UPDATE_COMPLETE", f"the stack is {status}")
    require(not load.failed, f"{row.failed} requests failed, the first: {[r.error for r in load.failed[:1]]}")
    first = {r.model for r in load.replies if r.at < ASKED_SECONDS}
    require(first == {model_of(old)}, f"before the approval {sorted(map(str, first))} answered")
    # Callers may all wait for what starts cold, so that none has asked since; then it is asked once more.
    after = {r.model for r in load.replies if r.at > ended} | {send(questions(tale, tale.inputs.live[:1])[0])}
    require(after == {model_of(new)}, f"in the end {sorted(map(str, after))} answered")


def real_time(tale: Tale, row: Row) -> None:
    """Instances behind an endpoint."""
    promote(tale, row, endpoint_sender(tale))


def serverless(tale: Tale, row: Row) -> None:
    """Containers that come with the requests: the first one waits for its container."""
    send = endpoint_sender(tale)
    body = questions(tale, tale.inputs.live[:1])[0]
    started = time.monotonic()
    send(body)
    row.facts["first_answer_seconds"] = round(time.monotonic() - started, 2)
    started = time.monotonic()
    send(body)
    row.facts["second_answer_seconds"] = round(time.monotonic() - started, 3)
    require(
        row.facts["second_answer_seconds"] < row.facts["first_answer_seconds"],
        "a warm container answers no sooner than one that has to start",
    )
    promote(tale, row, send)


def multi_model(tale: Tale, row: Row) -> None:
    """Versions side by side: a new one can be called by its name, the old one still answers."""
    here = ground(tale)
    old = parameter_value(tale)
    new = here.other(old)
    ask_old = endpoint_sender(tale, TargetModel=_file_of(old))
    bodies = questions(tale, tale.inputs.live)
    require(ask_old(bodies[0]) == model_of(old), "the version that is named is not the one that answers")
    with Load(ask_old, bodies, rate=SLOW_RATE) as load:
        time.sleep(ASKED_SECONDS)
        started = time.monotonic()
        approve(tale, new)
        ask_new = endpoint_sender(tale, TargetModel=_file_of(new))

        def answered() -> bool:
            see_again(tale)
            try:
                return ask_new(bodies[0]) == model_of(new)
            except tale.cloud.client("sagemaker-runtime").exceptions.ClientError:
                return False

        wait_until("an answer of the new version by its name", answered, seconds=ENDED_SECONDS)
        row.seconds = round(time.monotonic() - started, 1)
        time.sleep(MARGIN_SECONDS)
    row.requests, row.failed = len(load.replies), len(load.failed)
    row.facts |= load.summary()
    require(not load.failed, f"{row.failed} requests failed, the first: {[r.error for r in load.failed[:1]]}")
    require({r.model for r in load.replies} == {model_of(old)}, "another version answered under an old name")


def _file_of(package: str) -> str:
    return f"{package.rsplit('/', 1)[-1]}.tar.gz"


def inference_components(tale: Tale, row: Row) -> None:
    """Copies of a model on a fleet that other models may share."""
    promote(
        tale,
        row,
        endpoint_sender(tale, InferenceComponentName=tale.outputs("Serving")["InferenceComponentName"]),
    )


def asynchronous(tale: Tale, row: Row) -> None:
    """A queue: answers appear in S3, the fleet goes to nobody when nobody asks and comes back."""
    outputs = tale.outputs("Serving")
    started = time.monotonic()
    first = _submit(tale, QUEUED)
    _await_answers(tale, row, first)
    row.seconds = round(time.monotonic() - started, 1)
    row.requests = QUEUED
    name = outputs["EndpointName"]

    def instances() -> int:
        found = tale.cloud.client("sagemaker").describe_endpoint(EndpointName=name)
        return int(found["ProductionVariants"][0]["CurrentInstanceCount"])

    row.facts["instances_at_work"] = instances()
    _until(tale, lambda: instances() == 0, "a fleet of nobody")
    row.facts["instances_when_quiet"] = instances()
    # Nobody is there: the requests wait, and bring an instance back.
    again = _submit(tale, 3)
    _until(tale, lambda: instances() > 0, "an instance that comes back for the requests that wait")
    row.facts["instances_when_asked_again"] = instances()
    _await_answers(tale, row, again)
    row.requests += 3


def _submit(tale: Tale, count: int) -> list[str]:
    """Put requests and name them; the places where answers will be."""
    outputs = tale.outputs("Serving")
    runtime = tale.cloud.client("sagemaker-runtime")
    places = []
    for body in questions(tale, tale.inputs.live[:count]):
        uri = f"{outputs['AsyncInputUri'].rstrip('/')}/{uuid.uuid4()}.json"
        tale.cloud.objects.write(uri, body)
        answer = runtime.invoke_endpoint_async(
            EndpointName=outputs["EndpointName"],
            InputLocation=uri,
            ContentType="application/json",
            Accept="application/json",
        )
        places.append(answer["OutputLocation"])
    return places


def _await_answers(tale: Tale, row: Row, places: list[str]) -> None:
    missing = tale.cloud.client("s3").exceptions.NoSuchKey

    def there() -> list[str] | None:
        try:
            return [read_prediction(tale.cloud.objects.read(place)) for place in places]
        except missing:
            return None

    models: list[str] = wait_until("an answer for every request", there, seconds=60)
    require(set(models) == {model_of(parameter_value(tale))}, f"{sorted(set(models))} answered")
    row.facts["answered"] = int(row.facts.get("answered", 0)) + len(models)


def _until(tale: Tale, reached: Callable[[], bool], what: str) -> None:
    """Let minutes pass by the clock until something is reached."""
    for _ in range(QUIET_MINUTES):
        if reached():
            return
        tale.cloud.advance(minutes=1)
    require(reached(), f"{what} did not come within {QUIET_MINUTES} minutes")


def batch_transform(tale: Tale, row: Row) -> None:
    """Files in, files out: each record is answered beside itself, by the schedule's own hour."""
    outputs = tale.outputs("Serving")
    bodies = questions(tale, tale.inputs.live[:BATCH_RECORDS])
    name = f"{uuid.uuid4()}.jsonl"
    tale.cloud.objects.write(f"{outputs['TransformInputUri'].rstrip('/')}/{name}", b"\n".join(bodies) + b"\n")
    place = f"{outputs['TransformOutputUri'].rstrip('/')}/{name}.out"
    started = time.monotonic()
    states = tale.cloud.client("stepfunctions")
    run = states.start_execution(stateMachineArn=outputs["TransformStateMachineArn"], input="{}")

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = states.describe_execution(executionArn=run["executionArn"])
        return None if found["status"] == "RUNNING" else found

    found = wait_until("the end of the transform job", ended, seconds=90)
    row.seconds = round(time.monotonic() - started, 1)
    require(found["status"] == "SUCCEEDED", f"the run is {found['status']}: {found.get('cause', '')[:300]}")
    lines = tale.cloud.objects.read(place).splitlines()
    row.requests = len(bodies)
    row.failed = len(bodies) - len(lines)
    require(not row.failed, f"{len(bodies)} records made {len(lines)} lines")
    answers = [json.loads(line) for line in lines]
    identifier = tale.contract.columns[
        [c.name for c in tale.contract.columns].index(tale.contract.identifier)
    ]
    asked = [json.loads(body)[identifier.source] for body in bodies]
    got = [answer.get(identifier.source) for answer in answers]
    require(got == asked, "the answers do not stand beside their records, in their order")
    require(all("SageMakerOutput" in answer for answer in answers), f"a line without an answer: {answers[0]}")
    row.facts["first_line"] = answers[0]


def as_function(tale: Tale, row: Row) -> None:
    """The serving image as a Lambda function, asked by its alias with a request as its event."""
    name = tale.outputs("Serving")["FunctionName"]
    functions = tale.cloud.client("lambda")
    aliases = [alias["Name"] for alias in functions.list_aliases(FunctionName=name)["Aliases"]]
    require(len(aliases) == 1, f"function {name} has aliases {aliases}, not one")

    def send(body: bytes) -> str:
        event = {
            "version": "2.0",
            "rawPath": "/invocations",
            "rawQueryString": "",
            "headers": {"content-type": "application/json", "accept": "application/json"},
            "requestContext": {
                "http": {
                    "method": "POST",
                    "path": "/invocations",
                    "sourceIp": "127.0.0.1",
                    "protocol": "HTTP/1.1",
                }
            },
            "body": body.decode(),
            "isBase64Encoded": False,
        }
        answer = functions.invoke(FunctionName=name, Qualifier=aliases[0], Payload=json.dumps(event).encode())
        payload = json.loads(answer["Payload"].read())
        require("FunctionError" not in answer, f"the function failed: {str(payload)[:300]}")
        require(payload["statusCode"] == 200, f"the function answered {payload['statusCode']}")
        content = payload["body"]
        return read_prediction(
            base64.b64decode(content) if payload.get("isBase64Encoded") else content.encode()
        )

    promote(tale, row, send)


def as_service(tale: Tale, row: Row) -> None:
    """The serving image on Fargate, asked at its load balancer."""
    # The balancer's name is no name of this machine's network; the embedded AWS knows it by the Host header.
    host = urlsplit(tale.outputs("Serving")["ServiceUrl"]).netloc
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def send(body: bytes) -> str:
        request = urllib.request.Request(  # noqa: S310 - the service's own address
            f"{tale.cloud.server.endpoint}/invocations",
            data=body,
            headers={"Host": host, "Content-Type": "application/json", "Accept": "application/json"},
        )
        with opener.open(request, timeout=30) as answer:
            return read_prediction(answer.read())

    promote(tale, row, send)


def edge(tale: Tale, row: Row) -> None:
    """Beside an endpoint, the same version as a component for devices; a version more, a component more."""
    name = tale.outputs("Serving")["EdgeComponentName"]

    def made() -> list[str]:
        return [
            entry["name"]
            for entry in tale.cloud.ledger()
            if entry["kind"] == "component" and entry["name"].startswith(f"{name} ")
        ]

    before = made()
    require(before, f"no version of component {name} was made")
    promote(tale, row, endpoint_sender(tale))
    row.facts["components"] = made()
    version = parameter_value(tale).rsplit("/", 1)[-1]
    require(
        any(component.endswith(f".{version}") for component in made()),
        f"version {version} serves and is no component; there are: {', '.join(made())}",
    )


def _cell(style: str, title: str, play: Callable[[Tale, Row], None], block: Block, *rows: str) -> Cell:
    own = {} if style == "real_time" else {"style": style}
    return Cell(id=f"style.{style}", title=title, block={**own, **block}, play=play, capabilities=rows)


CELLS: tuple[Cell, ...] = (
    _cell(
        "real_time",
        "Real-time: instances that wait for requests",
        real_time,
        {**INSTANCE, "rollout": SOON},
        "serve.realtime",
    ),
    _cell(
        "serverless",
        "Serverless: containers come with requests",
        serverless,
        {"serverless": {"memory_mb": 2048, "max_concurrency": 5}, "rollout": ALARMS},
        "serve.serverless",
    ),
    _cell(
        "asynchronous",
        "Asynchronous: a queue, and a fleet that goes to nobody",
        asynchronous,
        {
            **INSTANCE,
            "asynchronous": {"max_concurrent_per_instance": 4, "backlog_per_instance": 5},
            "scaling": {"min_capacity": 0, "max_capacity": 2},
            "rollout": SOON,
        },
        "serve.async",
        "scale.zero",
    ),
    _cell(
        "batch_transform",
        "Batch transform: files in, answers beside their records",
        batch_transform,
        {"batch": {"every_hours": 24, "join": "input"}},
        "serve.batch",
    ),
    _cell(
        "multi_model",
        "Multi-model: versions side by side on one fleet",
        multi_model,
        {**INSTANCE, "multi_model": {"keep_versions": 3}, "rollout": SOON},
        "serve.multimodel",
    ),
    _cell(
        "inference_components",
        "Inference components: copies that share a fleet",
        inference_components,
        {
            **INSTANCE,
            "components": {"copies": 1, "cpus": 1, "memory_mb": 1024, "max_instances": 3},
            "scaling": {"min_capacity": 1, "max_capacity": 3},
            "rollout": {**ALARMS, "step_percent": 50, "bake_minutes": 2},
        },
        "serve.components",
    ),
    _cell(
        "lambda",
        "Lambda: the same image as a function",
        as_function,
        {"function": {"memory_mb": 2048, "timeout_seconds": 60}, "rollout": ALARMS},
        "serve.lambda",
    ),
    _cell(
        "ecs",
        "ECS: the same image on Fargate behind a load balancer",
        as_service,
        {
            "service": {"cpu": 1024, "memory_mb": 2048},
            "scaling": {"min_capacity": 1, "max_capacity": 2},
            "rollout": ALARMS,
        },
        "serve.ecs",
    ),
    Cell(
        id="target.edge",
        title="Greengrass: the version that serves, as a component for devices",
        block={**INSTANCE, "rollout": SOON, "edge": {"architecture": "aarch64"}},
        play=edge,
        capabilities=("serve.edge",),
        why_recorded="the component is made and checked; no device runs it",
    ),
)
