"""How an endpoint moves from one fleet to the next: the deployment configuration as steps of traffic.

Pure: the shares and the waits, no servers. Source of the rules: "Blue/Green Deployments" and "Rolling
deployments" in the SageMaker developer guide, and the limits of the service model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["DeploymentConfigError", "Plan", "Shift", "batches", "plan"]

# A canary takes at most half of the fleet, a linear step 10 to 50 percent of it.
_CANARY_LARGEST = 0.5
_LINEAR_SMALLEST, _LINEAR_LARGEST = 0.1, 0.5
# A rolling batch is 5 to 50 percent of the fleet.
_BATCH_SMALLEST, _BATCH_LARGEST = 0.05, 0.5


class DeploymentConfigError(Exception):
    """A deployment configuration that SageMaker refuses."""


@dataclass(frozen=True, kw_only=True)
class Shift:
    """Give the new fleet this share of the traffic, then watch the alarms for `wait_seconds`."""

    share: float
    wait_seconds: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The steps of a deployment, then the old fleet stays `termination_wait_seconds` longer."""

    strategy: str
    shifts: tuple[Shift, ...]
    termination_wait_seconds: float = 0
    timeout_seconds: float | None = None
    alarms: tuple[str, ...] = ()


def plan(config: Mapping[str, Any] | None, instance_count: int) -> Plan:
    """The plan that a DeploymentConfig means for a fleet of `instance_count` instances.

    None means what SageMaker does by default: everything at once, no baking.

    :raises DeploymentConfigError: naming the value, what is allowed and the fix
    """
    if config is None:
        return Plan(strategy="ALL_AT_ONCE", shifts=(Shift(share=1.0, wait_seconds=0),))
    alarms = tuple(
        alarm["AlarmName"] for alarm in config.get("AutoRollbackConfiguration", {}).get("Alarms", ())
    )
    blue_green, rolling = config.get("BlueGreenUpdatePolicy"), config.get("RollingUpdatePolicy")
    if blue_green is not None and rolling is not None:
        raise DeploymentConfigError("give BlueGreenUpdatePolicy or RollingUpdatePolicy, not both")
    if rolling is not None:
        return _rolling(rolling, instance_count, alarms)
    if blue_green is None:
        return Plan(strategy="ALL_AT_ONCE", shifts=(Shift(share=1.0, wait_seconds=0),), alarms=alarms)
    routing = blue_green["TrafficRoutingConfiguration"]
    return Plan(
        strategy=routing["Type"],
        shifts=_blue_green_shifts(routing, instance_count),
        termination_wait_seconds=blue_green.get("TerminationWaitInSeconds", 0),
        timeout_seconds=blue_green.get("MaximumExecutionTimeoutInSeconds"),
        alarms=alarms,
    )


def _blue_green_shifts(routing: Mapping[str, Any], instance_count: int) -> tuple[Shift, ...]:
    kind, wait = routing["Type"], routing["WaitIntervalInSeconds"]
    for key, owner in (("CanarySize", "CANARY"), ("LinearStepSize", "LINEAR")):
        if key in routing and kind != owner:
            raise DeploymentConfigError(f"{key} belongs to Type {owner}, got Type {kind}")
        if key not in routing and kind == owner:
            raise DeploymentConfigError(f"Type {kind} needs {key}")
    if kind == "CANARY":
        share = _share(routing["CanarySize"], instance_count, "CanarySize", largest=_CANARY_LARGEST)
        return Shift(share=share, wait_seconds=wait), Shift(share=1.0, wait_seconds=wait)
    if kind == "LINEAR":
        step = _share(
            routing["LinearStepSize"],
            instance_count,
            "LinearStepSize",
            smallest=_LINEAR_SMALLEST,
            largest=_LINEAR_LARGEST,
        )
        return _steps(step, wait)
    return (Shift(share=1.0, wait_seconds=wait),)


def _rolling(policy: Mapping[str, Any], instance_count: int, alarms: tuple[str, ...]) -> Plan:
    size = _share(
        policy["MaximumBatchSize"],
        instance_count,
        "MaximumBatchSize",
        smallest=_BATCH_SMALLEST,
        largest=_BATCH_LARGEST,
    )
    return Plan(
        strategy="ROLLING",
        shifts=_steps(size, policy["WaitIntervalInSeconds"]),
        timeout_seconds=policy.get("MaximumExecutionTimeoutInSeconds"),
        alarms=alarms,
    )


def _steps(size: float, wait: float) -> tuple[Shift, ...]:
    count = math.ceil(round(1 / size, 9))
    return tuple(Shift(share=min(1.0, round((n + 1) * size, 9)), wait_seconds=wait) for n in range(count))


def batches(instances: int, shares: Sequence[float]) -> list[int]:
    """How many of a fleet's instances each step of a rolling deployment starts, by the shares after them.

    A share that is no whole number of instances is rounded up, as SageMaker rounds a batch.
    """
    reached = [min(instances, math.ceil(round(share * instances, 9))) for share in shares]
    return [now - before for before, now in zip([0, *reached], reached, strict=False)]


def _share(
    size: Mapping[str, Any],
    instance_count: int,
    name: str,
    *,
    largest: float,
    smallest: float = 0.0,
) -> float:
    """A capacity size as a share of the fleet; SageMaker rounds a size up to whole instances."""
    value = size["Value"]
    share: float = value / 100 if size["Type"] == "CAPACITY_PERCENT" else value / instance_count
    # One instance cannot be split, so a size in instances is the whole of a fleet of one.
    if size["Type"] == "INSTANCE_COUNT" and instance_count == 1 and value == 1:
        return 1.0
    if not smallest <= share <= largest or share <= 0:
        raise DeploymentConfigError(
            f"{name} must be {smallest:.0%} to {largest:.0%} of the fleet's capacity, got {value} "
            f"({size['Type']}) of {instance_count} instances"
        )
    return share
