"""A queue for jobs that want a GPU: AWS Batch on EC2."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import aws_cdk as cdk
from aws_cdk import aws_batch as batch
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms

from constructs import Construct
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.foundation import log_group
from ml_lifecycle.pseudo import ACCOUNT, PARTITION, REGION, service_principal

__all__ = ["GpuBatchQueue"]

#: NVIDIA instances that the ECS-optimised GPU image drives (AWS Batch User Guide, "Use a GPU workload AMI").
_GPU = re.compile(r"(g4dn|g5|g6|g6e|p3|p3dn|p4d|p4de|p5|p5e|p5en)(\..+)?")
#: What the ECS agent of an instance calls; without them an instance in isolated subnets never joins.
_ENDPOINTS = {"Ecs": "ecs", "EcsAgent": "ecs-agent", "EcsTelemetry": "ecs-telemetry"}


class GpuBatchQueue(Construct):
    """Define a managed compute environment of GPU instances, a queue on it and a job definition.

    For work that no SageMaker job fits: preprocessing of images, videos, embeddings in bulk. Instances come
    when jobs wait and go when none does (``minvCpus`` 0); a job whose instance is taken away (Spot, hardware)
    starts again, up to three times in all, one that fails by itself does not.

    ``image`` is what jobs run, an image URI of ECR in this account and Region. The default is one GPU, four
    vCPU, 15,000 MiB, at most 12 hours, on demand, on g5 and g4dn instances. They stand in ``subnets`` without
    a way to the internet: the endpoints that ECS needs there are made, unless ``endpoints`` is False because
    the VPC has them. Launch template: IMDSv2 only, one hop (a job gets no credentials of the instance), an
    encrypted gp3 volume. Jobs act as ``job_role``: grant it zones with ``grant_zone``.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        image: str,
        vpc: ec2.IVpc,
        subnets: Sequence[ec2.ISubnet],
        security_group: ec2.ISecurityGroup,
        log_key: kms.IKey,
        instance_types: Sequence[str] = ("g5", "g4dn"),
        max_vcpu: int = 32,
        spot: bool = False,
        gpus: int = 1,
        vcpu: int = 4,
        memory_mib: int = 15_000,
        volume_gb: int = 200,
        timeout: cdk.Duration | None = None,
        endpoints: bool = True,
        log_retention_days: int = 90,
    ) -> None:
        super().__init__(scope, construct_id)
        seconds = 43_200 if timeout is None else int(timeout.to_seconds())
        problems = [
            f"instance_types must have NVIDIA GPUs (g4dn, g5, g6, p4d, ...), got {name!r}"
            for name in instance_types
            if not _GPU.fullmatch(name)
        ]
        if not instance_types:
            problems.append("instance_types must name at least one")
        if not re.fullmatch(r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/.+", image) and not (
            cdk.Token.is_unresolved(image)
        ):
            problems.append(f"image must be an image URI of ECR, got {image!r}")
        if not 1 <= gpus <= 16:
            problems.append(f"gpus must be between 1 and 16, got {gpus}")
        if vcpu > max_vcpu:
            problems.append(f"vcpu of a job must fit into max_vcpu {max_vcpu}, got {vcpu}")
        # AWS Batch User Guide, "Job timeouts": at least 60 seconds.
        if seconds < 60:
            problems.append(f"timeout must be at least 60 seconds, got {seconds}")
        if problems:
            raise ValueError("GPU queue: " + "; ".join(problems))
        self._image = image
        self._subnets = list(subnets)
        self._security_group = security_group
        if endpoints:
            self._endpoints(vpc)
        self.log_group = log_group(self, "Logs", key=log_key, retention_days=log_retention_days)
        self.instance_role = self._instance_role()
        self.job_role = iam.Role(
            self,
            "JobRole",
            description="What GPU jobs act as; zones are granted to it",
            assumed_by=service_principal("ecs-tasks", own_account=True),
        )
        self.execution_role = self._execution_role()
        self.environment = self._environment(
            instance_types, max_vcpu, "SPOT" if spot else "EC2", self._launch_template(volume_gb)
        )
        self.queue = batch.CfnJobQueue(
            self,
            "Queue",
            priority=1,
            compute_environment_order=[
                batch.CfnJobQueue.ComputeEnvironmentOrderProperty(
                    compute_environment=self.environment.ref, order=1
                )
            ],
        )
        self.job_definition = self._job_definition(gpus, vcpu, memory_mib, seconds)

    @property
    def queue_arn(self) -> str:
        """ARN of the queue."""
        return self.queue.ref

    @property
    def job_definition_arn(self) -> str:
        """ARN of the job definition, its revision included."""
        return self.job_definition.ref

    def grant_submit(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant submitting jobs of this definition to this queue, and ending and looking at jobs."""
        grant = iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["batch:SubmitJob"],
            resource_arns=[self.queue_arn, self.job_definition_arn],
        )
        # Service authorization reference of AWS Batch: these two know no resources.
        iam.Grant.add_to_principal(
            grantee=grantee, actions=["batch:DescribeJobs", "batch:ListJobs"], resource_arns=["*"]
        )
        principal = grantee.grant_principal
        if isinstance(principal, Construct):
            acknowledge(
                principal,
                "IAM5[Resource::*]",
                "Looking at jobs knows no resources; nothing can be changed by it",
            )
        return grant

    def grant_zone(self, zone: Zone, prefix: str, *, write: bool = False) -> iam.Grant:
        """Let jobs read below ``prefix`` of a zone and, with ``write``, write there."""
        grant = zone.grant_read(self.job_role, prefix)
        return grant.combine(zone.grant_write(self.job_role, prefix)) if write else grant

    def metric(
        self,
        metric_name: Literal["RunnableJobs", "RunningJobs"] = "RunnableJobs",
        *,
        period: cdk.Duration | None = None,
    ) -> cloudwatch.Metric:
        """Return a metric of the queue, e.g. how many jobs wait."""
        return cloudwatch.Metric(
            namespace="AWS/Batch",
            metric_name=metric_name,
            dimensions_map={"JobQueue": self.queue.attr_job_queue_arn},
            statistic="Maximum",
            period=cdk.Duration.minutes(5) if period is None else period,
        )

    # --- what it is made of ---------------------------------------------------------------------------------

    def _endpoints(self, vpc: ec2.IVpc) -> None:
        for construct_id, name in _ENDPOINTS.items():
            ec2.InterfaceVpcEndpoint(
                self,
                construct_id,
                vpc=vpc,
                service=ec2.InterfaceVpcEndpointAwsService(name),
                subnets=ec2.SubnetSelection(subnets=self._subnets),
                security_groups=[self._security_group],
                open=False,
                private_dns_enabled=True,
            )

    def _instance_role(self) -> iam.Role:
        """What an instance of ECS does: ``AmazonEC2ContainerServiceforEC2Role`` less what is unused."""
        role = iam.Role(
            self,
            "InstanceRole",
            description="Joins the cluster, pulls the image, writes logs",
            assumed_by=service_principal("ec2"),
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["ecr:GetAuthorizationToken", "ecs:DiscoverPollEndpoint"],
            resource_arns=["*"],
        )
        # Batch makes the cluster and names it.
        cluster = f"arn:{PARTITION}:ecs:{REGION}:{ACCOUNT}:cluster/*"
        instances = f"arn:{PARTITION}:ecs:{REGION}:{ACCOUNT}:container-instance/*"
        iam.Grant.add_to_principal(
            grantee=role,
            actions=[
                "ecs:DeregisterContainerInstance",
                "ecs:RegisterContainerInstance",
                "ecs:SubmitAttachmentStateChanges",
                "ecs:SubmitContainerStateChange",
                "ecs:SubmitTaskStateChange",
            ],
            resource_arns=[cluster],
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["ecs:Poll", "ecs:StartTelemetrySession", "ecs:UpdateContainerInstancesState"],
            resource_arns=[instances],
        )
        for finding in ("*", cluster, instances):
            text = finding.replace(PARTITION, "<AWS::Partition>").replace(REGION, "<AWS::Region>")
            acknowledge(
                role,
                f"IAM5[Resource::{text.replace(ACCOUNT, '<AWS::AccountId>')}]",
                "AWS Batch makes and names the ECS cluster; the role can only join as an instance and report",
            )
        return role

    def _execution_role(self) -> iam.Role:
        role = iam.Role(
            self,
            "ExecutionRole",
            description="Pulls the image of GPU jobs and writes their logs",
            assumed_by=service_principal("ecs-tasks", own_account=True),
        )
        iam.Grant.add_to_principal(grantee=role, actions=["ecr:GetAuthorizationToken"], resource_arns=["*"])
        acknowledge(
            role,
            "IAM5[Resource::*]",
            "A token is for the account's registry; the pull is granted per repository",
        )
        repository = (
            self._image.partition("/")[2].partition("@")[0].rpartition(":")[0]
            or (self._image.partition("/")[2].partition("@")[0])
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
            resource_arns=[f"arn:{PARTITION}:ecr:{REGION}:{ACCOUNT}:repository/{repository}"],
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["logs:CreateLogStream", "logs:PutLogEvents"],
            resource_arns=[self.log_group.log_group_arn],
        )
        return role

    def _launch_template(self, volume_gb: int) -> ec2.CfnLaunchTemplate:
        props = ec2.CfnLaunchTemplate
        return ec2.CfnLaunchTemplate(
            self,
            "LaunchTemplate",
            launch_template_data=props.LaunchTemplateDataProperty(
                metadata_options=props.MetadataOptionsProperty(
                    http_tokens="required", http_endpoint="enabled", http_put_response_hop_limit=1
                ),
                block_device_mappings=[
                    props.BlockDeviceMappingProperty(
                        device_name="/dev/xvda",
                        # With the account's own EBS key: a customer-managed one would have to let the
                        # service-linked role of Auto Scaling in, which may not exist yet.
                        ebs=props.EbsProperty(
                            encrypted=True,
                            volume_size=volume_gb,
                            volume_type="gp3",
                            delete_on_termination=True,
                        ),
                    )
                ],
            ),
        )

    def _environment(
        self, instance_types: Sequence[str], max_vcpu: int, kind: str, template: ec2.CfnLaunchTemplate
    ) -> batch.CfnComputeEnvironment:
        props = batch.CfnComputeEnvironment
        profile = iam.CfnInstanceProfile(self, "InstanceProfile", roles=[self.instance_role.role_name])
        return batch.CfnComputeEnvironment(
            self,
            "Environment",
            type="MANAGED",
            state="ENABLED",
            # Updated in place: a replaced environment could not leave the queue that uses it.
            replace_compute_environment=False,
            compute_resources=props.ComputeResourcesProperty(
                type=kind,
                allocation_strategy="SPOT_PRICE_CAPACITY_OPTIMIZED"
                if kind == "SPOT"
                else "BEST_FIT_PROGRESSIVE",
                minv_cpus=0,
                maxv_cpus=max_vcpu,
                instance_types=list(instance_types),
                instance_role=profile.attr_arn,
                subnets=[subnet.subnet_id for subnet in self._subnets],
                security_group_ids=[self._security_group.security_group_id],
                launch_template=props.LaunchTemplateSpecificationProperty(
                    launch_template_id=template.ref, version=template.attr_latest_version_number
                ),
                ec2_configuration=[props.Ec2ConfigurationObjectProperty(image_type="ECS_AL2023_NVIDIA")],
                update_to_latest_image_version=True,
            ),
        )

    def _job_definition(self, gpus: int, vcpu: int, memory_mib: int, seconds: int) -> batch.CfnJobDefinition:
        props = batch.CfnJobDefinition
        needs = {"GPU": gpus, "VCPU": vcpu, "MEMORY": memory_mib}
        return batch.CfnJobDefinition(
            self,
            "JobDefinition",
            type="container",
            platform_capabilities=["EC2"],
            propagate_tags=True,
            timeout=props.TimeoutProperty(attempt_duration_seconds=seconds),
            retry_strategy=props.RetryStrategyProperty(
                attempts=3,
                # AWS Batch User Guide, "Automated job retries": an instance that went away says so.
                evaluate_on_exit=[
                    props.EvaluateOnExitProperty(action="RETRY", on_status_reason="Host EC2*"),
                    props.EvaluateOnExitProperty(action="EXIT", on_reason="*"),
                ],
            ),
            container_properties=props.ContainerPropertiesProperty(
                image=self._image,
                job_role_arn=self.job_role.role_arn,
                execution_role_arn=self.execution_role.role_arn,
                readonly_root_filesystem=True,
                privileged=False,
                volumes=[props.VolumesProperty(name="scratch")],
                mount_points=[
                    props.MountPointsProperty(source_volume="scratch", container_path="/tmp", read_only=False)  # noqa: S108
                ],
                resource_requirements=[
                    props.ResourceRequirementProperty(type=kind, value=str(value))
                    for kind, value in needs.items()
                ],
                log_configuration=props.LogConfigurationProperty(
                    log_driver="awslogs",
                    options={"awslogs-group": self.log_group.log_group_name, "awslogs-region": REGION},
                ),
            ),
        )
