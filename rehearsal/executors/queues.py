"""Queues on demand: what was given back to a queue is seen again now, not after its visibility timeout.

SQS goes by the wall clock here, since functions that handle a message do too. A story cannot wait minutes for
a message that is to be tried again, so it says when the timeout is over.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rehearsal import ministack_bridge as bridge
from rehearsal.control import ControlError, control

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__: list[str] = []

#: Younger receipts are perhaps still being handled.
_SETTLED_SECONDS = 3.0


@control("POST", "/queues/see-again")
def see_again(_runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """End the visibility timeout of what was received at least ``after_seconds`` (3) ago."""
    after = body.get("after_seconds", _SETTLED_SECONDS)
    if not isinstance(after, int | float) or isinstance(after, bool) or after < 0:
        raise ControlError(f"after_seconds must be a number of seconds, got {after!r}")
    return {"messages": bridge.see_again(received_before=time.time() - after)}
