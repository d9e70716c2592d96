"""Updates of stacks that fail half-way on purpose: a resource's service answers its change with a failure.

``POST /_rehearsal/faults/stacks`` plans which; what was changed before it is rolled back by CloudFormation.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from rehearsal import ministack_bridge as bridge
from rehearsal.control import ControlError, control

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["STACK_FAULTS", "Failure", "StackFaults", "install"]

#: As CloudFormation words a handler's failure (CloudFormation CLI User Guide, handler error codes).
_SAID: Final = 'Resource handler returned message: "a fault on purpose" (HandlerErrorCode: InternalFailure)'


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The next ``times`` changes of a resource fail: parts of the stack's name and of its logical id."""

    stack: str
    resource: str
    times: int = 1


class StackFaults:
    """What is planned."""

    def __init__(self) -> None:
        self._planned: list[Failure] = []
        self._lock = threading.Lock()

    def plan(self, failure: Failure) -> None:
        """Plan one."""
        with self._lock:
            self._planned.append(failure)

    def forget(self) -> None:
        """Plan nothing."""
        with self._lock:
            self._planned.clear()

    def left(self) -> list[dict[str, Any]]:
        """What has not happened yet."""
        with self._lock:
            return [asdict(one) for one in self._planned]

    def take(self, stack: str, resource: str) -> bool:
        """Whether this change is to fail."""
        with self._lock:
            for place, one in enumerate(self._planned):
                if one.stack in stack and one.resource in resource:
                    self._planned[place : place + 1] = (
                        [replace(one, times=one.times - 1)] if one.times > 1 else []
                    )
                    return True
        return False


STACK_FAULTS: Final = StackFaults()


def install(runtime: Runtime) -> None:
    """Let changes fail as planned."""

    def changing(stack: str, resource: str) -> None:
        if STACK_FAULTS.take(stack, resource):
            runtime.ledger.ran("fault", f"cloudformation:{resource}", what="failed on update", who=stack)
            raise RuntimeError(_SAID)

    bridge.before_resource_change(changing)


@control("POST", "/faults/stacks")
def _plan(runtime: Runtime, body: Mapping[str, Any]) -> dict[str, Any]:
    """Plan that the next ``times`` changes of a ``resource`` of a ``stack`` fail, or ``forget`` all."""
    del runtime
    if body.get("forget") is True:
        STACK_FAULTS.forget()
        return {"left": []}
    times = body.get("times", 1)
    problems = [
        f"{name} must be a text, got {body.get(name)!r}"
        for name in ("stack", "resource")
        if not isinstance(body.get(name), str) or not body[name]
    ]
    if not isinstance(times, int) or not 1 <= times <= 100:
        problems.append(f"times must be between 1 and 100, got {times!r}")
    if problems:
        raise ControlError("; ".join(problems))
    STACK_FAULTS.plan(Failure(stack=body["stack"], resource=body["resource"], times=times))
    return {"left": STACK_FAULTS.left()}


@control("GET", "/faults/stacks")
def _left(runtime: Runtime, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the failures that are planned and have not happened yet."""
    del runtime, body
    return {"left": STACK_FAULTS.left()}
