"""The pipeline that delivers every environment, in the tooling account."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from ml_lifecycle.delivery import Delivered, DeliveryPipeline, Wave, access_role_name

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
        by_name = {
            environment.name: self._delivered(delivery, environment, stage) for environment, stage in stages
        }
        waves = delivery.order(list(by_name))
        self.pipeline = DeliveryPipeline(
            self,
            "Pipeline",
            source=delivery.source,
            environments=[
                Wave(name=name, environments=[by_name[each] for each in named])
                for name, named in waves.items()
            ],
            delivery=delivery.name,
            checks=delivery.checks,
            # What no synthesis sees: events, permissions, names and parameters held against each other.
            synth=("make synth", "make verify"),
            rehearsal=[f"make rehearse RECORDS={delivery.rehearsal_records}"],
            rollback=delivery.rollback,
            deploys_by=delivery.deploys_by,
            email=delivery.email,
        )
        cdk.CfnOutput(self, "PipelineName", value=self.pipeline.pipeline.pipeline_name)

    def _delivered(self, delivery: Delivery, environment: Environment, stage: cdk.Stage) -> Delivered:
        account = self.account if environment.account is None else environment.account
        name = access_role_name(delivery.name, environment.name)
        return Delivered(
            stage=stage,
            approval=environment.production,
            checks_role_arn=f"arn:{self.partition}:iam::{account}:role/{name}",
            name=environment.name,
        )
