"""What is decided: whether somebody uses it, and what the stacks still have to be told. No AWS here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

from idle_resources.settings import MisconfiguredError, Settings

__all__ = ["RUNNING", "STOPPED", "Cloud", "Outcome", "Stack", "handle"]

RUNNING, STOPPED = "running", "stopped"
Action = Literal["look", "start", "stop"]
#: States from which UpdateStack is possible (CloudFormation, stack status codes).
AT_REST = frozenset(
    {
        "CREATE_COMPLETE",
        "IMPORT_COMPLETE",
        "IMPORT_ROLLBACK_COMPLETE",
        "UPDATE_COMPLETE",
        "UPDATE_ROLLBACK_COMPLETE",
    }
)


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A stack as it is now. ``runs`` is the state that it was last updated with."""

    name: str
    status: str
    runs: str
    changed: datetime


@dataclass(frozen=True, kw_only=True)
class State:
    """What the parameter says, and since when."""

    value: str
    since: datetime


class Cloud(Protocol):
    """The calls that the decision needs."""

    def state(self) -> State: ...
    def set_state(self, value: str, why: str) -> None: ...
    def stack(self, name: str) -> Stack | None: ...
    def update(self, name: str) -> bool: ...
    def endpoint_changed(self, name: str) -> datetime | None: ...
    def requests(self, name: str, since: datetime, until: datetime) -> float: ...
    def records(self, stream: str, since: datetime, until: datetime) -> float: ...
    def tell(self, why: str, numbers: Mapping[str, object]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was done, and why."""

    action: Literal["stopped", "started", "left", "updated", "waits"]
    why: str
    stacks: tuple[str, ...] = ()


def handle(action: str, cloud: Cloud, settings: Settings, now: datetime) -> Outcome:
    """Do what is asked: ``look`` stops what is idle, ``stop`` and ``start`` do it at once.

    Raises:
        MisconfiguredError: another action, or the parameter holds something else.
    """
    if action not in ("look", "start", "stop"):
        raise MisconfiguredError(f"action must be look, start or stop, got {action!r}")
    state = cloud.state()
    if state.value not in (RUNNING, STOPPED):
        raise MisconfiguredError(
            f"{settings.state_parameter} must be {RUNNING} or {STOPPED}, got {state.value!r}"
        )
    stacks = [found for name in settings.stacks if (found := cloud.stack(name)) is not None]
    busy = [s.name for s in stacks if s.status not in AT_REST]
    if action == "look":
        return _look(state, stacks, cloud, settings, now)
    wanted = RUNNING if action == "start" else STOPPED
    if state.value != wanted:
        cloud.set_state(wanted, f"{action} was asked for")
    updated = _bring(wanted, stacks, cloud)
    waits = f"; {', '.join(busy)} is being updated and follows with the next look" if busy else ""
    return Outcome(
        action="started" if action == "start" else "stopped",
        why=f"{action} was asked for{waits}",
        stacks=updated,
    )


def _look(state: State, stacks: list[Stack], cloud: Cloud, settings: Settings, now: datetime) -> Outcome:
    busy = [s.name for s in stacks if s.status not in AT_REST]
    if busy:
        return Outcome(action="waits", why=f"{', '.join(busy)} is being updated")
    behind = [s for s in stacks if s.runs != state.value]
    if behind:
        # An update that failed, or was not possible when it was asked for.
        updated = _bring(state.value, behind, cloud)
        return Outcome(action="updated", why=f"the state is {state.value}", stacks=updated)
    if state.value == STOPPED:
        return Outcome(action="left", why="it is stopped")
    reason = _used(state, stacks, cloud, settings, now)
    if reason is not None:
        return Outcome(action="left", why=reason)
    hours = settings.after_hours
    why = f"no request and no record in {hours} hours"
    cloud.set_state(STOPPED, why)
    updated = _bring(STOPPED, stacks, cloud)
    cloud.tell(
        why,
        {
            "hours without a request": hours,
            "endpoint": settings.endpoint_name,
            "stacks": list(updated),
            "start again": f"make start ENV={settings.environment} WORKLOAD={settings.workload}",
        },
    )
    return Outcome(action="stopped", why=why, stacks=updated)


def _used(state: State, stacks: list[Stack], cloud: Cloud, settings: Settings, now: datetime) -> str | None:
    """Why it counts as used; ``None`` when nobody uses it."""
    since = now - timedelta(hours=settings.after_hours)
    changes = {"it was started": state.since} | {f"{s.name} was changed": s.changed for s in stacks}
    name = settings.endpoint_name
    served = None if name is None else cloud.endpoint_changed(name)
    if served is not None:
        changes["the endpoint was changed"] = served
    elif not settings.streams:
        return "there is no endpoint: nothing to stop"
    for what, at in changes.items():
        if at > since:
            return f"{what} at {at.isoformat()}"
    asked = cloud.requests(name, since, now) if name is not None and served is not None else 0.0
    sent = sum(cloud.records(stream, since, now) for stream in settings.streams)
    if asked or sent:
        return f"{asked:.0f} requests and {sent:.0f} records since {since.isoformat()}"
    return None


def _bring(wanted: str, stacks: list[Stack], cloud: Cloud) -> tuple[str, ...]:
    """Update the stacks that run otherwise; return those that were."""
    return tuple(s.name for s in stacks if s.status in AT_REST and s.runs != wanted and cloud.update(s.name))
