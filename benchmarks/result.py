"""What a benchmark returns, and how it is printed."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One measured figure beside its goal.

    ``value`` is a ratio unless ``unit`` says otherwise; ``goal`` is its limit, read by ``at_most``.
    """

    what: str
    value: float
    goal: float | None = None
    at_most: bool = True
    unit: str = "x"

    @property
    def met(self) -> bool | None:
        """Whether the goal holds; none where there is no goal."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.at_most else self.value >= self.goal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """Rows of one benchmark with the raw figures they were made from; ``skipped`` says why there are none."""

    name: str
    rows: tuple[Row, ...] = ()
    raw: dict[str, Any] = dataclasses.field(default_factory=dict)
    skipped: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data for ``results.json``."""
        return {
            "name": self.name,
            "skipped": self.skipped,
            "rows": [{**dataclasses.asdict(row), "met": row.met} for row in self.rows],
            "raw": self.raw,
        }
