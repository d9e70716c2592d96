"""What watches the traffic of an endpoint."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3_assets as s3_assets
from aws_cdk import aws_sns as sns
from ml_contract.load import LoadedWorkload

from constructs import Construct
from ml_lifecycle import code, instance_types
from ml_lifecycle.alarms import alarm, described
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.dead_letters import DeadLetterQueue
from ml_lifecycle.images import sagemaker_image
from ml_lifecycle.monitoring.job import METRIC_NAMESPACE, MonitorJob, grant_run, monitor_role
from ml_lifecycle.monitoring.kinds import KINDS, Engine, Kind, cadence, short_name
from ml_lifecycle.monitoring.managed_engine import ManagedSchedule
from ml_lifecycle.monitoring.own_engine import own_schedule
from ml_lifecycle.registry import ModelRegistry
from ml_lifecycle.training.job_role import JobNetwork

__all__ = ["ModelMonitor"]

#: A job's name has at most 63 characters; a schedule's execution id up to 36, and a hyphen goes between.
_NAME_LENGTH = 63 - 36 - 1


class ModelMonitor(Construct):
    """Define what watches an endpoint's captured traffic, by one of two engines with the same image and
    results.

    ``kind`` says what is watched: ``data`` (the default: what is asked), ``quality`` (how good the answers
    were, once the labels are known), ``bias`` (whom they favour) or ``attribution`` (what the model goes
    by); the last three are switched on by their blocks in ``monitoring``.

    ``processing`` runs the image by SageMaker Processing on an EventBridge schedule; anyone may use it.
    ``model_monitor`` runs it by SageMaker Model Monitor, which is closed to accounts that did not use it
    before 2026-07-30; its schedule needs an endpoint, so give the ``condition`` under which there is one.
    Either writes ``statistics.json``, ``constraints.json`` and ``constraint_violations.json`` below
    ``<artifacts>/<slug>/monitoring/`` (``monitoring-quality/``, ``-bias/``, ``-attribution/``) and publishes
    ``Violations``, ``RecordsJudged`` and ``Unjudged`` in the namespace ``MLLifecycle``, the other kinds with
    their name before it (``QualityViolations``), ``data`` also ``FeatureDrift``; alarms, dashboard and
    retraining do not know the engine. Labels of ``quality`` and ``bias`` lie below ``ground-truth/``
    (``GroundTruth``).

    A run judges the whole hours of its window, 20 to 35 minutes after the last has ended. ``drift_alarm``
    fires when a run finds at least ``alarm_after_violations`` (the other kinds: one); ``unjudged_alarm`` when
    a run saw less than it needs for a judgement; no run after runs leaves it without data, which
    ``alarm_topic`` is told as well. ``not_started_alarm`` fires when a run could not be started.

    Several monitors of one endpoint share an image: pass ``image`` of the first.

    Example::

        ModelMonitor(
            self, "Monitor",
            workload=workload, environment_name="dev", endpoint_name="dev-claims-fraud",
            registry=registry, artifacts=lake.artifacts,
            volume_key=keys.data_key, message_key=keys.messages,
        )

    Raises:
        ContractError: an instance type that SageMaker does not offer for processing, with its line.
        ValueError: a request that SageMaker would refuse, or a kind that the workload has not switched on.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: LoadedWorkload,
        environment_name: str,
        endpoint_name: str,
        registry: ModelRegistry,
        artifacts: Zone,
        volume_key: kms.IKey,
        message_key: kms.IKey,
        kind: Kind = "data",
        engine: Engine | None = None,
        network: JobNetwork | None = None,
        condition: cdk.CfnCondition | None = None,
        image: ecr_assets.DockerImageAsset | None = None,
        volume_gb: int = 30,
        max_runtime: cdk.Duration | None = None,
        alarm_topic: sns.ITopic | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        instance_types.check_workload(workload)
        spec = workload.workload
        self.kind, self.facts = kind, KINDS[kind]
        self.every_hours = cadence(spec, kind)
        self.workload_name = spec.name
        self.environment_name = environment_name
        self.endpoint_name = endpoint_name
        self._workload, self._artifacts = workload, artifacts
        self.engine: Engine = spec.monitoring.engine if engine is None else engine
        self.uri = artifacts.uri(f"{spec.slug}/{self.facts.folder}")
        self.job_prefix = self._job_prefix(f"{environment_name}-{spec.slug}")
        self.image = image or sagemaker_image(
            self, "Image", image="monitoring", platform=ecr_assets.Platform.LINUX_AMD64
        )
        self.contract = s3_assets.Asset(self, "Contract", path=str(code.contract_file(workload.compiled)))
        self.role = monitor_role(self, kind, endpoint_name=endpoint_name, network=network)
        volume_key_arn = (
            None if instance_types.has_local_disk(spec.monitoring.instance_type) else volume_key.key_arn
        )
        job = MonitorJob(
            workload=workload,
            kind=kind,
            environment_name=environment_name,
            endpoint_name=endpoint_name,
            registry=registry,
            artifacts=artifacts,
            image=self.image,
            contract=self.contract,
            role=self.role,
            name_prefix=self.job_prefix,
            volume_gb=volume_gb,
            volume_key_arn=volume_key_arn,
            seconds=self._seconds(max_runtime),
            network=network,
        )
        grant_run(job, volume_key)
        if self.engine == "processing":
            self.dead_letters = DeadLetterQueue(self, "DeadLetters", key=message_key)
            self.schedule = own_schedule(self, job, volume_key=volume_key, dead_letters=self.dead_letters)
            self.schedule_name = self.schedule.ref
            self.not_started_alarm: cloudwatch.CfnAlarm | None = alarm(
                self,
                "NotStarted",
                what=f"A monitoring run of {endpoint_name} ({kind}) could not start; it waits in a queue",
                runbook="dead-letters",
                namespace="AWS/SQS",
                metric="ApproximateNumberOfMessagesVisible",
                dimensions={"QueueName": self.dead_letters.queue.queue_name},
                topic=alarm_topic,
                statistic="Maximum",
            )
        else:
            quality = spec.monitoring.quality
            self.managed = ManagedSchedule(
                self,
                job,
                condition=condition,
                delay_hours=0 if quality is None else quality.delay_hours,
            )
            self.schedule_name = self.managed.name
            # Model Monitor has no queue: a run that was not started is missing data of the alarm below.
            self.not_started_alarm = None
        self.drift_alarm, self.unjudged_alarm = self._alarms()
        if alarm_topic is not None:
            for each in (self.drift_alarm, self.unjudged_alarm):
                each.add_alarm_action(actions.SnsAction(alarm_topic))
                each.add_ok_action(actions.SnsAction(alarm_topic))
            # A window without data fails in Model Monitor before our image sees it, and a schedule that is
            # gone tells nothing either: no data after data is told as well.
            self.unjudged_alarm.add_insufficient_data_action(actions.SnsAction(alarm_topic))

    def metric_violations(
        self, *, period: cdk.Duration | None = None, statistic: str = "Maximum"
    ) -> cloudwatch.Metric:
        """Violations that a run found; a run's window unless ``period`` says otherwise."""
        return self._metric("Violations", period, statistic)

    def metric_records_judged(
        self, *, period: cdk.Duration | None = None, statistic: str = "Sum"
    ) -> cloudwatch.Metric:
        """Records that a run judged."""
        return self._metric("RecordsJudged", period, statistic)

    def metric_unjudged(
        self, *, period: cdk.Duration | None = None, statistic: str = "Maximum"
    ) -> cloudwatch.Metric:
        """1 when a run could not judge, 0 when it could."""
        return self._metric("Unjudged", period, statistic)

    def grant_read_reports(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant reading what the runs wrote."""
        return self._artifacts.grant_read(grantee, f"{self._workload.workload.slug}/{self.facts.folder}/")

    def on_run_failed(self, rule_id: str, *, target: events.IRuleTarget) -> events.Rule:
        """Send an event to ``target`` when a run of the ``processing`` engine fails."""
        rule = events.Rule(
            self,
            rule_id,
            description=f"A monitoring run of {self.endpoint_name} failed",
            event_pattern=events.EventPattern(
                source=["aws.sagemaker"],
                detail_type=["SageMaker Processing Job State Change"],
                detail={
                    "ProcessingJobName": [{"prefix": f"{self.job_prefix}-"}],
                    "ProcessingJobStatus": ["Failed"],
                },
            ),
        )
        rule.add_target(target)
        return rule

    def _job_prefix(self, name: str) -> str:
        if self.kind == "data":
            return name[:_NAME_LENGTH].rstrip("-")
        # The kind comes first: a prefix of one kind's names is none of another's.
        return short_name(f"{self.facts.mark}{name}", _NAME_LENGTH)

    def _seconds(self, longest: cdk.Duration | None) -> int:
        # A run that is not done before the next begins is of no use.
        seconds = int(min(self.every_hours * 3_600, 3_600) if longest is None else longest.to_seconds())
        # The job that merges the labels has its share of the hour (SageMaker Developer Guide, "Schedule model
        # quality monitoring jobs").
        halved = longest is None and self.engine == "model_monitor" and self.facts.labelled
        return seconds // 2 if halved else seconds

    def _metric(self, name: str, period: cdk.Duration | None, statistic: str) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=METRIC_NAMESPACE,
            metric_name=f"{self.facts.prefix}{name}",
            dimensions_map={"Environment": self.environment_name, "Workload": self.workload_name},
            period=cdk.Duration.hours(self.every_hours) if period is None else period,
            statistic=statistic,
        )

    def _alarms(self) -> tuple[cloudwatch.Alarm, cloudwatch.Alarm]:
        drift = self.metric_violations().create_alarm(
            self,
            "Drift",
            alarm_description=described(
                f"{self.facts.violated.format(endpoint=self.endpoint_name)}: "
                "read report.html of the latest run",
                runbook=self.facts.runbook,
            ),
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            threshold=(
                self._workload.workload.monitoring.alarm_after_violations if self.kind == "data" else 1
            ),
            evaluation_periods=1,
            # A run that did not happen is no drift; that it did not happen is for the other alarm.
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        unjudged = self.metric_unjudged().create_alarm(
            self,
            "Unjudged",
            alarm_description=described(
                f"{self.endpoint_name} could not be judged ({self.kind}): {self._too_little()}",
                runbook="unjudged",
            ),
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            threshold=1,
            evaluation_periods=1,
            # Before the first model there is nothing to judge: no data, no alarm, no all-clear either.
            treat_missing_data=cloudwatch.TreatMissingData.MISSING,
        )
        return drift, unjudged

    def _too_little(self) -> str:
        monitoring = self._workload.workload.monitoring
        if self.kind == "quality" and monitoring.quality is not None:
            return f"fewer than {monitoring.quality.minimum_labels} labels, or no baseline"
        return f"fewer than {monitoring.minimum_records} records, or no baseline"
