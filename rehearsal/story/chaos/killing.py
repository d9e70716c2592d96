"""How a function is killed after each of its calls: learned from an undisturbed run, then aimed at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rehearsal.faults import KILL_AFTER
from rehearsal.story.chaos.loop import plan
from rehearsal.story.telling import Evidence, require, wait_until

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["DEATHS", "Spot", "calls_of", "deadly", "die_at", "ended", "lives_through", "rounds"]

#: Deaths that an event which Lambda keeps survives: it makes three attempts.
DEATHS = 2
#: So long (real seconds) a function has for an event, all its attempts together.
SECONDS = 90


@dataclass(frozen=True, order=True)
class Spot:
    """The call of a function after which it dies: its place in the run (from one), and its action."""

    number: int
    action: str

    def __str__(self) -> str:
        return f"{self.number} {self.action}"


def calls_of(tale: Tale, function: str, act: Callable[[], object]) -> list[str]:
    """Let a function do its work and return the actions that it called, in order."""
    control = tale.cloud.server.control
    control("POST", "/calls", {"record": True})
    try:
        act()
    finally:
        control("POST", "/calls", {"record": False})
    calls = control("GET", f"/calls?who=/{function}")["calls"]
    require(calls, f"{function} has called nothing")
    refused = [call for call in calls if call["outcome"] == "403"]
    require(not refused, f"{function} may not call {refused[:1]}")
    return [call["action"] for call in calls]


def deadly(calls: Sequence[str]) -> list[Spot]:
    """The calls after which a function is killed: of each action the first and the last.

    Calls in between repeat what one of these does, for another job or another object.
    """
    spots: dict[int, Spot] = {}
    for action in dict.fromkeys(calls):
        places = [number for number, called in enumerate(calls, start=1) if called == action]
        spots |= {number: Spot(number, action) for number in (places[0], places[-1])}
    return [spots[number] for number in sorted(spots)]


def rounds(spots: Sequence[Spot], deaths: int = DEATHS) -> Iterator[Sequence[Spot]]:
    """Deal spots out to events, so many deaths an event; each attempt dies later than the one before."""
    for first in range(0, len(spots), deaths):
        yield spots[first : first + deaths]


def die_at(tale: Tale, function: str, spots: Sequence[Spot]) -> None:
    """Plan the deaths of a function's next attempts, in order."""
    steps: list[str | None] = []
    for spot in spots:
        steps += [*[None] * (spot.number - 1), KILL_AFTER]
    plan(tale, "*", *steps, who=f"/{function}")


def ended(tale: Tale, function: str, since: int) -> list[dict[str, Any]]:
    """The ends of a function's attempts since the ledger had ``since`` entries."""
    return [e for e in tale.cloud.ledger()[since:] if e["kind"] == "lambda" and e["name"] == function]


def lives_through(
    tale: Tale,
    function: str,
    spots: Sequence[Spot],
    act: Callable[[], object],
    *,
    meanwhile: Callable[[], object] = lambda: None,
    evidence: Evidence | None = None,
) -> None:
    """Have an event handled by a function that dies at each spot; return when an attempt has come to its end.

    Args:
        meanwhile: called again and again while it is waited for.

    Raises:
        StoryError: it did not die as often as planned, or no attempt after that came to its end.
    """
    since = len(tale.cloud.ledger())
    die_at(tale, function, spots)
    act()

    def over() -> bool:
        meanwhile()
        attempts = ended(tale, function, since)
        deaths = [a for a in attempts if a["detail"].get("ended")]
        return len(deaths) >= len(spots) and len(attempts) > len(deaths) and attempts[-1] not in deaths

    wait_until(f"the end of {function}, killed after {', '.join(map(str, spots))}", over, seconds=SECONDS)
    left = {name: n for name, n in tale.cloud.server.control("GET", "/faults")["left"].items() if n}
    require(not left, f"{function} was to die more often: {left}")
    if evidence is not None:
        evidence.setdefault("killed_after", []).extend(str(spot) for spot in spots)
