"""An app of a platform team: the lifecycle with all of operations switched on.

The rehearsal deploys it (``make rehearse-operations``) with one workload, which lies beside a link to this
file; by itself it takes the project's workloads.
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
from environment import OPERATIONS  # noqa: E402
from ml_contract.load import ContractError, discover_workloads  # noqa: E402

from stacks.stage import LifecycleStage  # noqa: E402


def build(app: cdk.App, workloads: Path) -> cdk.App:
    """Add the stage with operations switched on."""
    LifecycleStage(app, OPERATIONS.id, environment=OPERATIONS, workloads=discover_workloads(workloads))
    return app


if __name__ == "__main__":
    # Where this file is linked to, not where it lies.
    beside = Path(__file__).absolute().parent / "workloads"
    try:
        # The feature flags are the project's.
        context = json.loads((PROJECT / "cdk.json").read_text())["context"]
        build(cdk.App(context=context), beside if beside.exists() else PROJECT / "workloads").synth()
    except (ContractError, ValueError) as error:
        sys.exit(f"error: {error}")
