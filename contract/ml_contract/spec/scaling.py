"""The block ``serving.scaling``: how many instances, copies or tasks answer."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ml_contract.spec.blocks import Strict

__all__ = ["Schedule", "ServingScaling", "Step"]


class Step(Strict):
    """One step: from a load on, by how much the fleet changes."""

    above: float | None = Field(default=None, ge=0, description="Requests an instance and minute.")
    below: float | None = Field(default=None, gt=0, description="Requests an instance and minute.")
    add: int = Field(ge=-100, le=100, description="Instances, copies or tasks; negative with below.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError("a step has either above or below; give one of them")
        if self.above is not None and self.add < 1:
            raise ValueError(f"a step with above adds at least 1, got {self.add}")
        if self.below is not None and self.add > -1:
            raise ValueError(f"a step with below takes away, so add is -1 or less, got {self.add}")
        return self


class Schedule(Strict):
    """From a moment on, between which sizes the fleet stays, until another schedule says otherwise."""

    cron: str = Field(
        pattern=r"^\S+ \S+ \S+ \S+ \S+ \S+$",
        description="Minutes, hours, day of month, month, day of week, year: '0 7 ? * MON-FRI *'.",
    )
    timezone: str = Field(default="UTC", description="IANA name, e.g. Europe/Vienna.")
    min_capacity: int = Field(ge=0)
    max_capacity: int = Field(ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_capacity > self.max_capacity:
            raise ValueError(f"min_capacity {self.min_capacity} is above max_capacity {self.max_capacity}")
        return self


class ServingScaling(Strict):
    """How the fleet follows its load: a target, or steps; and schedules beside either.

    It counts instances; copies with style ``inference_components``, tasks with ``ecs``.
    """

    min_capacity: int = Field(default=1, ge=0, description="0: asynchronous and inference_components only.")
    max_capacity: int = Field(default=4, ge=1)
    kind: Literal["target", "step"] = "target"
    target_invocations_per_instance: int = Field(
        default=1_000, ge=1, description="Kind target: requests an instance and minute."
    )
    steps: tuple[Step, ...] = Field(
        default=(), max_length=20, description="Kind step: at least one with above and one with below."
    )
    schedules: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")], Schedule] = Field(
        default_factory=dict, max_length=50
    )

    @property
    def to_zero(self) -> bool:
        """Whether there may be nobody at times."""
        return 0 in (self.min_capacity, *(each.min_capacity for each in self.schedules.values()))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if self.min_capacity > self.max_capacity:
            problems.append(f"min_capacity {self.min_capacity} is above max_capacity {self.max_capacity}")
        if self.kind == "target" and self.steps:
            problems.append("steps go with kind: step; set it or leave them out")
        if self.kind == "step":
            problems += self._step_problems()
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _step_problems(self) -> list[str]:
        problems = []
        if "target_invocations_per_instance" in self.model_fields_set:
            problems.append("target_invocations_per_instance goes with kind: target; remove it")
        out = [step.above for step in self.steps if step.above is not None]
        back = [step.below for step in self.steps if step.below is not None]
        if not out or not back:
            problems.append(
                "kind: step needs a step with above and one with below, or the fleet only grows or only "
                "shrinks; add {above: 1500, add: 1} or {below: 300, add: -1}"
            )
        elif max(back) >= min(out):
            problems.append(
                f"the highest below ({max(back):g}) must be less than the lowest above ({min(out):g}), or "
                "the fleet never rests"
            )
        for name, values in (("above", out), ("below", back)):
            if len(set(values)) != len(values):
                problems.append(f"two steps have the same {name}; keep one")
        return problems
