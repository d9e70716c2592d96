"""A cluster that stays, for trainings of weeks."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker

from constructs import Construct
from ml_lifecycle import instance_types
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.pseudo import PARTITION, arn
from ml_lifecycle.training import service_model
from ml_lifecycle.training.job_role import JobNetwork, grant_key, job_role
from ml_lifecycle.training.wildcards import acknowledge_wildcards
from ml_lifecycle.training.workers import WorkersSecurityGroup

__all__ = ["HyperPodCluster"]

_LOG_GROUPS = "/aws/sagemaker/Clusters/*"


class HyperPodCluster(Construct):
    """Define a HyperPod cluster that Slurm schedules: one controller, and workers that are replaced when they
    fail.

    Defaults: ``ml.c5.xlarge`` as controller, deep health checks of accelerated workers before they join,
    automatic recovery of nodes, an encrypted volume of ``volume_gb`` per worker, and no scripts of its own:
    SageMaker sets Slurm up. ``lifecycle_uri`` names a folder in S3 whose ``on_create.sh`` every node runs
    besides. People enter by Session Manager only; there is no key and no open port. Nodes read and write
    ``prefix`` of ``artifacts``.

    Raises:
        ValueError: an instance type that HyperPod does not offer, or a number of workers below one.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        instance_type: str,
        instance_count: int,
        artifacts: Zone,
        prefix: str,
        key: kms.IKey,
        vpc: ec2.IVpc,
        subnets: Sequence[ec2.ISubnet],
        security_group: ec2.ISecurityGroup,
        controller_instance_type: str = "ml.c5.xlarge",
        volume_gb: int = 500,
        lifecycle_uri: str | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        _check(instance_type, controller_instance_type, instance_count, volume_gb)
        workers = WorkersSecurityGroup(self, "Workers", vpc=vpc)
        network = JobNetwork(subnets=(subnets[0],), security_groups=(security_group, workers.group))
        self.role = self._role(network, key)
        artifacts.grant_read(self.role, prefix)
        artifacts.grant_write(self.role, prefix)
        if lifecycle_uri is not None:
            self._grant_lifecycle(lifecycle_uri)
        accelerated = instance_types.accelerator(instance_type) is not None
        group = sagemaker.CfnCluster.ClusterInstanceGroupProperty
        storage = sagemaker.CfnCluster.ClusterInstanceStorageConfigProperty(
            ebs_volume_config=sagemaker.CfnCluster.ClusterEbsVolumeConfigProperty(
                volume_size_in_gb=volume_gb, volume_kms_key_id=key.key_arn
            )
        )
        scripts = (
            None
            if lifecycle_uri is None
            else sagemaker.CfnCluster.ClusterLifeCycleConfigProperty(
                source_s3_uri=lifecycle_uri, on_create="on_create.sh"
            )
        )
        self.cluster = sagemaker.CfnCluster(
            self,
            "Cluster",
            node_recovery="Automatic",
            vpc_config=sagemaker.CfnCluster.VpcConfigProperty(
                security_group_ids=network.security_group_ids, subnets=network.subnet_ids
            ),
            orchestrator=sagemaker.CfnCluster.OrchestratorProperty(
                slurm=sagemaker.CfnCluster.ClusterOrchestratorSlurmConfigProperty(
                    slurm_config_strategy="Managed"
                )
            ),
            instance_groups=[
                group(
                    instance_group_name="controller",
                    instance_type=controller_instance_type,
                    instance_count=1,
                    execution_role=self.role.role_arn,
                    life_cycle_config=scripts,
                    slurm_config=sagemaker.CfnCluster.ClusterSlurmConfigProperty(node_type="Controller"),
                ),
                group(
                    instance_group_name="workers",
                    instance_type=instance_type,
                    instance_count=instance_count,
                    execution_role=self.role.role_arn,
                    life_cycle_config=scripts,
                    instance_storage_configs=[storage],
                    on_start_deep_health_checks=["InstanceStress", "InstanceConnectivity"]
                    if accelerated
                    else None,
                    slurm_config=sagemaker.CfnCluster.ClusterSlurmConfigProperty(
                        node_type="Compute", partition_names=["training"]
                    ),
                ),
            ],
        )
        # Nodes act as the role as soon as they start.
        self.cluster.node.add_dependency(self.role)

    def _role(self, network: JobNetwork, key: kms.IKey) -> iam.Role:
        role = job_role(
            self,
            "Role",
            log_groups=[_LOG_GROUPS],
            network=network,
            metric_namespaces=["/aws/sagemaker/Clusters"],
            description="Nodes of a HyperPod cluster",
        )
        acknowledge_wildcards(
            role,
            "SageMaker names a log group after each cluster's id.",
            resources=[arn("logs", f"log-group:{_LOG_GROUPS}")],
        )
        grant_key(key, role)
        # What AmazonSageMakerClusterInstanceRolePolicy gives for Session Manager.
        iam.Grant.add_to_principal(
            grantee=role,
            actions=[
                "ssmmessages:CreateControlChannel",
                "ssmmessages:CreateDataChannel",
                "ssmmessages:OpenControlChannel",
                "ssmmessages:OpenDataChannel",
            ],
            resource_arns=["*"],
        )
        acknowledge_wildcards(role, "Session Manager's channels have no resource type.", resources=["*"])
        return role

    def _grant_lifecycle(self, uri: str) -> None:
        bucket, _, folder = uri.removeprefix("s3://").partition("/")
        objects = f"arn:{PARTITION}:s3:::{bucket}/{folder.rstrip('/')}/*"
        iam.Grant.add_to_principal(grantee=self.role, actions=["s3:GetObject"], resource_arns=[objects])
        iam.Grant.add_to_principal(
            grantee=self.role,
            actions=["s3:ListBucket"],
            resource_arns=[f"arn:{PARTITION}:s3:::{bucket}"],
            conditions={"StringLike": {"s3:prefix": [f"{folder.rstrip('/')}/*"]}},
        )
        acknowledge_wildcards(
            self.role, "Which scripts there are is the folder's business.", resources=[objects]
        )


def _check(worker: str, controller: str, count: int, volume_gb: int) -> None:
    offered = service_model.enum("ClusterInstanceType")
    problems = [
        f"{name} must be one that HyperPod offers, got {value!r}; of its family there are "
        f"{', '.join(kin) or 'none'}"
        for name, value in (("instance_type", worker), ("controller_instance_type", controller))
        if value not in offered
        for kin in [[t for t in offered if t.rsplit(".", 1)[0] == value.rsplit(".", 1)[0]]]
    ]
    if not 1 <= count <= 6_758:
        problems.append(f"instance_count must be between 1 and 6758, got {count}")
    # CreateCluster, ClusterEbsVolumeConfig.
    if not 1 <= volume_gb <= 16_384:
        problems.append(f"volume_gb must be between 1 and 16384, got {volume_gb}")
    if problems:
        raise ValueError("HyperPod: " + "; ".join(problems))
