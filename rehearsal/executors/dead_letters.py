"""Events that a function failed at three times, in its dead-letter queue: sent as its role, as Lambda does.

Source: AWS Lambda Developer Guide, "Adding a dead-letter queue": the message is the event, with the
attributes RequestID, ErrorCode and ErrorMessage (the first kilobyte).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from rehearsal import ministack_bridge as bridge

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["install"]

_MOST_MESSAGE = 1_024


def install(runtime: Runtime) -> None:
    """Send dead letters as the functions' roles."""

    def send(config: Mapping[str, Any], event: Any, result: Mapping[str, Any]) -> None:
        name, target = str(config["FunctionName"]), str(config["DeadLetterConfig"]["TargetArn"])
        _, _, service, region, account, queue = target.split(":", 5)
        if service != "sqs":
            runtime.ledger.failed("dead-letter", name, f"only queues are known here, got {target}")
            return
        said = result.get("body")
        message = said.get("errorMessage", "") if isinstance(said, Mapping) else ""
        attributes = {
            "RequestID": ("String", str(uuid.uuid4())),
            "ErrorCode": ("Number", "200"),
            "ErrorMessage": ("String", str(message)[:_MOST_MESSAGE] or "unknown"),
        }
        try:
            runtime.client("sqs", role=str(config["Role"]), region=region).send_message(
                QueueUrl=f"{runtime.endpoint}/{account}/{queue}",
                MessageBody=json.dumps(event),
                MessageAttributes={
                    key: {"DataType": kind, "StringValue": value} for key, (kind, value) in attributes.items()
                },
            )
        except ClientError as error:
            runtime.ledger.failed("dead-letter", name, f"{queue} did not take it: {error}")
        else:
            runtime.ledger.ran("dead-letter", name, queue=queue)

    bridge.use_dead_letters(send)
