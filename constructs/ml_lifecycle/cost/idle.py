"""Endpoints and windows that nobody uses are found and stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sns as sns

from constructs import Construct
from ml_lifecycle import alarms
from ml_lifecycle.acknowledge import acknowledge
from ml_lifecycle.cost.run_state import RunState
from ml_lifecycle.dead_letters import DeadLetterQueue
from ml_lifecycle.pseudo import arn, service_principal
from ml_lifecycle.training.wildcards import acknowledge_wildcards
from ml_lifecycle.zip_function import zip_function

__all__ = ["IdleStop"]


class IdleStop(Construct):
    """Define the hourly look at whether somebody uses what serves one workload, and what stops it.

    ``lambda/idle_resources`` counts the requests to ``endpoint_name`` and the records in ``streams`` over
    ``after_hours``; without any it writes ``stopped`` to ``state``, updates ``stacks`` by their names and
    tells ``topic``; ``alarm_topic`` hears when a look fails (default: nobody). A deploy or a start within
    that time counts as use. An update that did not come through is tried again with the next look.

    ``grant_start`` lets somebody wake it up: invoke the function with ``{"action": "start"}`` (``stop`` stops
    at once, ``look`` is the hourly look).

    Example::

        IdleStop(
            self, "Idle",
            workload="claims", environment_name="dev", state=state, stacks=["Dev-ClaimsServing"],
            endpoint_name="dev-claims", after_hours=72,
            message_key=keys.messages, log_key=keys.logs, topic=notices.topic,
        )

    Raises:
        ValueError: hours out of 1 to 720, or no stack.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        workload: str,
        environment_name: str,
        state: RunState,
        stacks: Sequence[str],
        endpoint_name: str | None,
        after_hours: int,
        message_key: kms.IKey,
        log_key: kms.IKey,
        topic: sns.ITopic,
        streams: Sequence[str] = (),
        read: Sequence[str] = (),
        alarm_topic: sns.ITopic | None = None,
        log_retention_days: int = 90,
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        if not 1 <= after_hours <= 720:
            problems.append(f"after_hours must be between 1 and 720, got {after_hours}")
        if not stacks:
            problems.append("stacks must name at least one stack, got none")
        if endpoint_name is None and not streams:
            problems.append("endpoint_name or streams must be given: without, nothing says that it is used")
        if problems:
            raise ValueError("; ".join(problems))
        self.dead_letters = DeadLetterQueue(self, "DeadLetters", key=message_key)
        self.function = zip_function(
            self,
            "Function",
            package="idle_resources",
            description=f"Stops what serves {workload} while nobody uses it",
            log_key=log_key,
            log_retention_days=log_retention_days,
            dead_letters=self.dead_letters,
            environment={
                "WORKLOAD": workload,
                "ENVIRONMENT": environment_name,
                "STATE_PARAMETER": state.parameter_name,
                "STACKS": json.dumps(list(stacks)),
                "STREAMS": json.dumps(list(streams)),
                "AFTER_HOURS": str(after_hours),
                "TOPIC_ARN": topic.topic_arn,
                **({} if endpoint_name is None else {"ENDPOINT_NAME": endpoint_name}),
            },
        )
        state.grant_change(self.function)
        self._grant(stacks, endpoint_name, read, topic, message_key)
        self.schedule = self._schedule(workload)
        alarms.alarm(
            self,
            "Fails",
            what=f"The look for what nobody uses of {workload} fails: what is idle goes on costing",
            runbook="function-fails",
            namespace="AWS/Lambda",
            metric="Errors",
            dimensions={"FunctionName": self.function.function_name},
            topic=alarm_topic,
        )
        alarms.alarm(
            self,
            "GivenUp",
            what=f"A look for what nobody uses of {workload} was given up; it waits in a dead-letter queue",
            runbook="dead-letters",
            namespace="AWS/SQS",
            metric="ApproximateNumberOfMessagesVisible",
            dimensions={"QueueName": self.dead_letters.queue.queue_name},
            statistic="Maximum",
            topic=alarm_topic,
        )

    def grant_start(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant stopping and starting by hand."""
        return iam.Grant.add_to_principal(
            grantee=grantee, actions=["lambda:InvokeFunction"], resource_arns=[self.function.function_arn]
        )

    def metric_errors(self) -> cdk.aws_cloudwatch.Metric:
        """Looks that failed."""
        return self.function.metric_errors(period=cdk.Duration.hours(1))

    def _grant(
        self,
        stacks: Sequence[str],
        endpoint_name: str | None,
        read: Sequence[str],
        topic: sns.ITopic,
        message_key: kms.IKey,
    ) -> None:
        function: lambda_.Function = self.function
        wild = [arn("cloudformation", f"stack/{name}/*") for name in stacks]
        iam.Grant.add_to_principal(
            grantee=function,
            actions=["cloudformation:DescribeStacks", "cloudformation:UpdateStack"],
            resource_arns=wild,
        )
        if endpoint_name is not None:
            iam.Grant.add_to_principal(
                grantee=function,
                actions=["sagemaker:DescribeEndpoint"],
                resource_arns=[arn("sagemaker", f"endpoint/{endpoint_name}")],
            )
        # CloudFormation reads a stack's parameters as who updates it; every stack of the CDK has a version.
        names = [*read, *_bootstrap(self)]
        iam.Grant.add_to_principal(
            grantee=function,
            actions=["ssm:GetParameters"],
            resource_arns=[arn("ssm", f"parameter/{name.lstrip('/')}") for name in names],
        )
        iam.Grant.add_to_principal(grantee=function, actions=["sns:Publish"], resource_arns=[topic.topic_arn])
        iam.Grant.add_to_principal(
            grantee=function,
            actions=["kms:Decrypt", "kms:GenerateDataKey"],
            resource_arns=[message_key.key_arn],
        )
        iam.Grant.add_to_principal(
            grantee=function, actions=["cloudwatch:GetMetricStatistics"], resource_arns=["*"]
        )
        if function.role is not None:
            acknowledge_wildcards(
                function.role,
                "A stack's ARN ends with an id that CloudFormation makes up; its name is one.",
                resources=wild,
            )
            acknowledge(
                function.role,
                "IAM5[Resource::*]",
                "cloudwatch:GetMetricStatistics knows no resources (Service Authorization Reference); it "
                "reads counts of requests, no data",
            )

    def _schedule(self, workload: str) -> scheduler.CfnSchedule:
        role = iam.Role(
            self,
            "ScheduleRole",
            description=f"Looks every hour whether {workload} is used",
            assumed_by=service_principal("scheduler", own_account=True),
        )
        iam.Grant.add_to_principal(
            grantee=role, actions=["lambda:InvokeFunction"], resource_arns=[self.function.function_arn]
        )
        self.dead_letters.grant_send(role)
        schedule = scheduler.CfnSchedule(
            self,
            "Schedule",
            description=f"Looks whether what serves {workload} is used",
            schedule_expression="cron(35 * * * ? *)",
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=self.function.function_arn,
                role_arn=role.role_arn,
                input=json.dumps({"action": "look", "time": "<aws.scheduler.scheduled-time>"}),
                dead_letter_config=scheduler.CfnSchedule.DeadLetterConfigProperty(
                    arn=self.dead_letters.queue.queue_arn
                ),
                retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                    # The next look comes in an hour.
                    maximum_event_age_in_seconds=1_800,
                    maximum_retry_attempts=5,
                ),
            ),
        )
        schedule.node.add_dependency(role)
        return schedule


def _bootstrap(scope: Construct) -> list[str]:
    """Names of the parameters that the CDK's own rule reads in every stack."""
    synthesizer = cdk.Stack.of(scope).synthesizer
    if not isinstance(synthesizer, cdk.DefaultStackSynthesizer):
        return []
    qualifier = synthesizer.bootstrap_qualifier or cdk.DefaultStackSynthesizer.DEFAULT_QUALIFIER
    return [f"/cdk-bootstrap/{qualifier}/version"]
