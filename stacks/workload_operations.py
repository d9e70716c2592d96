"""The care of one workload: what is watched, who is told, when it is trained again."""

from __future__ import annotations

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_events_targets as targets
from ml_contract.load import LoadedWorkload
from ml_lifecycle.data_lake import DataLake
from ml_lifecycle.monitoring import ModelMonitor, OperationsDashboard
from ml_lifecycle.registry.approval import NONE_APPROVED
from ml_lifecycle.retraining import Retraining
from ml_lifecycle.serving import SageMakerEndpoint

from constructs import Construct
from environments import Environment
from stacks.base import LifecycleStack
from stacks.foundation import FoundationStack
from stacks.workload_models import WorkloadModelsStack, job_network
from stacks.workload_serving import WorkloadServingStack


class WorkloadOperationsStack(LifecycleStack):
    """Monitor, alarms, retraining and dashboard of one workload."""

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
        serving: WorkloadServingStack,
        new_data_event: Mapping[str, object] | None = None,
    ) -> None:
        spec = workload.workload
        super().__init__(
            scope,
            construct_id,
            environment=environment,
            workload=workload,
            description=f"{spec.title}: operations ({environment.name})",
        )
        self.add_stack_dependency(serving)
        served = serving.served
        #: Nothing where requests are not captured.
        self.monitor: ModelMonitor | None = None
        if isinstance(served, SageMakerEndpoint) and served.capture_uri is not None:
            self.monitor = ModelMonitor(
                self,
                "Monitor",
                workload=workload,
                environment_name=environment.name,
                endpoint_name=served.endpoint_name,
                registry=models.registry,
                artifacts=lake.artifacts,
                volume_key=foundation.keys.data_key,
                message_key=foundation.keys.messages,
                # It calls CloudWatch, SageMaker and Parameter Store; in isolated subnets only endpoints lead
                # there.
                network=job_network(foundation) if environment.network.interface_endpoints else None,
                condition=self._approved(models) if spec.monitoring.engine == "model_monitor" else None,
            )
        self.retraining = Retraining(
            self,
            "Retraining",
            workload=workload,
            pipeline_name=models.training_pipeline.pipeline_name,
            drift_alarm=None if self.monitor is None else self.monitor.drift_alarm,
            new_data_event=new_data_event,
            registry=models.registry,
            message_key=foundation.keys.messages,
            log_key=foundation.keys.logs,
            log_retention_days=environment.retention.log_days,
        )
        topic = foundation.notices.topic
        watched = [] if self.monitor is None else [self.monitor.drift_alarm, self.monitor.unjudged_alarm]
        for alarm in watched:
            alarm.add_alarm_action(actions.SnsAction(topic))
        given_up = [
            self._given_up("PromotionGivenUp", models.registry.metric_dead_letters(), "A promotion", topic),
            self._given_up(
                "RetrainingGivenUp", self.retraining.metric_dead_letters(), "A retraining trigger", topic
            ),
        ]
        if self.monitor is not None and self.monitor.engine == "processing":
            self.monitor.on_run_failed("RunFailed", target=targets.SnsTopic(topic))
        batch = [] if serving.batch is None else serving.batch.alarms
        OperationsDashboard(
            self,
            "Dashboard",
            name=f"{environment.name}-{spec.slug}",
            title=f"{spec.title} ({environment.name})",
            watch=served.watch,
            monitor=self.monitor,
            training=models.training_pipeline,
            registry=models.registry,
            retraining=self.retraining,
            alarms=[*served.alarms, *batch, *watched, *given_up],
        )
        outputs = {
            "Workload": spec.name,
            "RetrainFunctionName": self.retraining.function.function_name,
        }
        if self.monitor is not None:
            outputs |= {
                "MonitorScheduleName": self.monitor.schedule_name,
                "DriftAlarmName": self.monitor.drift_alarm.alarm_name,
                "UnjudgedAlarmName": self.monitor.unjudged_alarm.alarm_name,
                "MonitoringUri": self.monitor.uri,
            }
        for output, value in outputs.items():
            cdk.CfnOutput(self, output, value=value)

    def _approved(self, models: WorkloadModelsStack) -> cdk.CfnCondition:
        """Whether there is an endpoint: Model Monitor takes no schedule for one that does not exist."""
        parameter = cdk.CfnParameter(
            self,
            "ApprovedModelPackage",
            type="AWS::SSM::Parameter::Value<String>",
            default=models.registry.approval_parameter_name,
            description="Name of the parameter that holds the approved model package, or none.",
        )
        return cdk.CfnCondition(
            self,
            "IsApproved",
            expression=cdk.Fn.condition_not(
                cdk.Fn.condition_equals(parameter.value_as_string, NONE_APPROVED)
            ),
        )

    def _given_up(
        self, alarm_id: str, metric: cloudwatch.Metric, what: str, topic: cdk.aws_sns.ITopic
    ) -> cloudwatch.Alarm:
        alarm = metric.create_alarm(
            self,
            alarm_id,
            alarm_description=f"{what} failed too often; it waits in a dead-letter queue to be redriven",
            threshold=1,
            evaluation_periods=1,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        alarm.add_alarm_action(actions.SnsAction(topic))
        return alarm
