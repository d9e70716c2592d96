"""The ``labelling`` block: people say what the model is not sure of, and what nobody knows yet."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ml_contract.spec.blocks import ColumnName, Strict

__all__ = ["Labelling"]

#: ARN of a SageMaker work team (CreateLabelingJob, HumanTaskConfig.WorkteamArn).
WORKTEAM = (
    r"^arn:aws[a-z\-]*:sagemaker:[a-z0-9\-]+:[0-9]{12}:workteam/private-crowd/"
    r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$"
)


class Labelling(Strict):
    """Who labels what, and when several people agree."""

    engine: Literal["own", "ground_truth"] = Field(
        default="own",
        description="ground_truth is closed to accounts that did not use it before 2026-07-30.",
    )
    instructions: str = Field(
        min_length=10, max_length=4_000, description="What a labeller reads beside each item."
    )
    titles: dict[str, Annotated[str, Field(min_length=1, max_length=60)]] = Field(
        default_factory=dict, description="What a class is called on the page, by its value in records."
    )
    labellers_per_item: int = Field(default=2, ge=1, le=9, description="People who label each item.")
    labellers_at_most: int | None = Field(
        default=None,
        ge=1,
        le=15,
        description="People asked before an adjudicator decides; the default is one more than per item.",
    )
    agreement: float = Field(
        default=0.66,
        gt=0.5,
        le=1,
        description="Share of the votes that a label needs; above half, so one wins.",
    )
    show: Literal["all"] | tuple[ColumnName, ...] = Field(
        default="all",
        description="Fields that a labeller sees. all leaves out sensitive ones; a list may name them.",
    )
    review_below_confidence: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Predictions less sure than this go to people: 0 cannot tell, 1 is certain.",
    )
    sample_percent: float = Field(
        default=1.0, ge=0, le=100, description="Share of the sure predictions that people label too."
    )
    expires_hours: int = Field(
        default=72, ge=1, le=8_000, description="An item that nobody finished by then is given up."
    )
    lock_minutes: int = Field(
        default=15, ge=1, le=240, description="How long an item stays with who opened it."
    )
    workforce: Annotated[str, Field(pattern=WORKTEAM)] | None = Field(
        default=None, description="ARN of the private work team; engine ground_truth only."
    )

    @property
    def at_most(self) -> int:
        """People asked before an adjudicator decides."""
        return self.labellers_per_item + 1 if self.labellers_at_most is None else self.labellers_at_most

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if self.at_most < self.labellers_per_item:
            problems.append(
                f"labellers_at_most must be at least labellers_per_item ({self.labellers_per_item}), "
                f"got {self.labellers_at_most}"
            )
        if self.engine == "ground_truth" and self.workforce is None:
            problems.append("engine ground_truth needs workforce, the ARN of a private work team")
        if self.engine == "own" and self.workforce is not None:
            problems.append(
                "workforce goes with engine ground_truth; remove it: own people sign in by Cognito"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self
