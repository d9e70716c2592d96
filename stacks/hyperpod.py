"""The HyperPod cluster, where an environment has one."""

from __future__ import annotations

import aws_cdk as cdk
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.training import HyperPodCluster

from constructs import Construct
from environments import Environment, HyperPod
from stacks.base import LifecycleStack
from stacks.foundation import FoundationStack


class HyperPodStack(LifecycleStack):
    """One cluster for all who train for weeks."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        hyperpod: HyperPod,
        foundation: FoundationStack,
        lake: DataLake,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            description=f"HyperPod cluster ({environment.name})",
        )
        self.hyperpod = HyperPodCluster(
            self,
            "HyperPod",
            instance_type=hyperpod.instance_type,
            instance_count=hyperpod.instance_count,
            controller_instance_type=hyperpod.controller_instance_type,
            volume_gb=hyperpod.volume_gb,
            lifecycle_uri=hyperpod.lifecycle_uri,
            artifacts=lake.artifacts,
            prefix=hyperpod.prefix,
            key=foundation.keys.data_key,
            vpc=foundation.vpc,
            subnets=foundation.subnets,
            security_group=foundation.job_security_group,
        )
        cdk.CfnOutput(self, "HyperPodClusterArn", value=self.hyperpod.cluster.attr_cluster_arn)
