"""SQS: messages that are seen again, messages that wait."""

from __future__ import annotations

import importlib
import time as _real_time


def see_again(*, received_before: float) -> int:
    """End the visibility timeout of messages that were received before a time, in every queue; their number.

    :param received_before: by the wall clock, which SQS goes by here; what was received later is perhaps
        being handled
    """
    sqs = importlib.import_module("ministack.services.sqs")
    seen = 0
    with sqs._queues_lock:
        queues = list(sqs._queues._data.values())
    for queue in queues:
        timeout = float(queue["attributes"].get("VisibilityTimeout", 30))
        for message in queue["messages"]:
            hidden_until = message["visible_at"]
            if (
                message.get("receive_count", 0)
                and _real_time.time() < hidden_until <= received_before + timeout
            ):
                message["visible_at"] = received_before
                seen += 1
    return seen


def waiting_messages() -> dict[str, int]:
    """Return how many messages can be received now, by the name of the queue; of all accounts together."""
    sqs = importlib.import_module("ministack.services.sqs")
    with sqs._queues_lock:
        queues = list(sqs._queues._data.values())
    now, found = _real_time.time(), dict[str, int]()
    for queue in queues:
        name = str(queue["attributes"]["QueueArn"]).rsplit(":", 1)[-1]
        waiting = sum(message["visible_at"] <= now for message in list(queue["messages"]))
        found[name] = found.get(name, 0) + waiting
    return found
