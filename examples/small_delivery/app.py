"""A small app that delivers itself: two environments of a queue and a function, and their pipeline.

The rehearsal runs its pipeline (``python -m rehearsal operations --only deliver``), with the commands of the
project's own: what is small is what it deploys. ``commit.json`` is what its commits change.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Beside the project's folders when a build runs it; below examples/ otherwise.
PROJECT = HERE if (HERE / "Makefile").exists() else HERE.parent.parent
sys.path[:0] = [str(PROJECT)]

import aws_cdk as cdk  # noqa: E402
from aws_cdk import aws_lambda as lambda_  # noqa: E402
from aws_cdk import aws_s3 as s3  # noqa: E402
from aws_cdk import aws_sqs as sqs  # noqa: E402
from ml_lifecycle.delivery import (  # noqa: E402
    Delivered,
    DeliveryAccess,
    DeliveryPipeline,
    S3Source,
    access_role_name,
)

COMMIT = {
    "source": "small-delivery-source",
    "waits_seconds": 30,
    "data": True,
    "rollback": True,
    "deploys_by": "actions",
    **(json.loads((HERE / "commit.json").read_text()) if (HERE / "commit.json").exists() else {}),
}
NAME = "small"


class Environment(cdk.Stage):
    """One environment: something that changes in place, something that runs, something that holds data."""

    def __init__(self, scope: cdk.App, construct_id: str) -> None:
        super().__init__(scope, construct_id)
        name = construct_id.lower()
        stack = cdk.Stack(self, "Things")
        sqs.Queue(stack, "Queue", visibility_timeout=cdk.Duration.seconds(COMMIT["waits_seconds"]))
        lambda_.Function(
            stack,
            "Function",
            runtime=lambda_.Runtime.PYTHON_3_12,
            handler="index.handler",
            code=lambda_.Code.from_asset(str(HERE / "function")),
        )
        if COMMIT["data"]:
            s3.Bucket(stack, "Data", removal_policy=cdk.RemovalPolicy.DESTROY)
        DeliveryAccess(stack, "Access", delivery=NAME, environment=name, stage=construct_id)
        # What a serving stack tells: no model is approved here, so there is no such endpoint.
        cdk.CfnOutput(stack, "Workload", value="nobody")
        cdk.CfnOutput(stack, "EndpointName", value=f"{name}-nobody")


def build(app: cdk.App) -> cdk.App:
    """Add both environments and the pipeline that delivers them."""
    stack = cdk.Stack(app, "Delivery")
    DeliveryPipeline(
        stack,
        "Pipeline",
        source=S3Source(bucket_name=COMMIT["source"]),
        environments=[
            Delivered(
                stage=Environment(app, name),
                approval=name == "Prod",
                checks_role_arn=f"arn:{stack.partition}:iam::{stack.account}:role/"
                f"{access_role_name(NAME, name.lower())}",
            )
            for name in ("Dev", "Prod")
        ],
        delivery=NAME,
        smoke=("make smoke", "sh smoke.sh"),
        rollback=COMMIT["rollback"],
        deploys_by=COMMIT["deploys_by"],
    )
    return app


if __name__ == "__main__":
    # The feature flags are the project's.
    context = json.loads((PROJECT / "cdk.json").read_text())["context"]
    build(cdk.App(context=context)).synth()
