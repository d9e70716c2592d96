"""Two jobs in a row by Step Functions: curate, then build features; what starts them; one run at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sns as sns
from aws_cdk import aws_stepfunctions as stepfunctions

from constructs import Construct
from ml_lifecycle.data_lake import Zone
from ml_lifecycle.foundation import grant_logs_and_traces, log_group, logging_to
from ml_lifecycle.pseudo import PARTITION, arn, service_principal

__all__ = ["GATHER_SECONDS", "BatchWorkflow", "short_name", "turns"]

#: What landed first waits so long for more: files of one delivery are curated together.
GATHER_SECONDS = 300
#: A run that waits for another looks so often.
_LOOK_SECONDS = 60
#: ListExecutions answers at most this many at once (AWS Step Functions API reference).
_LISTED = 1_000
#: A job's name has at most 63 characters (CreateProcessingJob); the longest step and 12 random ones follow.
_PREFIX_LENGTH = 63 - len("-features-") - 12
#: Random end of a job's name; each attempt has a new one.
RANDOM = "States.ArrayGetItem(States.StringSplit(States.UUID(), '-'), 4)"


def short_name(name_prefix: str) -> str:
    """Return a prefix that leaves room for the rest of a job's name, its own even when it had to be cut."""
    if len(name_prefix) <= _PREFIX_LENGTH:
        return name_prefix
    digest = hashlib.sha256(name_prefix.encode()).hexdigest()[:8]
    return f"{name_prefix[: _PREFIX_LENGTH - 9].rstrip('-')}-{digest}"


class BatchWorkflow(Construct):
    """Define a state machine that runs ``curate`` and then ``features``, one run at a time.

    Each is a state of type Task without ``Next``, ``Retry`` and ``Catch``: a service's ``.sync`` integration.
    ``retry`` names the errors after which the service is asked again (throttling, no capacity); a job that
    failed is not repeated, for a broken rule breaks again. A failure goes to ``failure_topic``, then the run
    fails.

    It starts when objects land below ``raw_prefix`` (``on_landing``), on a ``schedule`` (UTC) and by hand,
    with any JSON object as input. A landing waits ``gather_seconds`` for more. Of runs that come while one is
    under way the first waits, the others end at once: the one that waits starts later and sees what they saw.
    That rests on ListExecutions, which is eventually consistent; should two runs meet nevertheless, the
    commit of the curated table lets one of them win and no reader sees half of either.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        title: str,
        curate: Mapping[str, Any],
        features: Mapping[str, Any],
        retry: tuple[str, ...],
        raw: Zone,
        raw_prefix: str,
        log_key: kms.IKey,
        schedule: str | None = "cron(0 2 * * ? *)",
        on_landing: bool = True,
        gather_seconds: int = GATHER_SECONDS,
        log_retention_days: int = 90,
        failure_topic: sns.ITopic | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        problems = []
        # AWS Step Functions API reference, CreateStateMachine: name.
        if len(name) > 80:
            problems.append(f"name must have at most 80 characters, got {len(name)}: {name!r}")
        if schedule is not None and not schedule.startswith(("cron(", "rate(")):
            problems.append(f"schedule must be cron(...), rate(...) or None, got {schedule!r}")
        if not raw_prefix.endswith("/"):
            problems.append(f"raw_prefix must end with '/', got {raw_prefix!r}")
        if not 0 <= gather_seconds <= 3_600:
            problems.append(f"gather_seconds must be between 0 and 3600, got {gather_seconds}")
        if problems:
            raise ValueError("batch workflow: " + "; ".join(problems))
        self._title = title
        self._topic = failure_topic
        self._retry = retry
        # A name of its own: the machine asks for its own executions, and its policy comes before it.
        self.arn = arn("states", f"stateMachine:{name}")
        self.role = self._role()
        self.state_machine = self._machine(name, curate, features, log_key, log_retention_days)
        if on_landing:
            self._start_on_landing(raw, raw_prefix, gather_seconds)
        if schedule is not None:
            self._start_on_schedule(schedule)

    def grant_start(self, grantee: iam.IGrantable) -> iam.Grant:
        """Grant starting a run and looking at runs."""
        executions = self.arn.replace(":stateMachine:", ":execution:") + ":*"
        grant = iam.Grant.add_to_principal(
            grantee=grantee,
            actions=["states:DescribeStateMachine", "states:ListExecutions", "states:StartExecution"],
            resource_arns=[self.arn],
        )
        return grant.combine(
            iam.Grant.add_to_principal(
                grantee=grantee,
                actions=["states:DescribeExecution", "states:GetExecutionHistory"],
                resource_arns=[executions],
            )
        )

    def metric(
        self,
        metric_name: str = "ExecutionsFailed",
        *,
        period: cdk.Duration | None = None,
        statistic: str = "Sum",
    ) -> cloudwatch.Metric:
        """Return a metric of the runs, e.g. ``ExecutionsFailed`` or ``ExecutionTime`` (milliseconds)."""
        return cloudwatch.Metric(
            namespace="AWS/States",
            metric_name=metric_name,
            dimensions_map={"StateMachineArn": self.arn},
            statistic=statistic,
            period=cdk.Duration.minutes(5) if period is None else period,
        )

    # --- the machine ----------------------------------------------------------------------------------------

    def _role(self) -> iam.Role:
        role = iam.Role(
            self,
            "Role",
            description=f"{self._title}: starts its jobs and tells failures",
            assumed_by=service_principal("states", own_account=True),
        )
        iam.Grant.add_to_principal(grantee=role, actions=["states:ListExecutions"], resource_arns=[self.arn])
        if self._topic is not None:
            iam.Grant.add_to_principal(
                grantee=role, actions=["sns:Publish"], resource_arns=[self._topic.topic_arn]
            )
        grant_logs_and_traces(role)
        return role

    def _machine(
        self,
        name: str,
        curate: Mapping[str, Any],
        features: Mapping[str, Any],
        log_key: kms.IKey,
        log_retention_days: int,
    ) -> stepfunctions.CfnStateMachine:
        props = stepfunctions.CfnStateMachine
        group = log_group(self, "Logs", key=log_key, retention_days=log_retention_days)
        machine = stepfunctions.CfnStateMachine(
            self,
            "StateMachine",
            state_machine_name=name,
            role_arn=self.role.role_arn,
            state_machine_type="STANDARD",
            definition_string=cdk.Stack.of(self).to_json_string(self._definition(curate, features)),
            logging_configuration=logging_to(group),
            tracing_configuration=props.TracingConfigurationProperty(enabled=True),
        )
        machine.node.add_dependency(self.role)
        return machine

    def _definition(self, curate: Mapping[str, Any], features: Mapping[str, Any]) -> dict[str, Any]:
        failed = {"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "Tell"}
        again = {
            "ErrorEquals": list(self._retry),
            "IntervalSeconds": 20,
            "MaxAttempts": 6,
            "BackoffRate": 2,
            "JitterStrategy": "FULL",
        }
        common: dict[str, Any] = {"Retry": [again], **({"Catch": [failed]} if self._topic else {})}
        states: dict[str, Any] = {
            **turns("Landed"),
            "Landed": {
                "Type": "Choice",
                "Choices": [
                    {
                        "And": [
                            {"Variable": "$.gather_seconds", "IsPresent": True},
                            {"Variable": "$.gather_seconds", "IsNumeric": True},
                        ],
                        "Next": "Gather",
                    }
                ],
                "Default": "Curate",
            },
            "Gather": {"Type": "Wait", "SecondsPath": "$.gather_seconds", "Next": "Curate"},
            "Curate": {**curate, **common, **_nothing("curated"), "Next": "Features"},
            "Features": {**features, **common, **_nothing("built"), "End": True},
        }
        if self._topic is not None:
            states["Tell"] = {
                "Type": "Task",
                "Resource": f"arn:{PARTITION}:states:::sns:publish",
                "Parameters": {
                    "TopicArn": self._topic.topic_arn,
                    "Subject": f"{self._title[:80]}: a run failed",
                    "Message.$": "States.Format('{}: {}', $$.Execution.Id, States.JsonToString($.error))",
                },
                **_nothing("told"),
                "Next": "Failed",
            }
            states["Failed"] = {"Type": "Fail", "ErrorPath": "$.error.Error", "CausePath": "$.error.Cause"}
        return {"Comment": self._title, "StartAt": "Runs", "States": states}

    # --- what starts it -------------------------------------------------------------------------------------

    def _start_on_landing(self, raw: Zone, raw_prefix: str, gather_seconds: int) -> None:
        role = self._starter("LandingRole", "events", "Starts the workflow when data landed")
        rule = events.CfnRule(
            self,
            "Landing",
            description=f"New objects below {raw_prefix} of the raw zone",
            event_pattern={
                "source": ["aws.s3"],
                "detail-type": ["Object Created"],
                "detail": {
                    "bucket": {"name": [raw.bucket.bucket_name]},
                    "object": {"key": [{"prefix": raw_prefix}]},
                },
            },
            targets=[
                events.CfnRule.TargetProperty(
                    id="Workflow",
                    arn=self.state_machine.ref,
                    role_arn=role.role_arn,
                    input=cdk.Stack.of(self).to_json_string({"gather_seconds": gather_seconds}),
                )
            ],
        )
        rule.node.add_dependency(role)

    def _start_on_schedule(self, expression: str) -> None:
        role = self._starter("ScheduleRole", "scheduler", "Starts the workflow on its schedule")
        schedule = scheduler.CfnSchedule(
            self,
            "Schedule",
            description=f"Runs the workflow: {self._title}",
            schedule_expression=expression,
            schedule_expression_timezone="UTC",
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=self.state_machine.ref, role_arn=role.role_arn, input="{}"
            ),
        )
        schedule.node.add_dependency(role)

    def _starter(self, construct_id: str, service: str, description: str) -> iam.Role:
        role = iam.Role(
            self,
            construct_id,
            description=description,
            assumed_by=service_principal(service, own_account=True),
        )
        iam.Grant.add_to_principal(grantee=role, actions=["states:StartExecution"], resource_arns=[self.arn])
        return role


def turns(go: str) -> dict[str, Any]:
    """States from ``Runs`` on that let one run at a time reach ``go``: one waits, further ones are covered.

    The machine's role may list the machine's own executions.
    """
    me, runs = "$$.Execution.Id", "$.under_way"
    busy = {
        "ErrorEquals": ["Sfn.SfnException", "Sfn.ThrottlingException"],
        "IntervalSeconds": 5,
        "MaxAttempts": 6,
        "BackoffRate": 2,
    }
    return {
        "Runs": {
            "Type": "Task",
            "Resource": f"arn:{PARTITION}:states:::aws-sdk:sfn:listExecutions",
            "Parameters": {
                "StateMachineArn.$": "$$.StateMachine.Id",
                "StatusFilter": "RUNNING",
                "MaxResults": _LISTED,
            },
            "ResultSelector": {
                "count.$": "States.ArrayLength($.Executions)",
                "runs.$": "$.Executions",
            },
            "ResultPath": "$.under_way",
            "Retry": [busy],
            "Next": "Alone",
        },
        "Alone": {
            "Type": "Choice",
            "Choices": [
                # None: this very run is too young to be listed.
                {"Variable": "$.under_way.count", "NumericLessThanEquals": 1, "Next": go}
            ],
            "Default": "Order",
        },
        # The youngest run is listed first.
        "Order": {
            "Type": "Pass",
            "Parameters": {
                "first.$": f"States.ArrayGetItem({runs}.runs, States.MathAdd({runs}.count, -1))",
                "second.$": f"States.ArrayGetItem({runs}.runs, States.MathAdd({runs}.count, -2))",
            },
            "ResultPath": "$.order",
            "Next": "Turn",
        },
        "Turn": {
            "Type": "Choice",
            "Choices": [
                {"Variable": "$.order.first.ExecutionArn", "StringEqualsPath": me, "Next": go},
                {"Variable": "$.order.second.ExecutionArn", "StringEqualsPath": me, "Next": "Wait"},
            ],
            "Default": "Covered",
        },
        "Wait": {"Type": "Wait", "Seconds": _LOOK_SECONDS, "Next": "Runs"},
        "Covered": {"Type": "Succeed", "Comment": "A run that waits will see what this one saw"},
    }


def _nothing(name: str) -> dict[str, Any]:
    """Keep a state's input and none of its result. Not ``ResultPath: null``: the CDK's JSON drops nulls."""
    return {"ResultSelector": {}, "ResultPath": f"$.{name}"}
