"""The ``retraining`` block: when the training pipeline is started again."""

from __future__ import annotations

from pydantic import Field

from ml_contract.spec.blocks import Strict


class Retraining(Strict):
    """When the training pipeline is started again."""

    on_drift: bool = True
    on_new_data: bool = False
    every_days: int | None = Field(default=None, ge=1, le=365)
    cooldown_hours: int = Field(default=24, ge=0, description="At least this long between two starts.")
