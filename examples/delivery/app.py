"""An app of a platform team: one delivery pipeline over three accounts and two Regions.

The pipeline lies in an account of its own; two environments share an account, production has its own in two
Regions, each a wave behind an approval.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
# An app that has installed ml-lifecycle needs neither.
sys.path[:0] = [str(PROJECT), str(HERE)]

import aws_cdk as cdk  # noqa: E402
from environments_of_example import DELIVERY, ENVIRONMENTS, ZONES  # noqa: E402
from ml_contract.load import ContractError, LoadedWorkload, discover_workloads  # noqa: E402

from stacks.delivery import DeliveryStack  # noqa: E402
from stacks.stage import LifecycleStage  # noqa: E402


def build(app: cdk.App, workloads: tuple[LoadedWorkload, ...]) -> cdk.App:
    """Add every environment and the pipeline that delivers them."""
    stages = [
        (each, LifecycleStage(app, each.id, environment=each, workloads=workloads, delivery=DELIVERY))
        for each in ENVIRONMENTS
    ]
    DeliveryStack(app, "Delivery", delivery=DELIVERY, stages=stages)
    return app


if __name__ == "__main__":
    try:
        # The feature flags are the project's.
        context = json.loads((PROJECT / "cdk.json").read_text())["context"]
        build(cdk.App(context={**context, **ZONES}), tuple(discover_workloads(PROJECT / "workloads"))).synth()
    except (ContractError, ValueError) as error:
        sys.exit(f"error: {error}")
