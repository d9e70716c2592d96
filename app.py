"""The CDK app: every environment with every workload, and the pipeline that delivers them."""

from __future__ import annotations

import sys
from pathlib import Path

import aws_cdk as cdk
from ml_contract.load import ContractError, discover_workloads
from ml_lifecycle.packs import hold_to_packs

from environments import chosen
from environments.delivery import DELIVERY
from stacks.delivery import DeliveryStack
from stacks.stage import LifecycleStage

WORKLOADS = Path(__file__).parent / "workloads"


def build(app: cdk.App, workloads_folder: Path = WORKLOADS) -> cdk.App:
    """Add the whole lifecycle to ``app``; the context key ``environment`` picks one environment."""
    hold_to_packs(app)
    workloads = discover_workloads(workloads_folder)
    picked = app.node.try_get_context("environment")
    stages = [
        (each, LifecycleStage(app, each.id, environment=each, workloads=workloads, delivery=DELIVERY))
        for each in chosen(picked)
    ]
    if picked is None:
        DeliveryStack(app, "Delivery", delivery=DELIVERY, stages=stages)
    return app


if __name__ == "__main__":
    try:
        build(cdk.App()).synth()
    except (ContractError, ValueError) as error:
        sys.exit(f"error: {error}")
