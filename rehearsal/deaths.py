"""Containers that die on purpose: a job's process or an endpoint's is ended as if its machine were gone.

``POST /_rehearsal/faults/containers`` plans the next deaths; SIGKILL, no warning. Nothing dies unless
somebody asks. What happened stands in the ledger, kind ``fault``, named after the kind of the container.
"""

from __future__ import annotations

import fnmatch
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import Popen
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args
from weakref import WeakKeyDictionary

from rehearsal.control import ControlError, control

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["DEATHS", "KILLED_STATUS", "Death", "Deaths", "How"]

#: ``container``: the process alone, as the kernel does when memory is short. ``machine``: the instance that
#: it ran on, which is a fault of the service's.
How: TypeAlias = Literal["container", "machine"]
KINDS: Final = ("training-job", "processing-job", "glue-job", "endpoint")
#: What a shell and every AWS service say of a process that SIGKILL has ended.
KILLED_STATUS: Final = 137
_LOOK_SECONDS: Final = 0.005


@dataclass(frozen=True, kw_only=True)
class Death:
    """Which container dies, and when: the first moment at which everything that is said holds.

    Args:
        kind: training-job, processing-job, glue-job or endpoint.
        name: a pattern of the job's or the endpoint's name.
        how: container or machine.
        seconds: so long it has run.
        after: a regex that a line of its log matches.
        wrote: a pattern of a file below its folder that is there, such as ``output/*``.
    """

    kind: str
    name: str
    how: How = "container"
    seconds: float = 0.0
    after: str = ""
    wrote: str = ""

    def due(self, since: float, log: Path, folder: Path) -> bool:
        """Whether the moment has come."""
        if time.monotonic() - since < self.seconds:
            return False
        if self.wrote and not any(path.is_file() for path in folder.glob(self.wrote)):
            return False
        if not self.after:
            return True
        text = log.read_text("utf-8", "replace") if log.exists() else ""
        return re.search(self.after, text, re.MULTILINE) is not None


class Deaths:
    """What is planned, and what has died."""

    def __init__(self) -> None:
        self._planned: list[Death] = []
        self._died: WeakKeyDictionary[Popen[bytes], How] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def plan(self, death: Death) -> None:
        """Plan one."""
        with self._lock:
            self._planned.append(death)

    def forget(self) -> None:
        """Plan nothing."""
        with self._lock:
            self._planned.clear()

    def left(self) -> list[dict[str, Any]]:
        """What has not happened yet."""
        with self._lock:
            return [asdict(death) for death in self._planned]

    def watch(
        self, runtime: Runtime, kind: str, name: str, process: Popen[bytes], *, log: Path, folder: Path
    ) -> None:
        """Let a process die that has just been started, if that is planned for it."""
        if self._of(kind, name) is None:
            return
        began = time.monotonic()

        def run() -> None:
            while process.poll() is None and not runtime.stopping.is_set():
                self.look(runtime, kind, name, process, since=began, log=log, folder=folder)
                time.sleep(_LOOK_SECONDS)

        threading.Thread(target=run, name=f"death of {kind} {name}", daemon=True).start()

    def look(
        self,
        runtime: Runtime,
        kind: str,
        name: str,
        process: Popen[bytes],
        *,
        since: float,
        log: Path,
        folder: Path,
    ) -> None:
        """Let a process die if that is planned for it and the moment has come; ``since`` is its start."""
        death = self._of(kind, name)
        if death is not None and death.due(since, log, folder):
            self._kill(runtime, death, name, process)

    def how(self, process: Popen[bytes]) -> How | None:
        """How a process died on purpose; None when it did not."""
        return self._died.get(process)

    def died(self, process: Popen[bytes], how: How) -> None:
        """Note that a process is about to be ended on purpose."""
        self._died[process] = how

    def _of(self, kind: str, name: str) -> Death | None:
        with self._lock:
            return next(
                (d for d in self._planned if d.kind == kind and fnmatch.fnmatchcase(name, d.name)), None
            )

    def _kill(self, runtime: Runtime, death: Death, name: str, process: Popen[bytes]) -> None:
        with self._lock:
            if process.poll() is not None or death not in self._planned:
                return
            self._planned.remove(death)
            # Before the signal: who waits for the process asks as soon as it is gone.
            self.died(process, death.how)
        runtime.ledger.ran("fault", death.kind, what=f"{death.how} died", who=name)
        process.kill()


DEATHS: Final = Deaths()


@control("POST", "/faults/containers")
def _plan(runtime: Runtime, body: Mapping[str, Any]) -> dict[str, Any]:
    """Plan ``times`` deaths of containers of a ``kind``, or ``forget`` all that are planned."""
    del runtime
    if body.get("forget") is True:
        DEATHS.forget()
        return {"left": []}
    death, times = read(body)
    for _ in range(times):
        DEATHS.plan(death)
    return {"left": DEATHS.left()}


@control("GET", "/faults/containers")
def _left(runtime: Runtime, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the deaths that are planned and have not happened yet."""
    del runtime, body
    return {"left": DEATHS.left()}


def read(body: Mapping[str, Any]) -> tuple[Death, int]:
    """Return the death that a request describes, and how often it is to happen.

    Raises:
        ControlError: with every problem.
    """
    known = {"kind", "name", "how", "seconds", "after", "wrote", "times"}
    problems = [
        f"{name} is unknown; known are {', '.join(sorted(known))}" for name in body if name not in known
    ]
    if body.get("kind") not in KINDS:
        problems.append(f"kind must be one of {', '.join(KINDS)}, got {body.get('kind')!r}")
    if body.get("how", "container") not in get_args(How):
        problems.append(f"how must be one of {', '.join(get_args(How))}, got {body['how']!r}")
    problems += [
        f"{name} must be a text, got {body.get(name)!r}"
        for name in ("name", "after", "wrote")
        if not isinstance(body.get(name, "*"), str)
    ]
    seconds, times = body.get("seconds", 0.0), body.get("times", 1)
    if not isinstance(seconds, int | float) or not 0 <= seconds <= 600:
        problems.append(f"seconds must be between 0 and 600, got {seconds!r}")
    if not isinstance(times, int) or not 1 <= times <= 100:
        problems.append(f"times must be between 1 and 100, got {times!r}")
    try:
        re.compile(str(body.get("after", "")))
    except re.error as error:
        problems.append(f"after is no regex: {error}")
    if problems:
        raise ControlError("; ".join(problems))
    values = {name: value for name, value in body.items() if name != "times"}
    return Death(**{"name": "*", **values}), int(times)
