"""Hours of a claims hotline made up from scratch: as many as asked, the same for the same seed.

Six regions, one observation each per hour. Calls follow the hour, the weekday and holidays; storms come
unforeseen, are warned of late, and fill the lines for half a day. The next hour is known from the same
run of hours, so the past says much about it; what it cannot say stays as noise.

    python workloads/hotline_demand/generate.py 1000 --seed 7 > observations.jsonl
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import math
import random
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

__all__ = ["generate"]

FIRST_HOUR: Final = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
#: Region -> calls in an ordinary busy hour.
REGIONS: Final = {"coast": 90, "hills": 35, "lakes": 50, "north": 70, "south": 120, "west": 60}
#: Calls by the hour of the day, as shares of a busy hour.
_DAY: Final = (
    0.12, 0.09, 0.08, 0.08, 0.10, 0.16, 0.34, 0.62, 0.88, 1.00, 1.00, 0.95,
    0.82, 0.86, 0.93, 0.97, 0.99, 0.90, 0.72, 0.55, 0.42, 0.32, 0.24, 0.17,
)  # fmt: skip
_WEEKDAY: Final = (1.10, 1.02, 1.00, 0.98, 0.96, 0.58, 0.47)
#: A storm starts in about one hour of so many, region by region, and lasts so long.
STORM_EVERY_HOURS: Final = 160
STORM_HOURS: Final = (6, 18)
#: Hours that the lines stay fuller than usual after a full one.
MEMORY: Final = 0.7
CALLS_PER_AGENT: Final = 9


def generate(n: int, seed: int) -> list[dict[str, Any]]:
    """Return ``n`` observations, oldest first, under the names of the workload's fields."""
    runs = [_hours(region, busy, n // len(REGIONS) + 2, seed) for region, busy in REGIONS.items()]
    records = [observation for hour in zip(*runs, strict=True) for observation in hour]
    return records[:n]


def _hours(region: str, busy: int, hours: int, seed: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(f"hotline/{region}/{seed}")  # noqa: S311 - made-up data, not a secret
    mood, storm, strength = 0.0, 0, 0.0
    described: dict[str, Any] | None = None
    for i in range(hours):
        moment = FIRST_HOUR + dt.timedelta(hours=i)
        if storm == 0 and rng.random() < 1 / STORM_EVERY_HOURS:
            storm, strength = rng.randint(*STORM_HOURS), rng.uniform(0.5, 2.0)
        mood = MEMORY * mood + rng.gauss(0, 0.08)
        holiday = moment.day in (1, 6) and moment.month in (1, 5)
        level = busy * _DAY[moment.hour] * _WEEKDAY[moment.weekday()] * (0.6 if holiday else 1.0)
        level *= math.exp(mood) * (1 + strength * min(1.0, storm / 6) if storm else 1.0)
        calls = max(0, round(rng.gauss(level, math.sqrt(level + 1))))
        if described is not None:
            yield {**described, "calls_next_hour": calls}
        planned = max(2, round(busy * _DAY[moment.hour] / CALLS_PER_AGENT * rng.uniform(0.9, 1.2)))
        described = {
            "observation_id": f"{region}-{moment:%Y%m%dT%H%M}",
            "observed_at": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
            "region": region,
            **_on_the_lines(rng, calls, planned),
            "storm_warning": _warning(rng, strength if storm else 0.0),
            "holiday": holiday,
        }
        storm = max(0, storm - 1)


def _on_the_lines(rng: random.Random, calls: int, agents: int) -> dict[str, Any]:
    load = calls / (agents * CALLS_PER_AGENT)
    return {
        "calls": calls,
        "answered_share": round(max(0.2, min(1.0, 1.15 - 0.35 * load + rng.gauss(0, 0.03))), 3),
        "mean_wait_seconds": round(min(7200.0, max(2.0, 25 * load**2 + rng.gauss(0, 4))), 1),
        "agents": agents,
    }


def _warning(rng: random.Random, strength: float) -> str:
    """The warning comes once the storm is there, and sometimes not at all."""
    if not strength or rng.random() > 0.8:
        return "none"
    return "yellow" if strength < 1 else "orange" if strength < 1.5 else "red"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write observations as JSON lines."""
    parser = argparse.ArgumentParser(description="Make up hours of a claims hotline.")
    parser.add_argument("n", type=int, help="how many")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args(arguments)
    for record in generate(given.n, given.seed):
        sys.stdout.write(json.dumps(record) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
