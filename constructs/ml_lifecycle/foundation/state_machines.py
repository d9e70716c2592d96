"""What every Step Functions state machine of ours has: its log, its permissions for it, its patience."""

from __future__ import annotations

from typing import Any

from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_stepfunctions as stepfunctions

from ml_lifecycle.acknowledge import acknowledge

__all__ = [
    "LAMBDA_BUSY",
    "LAMBDA_KILLED",
    "RETRY_KILLED",
    "RETRY_LAMBDA",
    "grant_logs_and_traces",
    "logging_to",
]

#: Errors of Lambda that pass (AWS Step Functions Developer Guide, "Handle transient Lambda service
#: exceptions").
LAMBDA_BUSY = (
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.TooManyRequestsException",
)
#: The function's end came before its answer: out of time or memory, or its machine is gone. The guide says
#: ``Lambda.Unknown`` of what Lambda itself calls ``Runtime.ExitError`` and ``Sandbox.Timedout``.
LAMBDA_KILLED = ("Lambda.Unknown", "Runtime.ExitError", "Sandbox.Timedout")
#: Tries a function again that was killed; ours find what they have done and do the rest.
RETRY_KILLED: dict[str, Any] = {
    "ErrorEquals": [*LAMBDA_KILLED],
    "IntervalSeconds": 5,
    "BackoffRate": 2,
    "MaxAttempts": 2,
}
#: Tries a function again after an error of Lambda's that passes, after a ``TransientError`` of ours, and when
#: it was killed.
RETRY_LAMBDA: list[dict[str, Any]] = [
    {
        "ErrorEquals": [*LAMBDA_BUSY, "TransientError"],
        "IntervalSeconds": 2,
        "BackoffRate": 2,
        "MaxAttempts": 6,
        "JitterStrategy": "FULL",
    },
    RETRY_KILLED,
]


def logging_to(group: logs.LogGroup) -> stepfunctions.CfnStateMachine.LoggingConfigurationProperty:
    """Log every step, but never what went through it."""
    props = stepfunctions.CfnStateMachine
    return props.LoggingConfigurationProperty(
        level="ALL",
        include_execution_data=False,
        destinations=[
            props.LogDestinationProperty(
                cloud_watch_logs_log_group=props.CloudWatchLogsLogGroupProperty(
                    log_group_arn=group.log_group_arn
                )
            )
        ],
    )


def grant_logs_and_traces(role: iam.Role) -> None:
    """Grant a state machine's role what logging and tracing ask (Step Functions Developer Guide, "Logging
    using CloudWatch Logs" and "X-Ray and Step Functions").
    """
    iam.Grant.add_to_principal(
        grantee=role,
        actions=[
            "logs:CreateLogDelivery",
            "logs:DeleteLogDelivery",
            "logs:DescribeLogGroups",
            "logs:DescribeResourcePolicies",
            "logs:GetLogDelivery",
            "logs:ListLogDeliveries",
            "logs:PutResourcePolicy",
            "logs:UpdateLogDelivery",
            "xray:GetSamplingRules",
            "xray:GetSamplingTargets",
            "xray:PutTelemetryRecords",
            "xray:PutTraceSegments",
        ],
        resource_arns=["*"],
    )
    acknowledge(
        role,
        "IAM5[Resource::*]",
        "Log deliveries and traces know no resource (Service Authorization Reference); the rest does.",
    )
