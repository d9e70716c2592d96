"""Spot capacity that is taken away, when somebody asks for it.

``POST /_rehearsal/spot-interruptions`` plans it for training jobs on spot: SageMaker sends SIGTERM, 120
seconds later SIGKILL, and starts the job again when there is capacity. Nothing is interrupted unless asked.
"""

from __future__ import annotations

import fnmatch
import re
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from rehearsal.control import ControlError, control

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["INTERRUPTIONS", "Interruption", "Interruptions"]

#: Seconds between the two signals (CreateTrainingJob, API reference).
WARNING_SECONDS: Final = 120.0
#: Virtual seconds until there is capacity again.
CAPACITY_SECONDS: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class Interruption:
    """When a job is interrupted, and how.

    :param job: a pattern of the job's name
    :param after: a regex; the job is interrupted when a line of its first host's log matches
    :param warning_seconds: between SIGTERM and SIGKILL; 0 is a machine that is gone at once
    :param times: how often
    :param capacity: whether there is capacity again; without it the job waits as long as it may
    """

    job: str
    after: str
    warning_seconds: float = WARNING_SECONDS
    times: int = 1
    capacity: bool = True


class Interruptions:
    """What is planned."""

    def __init__(self) -> None:
        self._planned: list[Interruption] = []
        self._lock = threading.Lock()

    def plan(self, interruption: Interruption) -> None:
        """Plan one."""
        with self._lock:
            self._planned.append(interruption)

    def of(self, job: str) -> Interruption | None:
        """The first that is planned for a job of this name."""
        with self._lock:
            return next((one for one in self._planned if fnmatch.fnmatchcase(job, one.job)), None)

    def happened(self, interruption: Interruption) -> None:
        """Count one off."""
        with self._lock:
            place = self._planned.index(interruption)
            if interruption.times > 1:
                self._planned[place] = replace(interruption, times=interruption.times - 1)
            else:
                del self._planned[place]

    def left(self) -> list[dict[str, Any]]:
        """What has not happened yet."""
        with self._lock:
            return [{"job": one.job, "after": one.after, "times": one.times} for one in self._planned]

    def forget(self) -> None:
        """Plan nothing."""
        with self._lock:
            self._planned.clear()


INTERRUPTIONS: Final = Interruptions()


@control("POST", "/spot-interruptions")
def _plan(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Plan an interruption of spot training jobs; an empty body forgets all."""
    del runtime
    if not body:
        INTERRUPTIONS.forget()
        return {"left": []}
    known = {"job", "after", "warning_seconds", "times", "capacity"}
    problems = [
        f"{name} is unknown; known are {', '.join(sorted(known))}" for name in body if name not in known
    ]
    problems += [f"{name} must be a text" for name in ("job", "after") if not isinstance(body.get(name), str)]
    try:
        re.compile(str(body.get("after")))
    except re.error as error:
        problems.append(f"after is no regex: {error}")
    if problems:
        raise ControlError("; ".join(problems))
    INTERRUPTIONS.plan(Interruption(**body))
    return {"left": INTERRUPTIONS.left()}


@control("GET", "/spot-interruptions")
def _left(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """What is planned and has not happened yet."""
    del runtime, body
    return {"left": INTERRUPTIONS.left()}
