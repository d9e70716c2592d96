"""The ``serving`` block: how the approved model answers, and how traffic moves to it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ml_contract.spec.blocks import Percent, Strict


class ServingScaling(Strict):
    """Target tracking on invocations per instance and minute."""

    min_capacity: int = Field(default=1, ge=1)
    max_capacity: int = Field(default=4, ge=1)
    target_invocations_per_instance: int = Field(default=1_000, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_capacity > self.max_capacity:
            raise ValueError(f"min_capacity {self.min_capacity} is above max_capacity {self.max_capacity}")
        return self


class Rollout(Strict):
    """How traffic moves to a new model, and what moves it back."""

    strategy: Literal["all_at_once", "canary", "linear"] = "canary"
    step_percent: int = Field(
        default=10, ge=5, le=50, description="Share of the first (canary) or each (linear) step."
    )
    bake_minutes: int = Field(
        default=10, ge=1, le=60, description="Wait after each step; alarms roll back meanwhile."
    )
    max_error_percent: float = Field(default=1.0, gt=0, le=100)
    max_latency_ms: int = Field(default=500, ge=1, le=60_000, description="p99 of ModelLatency.")


class Serving(Strict):
    """How the approved model answers."""

    instance_type: str = "ml.m5.large"
    initial_instance_count: int = Field(default=1, ge=1, le=100)
    scaling: ServingScaling = ServingScaling()
    rollout: Rollout = Rollout()
    capture_percent: Percent = 100
    decision_threshold: float = Field(
        default=0.5, gt=0, lt=1, description="Binary only: positive from this score on."
    )
