"""The state machine of one item, in the Amazon States Language."""

from __future__ import annotations

from typing import Any

from aws_cdk import aws_logs as logs
from aws_cdk import aws_stepfunctions as stepfunctions

from ml_lifecycle.pseudo import PARTITION

__all__ = ["RETRY", "definition", "logging_to"]

#: After this the message is sent to the landing again; what lands twice lands once.
_LANDING_SECONDS = 6 * 3_600
#: Errors that pass: of Lambda (Developer Guide, "Handle transient Lambda service exceptions") and ours.
_PASSING = [
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.TooManyRequestsException",
    "TransientError",
]


RETRY = [
    {
        "ErrorEquals": _PASSING,
        "IntervalSeconds": 2,
        "BackoffRate": 2,
        "MaxAttempts": 6,
        "JitterStrategy": "FULL",
    }
]


def logging_to(group: logs.LogGroup) -> stepfunctions.CfnStateMachine.LoggingConfigurationProperty:
    """Log every step, but never what went through it: items are named there by their hash."""
    return stepfunctions.CfnStateMachine.LoggingConfigurationProperty(
        level="ALL",
        include_execution_data=False,
        destinations=[
            stepfunctions.CfnStateMachine.LogDestinationProperty(
                cloud_watch_logs_log_group=stepfunctions.CfnStateMachine.CloudWatchLogsLogGroupProperty(
                    log_group_arn=group.log_group_arn
                )
            )
        ],
    )


def definition(*, function_arn: str, queue_url: str, expires_hours: int) -> dict[str, Any]:
    """Return the definition; input is ``{"task": name}`` and nothing else ever enters the history.

    FirstRound (waits for votes) -> Decide -> NextRound (more people, or an adjudicator) -> Decide -> ... ->
    Land (waits until the label is in the table) -> Close. A round whose time is over goes to DecideAtTheEnd,
    where votes that were cast but not signalled still count.
    """

    def call(payload: dict[str, Any], then: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {
            "Type": "Task",
            "Resource": f"arn:{PARTITION}:states:::lambda:invoke",
            "Parameters": {
                "FunctionName": function_arn,
                "Payload": {"task.$": "$$.Execution.Input.task", **payload},
            },
            "TimeoutSeconds": 120,
            "Retry": RETRY,
            **more,
            **then,
        }

    def wait(payload: dict[str, Any]) -> dict[str, Any]:
        state = call(
            {"step": "open", "token.$": "$$.Task.Token", **payload},
            {"Next": "Decide"},
            ResultPath=None,
            Catch=[{"ErrorEquals": ["States.Timeout"], "ResultPath": None, "Next": "DecideAtTheEnd"}],
        )
        return {
            **state,
            "Resource": f"arn:{PARTITION}:states:::lambda:invoke.waitForTaskToken",
            "TimeoutSeconds": expires_hours * 3_600,
        }

    outcome = {
        "ResultSelector": {
            "state.$": "$.Payload.state",
            "queue.$": "$.Payload.queue",
            "needed.$": "$.Payload.needed",
        },
        "ResultPath": "$.outcome",
    }

    def follows(state: str, then: str) -> dict[str, Any]:
        return {"Variable": "$.outcome.state", "StringEquals": state, "Next": then}

    return {
        "Comment": "Waits until enough people agree on the label of one item",
        "StartAt": "FirstRound",
        "States": {
            "FirstRound": wait({}),
            "Decide": call({"step": "decide", "ended": False}, {"Next": "Follow"}, **outcome),
            "Follow": {
                "Type": "Choice",
                "Choices": [
                    follows("agreed", "Land"),
                    follows("more", "NextRound"),
                    follows("adjudicate", "NextRound"),
                ],
                "Default": "Expire",
            },
            "NextRound": wait({"queue.$": "$.outcome.queue", "needed.$": "$.outcome.needed"}),
            "DecideAtTheEnd": call({"step": "decide", "ended": True}, {"Next": "Follow"}, **outcome),
            "Land": {
                "Type": "Task",
                "Resource": f"arn:{PARTITION}:states:::sqs:sendMessage.waitForTaskToken",
                "Parameters": {
                    "QueueUrl": queue_url,
                    "MessageBody": {"task.$": "$$.Execution.Input.task", "token.$": "$$.Task.Token"},
                },
                "TimeoutSeconds": _LANDING_SECONDS,
                "Retry": [{"ErrorEquals": ["States.Timeout"], "IntervalSeconds": 60, "MaxAttempts": 3}],
                "ResultPath": None,
                "Next": "Close",
            },
            "Close": call({"step": "close", "state": "labelled"}, {"End": True}, ResultPath=None),
            "Expire": call({"step": "close", "state": "expired"}, {"End": True}, ResultPath=None),
        },
    }
