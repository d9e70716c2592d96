"""Serverless variants: an environment per request at a time, started when it is needed, ended when idle.

Source: "Deploy models with Amazon SageMaker Serverless Inference", developer guide. AWS does not say how long
an idle environment is kept.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rehearsal.clock import Due
from rehearsal.executors.serving import fleet, measures, programs
from rehearsal.executors.serving.fleet import Endpoint, Variant
from rehearsal.executors.serving.programs import FleetError, Instance
from rehearsal.executors.transfer import TransferError
from rehearsal.services.engine import ApiError, Record

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["IDLE_SECONDS", "IdleClock", "ServerlessVariant"]

#: An environment that nobody asked for so long ends, on the rehearsal's clock.
IDLE_SECONDS = 600.0


@dataclass(kw_only=True, eq=False)
class ServerlessVariant(Variant):
    """A variant that runs when it is asked; `desired` is its provisioned concurrency."""

    endpoint: Endpoint
    concurrent: int = 0
    starting: int = 0

    @property
    def most(self) -> int:
        """How many requests it takes at a time."""
        return int(self.spec["ServerlessConfig"]["MaxConcurrency"])

    def fill(self, endpoint: Endpoint) -> None:
        """Keep the provisioned environments warm; a new variant without any shows once that it is healthy.

        That one environment waits for the traffic of a deployment; a new endpoint has none to wait for.
        """
        super().fill(endpoint)
        if not self.instances and not self.invocations:
            instance = fleet.start_instance(endpoint, self)
            if endpoint.blue is None:
                fleet.end_instance(endpoint, self, instance)
            else:
                self.instances.append(instance)

    def take(self) -> Instance:
        """An environment for one request: a free one, else a new one while this machine has room for it.

        :raises ApiError: as many requests are under way as MaxConcurrency allows, or none starts
        """
        with self.lock:
            if self.concurrent >= self.most:
                raise ApiError(
                    "ThrottlingException",
                    f"Rate exceeded: {self.endpoint.record.name} takes {self.most} requests at a time",
                    429,
                )
            self.concurrent += 1
            self.invocations += 1
            spilled = self.concurrent > self.desired
            free = next((one for one in self.instances if not one.running and one.alive), None)
            if free is not None:
                free.enter()
            elif len(self.instances) + self.starting < fleet.PROCESSES_PER_VARIANT:
                self.starting += 1
            else:
                free = min(self.instances, key=lambda one: one.running, default=None)
                if free is not None:
                    free.enter()
        self._tell_concurrency(spilled)
        return self._cold_start() if free is None else free

    def lost(self, endpoint: Endpoint, instance: Instance) -> None:
        """Forget an environment that has ended by itself; the next request starts one, if it needs to."""
        fleet.end_instance(endpoint, self, instance)

    def _cold_start(self) -> Instance:
        began = time.perf_counter()
        try:
            instance = fleet.start_instance(self.endpoint, self)
        except (FleetError, TransferError) as error:
            with self.lock:
                self.concurrent -= 1
            raise ApiError("ServiceUnavailable", str(error), 503) from error
        finally:
            with self.lock:
                self.starting = max(0, self.starting - 1)
        instance.enter()
        with self.lock:
            self.instances.append(instance)
        self._publish({"ModelSetupTime": ((time.perf_counter() - began) * 1e6, "Microseconds")})
        self.endpoint.service.runtime.ledger.ran("cold-start", self.endpoint.record.name)
        return instance

    def give_back(self, instance: Instance) -> None:
        """The environment is free, and idle from now on."""
        instance.last_used = self.endpoint.service.runtime.clock.timestamp()
        super().give_back(instance)
        with self.lock:
            self.concurrent -= 1

    def _publish(self, values: measures.Values) -> None:
        dimensions = {"EndpointName": self.endpoint.record.name, "VariantName": self.name}
        measures.publish(self.endpoint.service, dimensions, values)

    def _tell_concurrency(self, spilled: bool) -> None:
        values: dict[str, tuple[float, str]] = {
            "ServerlessConcurrentExecutionsUtilization": (self.concurrent / self.most, "None")
        }
        if self.desired:
            values |= {
                "ServerlessProvisionedConcurrencyExecutions": (min(self.concurrent, self.desired), "Count"),
                "ServerlessProvisionedConcurrencyUtilization": (
                    min(1.0, self.concurrent / self.desired),
                    "None",
                ),
                "ServerlessProvisionedConcurrencyInvocations": (float(not spilled), "Count"),
                "ServerlessProvisionedConcurrencySpilloverInvocations": (float(spilled), "Count"),
            }
        self._publish(values)

    def summary(self, record: Record) -> dict[str, Any]:
        """The variant as DescribeEndpoint shows it."""
        shown = super().summary(record)
        config = dict(self.spec["ServerlessConfig"])
        if self.desired:
            config["ProvisionedConcurrency"] = self.desired
        counts = ("CurrentInstanceCount", "DesiredInstanceCount")
        return {key: value for key, value in shown.items() if key not in counts} | {
            "CurrentServerlessConfig": config,
            "DesiredServerlessConfig": config,
        }

    def idle(self, now: float) -> list[Instance]:
        """The environments that are to end by now; those of the provisioned concurrency stay."""
        with self.lock:
            spare = max(0, len(self.instances) - self.processes)
            tired = [one for one in self.instances if not one.running and now - one.last_used >= IDLE_SECONDS]
        return sorted(tired, key=lambda one: one.last_used)[:spare]


def make(endpoint: Endpoint, spec: Mapping[str, Any], old: Variant | None) -> Variant | None:
    """A serverless variant, where the spec asks for one; `old` keeps its provisioned concurrency."""
    if "ServerlessConfig" not in spec:
        return None
    program = programs.program_of(endpoint.service, endpoint.service.get("Model", spec["ModelName"]))
    return ServerlessVariant(
        name=spec["VariantName"],
        spec=spec,
        weight=float(spec.get("InitialVariantWeight", 1.0)),
        desired=old.desired
        if isinstance(old, ServerlessVariant)
        else int(spec["ServerlessConfig"].get("ProvisionedConcurrency", 0)),
        program=program,
        endpoint=endpoint,
    )


class IdleClock:
    """Due work of the clock: environments that nobody asked for end."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def next_due(self, after: datetime) -> Sequence[Due]:
        """When the next environment has been idle long enough."""
        ends = [
            one.last_used + IDLE_SECONDS
            for variant in _variants()
            for one in variant.idle(float("inf"))
            if not one.running
        ]
        if not ends:
            return ()
        when = max(datetime.fromtimestamp(min(ends), UTC), after)
        return [Due(when=when, title="end idle environments", run=lambda: self.end(when.timestamp()))]

    def end(self, now: float) -> None:
        """End what is idle by now."""
        for variant in _variants():
            for instance in variant.idle(now):
                fleet.end_instance(variant.endpoint, variant, instance)
                self._runtime.ledger.ran("idle-stop", variant.endpoint.record.name)


def _variants() -> list[ServerlessVariant]:
    return [
        variant
        for endpoint in list(fleet.ENDPOINTS.values())
        for one in endpoint.fleets
        for variant in one.variants
        if isinstance(variant, ServerlessVariant)
    ]


fleet.KINDS.append(make)


def install(runtime: Runtime) -> None:
    """End idle environments on the clock."""
    runtime.clock.add_source(IdleClock(runtime))
