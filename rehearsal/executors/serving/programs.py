"""Containers of models as processes: what one runs, how it starts, when it is healthy, how it ends.

A container here is the program of its image under the `/opt/ml` contract, with the credentials of the model's
execution role.
"""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import TYPE_CHECKING, Any

import urllib3

from rehearsal.executors import containers, registry, transfer
from rehearsal.executors.containers import JobFolder
from rehearsal.services.engine import Record, Service

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = [
    "HEALTH_CHECK_SECONDS",
    "INVOCATION_SECONDS",
    "FleetError",
    "Instance",
    "Program",
    "end",
    "model_containers",
    "program_of",
    "start",
]

# "A customer's model containers must respond to requests within 60 seconds" (InvokeEndpoint's reference).
INVOCATION_SECONDS = 60.0
# Real seconds for a container to answer /ping; SageMaker's own limit may only shorten it.
HEALTH_CHECK_SECONDS = 120.0


class FleetError(Exception):
    """A fleet that did not come up; the text is the failure reason of its endpoint."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What one container runs, as whom, and where its model is."""

    image: str
    role: str
    environment: Mapping[str, str] = field(default_factory=dict)
    data: str | None = None
    isolated: bool = False
    #: The model data is a prefix of archives, each loaded when it is asked for.
    multi_model: bool = False
    #: Whether a multi-model container keeps what it has loaded.
    cached: bool = True


_NUMBERS = itertools.count(1)


@dataclass(kw_only=True, eq=False)
class Instance:
    """One process that serves. `running` counts its requests in flight; who changes it holds `lock`."""

    process: Popen[bytes]
    folder: JobFolder
    pool: urllib3.HTTPConnectionPool
    program: Program
    stream: str
    number: int = field(default_factory=lambda: next(_NUMBERS))
    running: int = 0
    answered: int = 0
    last_used: float = 0.0
    #: The loaded models of a multi-model container, the least recently used first.
    models: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    loading: threading.Lock = field(default_factory=threading.Lock)

    def enter(self) -> None:
        with self.lock:
            self.running += 1

    def leave(self) -> None:
        with self.lock:
            self.running -= 1

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


def model_containers(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The containers of a model as CreateModel takes them."""
    if "PrimaryContainer" in data:
        return [data["PrimaryContainer"]]
    found: list[dict[str, Any]] = data.get("Containers", [])
    return found


def data_of(container: Mapping[str, Any]) -> str | None:
    """Where the model data of a container is."""
    source: Mapping[str, Any] = container.get("ModelDataSource", {}).get("S3DataSource", {})
    found = container.get("ModelDataUrl") or source.get("S3Uri")
    return None if found is None else str(found)


def program_of(service: Service, model: Record) -> Program:
    """The one container of a model, with what its model package says filled in.

    :raises FleetError: it has several containers
    :raises ApiError: its package may not be deployed
    """
    given = model_containers(model.data)
    if len(given) != 1:
        raise FleetError(f"the rehearsal serves models of one container, {model.name} has {len(given)}")
    container = dict(given[0])
    if "ModelPackageName" in container:
        packaged = registry.approved_containers(service, container["ModelPackageName"])
        if len(packaged) != 1:
            raise FleetError(f"the rehearsal serves packages of one container, got {len(packaged)}")
        environment = {**packaged[0].get("Environment", {}), **container.get("Environment", {})}
        container = {**packaged[0], **container, "Environment": environment}
    return Program(
        image=container["Image"],
        role=model.data["ExecutionRoleArn"],
        environment=container.get("Environment", {}),
        data=data_of(container),
        isolated=bool(model.data.get("EnableNetworkIsolation")),
        multi_model=container.get("Mode") == "MultiModel",
        cached=container.get("MultiModelConfig", {}).get("ModelCacheSetting", "Enabled") == "Enabled",
    )


def start(
    service: Service,
    program: Program,
    *,
    kind: str = "endpoints",
    name: str,
    stream: str,
    variables: Mapping[str, str],
    limit: float = HEALTH_CHECK_SECONDS,
) -> Instance:
    """Start a container and wait until it is healthy.

    :param name: names its folder
    :param stream: begins the name of its log stream and says in an error what did not start
    :raises FleetError: it ended, or did not answer its health check in `limit` seconds
    :raises TransferError: its image or its model data cannot be had
    """
    runtime = service.runtime
    containers.assume(program.role)
    folder = JobFolder.of(runtime, kind, name)
    target = folder.base / ("models" if program.multi_model else "model")
    target.mkdir(parents=True, exist_ok=True)
    if program.data is not None and not program.multi_model:
        fetch_model(service, program, program.data, target)
    port = _free_port()
    given = {**program.environment, "SAGEMAKER_BIND_TO_PORT": str(port), **variables}
    if program.multi_model:
        given["SAGEMAKER_MULTI_MODEL"] = "true"
    process = containers.start_program(
        runtime,
        folder,
        image=program.image,
        role=program.role,
        region=service.region,
        variables=given,
        arguments=("serve",),
        isolated=program.isolated,
    )
    pool = urllib3.HTTPConnectionPool("127.0.0.1", port, maxsize=32, retries=False)
    instance = Instance(process=process, folder=folder, pool=pool, program=program, stream=stream)
    _await_ping(runtime, instance, min(limit, HEALTH_CHECK_SECONDS))
    instance.last_used = runtime.clock.timestamp()
    return instance


def fetch_model(service: Service, program: Program, data: str, target: Path) -> None:
    """Bring model data into a folder, under the program's role.

    :raises TransferError: it cannot be had
    """
    fetch = transfer.download_tar if data.endswith(".tar.gz") else transfer.download
    fetch(service.runtime, data, target, role=program.role, region=service.region)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_ping(runtime: Runtime, instance: Instance, limit: float) -> None:
    deadline = time.monotonic() + limit
    last = "no answer"
    while time.monotonic() < deadline and not runtime.stopping.is_set():
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
    runtime.end_child(instance.process)
    raise FleetError(
        f"The container for {instance.stream} did not pass the ping health check: {last}. "
        f"{containers.tail(instance.folder.log)}"[:1024]
    )


def end(service: Service, instance: Instance, *, group: str) -> None:
    """End a container that gets no new requests: those in flight are answered first; its log is kept."""
    deadline = time.monotonic() + INVOCATION_SECONDS
    while instance.running and time.monotonic() < deadline and not service.runtime.stopping.is_set():
        time.sleep(0.01)
    service.runtime.end_child(instance.process)
    instance.pool.close()
    ship(service, instance, group=group)


def ship(service: Service, instance: Instance, *, group: str) -> None:
    """Put what a container has written since the last time into its log group."""
    containers.ship_log(
        service.runtime,
        instance.folder,
        role=instance.program.role,
        region=service.region,
        group=group,
        stream=f"{instance.stream}/{instance.folder.root.name}",
    )
