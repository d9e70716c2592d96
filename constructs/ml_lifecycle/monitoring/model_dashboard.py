"""A page over all models of an environment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sns as sns

from constructs import Construct
from ml_lifecycle.alarms import alarm
from ml_lifecycle.code import lambda_folder
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.dead_letters import DeadLetterQueue
from ml_lifecycle.monitoring.kinds import KINDS, Kind
from ml_lifecycle.pseudo import arn, service_principal
from ml_lifecycle.training.wildcards import acknowledge_wildcards
from ml_lifecycle.zip_function import zip_function

__all__ = ["ModelDashboard", "ShownModel"]


@dataclass(frozen=True, kw_only=True)
class ShownModel:
    """A model on the page.

    ``name`` is its workload's; ``alarms`` what the names of its alarms begin with (the names of its stacks);
    ``endpoint`` and ``variant`` what serves it, if an endpoint does; ``kinds`` its monitors.
    """

    name: str
    title: str
    slug: str
    group: str
    approved: str
    alarms: tuple[str, ...]
    endpoint: str | None = None
    variant: str = "AllTraffic"
    kinds: tuple[Kind, ...] = ("data",)


class ModelDashboard(Construct):
    """Define what writes ``<artifacts>/model-dashboard/index.html``: all models of an environment on a page.

    Of each model: what serves, who asks it, its newest versions, what its monitors say and said over a week,
    which of its alarms are on; those that need somebody come first. ``models.json`` beside it says the same
    to programs. The page needs nothing from elsewhere and is read like any object of the zone
    (``grant_read``).

    The function ``lambda/model_dashboard`` runs every hour, ten minutes before it is full, when the monitors
    are done; that costs less than 0.10 USD a month. ``alarm`` tells when it could not. It may describe what
    is named after the environment: endpoints by ``<environment_name>-``, parameters by their folder. So its
    policy is as large for a hundred models as for one.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment_name: str,
        models: Sequence[ShownModel],
        artifacts: Zone,
        message_key: kms.IKey,
        log_key: kms.IKey,
        log_retention_days: int = 90,
        alarm_topic: sns.ITopic | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        self.prefix = "model-dashboard/"
        self.uri = artifacts.uri(f"{self.prefix}index.html")
        self._artifacts = artifacts
        self.dead_letters = DeadLetterQueue(self, "DeadLetters", key=message_key)
        self.function = zip_function(
            self,
            "Function",
            package="model_dashboard",
            description=f"Writes the page over all models of {environment_name}",
            log_key=log_key,
            log_retention_days=log_retention_days,
            timeout=cdk.Duration.minutes(5),
            environment={
                "ENVIRONMENT": environment_name,
                "ARTIFACTS_BUCKET": artifacts.bucket.bucket_name,
                "PAGE_PREFIX": self.prefix,
            },
            dead_letters=self.dead_letters,
            # A function's variables hold 4 KB (Lambda quotas).
            folder=lambda_folder(
                "model_dashboard",
                {"models.json": json.dumps([vars(model) for model in models], indent=1, sort_keys=True)},
            ),
        )
        self._grant(environment_name, models)
        self._schedule(environment_name)
        self.alarm = alarm(
            self,
            "GivenUp",
            what=f"The page over all models of {environment_name} was not written",
            runbook="dead-letters",
            namespace="AWS/SQS",
            metric="ApproximateNumberOfMessagesVisible",
            dimensions={"QueueName": self.dead_letters.queue.queue_name},
            topic=alarm_topic,
            statistic="Maximum",
        )

    def grant_read(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant reading the page."""
        return self._artifacts.grant_read(grantee, self.prefix)

    def _grant(self, environment_name: str, models: Sequence[ShownModel]) -> None:
        function, artifacts = self.function, self._artifacts
        # A list by the beginning of names is held to all alarms of a Region: CloudWatch answers who may
        # less with "not authorized ... on resource alarm:*".
        alarms = arn("cloudwatch", "alarm:*")
        endpoints = arn("sagemaker", f"endpoint/{environment_name}-*")
        parameters = sorted({arn("ssm", f"parameter{_folder(model.approved)}*") for model in models})
        # Service Authorization Reference, "Amazon SageMaker AI" and "Amazon CloudWatch": no resource types.
        unnamed = ["cloudwatch:GetMetricData", "sagemaker:ListModelPackages"]
        for actions, resources in (
            (unnamed, ["*"]),
            (["cloudwatch:DescribeAlarms"], [alarms]),
            (["sagemaker:DescribeEndpoint"], [endpoints]),
            (["ssm:GetParameter"], parameters),
        ):
            iam.Grant.add_to_principal(grantee=function, actions=actions, resource_arns=resources)
        # Which report is the newest: names and times, no content.
        iam.Grant.add_to_principal(
            grantee=function,
            actions=["s3:ListBucket"],
            resource_arns=[artifacts.bucket.bucket_arn],
            conditions={
                "StringLike": {"s3:prefix": [f"*/{facts.folder}/*" for facts in KINDS.values()]},
            },
        )
        artifacts.grant_write(function, self.prefix)
        if function.role is not None:
            acknowledge_wildcards(
                function.role,
                "Metrics and versions are listed by calls without resource types, alarms by one that is held "
                "to all of them; endpoints and parameters are the environment's, by its name.",
                resources=["*", alarms, endpoints, *parameters],
            )

    def _schedule(self, environment_name: str) -> None:
        role = iam.Role(
            self,
            "ScheduleRole",
            description=f"Asks for the page over all models of {environment_name}",
            assumed_by=service_principal("scheduler", own_account=True),
        )
        iam.Grant.add_to_principal(
            grantee=role, actions=["lambda:InvokeFunction"], resource_arns=[self.function.function_arn]
        )
        self.dead_letters.grant_send(role)
        schedule = scheduler.CfnSchedule(
            self,
            "Schedule",
            description=f"The page over all models of {environment_name}",
            schedule_expression="cron(50 * * * ? *)",
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=self.function.function_arn,
                role_arn=role.role_arn,
                input=json.dumps({"time": "<aws.scheduler.scheduled-time>"}),
                dead_letter_config=scheduler.CfnSchedule.DeadLetterConfigProperty(
                    arn=self.dead_letters.queue.queue_arn
                ),
                retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                    maximum_event_age_in_seconds=3_600, maximum_retry_attempts=5
                ),
            ),
        )
        schedule.node.add_dependency(role)


def _folder(parameter: str) -> str:
    """The first two parts of a parameter's name, ``/ml-lifecycle/dev/``: the environment's parameters."""
    return "/".join(parameter.split("/")[:3]) + "/"
