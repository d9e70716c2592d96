"""Sensor readings of rotating machines made up from scratch: as many as asked, the same for the same seed.

Pumps, fans, compressors and mills, each measured now and then. What is wrong with a machine shows in several
sensors at once and never in one alone: worn bearings ring at high frequencies and grow warm, an unbalanced
rotor shakes at the frequency it turns with, a machine that is cooled badly grows hot under load. A slight
fault can hardly be told from none, and sensors fall silent; both stay as noise.

    python workloads/machine_health/generate.py 1000 --seed 7 > readings.jsonl
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import random
import sys
from collections.abc import Sequence
from typing import Any, Final

__all__ = ["generate"]

FIRST_DAY: Final = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
DAYS: Final = 60
#: Share of readings that a sensor does not give.
SILENT: Final = 0.02
#: Kind -> turns per minute, shaking when all is well (mm/s), rated current (A), liters of coolant a minute.
KINDS: Final[dict[str, tuple[int, float, float, float | None]]] = {
    "compressor": (2950, 2.2, 160.0, 18.0),
    "fan": (980, 1.4, 45.0, None),
    "mill": (740, 2.8, 210.0, 24.0),
    "pump": (1480, 1.8, 75.0, 9.0),
}
SITES: Final = (("aspern", 34), ("floridsdorf", 31), ("liesing", 30), ("test_bench", 5))


def generate(n: int, seed: int) -> list[dict[str, Any]]:
    """Return ``n`` readings under the names of the fields; reading ``i`` does not depend on ``n``."""
    if n < 0:
        raise ValueError(f"n must not be negative, got {n}")
    return [_reading(i, seed) for i in range(n)]


def _reading(i: int, seed: int) -> dict[str, Any]:
    rng = random.Random(f"machines/{seed}/{i}")  # noqa: S311 - made-up data, not secrets
    kind = rng.choice(list(KINDS))
    load, ambient = rng.uniform(0.3, 1.0), rng.gauss(21, 6)
    hours = min(round(rng.expovariate(1 / 1500)), 9000)
    condition = _condition(rng, kind, load, hours)
    moment = FIRST_DAY + dt.timedelta(seconds=rng.randrange(DAYS * 86_400))
    reading = {
        "reading_id": f"m{seed % 100_000:05d}-{i:07d}",
        "read_at": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        "site": rng.choices([s for s, _ in SITES], [share for _, share in SITES])[0],
        "kind": kind,
        "load": round(load, 3),
        "ambient_c": round(ambient, 1),
        "hours_since_service": hours,
        **_sensors(rng, condition, kind, load, ambient),
    }
    for name in ("vibration_mm_s", "high_frequency_g", "bearing_c", "current_a"):
        if rng.random() < SILENT:
            reading[name] = None
    return {**reading, "condition": condition}


def _condition(rng: random.Random, kind: str, load: float, hours: int) -> str:
    """Bearings wear with the hours, heat comes with load, what is large and slow gets out of balance."""
    weights = {
        "healthy": 5.0,
        "bearing_wear": 0.8 + hours / 1000,
        "overheating": 0.0 if KINDS[kind][3] is None else 0.6 + 2.2 * load,
        "imbalance": 2.4 if kind in ("fan", "mill") else 1.0,
    }
    return rng.choices(list(weights), list(weights.values()))[0]


def _sensors(rng: random.Random, condition: str, kind: str, load: float, ambient: float) -> dict[str, Any]:
    speed, shaking, rated, coolant = KINDS[kind]
    grade = rng.uniform(0.5, 1.5)
    worn, hot, uneven = (
        grade * (condition == fault) for fault in ("bearing_wear", "overheating", "imbalance")
    )
    vibration = shaking + 0.9 * load + 0.9 * worn + 2.6 * uneven + rng.gauss(0, 0.35)
    high = 0.30 + 0.15 * load + 0.75 * worn + 0.05 * uneven + rng.gauss(0, 0.10)
    bearing = ambient + 24 * load + 20 * hot + 7 * worn + rng.gauss(0, 2.5)
    flow = None if coolant is None else max(0.0, coolant * (1 - 0.32 * hot + rng.gauss(0, 0.06)))
    return {
        "speed_rpm": round(speed * rng.uniform(0.97, 1.02)),
        "vibration_mm_s": round(max(vibration, 0.05), 2),
        "high_frequency_g": round(max(high, 0.01), 3),
        "bearing_c": round(min(bearing, 180), 1),
        "current_a": round(rated * max(0.1, load * (1 + 0.05 * hot) + rng.gauss(0, 0.03)), 1),
        "coolant_l_min": None if flow is None else round(flow, 1),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write readings as JSON lines."""
    parser = argparse.ArgumentParser(description="Make up sensor readings of machines.")
    parser.add_argument("n", type=int, help="how many")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args(arguments)
    for reading in generate(given.n, given.seed):
        sys.stdout.write(json.dumps(reading) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
