"""Instances without a model of their own, and the copies of components that are placed on them.

An instance is a capacity here; each copy is a process.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rehearsal.executors.serving import fleet, keeping, programs
from rehearsal.executors.serving.capacity import Capacity, Need, capacity_of
from rehearsal.executors.serving.fleet import Endpoint, Variant
from rehearsal.executors.serving.programs import FleetError, Instance, Program
from rehearsal.executors.transfer import TransferError
from rehearsal.services.engine import ApiError, Record

__all__ = ["COMPONENTS", "Component", "HostVariant", "drop", "room", "scale", "start"]

_NO_CAPACITY = (
    "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress "
    "(if configured) or try to increase the capacity by invoking UpdateInferenceComponentRuntimeConfig API."
)
_NO_ROOM = (
    "There is not enough hardware resources on the instances to create a copy of the inference component. "
    "Update resource requirements in your inference component, remove existing inference components, or "
    "increase the number of instances to your endpoint."
)
_HOSTS = itertools.count(1)


@dataclass(kw_only=True, eq=False)
class HostVariant(Variant):
    """A variant without a model: instances that components are placed on; `hosts` are their numbers."""

    hosts: list[int] = field(default_factory=list)

    def fill(self, endpoint: Endpoint) -> None:
        """Have as many hosts as are wanted; one that holds a copy stays."""
        with self.lock:
            self.hosts += [next(_HOSTS) for _ in range(self.desired - len(self.hosts))]
            used = {host for one in _on(endpoint, self.name) for host in one.places}
            for host in [host for host in self.hosts if host not in used]:
                if len(self.hosts) > self.desired:
                    self.hosts.remove(host)
            self.desired = len(self.hosts)

    @property
    def capacity(self) -> Capacity | None:
        return capacity_of(self.spec["InstanceType"])

    @property
    def managed(self) -> tuple[int, int] | None:
        """Between how many instances SageMaker scales by itself, None: it does not."""
        scaling = self.spec.get("ManagedInstanceScaling", {})
        if scaling.get("Status") != "ENABLED":
            return None
        least = int(scaling.get("MinInstanceCount", self.spec.get("InitialInstanceCount", 1)))
        return least, int(scaling.get("MaxInstanceCount", max(least, self.desired)))


@dataclass(kw_only=True, eq=False)
class Component:
    """One inference component: its copies (processes) and the hosts that they are placed on."""

    endpoint: Endpoint
    record: Record
    variant_name: str
    program: Program
    need: Need
    model: str
    desired: int = 0
    copies: list[Instance] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    turn: Iterator[int] = field(default_factory=itertools.count)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def variant(self) -> HostVariant:
        """The variant that hosts it."""
        found = fleet.variant_of(self.endpoint, self.variant_name)
        if not isinstance(found, HostVariant):
            raise ApiError("ValidationException", f"variant {self.variant_name} has a model of its own")
        return found

    def take(self) -> Instance:
        """A copy for one request, which has entered it.

        :raises ApiError: there is none
        """
        with self.lock:
            if not self.copies:
                raise ApiError("ValidationError", _NO_CAPACITY)
            able = [one for one in self.copies if one.alive] or self.copies
            if self.variant.spec.get("RoutingConfig", {}).get("RoutingStrategy") == "RANDOM":
                copy = able[next(self.turn) % len(able)]
            else:
                copy = min(able, key=lambda one: (one.running, one.answered))
            copy.enter()
            return copy

    def lost(self, copy: Instance) -> None:
        """Start a copy again whose container has ended by itself."""
        service = self.endpoint.service
        new = keeping.restarted(service, self.endpoint.record.name, lambda: start(self, self.program))
        with self.lock:
            there = copy in self.copies
            if there and new is not None:
                self.copies[self.copies.index(copy)] = new
        if new is not None:
            programs.end(service, copy if there else new, group=_log_group(self))


COMPONENTS: dict[str, Component] = {}


def _on(endpoint: Endpoint, variant: str) -> list[Component]:
    return [c for c in list(COMPONENTS.values()) if c.endpoint is endpoint and c.variant_name == variant]


def _make_host(endpoint: Endpoint, spec: Mapping[str, Any], old: Variant | None) -> Variant | None:
    if "ModelName" in spec or "ServerlessConfig" in spec:
        return None
    # What is placed on the hosts in service stays on them when the configuration changes.
    there = next((v for v in fleet.all_variants(endpoint) if v.name == spec["VariantName"]), old)
    hosts = there.hosts if isinstance(there, HostVariant) else []
    return HostVariant(
        name=spec["VariantName"],
        spec=spec,
        weight=float(spec.get("InitialVariantWeight", 1.0)),
        desired=max(len(hosts), int(spec.get("InitialInstanceCount", 0))),
        program=None,
        hosts=hosts,
    )


fleet.KINDS.append(_make_host)


def scale(component: Component, count: int) -> None:
    """Have so many copies, each placed where there is room.

    :raises FleetError: there is no room, or a copy did not come up; the copies so far stay
    """
    component.desired = count
    while len(component.places) < count:
        _add(component, component.program, component.need)
    while len(component.places) > count:
        drop(component)


def _add(component: Component, program: Program, need: Need) -> None:
    """Place a copy and start it, as far as this machine stands for it."""
    host = room(component, need)
    component.places.append(host)
    try:
        if len(component.copies) < fleet.PROCESSES_PER_VARIANT:
            copy = start(component, program)
            with component.lock:
                component.copies.append(copy)
        else:
            component.endpoint.service.runtime.ledger.recorded(
                "component",
                component.record.name,
                f"{len(component.copies)} processes stand for {len(component.places)} copies",
            )
    except (FleetError, TransferError, ApiError):
        component.places.remove(host)
        raise


def drop(component: Component, copy: Instance | None = None) -> None:
    """End a copy, the youngest unless one is named, and free its place."""
    with component.lock:
        # While more copies are placed than run, a place without a process goes first.
        spare = copy is None and len(component.places) > len(component.copies)
        going = None if spare or not component.copies else copy or component.copies[-1]
        if going is not None:
            component.copies.remove(going)
    if going is not None:
        programs.end(component.endpoint.service, going, group=_log_group(component))
    component.places.pop(0 if copy is not None else -1)
    variant = component.variant
    managed = variant.managed
    if managed is not None:
        variant.desired = managed[0]
        variant.fill(component.endpoint)


def room(component: Component, need: Need) -> int:
    """A host with room for a copy; with managed scaling a new one where there is none.

    :raises FleetError: there is no room
    """
    variant = component.variant
    capacity = variant.capacity
    with variant.lock:
        taken: dict[int, list[Need]] = {host: [] for host in variant.hosts}
        for other in _on(component.endpoint, variant.name):
            for host in other.places:
                taken.setdefault(host, []).append(other.need)
        free = [h for h in variant.hosts if capacity is None or capacity.fits([*taken[h], need])]
        if free:
            binpack = _strategy(component) == "BINPACK"
            own = component.places.count
            return min(free, key=lambda h: -len(taken[h]) if binpack else own(h) or len(taken[h]) / 1000)
        managed = variant.managed
        fits = capacity is None or capacity.fits([need])
        if managed is None or len(variant.hosts) >= managed[1] or not fits:
            raise FleetError(_NO_ROOM)
        variant.hosts.append(next(_HOSTS))
        variant.desired = len(variant.hosts)
        component.endpoint.service.runtime.ledger.ran(
            "managed-instance-scaling", component.endpoint.record.name, instances=variant.desired
        )
        return variant.hosts[-1]


def _strategy(component: Component) -> str:
    scheduling = component.record.data["Specification"].get("SchedulingConfig", {})
    return str(scheduling.get("PlacementStrategy", "SPREAD"))


def start(component: Component, program: Program) -> Instance:
    startup = component.record.data["Specification"].get("StartupParameters", {})
    limit = startup.get("ContainerStartupHealthCheckTimeoutInSeconds", programs.HEALTH_CHECK_SECONDS)
    copy = programs.start(
        component.endpoint.service,
        program,
        name=f"{component.endpoint.record.name}-{component.record.name}",
        stream=f"inference component {component.record.name}",
        variables={
            "ENDPOINT_NAME": component.endpoint.record.name,
            "VARIANT_NAME": component.variant_name,
            "INFERENCE_COMPONENT_NAME": component.record.name,
        },
        limit=float(limit),
    )
    keeping.keep(
        component.endpoint.service,
        component.endpoint.record.name,
        copy,
        mine=lambda: copy in component.copies,
        lost=lambda: component.lost(copy),
    )
    return copy


def _log_group(component: Component) -> str:
    return f"/aws/sagemaker/InferenceComponents/{component.record.name}"
