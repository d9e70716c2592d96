"""The serving image as a service on Fargate."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from ml_contract.load import LoadedWorkload

from constructs import Construct
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.foundation import log_group
from ml_lifecycle.pseudo import REGION, service_principal
from ml_lifecycle.serving.approved import approved_model
from ml_lifecycle.serving.base import check_serving
from ml_lifecycle.serving.metrics import Watch, rollout_alarms
from ml_lifecycle.serving.scaling import Fleet, scale
from ml_lifecycle.serving.shelf import ModelShelf
from ml_lifecycle.training.job_role import grant_pull

__all__ = ["EcsService"]

#: Where the serving image listens.
_PORT = 8080
_CONTAINER = "serving"
#: A task that is to go has this long for what it is answering (ECS, ``stopTimeout``; at most 120 on Fargate).
_STOP_SECONDS = 60


class EcsService(Construct):
    """Define a Fargate service of the serving image, which answers with the approved model.

    It stands behind an internal load balancer, reachable by members of ``callers`` only (and who is let in
    by ``allow_from``), on ``service_url`` + ``/invocations``: HTTP inside the VPC, HTTPS with a
    ``certificate_arn``. Tasks have a read-only root file system and no public address; they fetch their model
    from S3 when they start and are healthy when ``/ping`` says so. A new model comes in new tasks beside the
    old ones, each of which goes when a new one is healthy; ECS goes back when none becomes healthy (circuit
    breaker) or an alarm fires. Their number follows requests a task and minute between the workload's two
    capacities.

    Example::

        EcsService(
            self, "Endpoint",
            workload=workload, service_name="dev-claims-fraud",
            approval_parameter_name=registry.approval_parameter_name,
            model_package_group_name=registry.group_name,
            artifacts=lake.artifacts, log_key=keys.logs, image=image,
            vpc=network.vpc, subnets=network.vpc.isolated_subnets, callers=network.job_security_group,
        )

    Args:
        scope: where it belongs.
        construct_id: its id there.
        workload: whose model; ``serving.style`` must be ecs.
        service_name: name of cluster and service; forced, since scaling names both.
        approval_parameter_name: SSM parameter that names the approved model package.
        model_package_group_name: group that the package belongs to.
        artifacts: zone of the models.
        log_key: key that CloudWatch Logs may use.
        image: the serving image.
        vpc: where it stands.
        subnets: two zones at least (Elastic Load Balancing, "Application Load Balancers").
        callers: group whose members may ask; tasks are members too, for the way to AWS's endpoints.
        certificate_arn: certificate of the listener; without it requests are not encrypted inside the VPC.
        log_retention_days: how long logs are kept.
        alarm_minutes: how many bad minutes in a row turn a rollout back.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: LoadedWorkload,
        service_name: str,
        approval_parameter_name: str,
        model_package_group_name: str,
        artifacts: Zone,
        log_key: kms.IKey,
        image: ecr_assets.DockerImageAsset,
        vpc: ec2.IVpc,
        subnets: list[ec2.ISubnet],
        callers: ec2.ISecurityGroup,
        certificate_arn: str | None = None,
        log_retention_days: int = 90,
        alarm_minutes: int = 1,
    ) -> None:
        super().__init__(scope, construct_id)
        check_serving(workload, alarm_minutes, "ecs")
        spec = workload.workload
        if len(subnets) < 2:
            raise ValueError(f"subnets must be two at least, in two zones, got {len(subnets)}")
        self.capture_uri: str | None = None
        self._name = service_name
        self._secure = certificate_arn is not None
        self.approved = approved_model(self, approval_parameter_name)
        self.condition = self.approved.condition
        self.shelf = ModelShelf(
            self,
            "Shelf",
            slug=spec.slug,
            model_package_group_name=model_package_group_name,
            approved=self.approved,
            artifacts=artifacts,
            log_key=log_key,
            log_retention_days=log_retention_days,
        )
        subnet_ids = [subnet.subnet_id for subnet in subnets]
        self.security_group, tasks_group = self._groups(vpc, callers)
        self.balancer, self.target_group, listener = self._balancer(vpc, subnet_ids, certificate_arn)
        self.error_alarm, self.latency_alarm = rollout_alarms(
            self,
            who=service_name,
            error_rate=self.metric_error_rate(),
            latency=self.metric_latency(),
            latency_per_ms=0.001,
            rollout=spec.serving.rollout,
            minutes=alarm_minutes,
        )
        self.cluster = ecs.CfnCluster(
            self,
            "Cluster",
            cluster_name=service_name,
            cluster_settings=[
                ecs.CfnCluster.ClusterSettingsProperty(name="containerInsights", value="enabled")
            ],
        )
        self.log_group = log_group(self, "Logs", key=log_key, retention_days=log_retention_days)
        self.task = self._task(workload, image)
        self.service = self._service(subnet_ids, [tasks_group.security_group_id, callers.security_group_id])
        self.service.add_resource_dependency(listener)
        self.scaling_target, scaled = scale(
            self,
            fleet=Fleet(
                namespace="ecs",
                dimension="ecs:service:DesiredCount",
                resource_id=f"service/{service_name}/{service_name}",
                load=self._metric("RequestCountPerTarget", None, "Sum", per_target=True),
                predefined="ALBRequestCountPerTarget",
                label=f"{self.balancer.attr_load_balancer_full_name}/{self.target_group.attr_target_group_full_name}",
            ),
            scaling=spec.serving.scaling,
            after=[self.service],
        )
        # The balancer stands before there is a model, so that callers know where it will be; it answers 503.
        for resource in (self.task, self.service, *scaled):
            resource.cfn_options.condition = self.condition

    @property
    def service_url(self) -> str:
        """Where requests go, without ``/invocations``."""
        return f"{'https' if self._secure else 'http'}://{self.balancer.attr_dns_name}"

    @property
    def outputs(self) -> dict[str, str]:
        """What a caller needs to know, by the name of the stack's output."""
        return {"ServiceUrl": self.service_url}

    @property
    def alarms(self) -> list[cloudwatch.IAlarm]:
        """Alarms that somebody should hear of."""
        return [self.error_alarm, self.latency_alarm]

    @property
    def watch(self) -> Watch:
        """What a dashboard shows."""
        return Watch(
            requests=self.metric_invocations(),
            errors=self.metric_error_rate(),
            latency=[self.metric_latency(statistic="p50"), self.metric_latency()],
            unit="seconds",
        )

    def allow_from(self, peer: ec2.IPeer, description: str) -> None:
        """Let ``peer`` ask the service."""
        self.security_group.add_ingress_rule(peer, ec2.Port.tcp(self._port), description)

    def metric_invocations(
        self, *, period: cdk.Duration | None = None, statistic: str = "Sum"
    ) -> cloudwatch.Metric:
        """Count of requests; one minute unless ``period`` says otherwise."""
        return self._metric("RequestCount", period, statistic)

    def metric_error_rate(self, *, period: cdk.Duration | None = None) -> cloudwatch.MathExpression:
        """Share (0 to 1) of requests that the tasks answered with 5xx."""
        return cloudwatch.MathExpression(
            expression="IF(requests > 0, FILL(errors, 0) / requests, 0)",
            using_metrics={
                "errors": self._metric("HTTPCode_Target_5XX_Count", period, "Sum"),
                "requests": self._metric("RequestCount", period, "Sum"),
            },
            label="Errors",
            period=cdk.Duration.minutes(1) if period is None else period,
        )

    def metric_latency(
        self, *, period: cdk.Duration | None = None, statistic: str = "p99"
    ) -> cloudwatch.Metric:
        """Time a task took to answer, in seconds."""
        return self._metric("TargetResponseTime", period, statistic)

    @property
    def _port(self) -> int:
        return 443 if self._secure else 80

    def _metric(
        self, name: str, period: cdk.Duration | None, statistic: str, *, per_target: bool = False
    ) -> cloudwatch.Metric:
        dimensions = {"LoadBalancer": self.balancer.attr_load_balancer_full_name}
        if per_target:
            dimensions = {"TargetGroup": self.target_group.attr_target_group_full_name}
        return cloudwatch.Metric(
            namespace="AWS/ApplicationELB",
            metric_name=name,
            dimensions_map=dimensions,
            period=cdk.Duration.minutes(1) if period is None else period,
            statistic=statistic,
        )

    def _groups(
        self, vpc: ec2.IVpc, callers: ec2.ISecurityGroup
    ) -> tuple[ec2.SecurityGroup, ec2.SecurityGroup]:
        balancer = ec2.SecurityGroup(
            self, "BalancerGroup", vpc=vpc, description="Requests to the model", allow_all_outbound=False
        )
        tasks = ec2.SecurityGroup(
            self, "TasksGroup", vpc=vpc, description="Tasks that answer", allow_all_outbound=False
        )
        balancer.add_ingress_rule(callers, ec2.Port.tcp(self._port), "Callers")
        balancer.add_egress_rule(tasks, ec2.Port.tcp(_PORT), "Tasks")
        tasks.add_ingress_rule(balancer, ec2.Port.tcp(_PORT), "The load balancer")
        return balancer, tasks

    def _balancer(
        self, vpc: ec2.IVpc, subnet_ids: list[str], certificate_arn: str | None
    ) -> tuple[elb.CfnLoadBalancer, elb.CfnTargetGroup, elb.CfnListener]:
        attribute = elb.CfnLoadBalancer.LoadBalancerAttributeProperty
        balancer = elb.CfnLoadBalancer(
            self,
            "Balancer",
            type="application",
            scheme="internal",
            subnets=subnet_ids,
            security_groups=[self.security_group.security_group_id],
            load_balancer_attributes=[
                attribute(key="routing.http.drop_invalid_header_fields.enabled", value="true"),
                attribute(key="routing.http.desync_mitigation_mode", value="strictest"),
                # A request that SageMaker would allow a minute; the balancer must not give up before.
                attribute(key="idle_timeout.timeout_seconds", value="65"),
            ],
        )
        acknowledge(
            balancer,
            "ELB2",
            'Access logs take no customer-managed key (Elastic Load Balancing, "Access logs"); the container '
            "logs each request to an encrypted group, and the balancer stands inside the VPC",
        )
        part = elb.CfnTargetGroup
        targets = part(
            self,
            "Targets",
            protocol="HTTP",
            port=_PORT,
            target_type="ip",
            vpc_id=vpc.vpc_id,
            health_check_path="/ping",
            health_check_interval_seconds=10,
            healthy_threshold_count=2,
            unhealthy_threshold_count=3,
            target_group_attributes=[
                part.TargetGroupAttributeProperty(
                    key="deregistration_delay.timeout_seconds", value=str(_STOP_SECONDS)
                ),
                part.TargetGroupAttributeProperty(
                    key="load_balancing.algorithm.type", value="least_outstanding_requests"
                ),
            ],
        )
        listener = elb.CfnListener(
            self,
            "Listener",
            load_balancer_arn=balancer.ref,
            port=self._port,
            protocol="HTTPS" if certificate_arn is not None else "HTTP",
            certificates=None
            if certificate_arn is None
            else [elb.CfnListener.CertificateProperty(certificate_arn=certificate_arn)],
            # TLS 1.2 and 1.3 (Elastic Load Balancing, "Security policies").
            ssl_policy=None if certificate_arn is None else "ELBSecurityPolicy-TLS13-1-2-2021-06",
            default_actions=[elb.CfnListener.ActionProperty(type="forward", target_group_arn=targets.ref)],
        )
        return balancer, targets, listener

    def _task(self, workload: LoadedWorkload, image: ecr_assets.DockerImageAsset) -> ecs.CfnTaskDefinition:
        size = workload.workload.serving.service
        self.role = iam.Role(
            self,
            # As with a function: never the id of an endpoint's role.
            "TaskRole",
            description=f"What {self._name} acts as: it reads its model",
            assumed_by=service_principal("ecs-tasks", own_account=True),
        )
        self.shelf.grant_read(self.role)
        self.execution_role = iam.Role(
            self,
            "ExecutionRole",
            description=f"Starts the tasks of {self._name}: image and log streams",
            assumed_by=service_principal("ecs-tasks", own_account=True),
        )
        grant_pull(image.repository, self.execution_role)
        self.log_group.grant_write(self.execution_role)
        part = ecs.CfnTaskDefinition
        ping = f"import urllib.request as r; r.urlopen('http://localhost:{_PORT}/ping', timeout=2)"
        task = part(
            self,
            "Task",
            family=self._name,
            requires_compatibilities=["FARGATE"],
            network_mode="awsvpc",
            cpu=str(size.cpu),
            memory=str(size.memory_mb),
            runtime_platform=part.RuntimePlatformProperty(
                cpu_architecture="X86_64", operating_system_family="LINUX"
            ),
            task_role_arn=self.role.role_arn,
            execution_role_arn=self.execution_role.role_arn,
            volumes=[part.VolumeProperty(name="tmp")],
            container_definitions=[
                part.ContainerDefinitionProperty(
                    name=_CONTAINER,
                    image=image.image_uri,
                    essential=True,
                    # SageMaker appends it; the image takes it as its only command.
                    command=["serve"],
                    readonly_root_filesystem=True,
                    stop_timeout=_STOP_SECONDS,
                    port_mappings=[part.PortMappingProperty(container_port=_PORT, protocol="tcp")],
                    mount_points=[
                        part.MountPointProperty(container_path="/tmp", source_volume="tmp", read_only=False)  # noqa: S108
                    ],
                    environment=[
                        part.KeyValuePairProperty(name=name, value=value)
                        for name, value in self.shelf.environment.items()
                    ],
                    health_check=part.HealthCheckProperty(
                        command=["CMD", "python", "-c", ping],
                        interval=10,
                        timeout=5,
                        retries=3,
                        start_period=60,
                    ),
                    log_configuration=part.LogConfigurationProperty(
                        log_driver="awslogs",
                        options={
                            "awslogs-group": self.log_group.log_group_name,
                            "awslogs-region": REGION,
                            "awslogs-stream-prefix": _CONTAINER,
                        },
                    ),
                )
            ],
        )
        acknowledge(
            task,
            "ECS2",
            "The variables are place, ARN and threshold of the model, which are no secrets; a change of one "
            "must make a new task definition",
        )
        return task

    def _service(self, subnet_ids: list[str], group_ids: list[str]) -> ecs.CfnService:
        part = ecs.CfnService
        service = part(
            self,
            "Service",
            service_name=self._name,
            cluster=self.cluster.ref,
            task_definition=self.task.ref,
            launch_type="FARGATE",
            # No number of tasks: a promotion must not undo what scaling did.
            enable_ecs_managed_tags=True,
            propagate_tags="SERVICE",
            health_check_grace_period_seconds=60,
            network_configuration=part.NetworkConfigurationProperty(
                awsvpc_configuration=part.AwsVpcConfigurationProperty(
                    subnets=subnet_ids, security_groups=group_ids, assign_public_ip="DISABLED"
                )
            ),
            load_balancers=[
                part.LoadBalancerProperty(
                    container_name=_CONTAINER, container_port=_PORT, target_group_arn=self.target_group.ref
                )
            ],
            deployment_configuration=part.DeploymentConfigurationProperty(
                # New tasks come first; an old one goes when a new one is healthy. Less than twice as many
                # would let no new one start beside a single old one (ECS rounds the maximum down).
                minimum_healthy_percent=100,
                maximum_percent=200,
                deployment_circuit_breaker=part.DeploymentCircuitBreakerProperty(enable=True, rollback=True),
                alarms=part.DeploymentAlarmsProperty(
                    enable=True,
                    rollback=True,
                    alarm_names=[self.error_alarm.alarm_name, self.latency_alarm.alarm_name],
                ),
            ),
        )
        for role in (self.role, self.execution_role):
            service.node.add_dependency(role)
        return service
