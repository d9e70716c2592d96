"""Faults on purpose: a role's calls that are refused, late, lost, or the last thing their function does.

``POST /_rehearsal/faults`` plans what the next calls of an action meet, one step a call: any service's, of
whom the plan says. Nothing is planned unless somebody asks; what happened stands in the ledger, kind
``fault``. The operator's own calls never meet anything.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rehearsal import ministack_bridge as bridge
from rehearsal.control import ControlError, control
from rehearsal.deaths import DEATHS

if TYPE_CHECKING:
    from rehearsal.iam import Principal
    from rehearsal.runtime import Runtime

__all__ = [
    "FAULTS",
    "FAULT_MESSAGE",
    "KILL_AFTER",
    "KILL_BEFORE",
    "Faults",
    "as_said_by",
    "delay_of",
    "hit",
    "met",
]

_T = TypeVar("_T")

#: The call is not carried out; the function that made it dies.
KILL_BEFORE: Final = "kill-before"
#: The call is carried out; the function that made it dies before it hears of that.
KILL_AFTER: Final = "kill-after"
#: ``slow:30``: the call is carried out, its answer comes so many seconds late.
SLOW: Final = "slow:"
#: Anything else is a service's error code, answered with its HTTP status; 400 unless it stands here.
STATUSES: Final[Mapping[str, int]] = {
    "InternalFailure": 500,
    "InternalError": 500,
    "InternalServerError": 500,
    "InternalServerException": 500,
    "KMSInternalException": 500,
    "ServiceException": 500,
    "ServiceUnavailable": 503,
    "ServiceUnavailableException": 503,
    "SlowDown": 503,
    "TooManyRequestsException": 429,
    "AccessForbidden": 403,
    "AccessDenied": 403,
}
#: What S3 and the services of the query protocol call what all others call so.
_S3_WORDS: Final = {
    "ExpiredTokenException": "ExpiredToken",
    "ThrottlingException": "SlowDown",
    "InternalFailure": "InternalError",
}
_QUERY_WORDS: Final = {"ExpiredTokenException": "ExpiredToken", "ThrottlingException": "Throttling"}
#: What a refusal on purpose says.
FAULT_MESSAGE: Final = "a fault on purpose"
#: So long after a kill a function that ended without a word was that kill's.
_EXPLAINED_SECONDS: Final = 10.0


def as_said_by(protocol: str, code: str) -> tuple[str, int]:
    """Return an error's code and status as a service of this protocol answers it.

    ``protocol`` is that of botocore's model. Amazon S3, "Error responses"; "Common errors" of the APIs of
    the query protocol: an expired token is 403 there, 400 at S3 and the JSON services.
    """
    if protocol == "rest-xml":
        said = _S3_WORDS.get(code, code)
        return said, STATUSES.get(said, 400)
    if protocol == "query":
        said = _QUERY_WORDS.get(code, code)
        return said, 403 if said == "ExpiredToken" else STATUSES.get(said, 400)
    if protocol == "rest-json" and code == "ExpiredTokenException":
        return code, 403
    return code, STATUSES.get(code, 400)


def delay_of(step: str) -> float | None:
    """Return the seconds of a ``slow:SECONDS`` step; None for any other.

    Raises:
        ValueError: what follows ``slow:`` is no positive number.
    """
    if not step.startswith(SLOW):
        return None
    text = step.removeprefix(SLOW)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 600:
        raise ValueError(f"slow: is followed by seconds between 0 and 600, got {text!r}")
    return seconds


@dataclass
class _Plan:
    action: str
    who: str
    steps: deque[str | None]

    @property
    def name(self) -> str:
        return f"{self.action} by {self.who}" if self.who else self.action


class Faults:
    """What the next calls of each action (``sagemaker:PutRecord``, ``s3:*``, ``*``) meet, by caller."""

    def __init__(self) -> None:
        self._plans: list[_Plan] = []
        self._killed: dict[str, float] = {}
        self._lock = threading.Lock()

    @property
    def planned(self) -> bool:
        """Whether any call is to meet anything."""
        return bool(self._plans)

    def plan(self, action: str, steps: Sequence[str | None], who: str = "") -> None:
        """Plan the next calls of an action by those whose role or session holds ``who``.

        None is a call that is left alone; no steps forget the plan of that action and caller.
        """
        with self._lock:
            self._plans = [p for p in self._plans if (p.action, p.who) != (action, who)]
            if steps:
                self._plans.append(_Plan(action, who, deque(steps)))

    def forget(self) -> None:
        """Forget every plan."""
        with self._lock:
            self._plans = []

    def take(self, action: str, who: str = "") -> str | None:
        """Return what the call that is being made meets, by the earliest plan that it fits."""
        with self._lock:
            for plan in self._plans:
                if plan.who in who and bridge.action_matches(action, plan.action):
                    step = plan.steps.popleft()
                    if not plan.steps:
                        self._plans.remove(plan)
                    return step
        return None

    def killed(self, function: str) -> None:
        """Remember that a function was ended just now."""
        self._killed[function] = time.monotonic()

    def explain(self, function: str, error: str) -> bool:
        """Whether a function's error is that it was ended on purpose."""
        ended = self._killed.get(function, -math.inf)
        return "Worker" in error and time.monotonic() - ended < _EXPLAINED_SECONDS

    def left(self) -> dict[str, int]:
        """Return how many steps of each plan are still to come."""
        with self._lock:
            return {plan.name: len(plan.steps) for plan in self._plans}


FAULTS: Final = Faults()


def function_of(principal: Principal) -> str | None:
    """Return the name of the function that calls; None for any other caller."""
    name = principal.session_arn.rpartition("/")[2]
    return name if bridge.function_role(name) == principal.role_arn else None


def hit(runtime: Runtime, action: str, step: str, principal: Principal) -> None:
    """Note that a call meets what is planned for it; a function or a container that is to die is ended.

    All that run of that function end, as a crash of its machine would have it, or every job and container
    that acts as that role. A kill of who is neither hits nobody, and the ledger says so.
    """
    if step not in (KILL_BEFORE, KILL_AFTER):
        runtime.ledger.ran("fault", action, what=step, who=principal.session_arn)
        return
    function = function_of(principal)
    children = runtime.children_of(principal.role_arn) if function is None else []
    if function is None and not children:
        why = f"{principal.session_arn} is no function and no container; only these are killed at a call"
        runtime.ledger.failed("fault", action, why, what=step)
        return
    runtime.ledger.ran("fault", action, what=step, who=principal.session_arn)
    if function is None:
        for child in children:
            DEATHS.died(child, "container")
            child.kill()
        return
    FAULTS.killed(function)
    bridge.end_function_workers(function)


def met(
    runtime: Runtime,
    action: str,
    step: str | None,
    principal: Principal,
    *,
    carry_out: Callable[[], _T],
    refused: Callable[[str], _T],
) -> _T:
    """Carry a call out as planned; ``refused(code)`` makes the answer of a refusal."""
    if step is None:
        return carry_out()
    seconds = delay_of(step)
    if seconds is not None or step == KILL_AFTER:
        answer = carry_out()
        hit(runtime, action, step, principal)
        time.sleep(seconds or 0)
        return answer
    hit(runtime, action, step, principal)
    if step == KILL_BEFORE:
        # Nobody is left to hear it.
        return refused("InternalFailure")
    return refused(step)


@control("POST", "/faults")
def _plan(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Plan the next calls of ``action``, of ``who`` alone if given; or ``forget`` every plan.

    ``steps`` are error codes, kill-before, kill-after, slow:SECONDS and nulls; none forget that plan.
    """
    del runtime
    if body.get("forget") is True:
        FAULTS.forget()
        return {"left": FAULTS.left()}
    action, steps, who = body.get("action"), body.get("steps", []), body.get("who") or ""
    if not isinstance(action, str) or not (action == "*" or ":" in action):
        raise ControlError(f"action must be like sagemaker:PutRecord, sagemaker:* or *, got {action!r}")
    if not isinstance(who, str):
        raise ControlError(f"who must be a part of a role's or a function's name, got {who!r}")
    if not isinstance(steps, list) or any(s is not None and (not isinstance(s, str) or not s) for s in steps):
        raise ControlError(f"steps must be a list of texts and nulls, got {steps!r}")
    try:
        for step in steps:
            delay_of(step or "")
    except ValueError as error:
        raise ControlError(str(error)) from None
    FAULTS.plan(action, steps, who)
    return {"left": FAULTS.left()}


@control("GET", "/faults")
def _left(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Return how many planned steps are still to come, by action, and who where a plan names somebody."""
    del runtime, body
    return {"left": FAULTS.left()}
