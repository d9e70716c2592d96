"""The ``registry`` block: what a model is for, how dear its mistakes are, when old versions are put away."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ml_contract.spec.blocks import Strict

__all__ = ["Archive", "Registry", "RiskRating"]

#: Amazon SageMaker Developer Guide, "Model card JSON schema": intended_uses.risk_rating.
RiskRating = Literal["High", "Medium", "Low", "Unknown"]


class Archive(Strict):
    """Which versions go to the stage ``Archived``; the one in service, the one before it and what waits for a
    decision never do. Nothing is deleted.
    """

    keep_versions: int = Field(default=10, ge=1, le=1_000, description="Latest versions that stay.")
    after_days: int | None = Field(
        default=None, ge=1, le=3_650, description="Of the others, only those older than this; null: all."
    )


class Registry(Strict):
    """What stands in the model card beside the numbers, and the end of a version's life."""

    risk_rating: RiskRating = Field(default="Unknown", description="How dear a wrong answer is.")
    intended_use: str | None = Field(
        default=None, min_length=3, max_length=2_048, description="What the model is made for."
    )
    out_of_scope: str | None = Field(
        default=None, min_length=3, max_length=2_000, description="What it must not be used for."
    )
    archive: Archive | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.risk_rating == "High" and self.intended_use is None:
            raise ValueError("a model of risk_rating High needs intended_use: say what it is made for")
        return self
