"""Who is told what becomes of a workload's models."""

from __future__ import annotations

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from ml_contract.load import LoadedWorkload

from constructs import Construct
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.dead_letters import DeadLetterQueue
from ml_lifecycle.foundation import grant_publish
from ml_lifecycle.pseudo import arn, service_principal, stack_of
from ml_lifecycle.training.wildcards import acknowledge_wildcards
from ml_lifecycle.zip_function import zip_function

__all__ = ["RetrainingNotices", "target_with_dead_letters"]


def target_with_dead_letters(
    function: lambda_.Function, dead_letters: DeadLetterQueue
) -> events.CfnRule.TargetProperty:
    """A rule's target: the function, and the queue that keeps what it could not be given for six hours."""
    return events.CfnRule.TargetProperty(
        id="Trigger",
        arn=function.function_arn,
        dead_letter_config=events.CfnRule.DeadLetterConfigProperty(arn=dead_letters.queue.queue_arn),
        retry_policy=events.CfnRule.RetryPolicyProperty(
            maximum_event_age_in_seconds=21_600, maximum_retry_attempts=20
        ),
    )


class RetrainingNotices(Construct):
    """Define what tells people of drift, of trainings that started or failed, of versions that wait.

    ``lambda/retraining_notices`` hears of them from EventBridge, reads the numbers where they were measured
    (the monitor's report, the version's evaluation, the execution's steps) and publishes to ``topic``: JSON
    for programs, text for mail. What is promoted, refused or rolled back is told by the promotion itself
    (``ModelRegistry.tell``).

    An event that fails three times, or cannot be delivered for six hours, is kept in ``dead_letters``.

    Args:
        scope: where it belongs.
        construct_id: its id there.
        workload: whose models.
        environment_name: name of the environment, for the notices.
        topic: where they go; encrypted with ``message_key``.
        pipeline_name: the training pipeline.
        group_name: the model package group.
        alarms: alarms of monitors by kind, those whose drift is worth a notice.
        reports: by the same kinds, where the monitors write their reports.
        artifacts: zone that holds evaluations and reports.
        message_key: key of topic and queue.
        log_key: key that CloudWatch Logs may use.
        log_retention_days: how long logs are kept.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: LoadedWorkload,
        environment_name: str,
        topic: sns.ITopic,
        pipeline_name: str,
        group_name: str,
        alarms: Mapping[str, cloudwatch.IAlarm],
        reports: Mapping[str, str],
        artifacts: Zone,
        message_key: kms.IKey,
        log_key: kms.IKey,
        log_retention_days: int = 90,
    ) -> None:
        super().__init__(scope, construct_id)
        spec = workload.workload
        if alarms.keys() != reports.keys():
            raise ValueError(
                f"alarms and reports must be of the same kinds, got {sorted(alarms)} and {sorted(reports)}"
            )
        self.dead_letters = DeadLetterQueue(self, "DeadLetters", key=message_key)
        monitors = [
            {"alarm": alarm.alarm_name, "kind": kind, "uri": reports[kind]} for kind, alarm in alarms.items()
        ]
        self.function = zip_function(
            self,
            "Function",
            package="retraining_notices",
            description=f"Tells people of trainings and versions of {spec.name}",
            log_key=log_key,
            log_retention_days=log_retention_days,
            environment={
                "TOPIC_ARN": topic.topic_arn,
                "WORKLOAD": spec.name,
                "ENVIRONMENT": environment_name,
                "MONITORS": stack_of(self).to_json_string(monitors),
            },
            dead_letters=self.dead_letters,
        )
        grant_publish(self.function, topic, self.dead_letters.key)
        executions = arn("sagemaker", f"pipeline/{pipeline_name}/execution/*")
        iam.Grant.add_to_principal(
            grantee=self.function,
            actions=["sagemaker:ListPipelineExecutionSteps"],
            resource_arns=[executions],
        )
        if self.function.role is not None:
            acknowledge_wildcards(
                self.function.role,
                "SageMaker makes up the end of an execution's ARN; the pipeline is one.",
                resources=[executions],
            )
        # Evaluations, and the reports of every kind of monitor: monitoring/, monitoring-quality/, ...
        artifacts.grant_read(self.function, f"{spec.slug}/training/")
        if alarms:
            artifacts.grant_read(self.function, f"{spec.slug}/monitoring")
        self.rules: list[events.CfnRule] = []
        self._rule(
            "Execution",
            description=f"A training of {spec.name} started or failed",
            pattern={
                "source": ["aws.sagemaker"],
                "detail-type": ["SageMaker Model Building Pipeline Execution Status Change"],
                "detail": {
                    "pipelineArn": [arn("sagemaker", f"pipeline/{pipeline_name}")],
                    "currentPipelineExecutionStatus": ["Executing", "Failed", "Stopped"],
                },
            },
        )
        self._rule(
            "Waiting",
            description=f"A version of {group_name} waits for approval",
            pattern={
                "source": ["aws.sagemaker"],
                "detail-type": ["SageMaker Model Package State Change"],
                "detail": {
                    "ModelPackageGroupName": [group_name],
                    "ModelApprovalStatus": ["PendingManualApproval"],
                },
            },
        )
        if alarms:
            self._rule(
                "Drift",
                description=f"A monitor of {spec.name} found drift",
                pattern={
                    "source": ["aws.cloudwatch"],
                    "detail-type": ["CloudWatch Alarm State Change"],
                    "resources": [alarm.alarm_arn for alarm in alarms.values()],
                    "detail": {"state": {"value": ["ALARM"]}},
                },
            )
        self.dead_letters.allow_rules([rule.attr_arn for rule in self.rules])

    def metric_dead_letters(
        self, *, period: cdk.Duration | None = None, statistic: str = "Maximum"
    ) -> cloudwatch.Metric:
        """Notices that were given up; five minutes unless ``period`` says otherwise."""
        return self.dead_letters.queue.metric_approximate_number_of_messages_visible(
            period=cdk.Duration.minutes(5) if period is None else period, statistic=statistic
        )

    def _rule(self, rule_id: str, *, description: str, pattern: dict[str, object]) -> None:
        rule = events.CfnRule(
            self,
            rule_id,
            description=description,
            event_pattern=pattern,
            state="ENABLED",
            targets=[target_with_dead_letters(self.function, self.dead_letters)],
        )
        self.function.add_permission(
            f"Allow{rule_id}", principal=service_principal("events"), source_arn=rule.attr_arn
        )
        self.rules.append(rule)
