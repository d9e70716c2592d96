"""What starts the training pipeline, and what keeps it from starting too often."""

from __future__ import annotations

import json
from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_scheduler as scheduler
from ml_contract.load import LoadedWorkload

from constructs import Construct
from ml_lifecycle.dead_letters import DeadLetterQueue
from ml_lifecycle.pseudo import arn, service_principal
from ml_lifecycle.registry import ModelRegistry
from ml_lifecycle.zip_function import zip_function

__all__ = ["Retraining"]


class Retraining(Construct):
    """Define the triggers of a workload's training pipeline and the function that answers them.

    Triggers, each as the workload's ``retraining`` says: an alarm that goes to ALARM (``on_drift``), a
    schedule (``every_days``), an event that says there are new features (``on_new_data``). All reach
    ``lambda/retrain_trigger``, which starts the pipeline unless an execution runs or started within
    ``cooldown_hours``; of triggers that come at once, one starts it. An event that fails three times, or
    cannot be delivered for six hours, is kept in ``dead_letters`` for 14 days.

    Where the workload trains from the approved model (``training.parent``) or judges beside it
    (``evaluation.champion``), the function tells the pipeline which one it is; that takes ``registry``.

    ``grant_request`` lets a person or a program ask for a training: invoke the function with ``{"reason":
    "..."}``.

    Example::

        Retraining(
            self, "Retraining",
            workload=workload, pipeline_name="dev-claims-fraud", drift_alarm=monitor.drift_alarm,
            message_key=keys.messages, log_key=keys.logs,
        )
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: LoadedWorkload,
        pipeline_name: str,
        message_key: kms.IKey,
        log_key: kms.IKey,
        drift_alarm: cloudwatch.IAlarm | None = None,
        new_data_event: Mapping[str, object] | None = None,
        registry: ModelRegistry | None = None,
        log_retention_days: int = 90,
    ) -> None:
        super().__init__(scope, construct_id)
        spec = workload.workload
        rules = spec.retraining
        problems = []
        # What is not captured is not watched: the default of on_drift means nothing there.
        on_drift = rules.on_drift and spec.serving.captures
        if on_drift and drift_alarm is None:
            problems.append("drift_alarm must be given when retraining.on_drift is true, got None")
        if rules.on_new_data and new_data_event is None:
            problems.append("new_data_event must be given when retraining.on_new_data is true, got None")
        told = [
            *(["ChampionModel"] if spec.training.parent or spec.evaluation.champion else []),
            *(["ChampionTest"] if spec.evaluation.champion else []),
        ]
        if told and registry is None:
            problems.append(
                "registry must be given when training.parent or evaluation.champion is set, got None"
            )
        if problems:
            raise ValueError("; ".join(problems))
        champion = {}
        if told and registry is not None:
            champion = {
                "APPROVED_PARAMETER": registry.approval_parameter_name,
                "CHAMPION_PARAMETERS": ",".join(told),
            }
        self.dead_letters = DeadLetterQueue(self, "DeadLetters", key=message_key)
        self.function = zip_function(
            self,
            "Trigger",
            package="retrain_trigger",
            description=f"Starts {pipeline_name} when there is a reason to",
            log_key=log_key,
            log_retention_days=log_retention_days,
            environment={
                "PIPELINE_NAME": pipeline_name,
                "WORKLOAD": spec.name,
                "COOLDOWN_HOURS": str(rules.cooldown_hours),
                **champion,
            },
            dead_letters=self.dead_letters,
        )
        iam.Grant.add_to_principal(
            grantee=self.function,
            actions=["sagemaker:ListPipelineExecutions", "sagemaker:StartPipelineExecution"],
            resource_arns=[arn("sagemaker", f"pipeline/{pipeline_name}")],
        )
        if told and registry is not None:
            registry.grant_read(self.function)
        self.rules: list[events.CfnRule] = []
        if on_drift and drift_alarm is not None:
            self._rule(
                "Drift",
                description=f"Drift of {spec.name}",
                pattern={
                    "source": ["aws.cloudwatch"],
                    "detail-type": ["CloudWatch Alarm State Change"],
                    "resources": [drift_alarm.alarm_arn],
                    "detail": {"state": {"value": ["ALARM"]}},
                },
            )
        if rules.on_new_data and new_data_event is not None:
            self._rule(
                "NewData",
                description=f"New features of {spec.name}",
                pattern=dict(new_data_event),
            )
        if self.rules:
            self.dead_letters.allow_rules([rule.attr_arn for rule in self.rules])
        self.schedule = None if rules.every_days is None else self._schedule(rules.every_days)

    def grant_request(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant asking for a training by invoking the function."""
        return self.function.grant_invoke(grantee)

    def metric_dead_letters(
        self, *, period: cdk.Duration | None = None, statistic: str = "Maximum"
    ) -> cloudwatch.Metric:
        """Triggers that were given up; five minutes unless ``period`` says otherwise."""
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
            targets=[
                events.CfnRule.TargetProperty(
                    id="Trigger",
                    arn=self.function.function_arn,
                    dead_letter_config=events.CfnRule.DeadLetterConfigProperty(
                        arn=self.dead_letters.queue.queue_arn
                    ),
                    retry_policy=events.CfnRule.RetryPolicyProperty(
                        maximum_event_age_in_seconds=21_600, maximum_retry_attempts=20
                    ),
                )
            ],
        )
        self.function.add_permission(
            f"Allow{rule_id}",
            principal=service_principal("events"),
            source_arn=rule.attr_arn,
        )
        self.rules.append(rule)

    def _schedule(self, days: int) -> scheduler.CfnSchedule:
        role = iam.Role(
            self,
            "ScheduleRole",
            description="Asks for a training on a schedule",
            assumed_by=service_principal("scheduler", own_account=True),
        )
        # Function.grant_invoke gives every version and alias too, by a wildcard.
        iam.Grant.add_to_principal(
            grantee=role, actions=["lambda:InvokeFunction"], resource_arns=[self.function.function_arn]
        )
        self.dead_letters.grant_send(role)
        schedule = scheduler.CfnSchedule(
            self,
            "Schedule",
            description="Asks for a training",
            schedule_expression=f"rate({days} {'day' if days == 1 else 'days'})",
            # Nobody waits for it to the minute.
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(
                mode="FLEXIBLE", maximum_window_in_minutes=15
            ),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=self.function.function_arn,
                role_arn=role.role_arn,
                input=json.dumps(
                    {
                        "source": "ml-lifecycle.schedule",
                        "detail-type": "Scheduled Event",
                        "time": "<aws.scheduler.scheduled-time>",
                        "detail": {},
                    }
                ),
                dead_letter_config=scheduler.CfnSchedule.DeadLetterConfigProperty(
                    arn=self.dead_letters.queue.queue_arn
                ),
                retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                    maximum_event_age_in_seconds=21_600, maximum_retry_attempts=20
                ),
            ),
        )
        schedule.node.add_dependency(role)
        return schedule
