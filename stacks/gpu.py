"""The queue for jobs that want a GPU, where an environment has one."""

from __future__ import annotations

import aws_cdk as cdk
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.processing import GpuBatchQueue

from constructs import Construct
from environments import Environment, GpuQueue
from stacks.base import LifecycleStack
from stacks.foundation import FoundationStack


class GpuStack(LifecycleStack):
    """One queue for all workloads."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        gpu: GpuQueue,
        foundation: FoundationStack,
        lake: DataLake,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description=f"Queue for jobs on GPUs ({environment.name})",
        )
        self.queue = GpuBatchQueue(
            self,
            "Queue",
            image=gpu.image,
            vpc=foundation.vpc,
            subnets=foundation.subnets,
            security_group=foundation.job_security_group,
            log_key=foundation.keys.logs,
            instance_types=gpu.instance_types,
            max_vcpu=gpu.max_vcpu,
            spot=gpu.spot,
            log_retention_days=environment.retention.log_days,
        )
        self.queue.grant_zone(lake.raw, gpu.prefix)
        self.queue.grant_zone(lake.curated, gpu.prefix, write=True)
        cdk.CfnOutput(self, "GpuQueueArn", value=self.queue.queue_arn)
        cdk.CfnOutput(self, "GpuJobDefinitionArn", value=self.queue.job_definition_arn)
