"""Where a container bends: the largest load that it answers in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rehearsal.load_test.offered import Burst

__all__ = ["Curve", "holds", "search"]

#: Share of what was offered that must be answered while it is offered; less is a queue that grows.
KEPT = 0.97
FIRST_RATE = 50.0
#: Doublings from the first rate, to 50 x 2^12 = 204,800 a second: no generator in Python comes near.
DOUBLINGS = 12
#: Halvings of the interval between the last rate that held and the first that did not: to about 4 percent.
HALVINGS = 4


@dataclass(frozen=True)
class Curve:
    """What was measured, by rising load, and the knee.

    ``knee`` is the burst with the largest rate that held, None when not even the smallest did. ``bounded``
    says that a larger load was seen not to hold; else the search ended first and the knee lies further on.
    """

    bursts: tuple[Burst, ...]
    knee: Burst | None
    bounded: bool
    limit_seconds: float


def holds(burst: Burst, limit_seconds: float) -> bool:
    """Whether everything was answered rightly, at the pace it came, and 99 percent of it in time."""
    return (
        burst.failed == 0
        and burst.answered_rate >= KEPT * burst.rate
        and burst.quantile(0.99) <= limit_seconds
    )


def search(measure: Callable[[float], Burst], limit_seconds: float, *, most: float = float("inf")) -> Curve:
    """Double the load until it no longer holds, then halve the interval.

    A burst that does not hold is measured once more before it is believed: one hiccup of the machine is no
    knee.

    Args:
        measure: offers a load in requests a second.
        limit_seconds: what the 99th percentile of the latency may be.
        most: load beyond which nothing is measured, because the generator itself cannot offer it.
    """
    bursts: list[Burst] = []

    def held(rate: float) -> bool:
        found = measure(rate)
        if not holds(found, limit_seconds):
            found = measure(rate)
        bursts.append(found)
        return holds(found, limit_seconds)

    good, bad = 0.0, None
    rate = min(FIRST_RATE, most)
    for _ in range(DOUBLINGS):
        if not held(rate):
            bad = rate
            break
        good = rate
        if rate >= most:
            break
        rate = min(rate * 2, most)
    if bad is not None and good:
        for _ in range(HALVINGS):
            middle = (good + bad) / 2
            good, bad = (middle, bad) if held(middle) else (good, middle)
    ordered = tuple(sorted(bursts, key=lambda burst: burst.rate))
    return Curve(ordered, _at(ordered, good), bad is not None, limit_seconds)


def _at(bursts: Sequence[Burst], rate: float) -> Burst | None:
    return next((burst for burst in bursts if burst.rate == rate), None)
