"""The ``alternatives`` block: other ways to a model or to its features, run by services of AWS.

Each becomes a Step Functions state machine that somebody starts; nothing of it is part of the training
pipeline.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ml_contract.spec.blocks import Strict

__all__ = ["Alternatives", "Autopilot", "FoundationModel", "Wrangler"]

#: Amazon SageMaker API Reference, AutoMLJobObjective: MetricName.
AutopilotMetric = Literal[
    "Accuracy",
    "MSE",
    "F1",
    "F1macro",
    "AUC",
    "RMSE",
    "BalancedAccuracy",
    "R2",
    "Recall",
    "RecallMacro",
    "Precision",
    "PrecisionMacro",
]


class Autopilot(Strict):
    """SageMaker Autopilot on the prepared training split."""

    mode: Literal["auto", "ensembling", "hyperparameter_tuning"] = "ensembling"
    objective: AutopilotMetric | None = Field(default=None, description="None: what the task usually takes.")
    # TabularJobConfig, CompletionCriteria: MaxCandidates, up to 750.
    max_candidates: int | None = Field(
        default=None, ge=1, le=750, description="Not with ensembling, which counts none."
    )
    max_runtime_minutes: int = Field(default=60, ge=1, le=40_320)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.mode == "ensembling" and self.max_candidates is not None:
            raise ValueError(
                "max_candidates goes with mode hyperparameter_tuning or auto; ensembling has none"
            )
        return self


#: A prefix or a key below the workload's folder in the artifacts zone.
Below = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._/-]{0,200}$")]


class FoundationModel(Strict):
    """A foundation model that is fitted to texts of the workload: by Bedrock, or by SageMaker (JumpStart)."""

    service: Literal["bedrock", "jumpstart"]
    model: str = Field(
        min_length=3,
        max_length=200,
        description="Bedrock: id of a foundation model; JumpStart: a model of SageMaker's public hub.",
    )
    technique: Literal["fine_tuning", "continued_pre_training", "sft", "dpo"] = Field(
        description="fine_tuning and continued_pre_training are Bedrock's, sft and dpo SageMaker's."
    )
    training_data: Below = Field(description="JSON lines, below the workload's folder in the artifacts zone.")
    validation_data: Below | None = None
    hyperparameters: dict[str, str] = Field(default_factory=dict)
    accept_eula: bool = Field(default=False, description="JumpStart: somebody has read the model's licence.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        bedrock = self.technique in ("fine_tuning", "continued_pre_training")
        if bedrock != (self.service == "bedrock"):
            fits = "fine_tuning or continued_pre_training" if self.service == "bedrock" else "sft or dpo"
            raise ValueError(f"technique {self.technique!r} is not one of {self.service}: {fits}")
        if self.service == "bedrock" and self.accept_eula:
            raise ValueError("accept_eula goes with service jumpstart; Bedrock asks for it in its console")
        if self.service == "jumpstart" and not self.accept_eula:
            raise ValueError("accept_eula must be true: read the model's licence in SageMaker's hub first")
        return self


class Wrangler(Strict):
    """A flow of SageMaker Data Wrangler that makes features; its file lies beside the workload.yaml."""

    flow: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*\.flow$")
    output: str = Field(
        min_length=3,
        max_length=100,
        pattern=r"^[A-Za-z0-9-]+\.[A-Za-z0-9_-]+$",
        description="Node of the flow and its output, e.g. 3f5c.default.",
    )
    instance_type: str = "ml.m5.4xlarge"
    instance_count: int = Field(default=2, ge=1, le=100)
    max_runtime_minutes: int = Field(default=120, ge=1, le=12_960)
    train: bool = Field(default=False, description="Then start the training pipeline on what it wrote.")


class Alternatives(Strict):
    """Other ways; none, unless it is named."""

    autopilot: Autopilot | None = None
    foundation_model: FoundationModel | None = None
    wrangler: Wrangler | None = None

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return any(one is not None for one in (self.autopilot, self.foundation_model, self.wrangler))
