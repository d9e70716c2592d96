"""A mailbox of the operator: what stakeholders are told by SNS, read from a queue that subscribes to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rehearsal.story.telling import require, wait_until

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["notices", "open_mailbox", "told"]

_MAILBOX = "mailbox of stakeholders"
_NAME = "stakeholders-mailbox"


def open_mailbox(tale: Tale) -> str:
    """The URL of a queue that gets every notice from now on; made once."""
    if _MAILBOX in tale.known:
        return str(tale.known[_MAILBOX]["url"])
    topic = tale.outputs("Operations")["StakeholdersTopicArn"]
    sqs = tale.cloud.client("sqs")
    url = sqs.create_queue(QueueName=_NAME)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
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
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
    tale.cloud.client("sns").subscribe(
        TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"}
    )
    tale.known[_MAILBOX] = {"url": url, "read": []}
    return str(url)


def notices(tale: Tale) -> list[dict[str, Any]]:
    """Every notice since the mailbox was opened."""
    url = open_mailbox(tale)
    read: list[dict[str, Any]] = tale.known[_MAILBOX]["read"]
    sqs = tale.cloud.client("sqs")
    while True:
        found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        if not found:
            return read
        for message in found:
            read.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def told(tale: Tale, kind: str, about: str = "", *, seconds: float = 30) -> dict[str, Any]:
    """Wait for a notice of a kind whose correlation id holds ``about``; the newest."""

    def found() -> dict[str, Any] | None:
        fitting = [n for n in notices(tale) if n["notice"] == kind and about in n["correlation_id"]]
        return fitting[-1] if fitting else None

    notice: dict[str, Any] = wait_until(f"a notice {kind}", found, seconds=seconds)
    require(notice["why"], f"the notice {kind} gives no reason")
    require(notice["links"], f"the notice {kind} leads nowhere")
    return notice
