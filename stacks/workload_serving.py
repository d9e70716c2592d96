"""The endpoint of one workload. Holds no data: it may be deleted and made again."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as cloudwatch_actions
from ml_contract.load import LoadedWorkload
from ml_lifecycle.alarms import described
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.edge import EdgeComponent
from ml_lifecycle.security import show_role
from ml_lifecycle.serving import BatchTransform, InstanceRecommender, SageMakerEndpoint, served

from constructs import Construct
from environments import Environment
from stacks.base import LifecycleStack
from stacks.foundation import FoundationStack
from stacks.workload_models import WorkloadModelsStack, job_network


class WorkloadServingStack(LifecycleStack):
    """The approved model, served; nothing but alarms and a role while none is approved."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: Environment,
        workload: LoadedWorkload,
        foundation: FoundationStack,
        lake: DataLake,
        models: WorkloadModelsStack,
    ) -> None:
        spec = workload.workload
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            workload=workload,
            description=f"{spec.title}: serving ({environment.name})",
        )
        # The parameter that this stack reads is named, not referred to.
        self.add_stack_dependency(models)
        image = models.training_pipeline.images["serving"]
        if spec.serving.style == "ecs" and not environment.network.interface_endpoints:
            raise ValueError(
                f"{environment.name}: network.interface_endpoints must be True for serving.style ecs, got "
                "False: in isolated subnets Fargate reaches ECR and CloudWatch Logs through them only"
            )
        self.served = served(
            self,
            "Endpoint",
            workload=workload,
            name=f"{environment.name}-{spec.slug}",
            approval_parameter_name=models.registry.approval_parameter_name,
            challenger_parameter_name=models.registry.challenger_parameter_name,
            model_package_group_name=models.registry.group_name,
            artifacts=lake.artifacts,
            volume_key=foundation.data_key(workload),
            message_key=foundation.keys.messages,
            log_key=foundation.keys.logs,
            log_retention_days=environment.retention.log_days,
            image=image,
            vpc=foundation.vpc,
            network=job_network(foundation),
            certificate_arn=environment.network.certificate_arn,
            alarm_topic=foundation.notices.topic,
        )
        self._tell(environment, foundation)
        if isinstance(self.served, SageMakerEndpoint) and self.served.capture_uri is not None:
            show_role(self.served.role, "model")
        self.batch: BatchTransform | None = None
        if spec.serving.batch is not None and spec.serving.style != "batch_transform":
            self.batch = BatchTransform(
                self,
                "Batch",
                workload=workload,
                name=f"{environment.name}-{spec.slug}",
                approved=self.served.approved,
                artifacts=lake.artifacts,
                volume_key=foundation.data_key(workload),
                log_key=foundation.keys.logs,
                log_retention_days=environment.retention.log_days,
                repository=image.repository,
                network=job_network(foundation),
                alarm_topic=foundation.notices.topic,
            )
        self.edge: EdgeComponent | None = None
        if spec.serving.edge is not None:
            self.edge = EdgeComponent(
                self,
                "Edge",
                workload=workload,
                component_name=f"{environment.name}.{spec.slug}",
                approved=self.served.approved,
                model_package_group_name=models.registry.group_name,
                artifacts=lake.artifacts,
                log_key=foundation.keys.logs,
                log_retention_days=environment.retention.log_days,
            )
        outputs = {"Workload": spec.name, **self.served.outputs}
        if spec.serving.recommend is not None:
            outputs |= InstanceRecommender(
                self,
                "Recommender",
                workload=workload,
                name=f"{environment.name}-{spec.slug}",
                approved=self.served.approved,
                artifacts=lake.artifacts,
                volume_key=foundation.data_key(workload),
                log_key=foundation.keys.logs,
                log_retention_days=environment.retention.log_days,
                repository=image.repository,
                network=job_network(foundation),
            ).outputs
        if self.edge is not None:
            outputs |= self.edge.outputs
        if self.batch is not None:
            outputs |= self.batch.outputs
        if spec.serving.style != "real_time":
            outputs["ServingStyle"] = spec.serving.style
        for output, value in outputs.items():
            cdk.CfnOutput(self, output, value=value)

    def _tell(self, environment: Environment, foundation: FoundationStack) -> None:
        """Whoever serves is turned back by its alarms; a person hears of them as well."""
        notice = cloudwatch_actions.SnsAction(foundation.notices.topic)
        for alarm in self.served.alarms:
            # Batch transform tells the topic by itself.
            if isinstance(alarm, cloudwatch.Alarm) and not isinstance(self.served, BatchTransform):
                alarm.add_alarm_action(notice)
                alarm.add_ok_action(notice)
        hours = environment.observability.silent_endpoint_hours
        requests = self.served.watch.requests
        if hours is None or not isinstance(requests, cloudwatch.Metric):
            return
        silent = requests.with_(period=cdk.Duration.hours(1), statistic="Sum").create_alarm(
            self,
            "Silent",
            alarm_description=described(
                f"Nobody has asked for a prediction for {hours} hours", runbook="endpoint-silent"
            ),
            comparison_operator=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            threshold=1,
            evaluation_periods=hours,
            # No data is no request.
            treat_missing_data=cloudwatch.TreatMissingData.BREACHING,
        )
        silent.add_alarm_action(notice)
        silent.add_ok_action(notice)
        # Before the first model there is nobody to ask.
        if isinstance(child := silent.node.default_child, cdk.CfnResource):
            child.cfn_options.condition = self.served.condition
