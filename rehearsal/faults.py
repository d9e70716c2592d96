"""Faults on purpose: a role's calls that are refused, lost, or the last thing their function does.

``POST /_rehearsal/faults`` plans what the next calls of an action meet, one step a call. Nothing is planned
unless somebody asks; what happened stands in the ledger.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar
from xml.sax.saxutils import escape

from rehearsal import ministack_bridge as bridge
from rehearsal.control import ControlError, control

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["FAULTS", "Faults"]

_T = TypeVar("_T")

#: The call is not carried out; the function that made it dies.
KILL_BEFORE: Final = "kill-before"
#: The call is carried out; the function that made it dies before it hears of that.
KILL_AFTER: Final = "kill-after"
#: Anything else is a service's error code, answered with its HTTP status.
STATUSES: Final[Mapping[str, int]] = {
    "InternalFailure": 500,
    "InternalError": 500,
    "InternalServerError": 500,
    "ServiceUnavailable": 503,
    "SlowDown": 503,
    "ThrottlingException": 400,
    "ValidationError": 400,
    "AccessForbidden": 403,
}


#: So long after a kill a function that ended without a word was that kill's.
_EXPLAINED_SECONDS: Final = 10.0


class Faults:
    """What the next calls of each action (``sagemaker:PutRecord``, ``s3:PutObject``) meet."""

    def __init__(self) -> None:
        self._steps: dict[str, deque[str | None]] = {}
        self._killed = -math.inf
        self._lock = threading.Lock()

    @property
    def planned(self) -> bool:
        """Whether any call is to meet anything."""
        return bool(self._steps)

    def plan(self, action: str, steps: list[str | None]) -> None:
        """Plan the next calls of an action, None for one that is left alone; no steps forget the plan."""
        with self._lock:
            self._steps.pop(action, None)
            if steps:
                self._steps[action] = deque(steps)

    def take(self, action: str) -> str | None:
        """Return what the call that is being made meets."""
        with self._lock:
            steps = self._steps.get(action)
            if not steps:
                return None
            step = steps.popleft()
            if not steps:
                del self._steps[action]
            return step

    def killed(self) -> None:
        """Remember that functions were ended just now."""
        self._killed = time.monotonic()

    def explain(self, error: str) -> bool:
        """Whether a function's error is that it was ended on purpose."""
        return "Worker" in error and time.monotonic() - self._killed < _EXPLAINED_SECONDS

    def left(self) -> dict[str, int]:
        """Return how many steps of each action are still to come."""
        with self._lock:
            return {action: len(steps) for action, steps in self._steps.items()}


FAULTS: Final = Faults()


def kill(runtime: Runtime, action: str, when: str) -> None:
    """End every function that runs, as a crash of its machine would."""
    runtime.ledger.ran("fault", action, what=when)
    FAULTS.killed()
    bridge.end_function_workers()


def met(
    runtime: Runtime, action: str, carry_out: Callable[[], _T], refused: Callable[[str, int, str], _T]
) -> _T:
    """Carry a call out as planned; ``refused(code, status, message)`` makes the answer of a refusal."""
    step = FAULTS.take(action)
    if step is None:
        return carry_out()
    if step in (KILL_BEFORE, KILL_AFTER):
        answer = carry_out() if step == KILL_AFTER else None
        kill(runtime, action, step)
        # Nobody is left to hear it.
        return refused("InternalFailure", 500, "the caller is gone") if answer is None else answer
    runtime.ledger.ran("fault", action, what=step)
    return refused(step, STATUSES.get(step, 400), "a fault on purpose")


def s3_error(code: str, message: str) -> bytes:
    """Return the body of an error of S3."""
    text = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()


@control("POST", "/faults")
def _plan(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Plan the next calls of ``action``: ``steps`` of error codes, kill-before, kill-after and nulls."""
    del runtime
    action, steps = body.get("action"), body.get("steps", [])
    if not isinstance(action, str) or ":" not in action:
        raise ControlError(f"action must be like sagemaker:PutRecord, got {action!r}")
    if not isinstance(steps, list) or any(s is not None and not isinstance(s, str) for s in steps):
        raise ControlError(f"steps must be a list of texts and nulls, got {steps!r}")
    FAULTS.plan(action, steps)
    return {"left": FAULTS.left()}


@control("GET", "/faults")
def _left(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Return how many planned steps are still to come, by action."""
    del runtime, body
    return {"left": FAULTS.left()}
