"""Engine ``processing``: SageMaker Processing, started by EventBridge Scheduler; anyone may use it."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_scheduler as scheduler

from constructs import Construct
from ml_lifecycle.dead_letters import DeadLetterQueue
from ml_lifecycle.isolation import open_job
from ml_lifecycle.monitoring.job import WHY_OPEN, MonitorJob, request
from ml_lifecycle.pseudo import arn, service_principal
from ml_lifecycle.training.job_role import grant_key
from ml_lifecycle.training.wildcards import acknowledge_wildcards

__all__ = ["HOURS", "cron", "own_schedule"]

#: Hours that divide a day: each run of a schedule is as far from the one before.
HOURS = (1, 2, 3, 4, 6, 8, 12, 24)


def own_schedule(
    scope: Construct, job: MonitorJob, *, volume_key: kms.IKey, dead_letters: DeadLetterQueue
) -> scheduler.CfnSchedule:
    """Define the schedule that starts a kind's runs, and the role that it starts them as."""
    told = f" ({job.kind})" if job.kind != "data" else ""
    role = iam.Role(
        scope,
        "ScheduleRole",
        description=f"Starts the monitoring runs of {job.endpoint_name}{told}",
        assumed_by=service_principal("scheduler", own_account=True),
    )
    jobs = arn("sagemaker", f"processing-job/{job.name_prefix}-*")
    iam.Grant.add_to_principal(
        grantee=role,
        actions=["sagemaker:AddTags", "sagemaker:CreateProcessingJob"],
        resource_arns=[jobs],
    )
    acknowledge_wildcards(
        role, "Each run is named after its execution; the wildcard ends at the prefix.", resources=[jobs]
    )
    iam.Grant.add_to_principal(
        grantee=role,
        actions=["iam:PassRole"],
        resource_arns=[job.role.role_arn],
        conditions={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
    )
    grant_key(volume_key, role)
    dead_letters.grant_send(role)
    schedule = scheduler.CfnSchedule(
        scope,
        "Schedule",
        description=f"Judges the traffic of {job.endpoint_name}{told}",
        schedule_expression=cron(job.facts.minute, job.every_hours),
        flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
        target=scheduler.CfnSchedule.TargetProperty(
            arn=f"arn:{cdk.Aws.PARTITION}:scheduler:::aws-sdk:sagemaker:createProcessingJob",
            role_arn=role.role_arn,
            input=cdk.Stack.of(scope).to_json_string(request(job)),
            dead_letter_config=scheduler.CfnSchedule.DeadLetterConfigProperty(
                arn=dead_letters.queue.queue_arn
            ),
            retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                maximum_event_age_in_seconds=3_600, maximum_retry_attempts=10
            ),
        ),
    )
    open_job(schedule, "ProcessingJob", WHY_OPEN)
    for each in (role, job.role):
        schedule.node.add_dependency(each)
    return schedule


def cron(minute: int, hours: int) -> str:
    """Return EventBridge's expression for every ``hours`` from midnight (UTC), at a minute of the hour."""
    return f"cron({minute} {'*' if hours == 1 else '0' if hours == 24 else f'0/{hours}'} * * ? *)"
