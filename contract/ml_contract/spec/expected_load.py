"""The ``load`` block: how much is expected, for whoever plans capacity or money."""

from __future__ import annotations

from pydantic import Field

from ml_contract.spec.blocks import Strict


class ExpectedLoad(Strict):
    """What a day brings on average. Nothing is sized by it: it is what a forecast of the bill starts from."""

    records_per_day: int = Field(default=1_000, ge=0, description="Records that the sources send.")
    predictions_per_day: int = Field(default=1_000, ge=0, description="Requests to the model.")
