"""The state machine of one item, in the Amazon States Language."""

from __future__ import annotations

from typing import Any

from ml_lifecycle.foundation import RETRY_LAMBDA
from ml_lifecycle.pseudo import PARTITION

__all__ = ["definition"]

#: After this the message is sent to the landing again; what lands twice lands once.
_LANDING_SECONDS = 6 * 3_600


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
            "Retry": RETRY_LAMBDA,
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
