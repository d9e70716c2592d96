"""What the trainings of a month have cost, and whether one more fits.

Cost is measured, not planned: the billed seconds of every job of every execution of the month, times the
instances, times the price of an hour. Prices are those of the workload, else of a dated table of list prices.
An instance type without a price is no reason to go on: it cannot be said that the budget holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Protocol

from retrain_trigger.settings import Budget

__all__ = ["Job", "Jobs", "Spent", "month_of", "objection", "prices", "spent"]

SECONDS_PER_HOUR = 3_600


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one job was billed for: instances of a type, for so many seconds each."""

    instance_type: str
    instances: int
    seconds: float


class Jobs(Protocol):
    """The part of SageMaker that counting the cost needs."""

    def jobs(self, execution_arn: str) -> Sequence[Job]:
        """Jobs of an execution that have run, those of a search each by itself."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a month's trainings have cost."""

    month: str
    runs: int
    usd: float
    #: The dearest of them; what one more may cost.
    dearest_usd: float
    unpriced: tuple[str, ...] = ()
    prices_of: str = ""


@cache
def _table() -> Mapping[str, object]:
    table: Mapping[str, object] = json.loads(Path(__file__).with_name("prices.json").read_text("utf-8"))
    return table


def prices(region: str) -> tuple[str, Mapping[str, float]]:
    """The day of the table, and its prices of an hour in a region by instance type."""
    table = _table()
    rows = table["usd_per_hour"]
    found = rows.items() if isinstance(rows, Mapping) else ()
    return str(table["date"]), {name: float(usd[region]) for name, usd in found if region in usd}


def month_of(moment: datetime) -> datetime:
    """The first moment of the calendar month, in UTC, as AWS bills."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def spent(executions: Sequence[str], jobs: Jobs, budget: Budget, *, month: datetime, region: str) -> Spent:
    """What executions, by their ARNs, have cost."""
    day, table = prices(region)
    per_hour = {**table, **budget.usd_per_hour}
    costs, unpriced = [], set()
    for arn in executions if budget.usd is not None else ():
        cost = 0.0
        for job in jobs.jobs(arn):
            price = per_hour.get(job.instance_type)
            if price is None:
                unpriced.add(job.instance_type)
                continue
            cost += job.instances * job.seconds / SECONDS_PER_HOUR * price
        costs.append(cost)
    return Spent(
        month=f"{month:%Y-%m}",
        runs=len(executions),
        usd=sum(costs),
        dearest_usd=max(costs, default=0.0),
        unpriced=tuple(sorted(unpriced)),
        prices_of=day,
    )


def objection(found: Spent, budget: Budget) -> str | None:
    """Why one more training does not fit, or None when it does."""
    if budget.runs is not None:
        if found.runs < budget.runs:
            return None
        return f"budget: {found.runs} of {budget.runs} trainings of {found.month} were started"
    if budget.usd is None:
        return None
    if found.unpriced:
        return (
            f"budget: {', '.join(found.unpriced)} has no price here, so nobody can say what {found.month} "
            "has cost; add it to retraining.budget.usd_per_hour"
        )
    if found.usd + found.dearest_usd <= budget.usd:
        return None
    return (
        f"budget: {found.runs} trainings of {found.month} cost {found.usd:.4g} of {budget.usd:g} USD, "
        f"one more up to {found.dearest_usd:.4g} USD"
    )
