"""How an endpoint gets from one fleet to the next: traffic in steps, alarms watched, the way back.

Blue/green brings the whole new fleet up first; a rolling deployment replaces the instances batch by batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rehearsal import ministack_bridge as bridge
from rehearsal.executors.serving import fleet
from rehearsal.executors.serving.fleet import Endpoint, Fleet, Variant
from rehearsal.executors.serving.programs import FleetError
from rehearsal.executors.serving.rollout import DeploymentConfigError, Plan, batches, plan
from rehearsal.executors.transfer import TransferError
from rehearsal.services.engine import ApiError, Record, Service

__all__ = ["bring_up", "deploy", "planned", "ringing"]

# How often the alarms are looked at while a deployment bakes, in virtual seconds.
_WATCH_SECONDS = 10.0


class _RolledBackError(Exception):
    """A deployment that has to be undone; the text is the reason."""


def planned(
    service: Service, deployment: Mapping[str, Any] | None, config: Record, blue: Fleet | None
) -> Plan:
    """What a deployment configuration means for a configuration that follows `blue`.

    :raises ApiError: SageMaker refuses it
    """
    variants = config.data["ProductionVariants"]
    count = sum(int(v.get("InitialInstanceCount", 1)) for v in variants)
    try:
        found = plan(deployment, count)
    except DeploymentConfigError as error:
        raise ApiError("ValidationException", str(error)) from None
    if found.strategy == "ALL_AT_ONCE" or blue is None:
        return found
    # "Exclusions" of the deployment guardrails, developer guide.
    kinds = {str(v.get("InstanceType", "")).removeprefix("ml.").partition(".")[0] for v in variants}
    serverless = any("ServerlessConfig" in v for v in variants)
    several = len(variants) + len(config.data.get("ShadowProductionVariants", ())) > 1
    if "inf1" in kinds or (found.strategy == "ROLLING" and (serverless or several)):
        service.runtime.ledger.recorded(
            "deployment", config.name, f"{found.strategy} is not for this endpoint: all at once, no baking"
        )
        return plan(None, count)
    names = {v["VariantName"] for v in variants}
    old = {variant.name for variant in blue.variants}
    if names != old:
        raise ApiError(
            "ValidationException",
            f"With {found.strategy} the new configuration must have the variants of the old one "
            f"({', '.join(sorted(old))}), got {', '.join(sorted(names))}",
        )
    return found


def bring_up(endpoint: Endpoint, config: Record) -> None:
    """Start the first fleet of an endpoint."""
    service, record = endpoint.service, endpoint.record
    try:
        first = fleet.start_fleet(endpoint, config, None)
    except FleetError as error:
        service.update(record, status="Failed", FailureReason=str(error))
        service.runtime.ledger.failed("endpoint", record.name, str(error))
        fleet.tell(endpoint)
        return
    endpoint.blue = first
    service.update(record, status="InService")
    service.runtime.ledger.ran("endpoint", record.name, config=config.name)
    fleet.tell(endpoint)


def deploy(endpoint: Endpoint, config: Record, steps: Plan, retained: frozenset[str] | None) -> None:
    """Deploy a configuration, or give all traffic back to the fleet in service.

    :param retained: the variant properties that are kept of the fleet in service, None: none
    """
    service, record = endpoint.service, endpoint.record
    runtime = service.runtime
    began = runtime.clock.now()
    history: list[dict[str, Any]] = []
    keep = endpoint.blue if retained is not None else None
    try:
        if steps.strategy == "ROLLING" and endpoint.blue is not None:
            _roll(endpoint, config, steps, (keep, retained or frozenset()), began, history)
        else:
            _shift(endpoint, config, steps, (keep, retained or frozenset()), began, history)
    except (_RolledBackError, FleetError) as error:
        _roll_back(endpoint, config, str(error), history)
        return
    record.data.pop("PendingDeploymentSummary", None)
    service.update(record, status="InService", EndpointConfigName=config.name)
    runtime.ledger.ran(
        "deployment",
        record.name,
        strategy=steps.strategy,
        config=config.name,
        traffic=history,
        seconds=(runtime.clock.now() - began).total_seconds(),
        outcome="deployed",
    )
    fleet.tell(endpoint)


_Kept = tuple[Fleet | None, frozenset[str]]


def _shift(  # noqa: PLR0917 - the state of one deployment
    endpoint: Endpoint,
    config: Record,
    steps: Plan,
    kept: _Kept,
    began: datetime,
    history: list[dict[str, Any]],
) -> None:
    """Blue/green: the whole new fleet, then the traffic."""
    runtime = endpoint.service.runtime
    green = fleet.start_fleet(endpoint, config, *kept)
    with endpoint.lock:
        endpoint.green, endpoint.share = green, 0.0
    for shift in steps.shifts:
        endpoint.shift(shift.share)
        reason = _bake(endpoint, steps, shift.wait_seconds, began)
        history.append({"share": shift.share, "served": _served(endpoint)})
        if reason is not None:
            raise _RolledBackError(reason)
    with endpoint.lock:
        old, endpoint.blue, endpoint.green, endpoint.share = endpoint.blue, green, None, 0.0
    if old is not None:
        runtime.clock.sleep(steps.termination_wait_seconds, stop=runtime.stopping)
        fleet.end_fleet(endpoint, old)


def _roll(  # noqa: PLR0917 - the state of one deployment
    endpoint: Endpoint,
    config: Record,
    steps: Plan,
    kept: _Kept,
    began: datetime,
    history: list[dict[str, Any]],
) -> None:
    """Rolling: a batch of new instances, its share of the traffic, the alarms, then a batch of old ones less.

    Developer guide, "Rolling deployments".
    """
    blue = endpoint.blue
    if blue is None:
        raise FleetError("there is no fleet to roll over")
    green = fleet.start_fleet(endpoint, config, *kept, empty=True)
    with endpoint.lock:
        endpoint.green, endpoint.share = green, 0.0
    old, new = blue.variants[0], green.variants[0]
    before = len(old.instances)
    for number, (shift, size) in enumerate(
        zip(steps.shifts, batches(new.processes, [s.share for s in steps.shifts]), strict=True), 1
    ):
        for _ in range(size):
            try:
                instance = fleet.start_instance(endpoint, new)
            except (TransferError, ApiError) as error:
                raise FleetError(str(error)) from error
            with new.lock:
                new.instances.append(instance)
        endpoint.shift(shift.share if new.instances else 0.0)
        reason = _bake(endpoint, steps, shift.wait_seconds, began)
        history.append(
            {
                "share": shift.share,
                "served": _served(endpoint),
                "instances": {"blue": len(old.instances), "green": len(new.instances)},
            }
        )
        if reason is not None:
            raise _RolledBackError(reason)
        last = number == len(steps.shifts)
        if last:
            with endpoint.lock:
                endpoint.blue, endpoint.green, endpoint.share = green, None, 0.0
            fleet.end_fleet(endpoint, blue)
            continue
        # Whatever share is still its own needs an instance of the old fleet.
        while len(old.instances) > max(1, before - round(shift.share * before)):
            fleet.end_instance(endpoint, old, old.instances[-1])


def _bake(endpoint: Endpoint, steps: Plan, seconds: float, began: datetime) -> str | None:
    """Watch the alarms for some virtual seconds; the reason to roll back, or None."""
    runtime = endpoint.service.runtime
    end = runtime.clock.timestamp() + seconds
    while True:
        found = ringing(endpoint.service, steps.alarms)
        if found:
            return f"the alarm {', '.join(found)} is in ALARM"
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


def ringing(service: Service, alarms: tuple[str, ...]) -> list[str]:
    """The alarms that are in ALARM; one that does not exist counts, since nobody can vouch for it."""
    states = {
        name: bridge.alarm_state(name, account=service.account, region=service.region) for name in alarms
    }
    missing = sorted(name for name, state in states.items() if state is None)
    if missing:
        return [f"{name} (which does not exist)" for name in missing]
    return sorted(name for name, state in states.items() if state == "ALARM")


def _served(endpoint: Endpoint) -> dict[str, int]:
    return {
        color: sum(variant.invocations for variant in one.variants)
        for color, one in (("blue", endpoint.blue), ("green", endpoint.green))
        if one is not None
    }


def _roll_back(endpoint: Endpoint, config: Record, reason: str, history: list[dict[str, Any]]) -> None:
    """Give all traffic back to the old fleet; without one the endpoint has failed."""
    service, record = endpoint.service, endpoint.record
    service.update(record, status="RollingBack")
    fleet.tell(endpoint)
    blue = endpoint.blue
    for variant in [] if blue is None else blue.all:
        _restore(endpoint, variant)
    endpoint.shift(0.0)
    with endpoint.lock:
        green, endpoint.green = endpoint.green, None
    if green is not None:
        fleet.end_fleet(endpoint, green)
    record.data.pop("PendingDeploymentSummary", None)
    text = f"Endpoint deployment of {config.name} failed and was rolled back: {reason}"
    service.update(
        record, status="InService" if endpoint.blue is not None else "Failed", FailureReason=text[:1024]
    )
    service.runtime.ledger.ran(
        "deployment", record.name, config=config.name, traffic=history, outcome="rolled back", why=reason
    )
    fleet.tell(endpoint)


def _restore(endpoint: Endpoint, variant: Variant) -> None:
    """Bring back the instances that a rolling deployment had already ended."""
    try:
        fleet.resize(endpoint, variant, variant.desired)
    except (FleetError, TransferError, ApiError) as error:
        endpoint.service.runtime.ledger.failed("deployment", endpoint.record.name, str(error))
