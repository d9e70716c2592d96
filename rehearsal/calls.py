"""What principals call, in order: recorded while somebody asks for it, so that a fault can aim at a call."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from rehearsal.control import ControlError, control

if TYPE_CHECKING:
    from rehearsal.iam import Principal
    from rehearsal.runtime import Runtime

__all__ = ["CALLS", "Calls", "Made", "who_of"]

#: So many calls are kept at most; what is older goes.
_MOST: Final = 50_000


@dataclass(kw_only=True)
class Made:
    """One call of a role.

    ``outcome`` is the HTTP status of its answer, or the fault that it met; empty while it is being served.
    """

    action: str
    resource: str
    who: str
    outcome: str = ""


def who_of(principal: Principal) -> str:
    """The role and the session of a caller; a function's session bears the function's name."""
    return f"{principal.role_arn} {principal.session_arn}"


class Calls:
    """The calls of principals since recording was begun."""

    def __init__(self) -> None:
        self._made: list[Made] = []
        self._recording = False
        self._lock = threading.Lock()

    @property
    def recording(self) -> bool:
        """Whether calls are being kept."""
        return self._recording

    def record(self, on: bool) -> None:
        """Begin anew, or stop; what was kept stays until the next beginning."""
        with self._lock:
            if on:
                self._made = []
            self._recording = on

    def begin(self, action: str, resource: str, who: str) -> Made:
        """Keep a call, while recording; its outcome is the caller's to write."""
        made = Made(action=action, resource=resource, who=who)
        if self._recording:
            with self._lock:
                self._made.append(made)
                del self._made[:-_MOST]
        return made

    def made(self, who: str = "") -> list[Made]:
        """Return the calls of those whose role or session holds ``who``, oldest first."""
        with self._lock:
            return [call for call in self._made if who in call.who]


CALLS: Final = Calls()


@control("POST", "/calls")
def _record(runtime: Runtime, body: Mapping[str, Any]) -> dict[str, Any]:
    """Begin to record calls anew, or stop: ``record`` is true or false."""
    del runtime
    on = body.get("record")
    if not isinstance(on, bool):
        raise ControlError(f"record must be true or false, got {on!r}")
    CALLS.record(on)
    return {"recording": on}


@control("GET", "/calls")
def _made(runtime: Runtime, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recorded calls, those of ``who`` alone if it is given."""
    del runtime
    return {"calls": [asdict(call) for call in CALLS.made(str(body.get("who", "")))]}
