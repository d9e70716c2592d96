"""How a function is killed after each of its calls: learned from an undisturbed run, then aimed at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rehearsal.faults import KILL_AFTER
from rehearsal.story.chaos.loop import plan
from rehearsal.story.telling import require, wait_until

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = [
    "DEATHS",
    "calls_of",
    "die_at",
    "ended",
    "hand_over",
    "handled",
    "lives_through",
    "rounds",
    "see_again",
]

#: Deaths that an event which Lambda keeps survives: it makes three attempts.
DEATHS = 2
#: So long (real seconds) a function has for an event, all its attempts together.
SECONDS = 90


def function_of(tale: Tale, part: str, prefix: str) -> str:
    """The name of a function by its place in one of the workload's stacks."""
    stack = tale.cdk.stack_name(f"{tale.stage}/{tale.workload.id}{part}")
    found = tale.cloud.client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
    (name,) = (
        resource["PhysicalResourceId"]
        for resource in found
        if resource["ResourceType"] == "AWS::Lambda::Function"
        and resource["LogicalResourceId"].startswith(prefix)
    )
    return str(name)


def hand_over(tale: Tale, function: str, event: Any) -> None:
    """Hand an event over as EventBridge does: Lambda keeps it and makes three attempts."""
    tale.cloud.client("lambda").invoke(
        FunctionName=function, InvocationType="Event", Payload=json.dumps(event).encode()
    )


def handled(tale: Tale, function: str, event: Any) -> None:
    """Hand an event over and wait for the end of its one attempt."""
    since = len(tale.cloud.ledger())
    hand_over(tale, function, event)
    wait_until(f"the end of {function}", lambda: ended(tale, function, since), seconds=SECONDS, every=0.1)


def calls_of(tale: Tale, function: str, act: Callable[[], object]) -> list[str]:
    """Let a function do its work and return the actions that it called, in order."""
    control = tale.cloud.server.control
    control("POST", "/calls", {"record": True})
    try:
        act()
    finally:
        control("POST", "/calls", {"record": False})
    calls = [call["action"] for call in control("GET", f"/calls?who=/{function}")["calls"]]
    require(calls, f"{function} has called nothing")
    return calls


def rounds(calls: Sequence[str], deaths: int = DEATHS) -> Iterator[Sequence[str]]:
    """Deal the actions that a function calls out to events, so many deaths an event.

    Of each action the first call counts. Each attempt at an event dies later than the one before.
    """
    actions = list(dict.fromkeys(calls))
    for first in range(0, len(actions), deaths):
        yield actions[first : first + deaths]


def die_at(tale: Tale, function: str, actions: Sequence[str]) -> None:
    """Plan the deaths of a function: after its next call of each of these actions."""
    for action in actions:
        plan(tale, action, KILL_AFTER, who=f"/{function}")


def ended(tale: Tale, function: str, since: int) -> list[dict[str, Any]]:
    """The ends of a function's attempts since the ledger had ``since`` entries."""
    return [entry for entry in tale.cloud.ledger()[since:] if _is_end(entry, function)]


def _is_end(entry: dict[str, Any], function: str) -> bool:
    return bool(entry["kind"] == "lambda" and entry["name"] == function)


def _is_of(entry: dict[str, Any], function: str) -> bool:
    return str(entry["detail"].get("who", "")).endswith(f"/{function}")


def lives_through(
    tale: Tale,
    function: str,
    actions: Sequence[str],
    act: Callable[[], object],
    *,
    after_death: Callable[[], object] = lambda: None,
    meanwhile: Callable[[], object] = lambda: None,
) -> None:
    """Have something handled by a function that dies after each action; return when an attempt ends well.

    Args:
        after_death: called once after each death, as what brings the next attempt about.
        meanwhile: called again and again while it is waited for.

    Raises:
        StoryError: it did not die as often as planned, or no attempt after that came to its end.
    """
    since, seen = len(tale.cloud.ledger()), 0
    die_at(tale, function, actions)
    act()

    def over() -> bool:
        nonlocal seen
        meanwhile()
        entries = tale.cloud.ledger()[since:]
        dead = sum(1 for entry in entries if _is_end(entry, function) and entry["detail"].get("ended"))
        if dead > seen:
            seen = dead
            after_death()
        hits = [n for n, e in enumerate(entries) if e["kind"] == "fault" and _is_of(e, function)]
        if len(hits) < len(actions):
            return False
        # The death itself is written down after what brought it about.
        last = [entry for entry in entries[hits[-1] :] if _is_end(entry, function)]
        return len(last) > 1 and not last[-1]["detail"].get("ended")

    wait_until(f"the end of {function}, killed after {', '.join(actions)}", over, seconds=SECONDS, every=0.1)


def all_dead(tale: Tale, function: str) -> None:
    """Require that every planned death was met."""
    require(not _left(tale), f"{function} was to die more often: {_left(tale)}")


def _left(tale: Tale) -> dict[str, int]:
    found: dict[str, int] = tale.cloud.server.control("GET", "/faults")["left"]
    return found


def see_again(tale: Tale) -> None:
    """Let messages be seen again whose function has died; the queue itself would wait minutes."""
    tale.cloud.server.control("POST", "/queues/see-again", {"after_seconds": 0})
