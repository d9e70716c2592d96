"""Where people work, and what they take off a shelf by themselves: for the personas of ``governance``."""

from __future__ import annotations

from dataclasses import dataclass

from ml_lifecycle.governance import PERSONAS, PersonaName

from environments.refusal import refuse

__all__ = ["Catalog", "Studio"]


def _of(personas: tuple[PersonaName, ...]) -> list[str]:
    problems = [
        f"personas must hold some of {', '.join(PERSONAS)}, got {name!r}"
        for name in personas
        if name not in PERSONAS
    ]
    return problems if personas else ["personas must hold at least one, got none"]


@dataclass(frozen=True, kw_only=True)
class Studio:
    """A SageMaker Studio domain inside the VPC with a profile for each of ``personas``; see StudioDomain.

    A domain costs nothing; an app is billed while it runs, and stops by itself after ``idle_minutes`` without
    work. With ``home_files`` the domain has a file system that outlives it.
    """

    personas: tuple[PersonaName, ...] = ("data_scientist", "data_engineer", "mlops_engineer")
    idle_minutes: int = 60
    home_files: bool = True

    def __post_init__(self) -> None:
        problems = _of(self.personas)
        # SageMaker API Reference, IdleSettings: 60 to 525,600 minutes.
        if not 60 <= self.idle_minutes <= 525_600:
            problems.append(f"idle_minutes must be between 60 and 525600, got {self.idle_minutes}")
        refuse("studio", problems)


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """A portfolio of AWS Service Catalog with a trial endpoint for each workload; see TrialCatalog.

    ``personas`` launch one for an approved version, on one of ``instance_types``; it is billed until they
    terminate it. Service Catalog's first 1,000 calls a month are free.
    """

    personas: tuple[PersonaName, ...] = ("data_scientist",)
    instance_types: tuple[str, ...] = ("ml.t2.medium", "ml.m5.large")

    def __post_init__(self) -> None:
        problems = _of(self.personas)
        if not self.instance_types:
            problems.append("instance_types must hold at least one, got none")
        refuse("catalog", problems)
