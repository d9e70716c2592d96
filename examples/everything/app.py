"""An app of a platform team: the lifecycle with every option switched on.

What it deploys costs a lot and is of little use together. It shows where each switch is, and the rehearsal
deploys it (``make rehearse-everything``) to prove the templates of what only an account can run.
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
from environment import EVERYTHING  # noqa: E402
from ml_contract.load import ContractError, discover_workloads  # noqa: E402
from ml_lifecycle.packs import hold_to_packs  # noqa: E402

from stacks.stage import LifecycleStage  # noqa: E402


def build(app: cdk.App) -> cdk.App:
    """Add the stage with everything in it."""
    hold_to_packs(app)
    LifecycleStage(
        app,
        EVERYTHING.id,
        environment=EVERYTHING,
        workloads=discover_workloads(HERE / "workloads"),
    )
    return app


if __name__ == "__main__":
    try:
        # The feature flags are the project's.
        context = json.loads((PROJECT / "cdk.json").read_text())["context"]
        build(cdk.App(context=context)).synth()
    except (ContractError, ValueError) as error:
        sys.exit(f"error: {error}")
