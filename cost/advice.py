"""What would make an environment cheaper, said only where it applies to what is forecast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cost.forecast import Forecast

if TYPE_CHECKING:
    from ml_contract.spec.workload import Workload

__all__ = ["advise"]

#: From which monthly sum of instances that always run a commitment is worth a thought.
COMMITMENT_USD = 100.0
#: Of requests a minute that one instance takes, under which serverless inference is worth a look.
ALMOST_IDLE = 0.05


def advise(found: Forecast, workloads: Mapping[str, Workload] | None = None) -> list[str]:
    """Return what would be cheaper, each with the switch that does it."""
    said = []
    fleet = sum(
        line.usd or 0.0
        for line in found.lines
        if line.type == "AWS::SageMaker::EndpointConfig" and line.state == "serving"
    )
    if fleet >= COMMITMENT_USD:
        said.append(
            f"Instances of endpoints that always run cost {fleet:.0f} USD a month: a SageMaker Savings Plan "
            "(a commitment of one or three years, bought in the account) lowers their price; buy for the "
            "least that runs, after a month of real use"
        )
    for name, workload in ({} if workloads is None else workloads).items():
        if name in found.loads:
            said += _of_workload(name, workload, found)
    on_demand = {
        line.stack: line.usd for line in found.lines if line.price == "kinesis.on-demand.stream" and line.usd
    }
    said += [
        f"{stack}: its stream is on demand ({usd:.2f} USD a month at rest); stream.mode provisioned with one "
        "shard takes 1 MB and 1,000 records a second for less than half of it"
        for stack, usd in on_demand.items()
    ]
    endpoints = sum(line.usd or 0.0 for line in found.lines if line.price == "vpc.endpoint")
    if endpoints >= COMMITMENT_USD:
        said.append(
            f"Interface endpoints cost {endpoints:.0f} USD a month: environments of one organisation can "
            "share them through a VPC of its own"
        )
    flink = sum(line.usd or 0.0 for line in found.lines if line.service == "Managed Flink")
    if flink:
        said.append(
            f"Flink runs whoever sends ({flink:.0f} USD a month): windows.engine batch computes the same "
            "windows without it where a training and a caller that brings its windows are enough"
        )
    return said


def _of_workload(name: str, workload: Workload, found: Forecast) -> list[str]:
    said = []
    if not workload.training.spot and any(
        line.workload == name and line.type == "AWS::SageMaker::Pipeline" for line in found.lines
    ):
        said.append(
            f"{name}: training.spot with checkpoints takes spare capacity, up to 90 % cheaper (SageMaker)"
        )
    serving = workload.serving
    load = found.loads[name].predictions_per_day / 1440
    if serving.style == "real_time" and load < ALMOST_IDLE * serving.scaling.target_invocations_per_instance:
        usd = sum(
            line.usd or 0.0 for line in found.lines if line.workload == name and line.state == "serving"
        )
        if usd:
            said.append(
                f"{name}: {load:.1f} requests a minute on an instance that is sized for "
                f"{serving.scaling.target_invocations_per_instance} ({usd:.0f} USD a month): serving.style "
                "serverless, lambda or asynchronous with min_capacity 0 bill by the request; "
                "serving.recommend measures which instance is enough"
            )
    return said
