"""The end of a version's life."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_scheduler as scheduler
from ml_contract.spec.registry import Archive

from constructs import Construct
from ml_lifecycle.dead_letters import DeadLetterQueue
from ml_lifecycle.pseudo import arn, service_principal
from ml_lifecycle.training.wildcards import acknowledge_wildcards
from ml_lifecycle.zip_function import zip_function

__all__ = ["ModelArchive"]


class ModelArchive(Construct):
    """Define what puts old versions of a model package group to the stage ``Archived``, once a day.

    ``rule`` is the workload's ``registry.archive``. The version that one of ``parameter_names`` names, the
    one it named before and those that wait for a decision stay; nothing is deleted. An archived version can
    be approved again.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        rule: Archive,
        group_name: str,
        parameter_names: tuple[str, ...],
        dead_letters: DeadLetterQueue,
        log_key: kms.IKey,
        log_retention_days: int = 90,
    ) -> None:
        super().__init__(scope, construct_id)
        self.function = zip_function(
            self,
            "Function",
            package="model_archive",
            description=f"Puts old versions of {group_name} away",
            log_key=log_key,
            log_retention_days=log_retention_days,
            timeout=cdk.Duration.minutes(5),
            environment={
                "MODEL_PACKAGE_GROUP_NAME": group_name,
                "PARAMETER_NAMES": ",".join(parameter_names),
                "KEEP_VERSIONS": str(rule.keep_versions),
                **({} if rule.after_days is None else {"AFTER_DAYS": str(rule.after_days)}),
            },
            dead_letters=dead_letters,
        )
        versions = arn("sagemaker", f"model-package/{group_name}/*")
        iam.Grant.add_to_principal(
            grantee=self.function,
            actions=["sagemaker:ListModelPackages"],
            # Service Authorization Reference, "Amazon SageMaker": it has no resource type.
            resource_arns=["*"],
        )
        iam.Grant.add_to_principal(
            grantee=self.function,
            actions=["sagemaker:DescribeModelPackage", "sagemaker:UpdateModelPackage"],
            resource_arns=[versions],
        )
        iam.Grant.add_to_principal(
            grantee=self.function,
            actions=["ssm:GetParameterHistory"],
            resource_arns=[arn("ssm", f"parameter/{name.lstrip('/')}") for name in parameter_names],
        )
        if self.function.role is not None:
            acknowledge_wildcards(
                self.function.role,
                "A version's number is not known before it is registered; the group is one. Listing "
                "versions has no resource type.",
                resources=[versions, "*"],
            )
        self._schedule(group_name, dead_letters)

    def _schedule(self, group_name: str, dead_letters: DeadLetterQueue) -> None:
        role = iam.Role(
            self,
            "ScheduleRole",
            description=f"Starts the archive of {group_name}",
            assumed_by=service_principal("scheduler", own_account=True),
        )
        # Function.grant_invoke gives every version and alias too, by a wildcard.
        iam.Grant.add_to_principal(
            grantee=role, actions=["lambda:InvokeFunction"], resource_arns=[self.function.function_arn]
        )
        dead_letters.grant_send(role)
        schedule = scheduler.CfnSchedule(
            self,
            "Schedule",
            description=f"Puts old versions of {group_name} away",
            schedule_expression="rate(1 day)",
            # Nobody waits for it to the hour.
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(
                mode="FLEXIBLE", maximum_window_in_minutes=240
            ),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=self.function.function_arn,
                role_arn=role.role_arn,
                dead_letter_config=scheduler.CfnSchedule.DeadLetterConfigProperty(
                    arn=dead_letters.queue.queue_arn
                ),
                retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                    maximum_event_age_in_seconds=21_600, maximum_retry_attempts=20
                ),
            ),
        )
        schedule.node.add_dependency(role)
