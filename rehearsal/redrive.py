"""Hand what a dead-letter queue of a function holds to the function again.

SQS moves messages back to a queue that they came from (StartMessageMoveTask), not to a function: events that
Lambda gave up, or that EventBridge could not deliver, are invoked anew by whoever has repaired what was
wrong. A message is deleted once Lambda has taken its event; should this be interrupted, an event is handed
over twice, which the functions here are made for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["RedriveError", "Redriven", "event_of", "redrive"]

#: ReceiveMessage hands out ten at most.
_BATCH = 10


class RedriveError(Exception):
    """A message that holds no event, or that Lambda does not take; it stays in the queue."""


@dataclass(frozen=True, kw_only=True)
class Redriven:
    """How many events were handed over, and what became of each: Lambda's status code by message id."""

    events: int
    accepted: Mapping[str, int]


def event_of(body: str) -> object:
    """The event in a message: the body itself, or the payload in the envelope of an on-failure destination.

    Raises:
        RedriveError: the body is no JSON.
    """
    try:
        found: Any = json.loads(body)
    except ValueError:
        raise RedriveError(f"the message is no JSON: {body[:200]!r}") from None
    if isinstance(found, Mapping) and "requestPayload" in found and "requestContext" in found:
        payload: object = found["requestPayload"]
        return payload
    return found


def redrive(sqs: Any, lambda_client: Any, *, queue_url: str, function: str, most: int = 1_000) -> Redriven:
    """Invoke ``function`` once for each message of the queue, up to ``most``, and delete the message.

    Raises:
        RedriveError: see above; what was handed over before stays handed over.
    """
    accepted: dict[str, int] = {}
    while len(accepted) < most:
        answer = sqs.receive_message(
            QueueUrl=queue_url,
            MaxNumberOfMessages=min(_BATCH, most - len(accepted)),
            WaitTimeSeconds=1,
        )
        messages = answer.get("Messages", [])
        if not messages:
            break
        for message in messages:
            event = event_of(message["Body"])
            taken = lambda_client.invoke(
                FunctionName=function, InvocationType="Event", Payload=json.dumps(event).encode()
            )
            # Lambda, "Invoke": 202 of an asynchronous invocation.
            if taken["StatusCode"] != 202:
                raise RedriveError(f"{function} did not take {message['MessageId']}: {taken['StatusCode']}")
            sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
            accepted[message["MessageId"]] = taken["StatusCode"]
    return Redriven(events=len(accepted), accepted=accepted)
