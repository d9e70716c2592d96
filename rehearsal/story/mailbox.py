"""A mailbox of the operator: what stakeholders are told by SNS, read from a queue that subscribes to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rehearsal.story.telling import require, wait_until

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["MAILBOX", "Mailbox", "keep_mailbox", "mailbox"]

_NAME = "stakeholders-mailbox"
#: What the story knows it by.
MAILBOX = "mailbox of the stakeholders"


class Mailbox:
    """A queue that gets every notice from now on, until it is closed; nothing of it stays.

    Args:
        tale: the story; its workload's Operations stack names the topic.
        topic: ARN of another one.
    """

    def __init__(self, tale: Tale, topic: str | None = None) -> None:
        self._sqs, self._sns = tale.cloud.client("sqs"), tale.cloud.client("sns")
        topic = topic or tale.outputs("Operations")["StakeholdersTopicArn"]
        self._url = self._sqs.create_queue(QueueName=_NAME)["QueueUrl"]
        arn = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "sns.amazonaws.com"},
                    "Action": "sqs:SendMessage",
                    "Resource": arn,
                    "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
                }
            ],
        }
        self._sqs.set_queue_attributes(QueueUrl=self._url, Attributes={"Policy": json.dumps(policy)})
        self._subscription = self._sns.subscribe(
            TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"}
        )["SubscriptionArn"]
        self._read: list[dict[str, Any]] = []

    def close(self) -> None:
        """Take subscription and queue away."""
        self._sns.unsubscribe(SubscriptionArn=self._subscription)
        self._sqs.delete_queue(QueueUrl=self._url)

    def notices(self) -> list[dict[str, Any]]:
        """Every notice since the mailbox was opened."""
        while True:
            found = self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10).get("Messages", [])
            if not found:
                return self._read
            for message in found:
                self._read.append(json.loads(message["Body"]))
                self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])

    def told(self, kind: str, about: str = "", *, seconds: float = 60) -> dict[str, Any]:
        """Wait for a notice of a kind whose correlation id holds ``about``; the newest."""

        def found() -> dict[str, Any] | None:
            fitting = [n for n in self.notices() if n["notice"] == kind and about in n["correlation_id"]]
            return fitting[-1] if fitting else None

        notice: dict[str, Any] = wait_until(f"a notice {kind}", found, seconds=seconds)
        require(notice["why"], f"the notice {kind} gives no reason")
        require(notice["links"], f"the notice {kind} leads nowhere")
        return notice


@contextmanager
def mailbox(tale: Tale, topic: str | None = None) -> Iterator[Mailbox]:
    """A mailbox for the time of the body, of the stakeholders' topic unless another is named."""
    box = Mailbox(tale, topic)
    try:
        yield box
    finally:
        box.close()


def keep_mailbox(tale: Tale) -> None:
    """Open a mailbox that a later step reads, unless there is one or nobody is told anything."""
    if tale.workload.retraining.notify and MAILBOX not in tale.known:
        tale.known[MAILBOX] = Mailbox(tale)
