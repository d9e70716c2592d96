"""What an endpoint runs: its variants, the fleets of its configurations, and who gets the next request."""

from __future__ import annotations

import io
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rehearsal.executors import containers, transfer
from rehearsal.executors.serving import keeping, programs
from rehearsal.executors.serving.capture import Capture
from rehearsal.executors.serving.programs import FleetError, Instance, Program
from rehearsal.executors.serving.traffic import Traffic
from rehearsal.services.engine import ApiError, Record, Service

__all__ = [
    "ENDPOINTS",
    "PROCESSES_PER_VARIANT",
    "Endpoint",
    "Fleet",
    "Place",
    "Variant",
    "all_variants",
    "end_fleet",
    "end_instance",
    "endpoint_of",
    "log_group",
    "resize",
    "start_fleet",
    "start_instance",
    "tell",
    "variant_of",
]

# One laptop stands for a fleet: at most so many processes per variant, however many instances it has.
PROCESSES_PER_VARIANT = 4


@dataclass(kw_only=True, eq=False)
class Variant:
    """One production or shadow variant of a fleet, on instances."""

    name: str
    spec: Mapping[str, Any]
    weight: float
    desired: int
    program: Program | None
    instances: list[Instance] = field(default_factory=list)
    invocations: int = 0
    shadow: bool = False
    expected: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)
    turn: Iterator[int] = field(default_factory=itertools.count)

    @property
    def processes(self) -> int:
        """How many processes stand for its instances."""
        return min(self.desired, PROCESSES_PER_VARIANT)

    def fill(self, endpoint: Endpoint) -> None:
        """Start what is missing of its instances.

        :raises FleetError: one did not come up
        """
        while self.program is not None and len(self.instances) < self.processes:
            instance = start_instance(endpoint, self)
            with self.lock:
                self.instances.append(instance)

    def take(self) -> Instance:
        """An instance for one request, which has entered it.

        :raises ApiError: there is none
        """
        with self.lock:
            if not self.instances:
                raise ApiError("ServiceUnavailable", f"variant {self.name} has no instance", 503)
            # One whose container has ended fails its health checks: the others get its requests.
            able = [one for one in self.instances if one.alive] or self.instances
            if self.spec.get("RoutingConfig", {}).get("RoutingStrategy") == "LEAST_OUTSTANDING_REQUESTS":
                instance = min(able, key=lambda one: one.running)
            else:
                instance = able[next(self.turn) % len(able)]
            instance.enter()
            self.invocations += 1
            return instance

    def lost(self, endpoint: Endpoint, instance: Instance) -> None:
        """Start the container of an instance again that has ended by itself."""
        new = keeping.restarted(
            endpoint.service, endpoint.record.name, lambda: start_instance(endpoint, self)
        )
        with self.lock:
            there = instance in self.instances
            if there and new is not None:
                self.instances[self.instances.index(instance)] = new
        if new is not None:
            # The new one goes where its fleet was ended meanwhile.
            programs.end(endpoint.service, instance if there else new, group=log_group(endpoint))

    def expect(self, change: int) -> None:
        """Count requests that are on their way to the variant or in it."""
        with self.lock:
            self.expected += change

    def give_back(self, instance: Instance) -> None:
        """Say that a request has left its instance."""
        instance.leave()

    def summary(self, record: Record) -> dict[str, Any]:
        """The variant as DescribeEndpoint shows it."""
        shown: dict[str, Any] = {
            "VariantName": self.name,
            "CurrentWeight": self.weight,
            "DesiredWeight": self.weight,
            "CurrentInstanceCount": self.desired,
            "DesiredInstanceCount": self.desired,
        }
        if self.program is not None:
            image = self.program.image
            shown["DeployedImages"] = [
                {"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": record.created}
            ]
        for key in ("ManagedInstanceScaling", "RoutingConfig"):
            if key in self.spec:
                shown[key] = self.spec[key]
        return shown


@dataclass(kw_only=True, eq=False)
class Fleet:
    """The variants of one endpoint configuration."""

    config_name: str
    config: Mapping[str, Any]
    variants: list[Variant] = field(default_factory=list)
    shadows: list[Variant] = field(default_factory=list)
    captures: dict[str, Capture] = field(default_factory=dict)

    @property
    def all(self) -> list[Variant]:
        return [*self.variants, *self.shadows]

    def chosen(self, target: str | None) -> Variant:
        """The variant that a request names, or one by the weights.

        :raises ApiError: there is none
        """
        if target is not None:
            found = next((variant for variant in self.variants if variant.name == target), None)
            if found is None:
                raise ApiError("ValidationError", f"the endpoint has no variant {target}")
            return found
        weights = [variant.weight for variant in self.variants]
        if not any(weights):
            raise ApiError("ValidationError", "every variant of the endpoint has the weight 0")
        return random.choices(self.variants, weights)[0]  # noqa: S311 - a share of traffic, no secret


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one request is answered."""

    endpoint: Endpoint
    fleet: Fleet
    variant: Variant
    instance: Instance
    #: Under what its answer is counted, where that is not the configuration and the variant.
    label: tuple[str, str] | None = None


@dataclass(kw_only=True, eq=False)
class Endpoint:
    """What an endpoint runs now: the fleet in service and, during a deployment, the next one."""

    service: Service
    record: Record
    blue: Fleet | None = None
    green: Fleet | None = None
    share: float = 0.0
    lock: threading.RLock = field(default_factory=threading.RLock)
    stop: threading.Event = field(default_factory=threading.Event)
    traffic: Traffic = field(default_factory=Traffic)

    @property
    def fleets(self) -> list[Fleet]:
        return [fleet for fleet in (self.blue, self.green) if fleet is not None]

    def pick(self) -> Fleet | None:
        """The fleet of the next request: the new one gets its share."""
        with self.lock:
            if self.green is not None and random.random() < self.share:  # noqa: S311 - a share of traffic
                return self.green
            return self.blue

    def shift(self, share: float) -> None:
        """Give the new fleet this share of the traffic."""
        with self.lock:
            self.share = share
            self.traffic.planned(self.service.runtime.clock.timestamp(), share)

    @contextmanager
    def routed(self, target: str | None) -> Iterator[Place]:
        """Where one request goes; its instance is not ended before the request has left it.

        :raises ApiError: nobody can take it
        """
        with self.lock:
            fleet = self.pick()
            if fleet is None:
                raise ApiError("ValidationError", f"Endpoint {self.record.name} is not in service")
            variant = fleet.chosen(target)
            variant.expect(1)
        try:
            # A cold start takes its time: not under the endpoint's lock.
            instance = variant.take()
            try:
                yield Place(endpoint=self, fleet=fleet, variant=variant, instance=instance)
            finally:
                variant.give_back(instance)
        finally:
            variant.expect(-1)


ENDPOINTS: dict[str, Endpoint] = {}
#: Makes variants of other kinds than instances (`serverless`, `components`): by what their spec says.
KINDS: list[Callable[[Endpoint, Mapping[str, Any], Variant | None], Variant | None]] = []


def endpoint_of(record: Record) -> Endpoint:
    """What runs for an endpoint's record."""
    return ENDPOINTS[record.arn]


def variant_of(endpoint: Endpoint, name: str) -> Variant:
    """A variant of the fleet in service.

    :raises ApiError: there is none of that name
    """
    variants = [] if endpoint.blue is None else endpoint.blue.all
    found = next((variant for variant in variants if variant.name == name), None)
    if found is None:
        raise ApiError("ValidationException", f"{endpoint.record.name} has no variant {name}")
    return found


def all_variants(endpoint: Endpoint) -> list[Variant]:
    """The variants of the fleet in service."""
    return [] if endpoint.blue is None else endpoint.blue.all


def log_group(endpoint: Endpoint) -> str:
    """Where the containers of an endpoint log to."""
    return f"/aws/sagemaker/Endpoints/{endpoint.record.name}"


def start_fleet(
    endpoint: Endpoint,
    config: Record,
    keep: Fleet | None,
    retained: frozenset[str] = frozenset(),
    *,
    empty: bool = False,
) -> Fleet:
    """Start every variant of a configuration; none is left behind when one fails.

    :param keep: the fleet whose `retained` properties are kept (DesiredInstanceCount, DesiredWeight,
        DataCaptureConfig)
    :param empty: start no instance yet: a rolling deployment brings them in batches
    :raises FleetError: with the reason
    """
    data = dict(config.data)
    if keep is not None and "DataCaptureConfig" in retained and "DataCaptureConfig" in keep.config:
        data["DataCaptureConfig"] = keep.config["DataCaptureConfig"]
    fleet = Fleet(config_name=config.name, config=data)
    try:
        for key, variants in (
            ("ProductionVariants", fleet.variants),
            ("ShadowProductionVariants", fleet.shadows),
        ):
            for spec in config.data.get(key, ()):
                old = next((v for v in keep.all if v.name == spec["VariantName"]), None) if keep else None
                variant = _make(endpoint, spec, old, retained)
                variant.shadow = key.startswith("Shadow")
                variants.append(variant)
                if not empty:
                    variant.fill(endpoint)
                if "DataCaptureConfig" in fleet.config:
                    program = variant.program
                    role = fleet.config["ExecutionRoleArn"] if program is None else program.role
                    fleet.captures[variant.name] = _capture(
                        endpoint, fleet.config["DataCaptureConfig"], variant, role
                    )
    except (FleetError, transfer.TransferError, ApiError) as error:
        end_fleet(endpoint, fleet)
        raise FleetError(str(error)) from error
    return fleet


def _make(
    endpoint: Endpoint, spec: Mapping[str, Any], old: Variant | None, retained: frozenset[str]
) -> Variant:
    for kind in KINDS:
        variant = kind(endpoint, spec, old if "DesiredInstanceCount" in retained else None)
        if variant is not None:
            return variant
    program = programs.program_of(endpoint.service, endpoint.service.get("Model", spec["ModelName"]))
    count, weight = int(spec.get("InitialInstanceCount", 1)), float(spec.get("InitialVariantWeight", 1.0))
    variant = Variant(
        name=spec["VariantName"],
        spec=spec,
        weight=old.weight if old is not None and "DesiredWeight" in retained else weight,
        desired=old.desired if old is not None and "DesiredInstanceCount" in retained else count,
        program=program,
    )
    if variant.desired > variant.processes:
        endpoint.service.runtime.ledger.recorded(
            "endpoint",
            endpoint.record.name,
            f"{variant.processes} processes stand for the {variant.desired} instances of {variant.name}",
        )
    return variant


def start_instance(endpoint: Endpoint, variant: Variant) -> Instance:
    """Start one instance of a variant, healthy and not yet among its instances.

    :raises FleetError: it did not come up
    """
    program = variant.program
    if program is None:
        raise FleetError(f"variant {variant.name} has no model")
    limit = float(
        variant.spec.get("ContainerStartupHealthCheckTimeoutInSeconds", programs.HEALTH_CHECK_SECONDS)
    )
    instance = programs.start(
        endpoint.service,
        program,
        name=f"{endpoint.record.name}-{variant.spec.get('ModelName', variant.name)}",
        stream=f"production variant {variant.name}",
        variables={"ENDPOINT_NAME": endpoint.record.name, "VARIANT_NAME": variant.name},
        limit=limit,
    )
    keeping.keep(
        endpoint.service,
        endpoint.record.name,
        instance,
        mine=lambda: instance in variant.instances,
        lost=lambda: variant.lost(endpoint, instance),
    )
    return instance


def end_instance(endpoint: Endpoint, variant: Variant, instance: Instance) -> None:
    """Take an instance out of its variant and end it when its last request has been answered."""
    with variant.lock:
        if instance in variant.instances:
            variant.instances.remove(instance)
    programs.end(endpoint.service, instance, group=log_group(endpoint))


def end_fleet(endpoint: Endpoint, fleet: Fleet) -> None:
    """End a fleet that gets no new requests; those that are on their way to it still arrive."""
    deadline = time.monotonic() + programs.INVOCATION_SECONDS
    while any(variant.expected for variant in fleet.all) and time.monotonic() < deadline:
        time.sleep(0.01)
    for variant in fleet.all:
        for instance in list(variant.instances):
            end_instance(endpoint, variant, instance)
    for capture in fleet.captures.values():
        capture.flush()


def resize(endpoint: Endpoint, variant: Variant, count: int) -> None:
    """Change the number of instances of a variant in service.

    :raises FleetError: a new one did not come up
    """
    with variant.lock:
        variant.desired = count
    variant.fill(endpoint)
    while len(variant.instances) > variant.processes:
        end_instance(endpoint, variant, variant.instances[-1])


def _capture(endpoint: Endpoint, config: Mapping[str, Any], variant: Variant, role: str) -> Capture:
    runtime, region = endpoint.service.runtime, endpoint.service.region

    def write(uri: str, content: bytes) -> None:
        bucket, key = transfer.split_uri(uri)
        extra = {}
        if config.get("KmsKeyId"):
            extra = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": config["KmsKeyId"]}
        runtime.client("s3", role=role, region=region).put_object(
            Bucket=bucket, Key=key, Body=io.BytesIO(content), **extra
        )

    return Capture(
        config=config,
        endpoint=endpoint.record.name,
        variant=variant.name,
        write=write,
        on_error=lambda error: runtime.ledger.failed("data-capture", endpoint.record.name, str(error)),
    )


def tell(endpoint: Endpoint) -> None:
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
