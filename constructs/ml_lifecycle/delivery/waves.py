"""What is delivered, and what goes together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import aws_cdk as cdk

__all__ = ["Delivered", "Wave"]


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """One environment in the pipeline: the app's own ``Stage``, and whether a person must agree first.

    ``checks_role_arn`` is the role of `DeliveryAccess` there; without one nothing is compared before the
    approval and nothing is asked after the deploy. ``name`` is what the commands call it, the stage's name in
    lower case by default.
    """

    stage: cdk.Stage
    approval: bool = False
    checks_role_arn: str | None = None
    name: str | None = None

    @property
    def environment(self) -> str:
        """What the commands call the environment."""
        return str(self.stage.node.id).lower() if self.name is None else self.name


@dataclass(frozen=True, kw_only=True)
class Wave:
    """Environments that are deployed side by side; the next wave begins when all of them are done.

    A person is asked once, before the wave, if any of them wants it.
    """

    name: str
    environments: Sequence[Delivered]

    def __post_init__(self) -> None:
        problems = []
        # A stage's name in CodePipeline, with room for what stands before it ("Approve").
        if not re.fullmatch(r"[A-Za-z0-9.@_-]{1,80}", self.name):
            problems.append(
                f"name of a wave must be 1 to 80 letters, digits and .@_- without spaces, got {self.name!r}"
            )
        if not self.environments:
            problems.append(f"wave {self.name!r} must hold at least one environment, got none")
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def approval(self) -> bool:
        """Whether a person is asked before it."""
        return any(environment.approval for environment in self.environments)
