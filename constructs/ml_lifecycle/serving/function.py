"""The serving image as a Lambda function."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_codedeploy as codedeploy
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from ml_contract.load import LoadedWorkload
from ml_contract.spec.serving import Rollout

from constructs import Construct
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.foundation import log_group
from ml_lifecycle.pseudo import arn, service_principal
from ml_lifecycle.serving.approved import approved_model
from ml_lifecycle.serving.base import check_serving
from ml_lifecycle.serving.metrics import Watch, rollout_alarms
from ml_lifecycle.serving.shelf import ModelShelf

__all__ = ["ALIAS", "LambdaTarget"]

#: The name that callers use; it moves from version to version.
ALIAS = "live"


class LambdaTarget(Construct):
    """Define a function of the serving image that answers with the approved model.

    It takes and gives what a function URL does (payload format 2.0: ``body``, ``headers``), so that a caller
    invokes ``function_name`` with a request as its event. When a model is approved the function is told
    another place of its model, a new version is published and the alias ``live`` moves to it: all at once, or
    by CodeDeploy as a canary or in linear steps, back when an alarm fires. Memory, time limit and reserved
    concurrency are the workload's ``serving.function``. Nothing captures its requests.

    Example::

        LambdaTarget(
            self, "Endpoint",
            workload=workload, function_name="dev-claims-fraud-serving",
            approval_parameter_name=registry.approval_parameter_name,
            model_package_group_name=registry.group_name,
            artifacts=lake.artifacts, log_key=keys.logs, image=image,
        )
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: LoadedWorkload,
        function_name: str,
        approval_parameter_name: str,
        model_package_group_name: str,
        artifacts: Zone,
        log_key: kms.IKey,
        image: ecr_assets.DockerImageAsset,
        vpc: ec2.IVpc | None = None,
        subnets: ec2.SubnetSelection | None = None,
        security_groups: list[ec2.ISecurityGroup] | None = None,
        log_retention_days: int = 90,
        alarm_minutes: int = 1,
    ) -> None:
        super().__init__(scope, construct_id)
        check_serving(workload, alarm_minutes, "lambda")
        spec = workload.workload
        given, rollout = spec.serving.function, spec.serving.rollout
        self.capture_uri: str | None = None
        self._name = function_name
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
        group = log_group(self, "Logs", key=log_key, retention_days=log_retention_days)
        self.role = iam.Role(
            # Not the id of an endpoint's role: a change of style would change that role under the endpoint
            # that still answers.
            self,
            "FunctionRole",
            description=f"Serves {spec.slug}",
            assumed_by=service_principal("lambda"),
        )
        group.grant_write(self.role)
        self.shelf.grant_read(self.role)
        if vpc is not None:
            self._grant_interfaces()
        self.function = lambda_.DockerImageFunction(
            self,
            "Function",
            function_name=function_name,
            description=f"{spec.title}: the approved model",
            code=lambda_.DockerImageCode.from_ecr(
                image.repository,
                tag_or_digest=image.image_tag,
                # The image starts a server by itself; here Lambda's own client calls the handler.
                entrypoint=["python", "-m", "awslambdaric"],
                cmd=["ml_serving.lambda_handler.handler"],
            ),
            architecture=lambda_.Architecture.X86_64,
            memory_size=given.memory_mb,
            timeout=cdk.Duration.seconds(given.timeout_seconds),
            reserved_concurrent_executions=given.reserved_concurrency,
            role=self.role,
            log_group=group,
            vpc=vpc,
            vpc_subnets=subnets,
            security_groups=security_groups,
            environment=self.shelf.environment,
        )
        self.version = lambda_.CfnVersion(
            self,
            "Version",
            function_name=self.function.function_name,
            # A promotion deploys the same template: what names the model must make a new version.
            description=self.approved.package,
        )
        self.version.node.add_dependency(self.function)
        self.error_alarm, self.latency_alarm = rollout_alarms(
            self,
            who=function_name,
            error_rate=self.metric_error_rate(),
            latency=self.metric_latency(),
            latency_per_ms=1,
            rollout=rollout,
            minutes=alarm_minutes,
        )
        self.alias = lambda_.CfnAlias(
            self,
            "Alias",
            name=ALIAS,
            function_name=self.function.function_name,
            function_version=self.version.attr_version,
        )
        made: list[cdk.CfnResource] = [self.version, self.alias]
        if rollout.strategy != "all_at_once":
            made += self._shift(rollout)
        function = self.function.node.default_child
        if isinstance(function, cdk.CfnResource):
            made.append(function)
        for resource in made:
            resource.cfn_options.condition = self.condition

    @property
    def function_name(self) -> str:
        """What a caller invokes: the function's alias."""
        return f"{self._name}:{ALIAS}"

    @property
    def outputs(self) -> dict[str, str]:
        """What a caller needs to know, by the name of the stack's output."""
        return {"FunctionName": self.function_name}

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
            unit="milliseconds",
        )

    def grant_invoke(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant asking the function, by its alias."""
        return iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["lambda:InvokeFunction"],
            resource_arns=[arn("lambda", f"function:{self.function_name}")],
        )

    def metric_invocations(
        self, *, period: cdk.Duration | None = None, statistic: str = "Sum"
    ) -> cloudwatch.Metric:
        """Count of requests; one minute unless ``period`` says otherwise."""
        return self._metric("Invocations", period, statistic)

    def metric_error_rate(self, *, period: cdk.Duration | None = None) -> cloudwatch.MathExpression:
        """Share (0 to 1) of requests that failed: the handler raises for an answer of 5xx."""
        minute = cdk.Duration.minutes(1) if period is None else period
        return cloudwatch.MathExpression(
            expression="IF(requests > 0, errors / requests, 0)",
            using_metrics={
                "errors": self._metric("Errors", period, "Sum"),
                "requests": self._metric("Invocations", period, "Sum"),
            },
            label="Errors",
            period=minute,
        )

    def metric_latency(
        self, *, period: cdk.Duration | None = None, statistic: str = "p99"
    ) -> cloudwatch.Metric:
        """Time the function took to answer, in milliseconds."""
        return self._metric("Duration", period, statistic)

    def _metric(self, name: str, period: cdk.Duration | None, statistic: str) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace="AWS/Lambda",
            metric_name=name,
            dimensions_map={"FunctionName": self._name, "Resource": self.function_name},
            period=cdk.Duration.minutes(1) if period is None else period,
            statistic=statistic,
        )

    def _grant_interfaces(self) -> None:
        iam.Grant.add_to_principal(
            grantee=self.role,
            # Lambda Developer Guide, "Required IAM permissions" of functions in a VPC.
            actions=[
                "ec2:AssignPrivateIpAddresses",
                "ec2:CreateNetworkInterface",
                "ec2:DeleteNetworkInterface",
                "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeSubnets",
                "ec2:UnassignPrivateIpAddresses",
            ],
            resource_arns=["*"],
        )
        acknowledge(
            self.role,
            "IAM5[Resource::*]",
            "Lambda checks these by themselves before it makes an interface, and refuses narrower resources; "
            "the function's own code runs without credentials for anything but its model",
        )

    def _shift(self, rollout: Rollout) -> list[cdk.CfnResource]:
        """Define how CodeDeploy moves the alias, and what it looks at meanwhile."""
        part = codedeploy.CfnDeploymentConfig
        canary = rollout.strategy == "canary"
        config = part(
            self,
            "Shift",
            compute_platform="Lambda",
            traffic_routing_config=part.TrafficRoutingConfigProperty(
                type="TimeBasedCanary" if canary else "TimeBasedLinear",
                time_based_canary=part.TimeBasedCanaryProperty(
                    canary_interval=rollout.bake_minutes, canary_percentage=rollout.step_percent
                )
                if canary
                else None,
                time_based_linear=None
                if canary
                else part.TimeBasedLinearProperty(
                    linear_interval=rollout.bake_minutes, linear_percentage=rollout.step_percent
                ),
            ),
        )
        role = self._deploy_role()
        application = codedeploy.CfnApplication(self, "Application", compute_platform="Lambda")
        deployments = codedeploy.CfnDeploymentGroup
        group = deployments(
            self,
            "Deployments",
            application_name=application.ref,
            service_role_arn=role.role_arn,
            deployment_config_name=config.ref,
            deployment_style=deployments.DeploymentStyleProperty(
                deployment_type="BLUE_GREEN", deployment_option="WITH_TRAFFIC_CONTROL"
            ),
            alarm_configuration=deployments.AlarmConfigurationProperty(
                enabled=True,
                alarms=[
                    deployments.AlarmProperty(name=alarm.alarm_name)
                    for alarm in (self.error_alarm, self.latency_alarm)
                ],
            ),
            auto_rollback_configuration=deployments.AutoRollbackConfigurationProperty(
                enabled=True,
                events=["DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM", "DEPLOYMENT_STOP_ON_REQUEST"],
            ),
        )
        group.node.add_dependency(role)
        self.alias.cfn_options.update_policy = cdk.CfnUpdatePolicy(
            code_deploy_lambda_alias_update=cdk.CfnCodeDeployLambdaAliasUpdate(
                application_name=application.ref, deployment_group_name=group.ref
            )
        )
        # The update policy names both, and names make no order.
        self.alias.add_resource_dependency(group)
        return [config, application, group]

    def _deploy_role(self) -> iam.Role:
        role = iam.Role(
            self,
            "DeployRole",
            description=f"Moves the alias of {self._name}",
            assumed_by=service_principal("codedeploy"),
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["lambda:GetAlias", "lambda:GetProvisionedConcurrencyConfig", "lambda:UpdateAlias"],
            resource_arns=[
                arn("lambda", f"function:{self._name}"),
                arn("lambda", f"function:{self.function_name}"),
            ],
        )
        iam.Grant.add_to_principal(
            grantee=role,
            actions=["cloudwatch:DescribeAlarms"],
            resource_arns=[self.error_alarm.alarm_arn, self.latency_alarm.alarm_arn],
        )
        return role
