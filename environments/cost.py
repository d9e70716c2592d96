"""What an environment does against costs that nobody uses: each only where it is switched on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from environments.refusal import refuse

__all__ = ["BudgetAction", "Cost"]


@dataclass(frozen=True, kw_only=True)
class BudgetAction:
    """What AWS Budgets does when ``percent`` of ``budget_usd`` is spent: roles may start no job any more.

    ``roles`` are names of IAM roles (100 at most) that get a policy which denies starting trainings, other
    jobs and endpoints. ``approval`` MANUAL: somebody is asked first. A budget with actions costs 0.10 USD a
    day beyond an account's first two.
    """

    roles: tuple[str, ...]
    percent: int = 100
    approval: Literal["MANUAL", "AUTOMATIC"] = "MANUAL"

    def __post_init__(self) -> None:
        problems = []
        # AWS Budgets API Reference, IamActionDefinition: Roles.
        if not 1 <= len(self.roles) <= 100:
            problems.append(f"roles must hold 1 to 100 names of roles, got {len(self.roles)}")
        problems += [
            f"roles must hold names of IAM roles, got {name!r}"
            for name in self.roles
            if not re.fullmatch(r"[\w+=,.@/-]{1,576}", name)
        ]
        if not 1 <= self.percent <= 1_000:
            problems.append(f"percent must be between 1 and 1000, got {self.percent}")
        refuse("budget_action", problems)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What keeps an environment cheap while nobody works with it.

    ``stop_idle_after_hours`` stops what serves a workload (its endpoint, Flink's windows, the monitors' runs)
    after so many hours without a request; ``make start`` wakes it up. ``small_streams`` gives every stream
    one provisioned shard (1 MB and 1,000 records a second) and consumers no throughput of their own,
    whatever the workloads ask for. Neither goes with production.
    """

    stop_idle_after_hours: int | None = None
    small_streams: bool = False
    budget_action: BudgetAction | None = None

    def __post_init__(self) -> None:
        problems = []
        hours = self.stop_idle_after_hours
        # CloudWatch API Reference, GetMetricStatistics: 1,440 data points at most, here one an hour.
        if hours is not None and not 1 <= hours <= 720:
            problems.append(f"stop_idle_after_hours must be between 1 and 720 or None, got {hours}")
        refuse("cost", problems)
