"""The ``retraining`` block: when the training pipeline is started again, and what keeps it from starting."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from ml_contract.spec.blocks import Strict
from ml_contract.spec.monitoring import Monitoring

__all__ = ["Budget", "MonitorKind", "NewData", "Retraining", "drift_monitors"]

MonitorKind: TypeAlias = Literal["data", "quality", "bias", "attribution"]


class NewData(Strict):
    """How much new data is worth a training."""

    minimum_records: int = Field(
        ge=1, description="Rows of features that came since the last training that did not fail."
    )


class Budget(Strict):
    """What trainings of a calendar month (UTC) may cost, or how many there may be. Exactly one of the two."""

    usd_per_month: float | None = Field(
        default=None,
        gt=0,
        description="The month's billed hours times their prices, and its dearest run once more.",
    )
    runs_per_month: int | None = Field(default=None, ge=1, description="Executions of the pipeline.")
    usd_per_hour: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="Your own prices by instance type, before those of the dated table."
    )


class Retraining(Strict):
    """When the training pipeline is started again."""

    on_drift: bool = True
    on: list[MonitorKind] | None = Field(
        default=None, description="Monitors whose alarms count as drift; data and those that are on."
    )
    on_new_data: bool | NewData = False
    every_days: int | None = Field(default=None, ge=1, le=365)
    cooldown_hours: int = Field(default=24, ge=0, description="At least this long between two starts.")
    budget: Budget | None = Field(default=None, description="Over it nothing starts, and people are told.")
    notify: bool = Field(
        default=True,
        description="Tell the environment's stakeholders of drift, trainings, versions and promotions.",
    )


def drift_monitors(retraining: Retraining, monitoring: Monitoring) -> tuple[MonitorKind, ...]:
    """The monitors whose alarms start a training: those named, else data and those that are on."""
    if not retraining.on_drift:
        return ()
    if retraining.on is not None:
        return tuple(retraining.on)
    further: tuple[MonitorKind, ...] = ("quality", "bias", "attribution")
    return ("data", *(kind for kind in further if getattr(monitoring, kind) is not None))
