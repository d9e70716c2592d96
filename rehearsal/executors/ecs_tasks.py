"""ECS tasks as processes: the program of each container, at an address of its own, behind its balancer.

ministack schedules the tasks of a service, rolls its deployments and sends requests on; what it takes for a
Docker client is this. A container gets an address of the loopback network (`SERVING_HOST`) and counts as
started when it answers where the service's load balancer looks for health. CloudFormation waits for a
deployment, and goes back when its circuit breaker or one of its alarms ends it. Networks, volumes, the
read-only root and the limits of a task are recorded only.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import Popen
from typing import TYPE_CHECKING, Any

import urllib3

from rehearsal import ministack_bridge as bridge
from rehearsal.executors.serving.deployments import ringing

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["Engine", "TaskContainer", "TaskError", "install"]

_PRINCIPAL = "ecs-tasks.amazonaws.com"
#: Real seconds for a container to answer its health check, and for a deployment to get anywhere.
_HEALTHY_SECONDS, _DEPLOYED_SECONDS = 60.0, 300.0
#: A task that is to go has this long for what it is answering (the default of ``stopTimeout``).
_STOP_SECONDS = 30.0
_TASK_LABEL = "com.amazonaws.ecs.task-arn"
#: What the execution role does for every task ("Amazon ECS task execution IAM role").
_STARTING = ("ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
_LOGGING = ("logs:CreateLogStream", "logs:PutLogEvents")


class TaskError(Exception):
    """A task that cannot start, or a deployment that did not come to its end; the text is the reason."""


class TaskContainer:
    """One container of a task, with what ministack reads of a Docker container."""

    def __init__(self, runtime: Runtime, process: Popen[bytes], address: str, log: Path) -> None:
        self.id = hashlib.sha256(f"{process.pid}{time.time()}".encode()).hexdigest()
        self.attrs = {"NetworkSettings": {"Networks": {"loopback": {"IPAddress": address}}}}
        self._runtime, self._process, self._log = runtime, process, log

    @property
    def status(self) -> str:
        """running or exited."""
        return "running" if self._process.poll() is None else "exited"

    def reload(self) -> None:
        """Nothing is cached."""

    def wait(self) -> dict[str, int]:
        """How it ended."""
        return {"StatusCode": self._process.wait()}

    def stop(self, timeout: float = 0) -> None:
        """Ask it to stop; it may finish what it is answering."""
        self._runtime.end_child(self._process, max(timeout, _STOP_SECONDS))

    def remove(self, **_given: object) -> None:
        """Its log stays."""
        self._runtime.end_child(self._process)

    def logs(self, *, stream: bool = False, tail: int | None = None, **_given: object) -> Any:
        """Its output, all of it or as it comes."""
        if stream:
            return self._follow()
        text = self._log.read_bytes()
        return b"\n".join(text.splitlines()[-tail:]) if tail else text

    def _follow(self) -> Iterator[bytes]:
        with self._log.open("rb") as lines:
            while True:
                ended = self.status == "exited"
                chunk = lines.read()
                if chunk:
                    yield chunk
                elif ended or self._runtime.stopping.is_set():
                    return
                else:
                    time.sleep(0.2)


class _Image:
    """An image that has been pulled."""

    def __init__(self, identifier: str) -> None:
        self.id = identifier

    def tag(self, *_names: str, **_given: str) -> bool:
        """Images keep the names they have."""
        return True


class Engine:
    """What ministack takes for a Docker client: ``images`` and ``containers`` are both this object."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._numbers = itertools.count(1)
        self._digests: dict[str, str] = {}
        self._containers: dict[str, TaskContainer] = {}

    @property
    def images(self) -> _Images:
        """The images of the registry."""
        return _Images(self)

    @property
    def containers(self) -> Engine:
        """The containers of this machine."""
        return self

    def get(self, identifier: str) -> TaskContainer:
        """A container by its id.

        :raises KeyError: there is none
        """
        return self._containers[identifier]

    def list(self, **_given: object) -> Sequence[TaskContainer]:
        """Every container."""
        return list(self._containers.values())

    def digest(self, uri: str) -> str:
        """The digest of an image, which names it from now on.

        :raises ImageError: there is no such image
        """
        self.runtime.images.program(uri)
        digest = f"sha256:{hashlib.sha256(uri.encode()).hexdigest()}"
        self._digests[digest] = uri
        return digest

    def run(
        self,
        image: str,
        *,
        environment: Mapping[str, str],
        labels: Mapping[str, str],
        command: Sequence[str] | None = None,
        **_given: object,
    ) -> TaskContainer:
        """Start a container and wait until it is healthy.

        :raises TaskError: it may not start, ended, or did not get healthy
        """
        uri = self._digests.get(image.partition("@")[2], image)
        facts = bridge.task_facts(labels[_TASK_LABEL])
        self._check_roles(facts)
        program = self.runtime.images.program(uri)
        number = next(self._numbers)
        # Each task has a network of its own; a machine has 127.0.0.0/8.
        address = f"127.0.{1 + number // 250}.{1 + number % 250}"
        folder = self.runtime.state / "ecs" / f"{facts.family}-{number}"
        (folder / "tmp").mkdir(parents=True)
        region = labels[_TASK_LABEL].split(":")[3]
        credentials = {} if facts.role is None else self.runtime.role_environment(facts.role, region)
        own = {key: value for key, value in environment.items() if not key.startswith(("AWS_", "ECS_"))}
        process = self.runtime.popen(
            [*program.entrypoint, *(command or program.command)],
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": str(folder),
                "TMPDIR": str(folder / "tmp"),
                "LANG": "C.UTF-8",
                **program.env,
                **own,
                "AWS_REGION": region,
                "SERVING_HOST": address,
                **credentials,
            },
            cwd=program.cwd,
            log=folder / "container.log",
        )
        container = TaskContainer(self.runtime, process, address, folder / "container.log")
        try:
            self._await_health(container, address, facts)
        except TaskError:
            container.stop()
            raise
        self._containers[container.id] = container
        self.runtime.ledger.ran("ecs-task", facts.family, image=uri, address=address)
        return container

    def _check_roles(self, facts: bridge.TaskFacts) -> None:
        for role in (facts.role, facts.execution_role):
            if role is not None and not bridge.trusts(role, _PRINCIPAL):
                raise TaskError(f"ECS was unable to assume the role {role}")
        if facts.execution_role is not None:
            region = self.runtime.region
            for actions in (_STARTING, _LOGGING):
                self.runtime.authorizer.note_service_use(facts.execution_role, actions, "*", region)

    def _await_health(self, container: TaskContainer, address: str, facts: bridge.TaskFacts) -> None:
        if facts.health is None:
            return
        port, path = facts.health
        deadline = time.monotonic() + _HEALTHY_SECONDS
        with urllib3.HTTPConnectionPool(address, port, retries=False) as pool:
            while time.monotonic() < deadline and container.status == "running":
                try:
                    if pool.request("GET", path, timeout=2.0).status == 200:
                        return
                except urllib3.exceptions.HTTPError:
                    pass
                if self.runtime.stopping.wait(0.1):
                    break
        text = container.logs(tail=8).decode("utf-8", "replace")
        raise TaskError(f"the container of {facts.family} failed its health check at {path}: {text}"[:1000])


class _Images:
    """The images as a Docker client has them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get_registry_data(self, uri: str, **_given: object) -> _Image:
        """What the registry says of an image."""
        return _Image(self._engine.digest(uri))

    def pull(self, uri: str, **_given: object) -> _Image:
        """An image by its name or its digest."""
        _, _, digest = uri.partition("@")
        return _Image(digest or self._engine.digest(uri))

    def get(self, uri: str) -> _Image:
        """An image that is here."""
        return self.pull(uri)


# ---------------------------------------------------------------------- deployments by CloudFormation


class _Deployments:
    """Waits for what CloudFormation changes of a service, as CloudFormation does."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._good: dict[str, str] = {}

    def made(self, arn: str, props: Mapping[str, Any]) -> None:
        """Wait until a service is what it was asked to be.

        :raises TaskError: its deployment failed, or one of its alarms rang
        """
        wanted = bridge.service_deployment(arn)["definition"]
        known = self._good.get(arn)
        self._await(arn, wanted)
        if known is not None and wanted != known:
            try:
                self._bake(arn, props)
            except TaskError:
                self._go_back(arn, known)
                raise
        self._good[arn] = wanted
        self._runtime.ledger.ran("ecs-deployment", arn.rsplit("/", 1)[-1], definition=wanted)

    def _go_back(self, arn: str, definition: str) -> None:
        """Deploy what was there before, as ECS does by itself when an alarm ends a deployment."""
        client = self._runtime.client("ecs", region=arn.split(":")[3])
        cluster, service = arn.split("/")[-2:]
        client.update_service(cluster=cluster, service=service, taskDefinition=definition)
        self._await(arn, definition)

    def _await(self, arn: str, wanted: str) -> None:
        deadline = time.monotonic() + _DEPLOYED_SECONDS
        while time.monotonic() < deadline and not self._runtime.stopping.is_set():
            found = bridge.service_deployment(arn)
            if wanted in found["failed"] and found["definition"] != wanted:
                raise TaskError(f"{found['failed'][wanted]} The deployment was rolled back.")
            if found["state"] == "FAILED":
                raise TaskError(found["failed"].get(wanted) or "the deployment failed")
            if found["state"] == "COMPLETED" and found["running"] >= found["desired"]:
                return
            time.sleep(0.1)
        raise TaskError(f"the service {arn} did not stabilize")

    def _bake(self, arn: str, props: Mapping[str, Any]) -> None:
        """Watch the alarms of a deployment as long as they need to see it ("How CloudWatch alarms detect
        Amazon ECS deployment failures").
        """
        config = props.get("DeploymentConfiguration", {}).get("Alarms", {})
        if str(config.get("Enable", False)).lower() != "true":
            return
        names = tuple(config.get("AlarmNames", ()))
        reach = [
            int(alarm.get("Period", 60)) * int(alarm["EvaluationPeriods"])
            for _, _, alarm in bridge.metric_alarms()
            if alarm["AlarmName"] in names
        ]
        service = self._runtime.service("sagemaker", arn.split(":")[3])
        clock = self._runtime.clock
        end = clock.timestamp() + max(reach, default=0) + 60
        while True:
            found = ringing(service, names)
            if found:
                self._runtime.ledger.ran("ecs-deployment", arn.rsplit("/", 1)[-1], outcome="rolled back")
                raise TaskError(f"the alarm {', '.join(found)} is in ALARM. The deployment was rolled back.")
            left = end - clock.timestamp()
            if left <= 0 or self._runtime.stopping.is_set():
                return
            clock.sleep(min(left, 10.0))


def _measure(runtime: Runtime, request: bridge.BalancedRequest) -> None:
    """Publish what a load balancer publishes for one request ("CloudWatch metrics for your ALB")."""
    whole = {"LoadBalancer": request.balancer}
    values: dict[str, tuple[float, str]] = {
        "RequestCount": (1, "Count"),
        "TargetResponseTime": (request.seconds, "Seconds"),
        f"HTTPCode_Target_{request.status // 100}XX_Count": (1, "Count"),
    }
    published = [(whole, values)]
    if request.group is not None:
        each = {"RequestCountPerTarget": (1 / max(request.targets, 1), "Count")}
        group = {"TargetGroup": request.group}
        published += [({**whole, **group}, {**values, **each}), (group, dict(each))]
    for dimensions, given in published:
        for name, (value, unit) in given.items():
            bridge.put_metric(
                account=runtime.account,
                region=runtime.region,
                namespace="AWS/ApplicationELB",
                name=name,
                dimensions=dimensions,
                timestamp=runtime.clock.timestamp(),
                unit=unit,
                values=[value],
            )


def install(runtime: Runtime) -> None:
    """Run the tasks of ECS as processes, measure what their balancers answer, wait for their deployments."""
    bridge.use_task_containers(Engine(runtime))
    deployments = _Deployments(runtime)
    bridge.extend_type("AWS::ECS::Service", after=deployments.made)

    bridge.watch_load_balancers(lambda request: _measure(runtime, request))
