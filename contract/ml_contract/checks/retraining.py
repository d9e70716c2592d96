"""What holds within ``retraining``, and between it and the monitors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_contract.problems import Location

if TYPE_CHECKING:
    from ml_contract.checks.workload import Checks

__all__ = ["check_retraining"]


def check_retraining(checks: Checks) -> None:
    """Monitors that are named are on, and a budget is one number."""
    rules = checks.workload.retraining
    if rules.on is not None:
        here: Location = ("retraining", "on")
        if not rules.on_drift:
            checks.wrong(here, "says which monitors start a training, but on_drift is false; leave one out")
        elif not rules.on:
            checks.wrong(here, "names no monitor; say on_drift: false instead")
        if len(set(rules.on)) != len(rules.on):
            checks.wrong(here, "names a monitor twice")
        for i, kind in enumerate(rules.on):
            if kind != "data" and getattr(checks.workload.monitoring, kind) is None:
                checks.wrong((*here, i), f"{kind} is not watched; add monitoring.{kind} or leave it out")
    budget = rules.budget
    if budget is None:
        return
    if (budget.usd_per_month is None) == (budget.runs_per_month is None):
        checks.wrong(("retraining", "budget"), "must be exactly one of usd_per_month and runs_per_month")
    if budget.usd_per_hour and budget.usd_per_month is None:
        checks.wrong(
            ("retraining", "budget", "usd_per_hour"), "are prices for usd_per_month, which is not given"
        )
