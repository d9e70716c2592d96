"""The pipeline that delivers every environment, in the tooling account."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from ml_lifecycle.delivery import Delivered, DeliveryPipeline

from constructs import Construct
from environments import Environment
from environments.delivery import Delivery


class DeliveryStack(cdk.Stack):
    """The self-mutating pipeline. Created last: CDK Pipelines synthesises each stage when it is added."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        delivery: Delivery,
        stages: Sequence[tuple[Environment, cdk.Stage]],
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            description="Delivers every environment of the lifecycle",
            env=cdk.Environment(account=delivery.account, region=delivery.region),
        )
        self.pipeline = DeliveryPipeline(
            self,
            "Pipeline",
            source=delivery.source,
            environments=[
                Delivered(stage=stage, approval=environment.production) for environment, stage in stages
            ],
            rehearsal=[f"make rehearse RECORDS={delivery.rehearsal_records}"],
        )
        cdk.CfnOutput(self, "PipelineName", value=self.pipeline.pipeline.pipeline_name)
