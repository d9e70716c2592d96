"""Events on their way that are lost, delivered twice, or overtaken by later ones.

``POST /_rehearsal/faults/events`` plans what the next deliveries of EventBridge to the targets of its rules
meet, one step a delivery; none is touched unless somebody asks. What happened stands in the ledger, kind
``fault``, named after the event.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rehearsal import ministack_bridge as bridge
from rehearsal.control import ControlError, control

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["EVENT_FAULTS", "EventFaults", "install"]

#: The event does not arrive.
DROP: Final = "drop"
#: It arrives two times.
TWICE: Final = "twice"
#: It is kept back until the plan is released, behind whatever came meanwhile.
HOLD: Final = "hold"
STEPS: Final = (DROP, TWICE, HOLD)


@dataclass
class _Plan:
    """What the next deliveries of one kind of event to some targets meet."""

    detail_type: str
    target: str
    steps: deque[str | None]
    held: list[Callable[[], None]] = field(default_factory=list)

    def fits(self, target: str, event: Mapping[str, Any]) -> bool:
        return event.get("detail-type") == self.detail_type and self.target in target


class EventFaults:
    """The plans, by kind of event and target."""

    def __init__(self) -> None:
        self._plans: dict[tuple[str, str], _Plan] = {}
        self._lock = threading.Lock()

    def plan(self, detail_type: str, target: str, steps: list[str | None]) -> None:
        """Plan the next deliveries; no steps let go what is kept back and forget the plan."""
        with self._lock:
            before = self._plans.pop((detail_type, target), None)
            if steps:
                self._plans[detail_type, target] = _Plan(detail_type, target, deque(steps))
        _let_go([] if before is None else [before])

    def forget(self) -> None:
        """Let go what is kept back, and forget every plan."""
        with self._lock:
            before = list(self._plans.values())
            self._plans.clear()
        _let_go(before)

    def meet(self, target: str, event: Mapping[str, Any], deliver: Callable[[], None]) -> str | None:
        """Deliver an event as planned; the step that it met, None when it was left alone."""
        with self._lock:
            fitting = (plan for plan in self._plans.values() if plan.steps and plan.fits(target, event))
            plan = next(fitting, None)
            step = None if plan is None else plan.steps.popleft()
            if plan is not None and step == HOLD:
                plan.held.append(deliver)
        if step not in (DROP, HOLD):
            deliver()
        if step == TWICE:
            deliver()
        return step

    def left(self) -> list[dict[str, Any]]:
        """What is still to come, and how many events are kept back."""
        with self._lock:
            return [
                {
                    "detail_type": plan.detail_type,
                    "target": plan.target,
                    "steps": list(plan.steps),
                    "held": len(plan.held),
                }
                for plan in self._plans.values()
            ]


def _let_go(plans: list[_Plan]) -> None:
    for plan in plans:
        for deliver in plan.held:
            deliver()


EVENT_FAULTS: Final = EventFaults()


@control("POST", "/faults/events")
def _plan(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Plan the next deliveries of events of ``detail_type`` to targets whose ARN holds ``target``.

    ``steps``: drop, twice, hold, and null for one that is left alone; none of them let go what is kept back
    and lift the plan. ``forget`` does so with every plan.
    """
    del runtime
    if body.get("forget") is True:
        EVENT_FAULTS.forget()
        return {"left": EVENT_FAULTS.left()}
    detail_type, target, steps = body.get("detail_type"), body.get("target", ""), body.get("steps", [])
    if not isinstance(detail_type, str) or not detail_type or not isinstance(target, str):
        raise ControlError(f"detail_type and target must be texts, got {detail_type!r} and {target!r}")
    if not isinstance(steps, list) or any(step is not None and step not in STEPS for step in steps):
        raise ControlError(f"steps must be a list of {', '.join(STEPS)} and null, got {steps!r}")
    EVENT_FAULTS.plan(detail_type, target, steps)
    return {"left": EVENT_FAULTS.left()}


@control("GET", "/faults/events")
def _left(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Return what is still planned and kept back."""
    del runtime, body
    return {"left": EVENT_FAULTS.left()}


def install(runtime: Runtime) -> None:
    """Let EventBridge's deliveries meet what is planned."""

    def meet(rule: str, target: str, event: Mapping[str, Any], deliver: Callable[[], None]) -> None:
        step = EVENT_FAULTS.meet(target, event, deliver)
        if step is not None:
            runtime.ledger.ran(
                "fault",
                str(event.get("detail-type")),
                what=step,
                rule=rule.rpartition("/")[2],
                target=target,
                event=str(event.get("id")),
            )

    bridge.meet_event_deliveries(meet)
