"""The care of one workload: what is watched, who is told, when it is trained again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_events_targets as targets
from ml_contract.load import LoadedWorkload
from ml_contract.spec.workload import Workload
from ml_lifecycle.alarms import described
from ml_lifecycle.data_lake import DataLake, IcebergTable
from ml_lifecycle.foundation import log_group
from ml_lifecycle.ingestion import StreamIngestion
from ml_lifecycle.monitoring import KINDS, GroundTruth, ModelMonitor, OperationsDashboard, ShownModel
from ml_lifecycle.observability import SavedQueries, SpanForwarder
from ml_lifecycle.observability.queries import Source
from ml_lifecycle.registry.approval import NONE_APPROVED
from ml_lifecycle.retraining import Retraining, RetrainingNotices
from ml_lifecycle.security import show_role
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
        ingestion: StreamIngestion | None = None,
        ingestion_logs: Sequence[str] = (),
        new_data_event: Mapping[str, object] | None = None,
        curated_table: IcebergTable | None = None,
        labels_table: IcebergTable | None = None,
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
        #: Nothing where requests are not captured. The data monitor first.
        self.monitors = self._monitors(
            environment=environment,
            workload=workload,
            foundation=foundation,
            lake=lake,
            models=models,
            served=served,
        )
        self.monitor = self.monitors[0] if self.monitors else None
        self._show(environment, spec, models, served)
        self.ground_truth: GroundTruth | None = None
        if any(monitor.facts.labelled for monitor in self.monitors) and curated_table is not None:
            self.ground_truth = GroundTruth(
                self,
                "GroundTruth",
                contract=workload.compiled,
                curated_table=curated_table,
                artifacts=lake.artifacts,
                message_key=foundation.keys.messages,
                log_key=foundation.keys.logs,
                started_by=new_data_event,
                labels=labels_table,
                every_hours=min(m.every_hours for m in self.monitors if m.facts.labelled),
                log_retention_days=environment.retention.log_days,
                alarm_topic=foundation.notices.topic,
            )
        self.retraining = Retraining(
            self,
            "Retraining",
            workload=workload,
            pipeline_name=models.training_pipeline.pipeline_name,
            alarms={monitor.kind: monitor.drift_alarm for monitor in self.monitors},
            new_data_event=new_data_event,
            registry=models.registry,
            features=lake.features,
            artifacts=lake.artifacts,
            topic=foundation.stakeholders.topic if spec.retraining.notify else None,
            environment_name=environment.name if spec.retraining.notify else None,
            message_key=foundation.keys.messages,
            log_key=foundation.keys.logs,
            log_retention_days=environment.retention.log_days,
        )
        told = self._notices(environment, workload, foundation, lake, models)
        topic = foundation.notices.topic
        watched = [alarm for m in self.monitors for alarm in (m.drift_alarm, m.unjudged_alarm)]
        given_up = [
            self._given_up("PromotionGivenUp", models.registry.metric_dead_letters(), "A promotion", topic),
            self._given_up(
                "RetrainingGivenUp", self.retraining.metric_dead_letters(), "A retraining trigger", topic
            ),
            self._failed("TrainingFailed", models.training_pipeline.metric_executions_failed(), topic),
        ]
        if told is not None:
            given_up.append(self._given_up("NoticesGivenUp", told.metric_dead_letters(), "A notice", topic))
        for monitor in self.monitors:
            show_role(monitor.role, "monitor")
            if monitor.engine == "processing":
                monitor.on_run_failed("RunFailed", target=targets.SnsTopic(topic))
        batch = [] if serving.batch is None else serving.batch.alarms
        OperationsDashboard(
            self,
            "Dashboard",
            name=f"{environment.name}-{spec.slug}",
            title=f"{spec.title} ({environment.name})",
            watch=served.watch,
            monitors=self.monitors,
            ingestion=ingestion,
            training=models.training_pipeline,
            registry=models.registry,
            retraining=self.retraining,
            alarms=[*served.alarms, *batch, *watched, *given_up],
        )
        self._queries(environment, workload, models, served, ingestion_logs)
        self._traces(environment, foundation, served)
        outputs = {
            "Workload": spec.name,
            "RetrainFunctionName": self.retraining.function.function_name,
            "RetrainDeadLettersUrl": self.retraining.dead_letters.queue.queue_url,
            "StakeholdersTopicArn": foundation.stakeholders.topic.topic_arn,
        }
        for monitor in self.monitors:
            before = "" if monitor.kind == "data" else monitor.facts.prefix
            outputs |= {
                f"{before}MonitorScheduleName": monitor.schedule_name,
                f"{before}DriftAlarmName": monitor.drift_alarm.alarm_name,
                f"{before}UnjudgedAlarmName": monitor.unjudged_alarm.alarm_name,
                f"{before}MonitoringUri": monitor.uri,
            }
        if self.ground_truth is not None:
            outputs |= {
                "GroundTruthFunctionName": self.ground_truth.function.function_name,
                "GroundTruthUri": self.ground_truth.uri,
            }
        for output, value in outputs.items():
            cdk.CfnOutput(self, output, value=value)

    def _show(
        self, environment: Environment, spec: Workload, models: WorkloadModelsStack, served: object
    ) -> None:
        """Keep what the page over all models shows of this one."""
        parts = ("Data", "Models", "Serving", "Operations")
        self.shown = ShownModel(
            name=spec.name,
            title=spec.title,
            slug=spec.slug,
            group=models.registry.group_name,
            approved=models.registry.approval_parameter_name,
            # CloudFormation names an alarm after its stack.
            alarms=tuple(f"{environment.id}-{spec.id}{part}-" for part in parts),
            endpoint=served.endpoint_name if isinstance(served, SageMakerEndpoint) else None,
            kinds=tuple(monitor.kind for monitor in self.monitors),
        )

    def _monitors(
        self,
        *,
        environment: Environment,
        workload: LoadedWorkload,
        foundation: FoundationStack,
        lake: DataLake,
        models: WorkloadModelsStack,
        served: object,
    ) -> list[ModelMonitor]:
        """A monitor of each kind that the workload has switched on, where requests are captured."""
        if not isinstance(served, SageMakerEndpoint) or served.capture_uri is None:
            return []
        monitoring = workload.workload.monitoring
        managed = monitoring.engine == "model_monitor"
        condition = self._approved(models) if managed else None
        # They call CloudWatch, SageMaker and Parameter Store; in isolated subnets only endpoints lead there.
        network = job_network(foundation) if environment.network.interface_endpoints else None
        found: list[ModelMonitor] = []
        for kind, facts in KINDS.items():
            if kind != "data" and getattr(monitoring, kind) is None:
                continue
            found.append(
                ModelMonitor(
                    self,
                    f"{facts.prefix}Monitor",
                    kind=kind,
                    workload=workload,
                    environment_name=environment.name,
                    endpoint_name=served.endpoint_name,
                    registry=models.registry,
                    artifacts=lake.artifacts,
                    volume_key=foundation.data_key(workload),
                    message_key=foundation.keys.messages,
                    network=network,
                    condition=condition,
                    image=found[0].image if found else None,
                    alarm_topic=foundation.notices.topic,
                )
            )
        return found

    def _notices(
        self,
        environment: Environment,
        workload: LoadedWorkload,
        foundation: FoundationStack,
        lake: DataLake,
        models: WorkloadModelsStack,
    ) -> RetrainingNotices | None:
        """Who tells people of drift, trainings and versions, unless nobody is to be told."""
        if not workload.workload.retraining.notify:
            return None
        return RetrainingNotices(
            self,
            "Notices",
            workload=workload,
            environment_name=environment.name,
            topic=foundation.stakeholders.topic,
            pipeline_name=models.training_pipeline.pipeline_name,
            group_name=models.registry.group_name,
            alarms={monitor.kind: monitor.drift_alarm for monitor in self.monitors},
            reports={monitor.kind: monitor.uri for monitor in self.monitors},
            artifacts=lake.artifacts,
            message_key=foundation.keys.messages,
            log_key=foundation.keys.logs,
            log_retention_days=environment.retention.log_days,
        )

    def _queries(
        self,
        environment: Environment,
        workload: LoadedWorkload,
        models: WorkloadModelsStack,
        served: object,
        ingestion_logs: Sequence[str],
    ) -> None:
        decided = (self.retraining.function, models.registry.promotion)
        groups: dict[Source, Sequence[str]] = {
            "decisions": [function.log_group.log_group_name for function in decided],
            # Of SageMaker's own log groups the names are known before they are there.
            "serving": [f"/aws/sagemaker/Endpoints/{served.endpoint_name}"]
            if isinstance(served, SageMakerEndpoint)
            else [],
        }
        if ingestion_logs:
            groups["ingestion"] = ingestion_logs
        SavedQueries(self, "Queries", folder=f"{environment.name}/{workload.workload.slug}", groups=groups)

    def _traces(self, environment: Environment, foundation: FoundationStack, served: object) -> None:
        """Send on the spans of who serves and of who decides on retraining."""
        if environment.tracing is None:
            return
        keys, days = foundation.keys.logs, environment.retention.log_days
        forwarder = SpanForwarder(
            self,
            "Spans",
            endpoint=environment.tracing.endpoint,
            sample_ratio=environment.tracing.sample_ratio,
            log_key=keys,
            log_retention_days=days,
        )
        forwarder.sample(self.retraining.function)
        forwarder.subscribe("OfRetraining", self.retraining.function.log_group)
        if isinstance(served, SageMakerEndpoint):
            # SageMaker makes the group with its first line, if nobody has; a filter needs it before.
            name = f"/aws/sagemaker/Endpoints/{served.endpoint_name}"
            forwarder.subscribe(
                "OfServing",
                log_group(self, "EndpointLogs", key=keys, retention_days=days, name=name),
            )

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
        text = f"{what} failed too often; it waits in a dead-letter queue to be redriven"
        return self._alarm(alarm_id, metric, described(text, runbook="dead-letters"), topic)

    def _failed(
        self, alarm_id: str, metric: cloudwatch.Metric, topic: cdk.aws_sns.ITopic
    ) -> cloudwatch.Alarm:
        text = "A training has failed, or its model was refused: no new version waits for approval"
        return self._alarm(alarm_id, metric, described(text, runbook="training-failed"), topic)

    def _alarm(
        self, alarm_id: str, metric: cloudwatch.Metric, description: str, topic: cdk.aws_sns.ITopic
    ) -> cloudwatch.Alarm:
        alarm = metric.create_alarm(
            self,
            alarm_id,
            alarm_description=description,
            threshold=1,
            evaluation_periods=1,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        alarm.add_alarm_action(actions.SnsAction(topic))
        alarm.add_ok_action(actions.SnsAction(topic))
        return alarm
