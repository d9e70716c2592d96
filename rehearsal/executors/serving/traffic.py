"""Who answered how much, second by second: measured where the containers answer, beside what was planned."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Traffic"]


@dataclass(kw_only=True)
class Traffic:
    """The answers of one endpoint by real second; `planned` are the shares that a deployment asked for."""

    _counts: Counter[tuple[int, str, str, str]] = field(default_factory=Counter)
    _clock: dict[int, float] = field(default_factory=dict)
    _plan: list[dict[str, float]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, config: str, variant: str, outcome: str, at: float) -> None:
        """Count one answer of a container.

        :param outcome: answered | failed | shadow
        :param at: when, on the rehearsal's clock
        """
        second = int(time.time())
        with self._lock:
            self._counts[second, config, variant, outcome] += 1
            self._clock.setdefault(second, at)

    def planned(self, at: float, share: float) -> None:
        """Note that from now on the new fleet is meant to get this share."""
        with self._lock:
            self._plan.append({"second": time.time(), "clock": at, "share": share})

    def rows(self, since: float = 0.0) -> list[dict[str, Any]]:
        """One row per second, configuration, variant and outcome, oldest first."""
        with self._lock:
            return [
                {
                    "second": second,
                    "clock": self._clock[second],
                    "config": config,
                    "variant": variant,
                    "outcome": outcome,
                    "count": count,
                }
                for (second, config, variant, outcome), count in sorted(self._counts.items())
                if second >= since
            ]

    def plan(self, since: float = 0.0) -> list[dict[str, float]]:
        """The planned shares, oldest first."""
        with self._lock:
            return [dict(step) for step in self._plan if step["second"] >= since]
