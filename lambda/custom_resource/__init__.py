"""What the functions behind custom resources share: they answer CloudFormation, and wait for their role.

A package beside the functions; ``ml_lifecycle.code`` stages it with each function that imports it.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

__all__ = ["Made", "answered", "patiently"]

#: A role's policy may take some seconds to be in force after it was attached (IAM, "Eventual consistency").
PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 3.0
#: What services call a refusal by IAM.
_DENIED = ("AccessDenied", "AccessDeniedException")
#: CloudFormation keeps no longer reason (custom resource response object, ``Reason``; the body is 4,096
#: bytes at most).
_LONGEST_REASON = 1_024


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a request came to: the resource's id, and the attributes that a template may read of it."""

    id: str
    attributes: Mapping[str, str] = field(default_factory=dict)


def answered(event: Mapping[str, Any], work: Callable[[], Made], *, failed_id: str | None = None) -> None:
    """Do the work of a request and answer CloudFormation; a failure is reported to it and raised.

    Args:
        event: the request of the custom resource.
        work: what it asks for.
        failed_id: id of a resource whose creation failed, which CloudFormation then deletes; the request's
            own id when not given.

    Raises:
        Exception: whatever ``work`` raised, after CloudFormation was told.
    """
    try:
        made = work()
    except Exception as error:
        known = event.get("PhysicalResourceId") or failed_id or event["RequestId"]
        _send(event, "FAILED", Made(id=known), reason=f"{type(error).__name__}: {error}")
        raise
    _send(event, "SUCCESS", made)


def patiently(action: Callable[[], None]) -> None:
    """Repeat ``action`` for a minute while IAM refuses it: a role is not in force the moment it is made.

    Raises:
        ClientError: refused for another reason, or still refused after a minute.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            action()
        except ClientError as error:
            if error.response["Error"]["Code"] not in _DENIED or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_SECONDS)
        else:
            return


def _send(event: Mapping[str, Any], status: str, made: Made, *, reason: str = "") -> None:
    body = {
        "Status": status,
        "Reason": reason[:_LONGEST_REASON],
        "PhysicalResourceId": made.id,
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
        "Data": dict(made.attributes),
    }
    # The URL is a signed one of CloudFormation's own bucket, which refuses a content type.
    request = urllib.request.Request(  # noqa: S310
        event["ResponseURL"], data=json.dumps(body).encode(), method="PUT", headers={"Content-Type": ""}
    )
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310
        pass
