"""The function's environment, typed and checked when the first event arrives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from retrain_trigger.errors import MisconfiguredError

__all__ = ["CHAMPION_PARAMETERS", "Settings"]

#: What a training pipeline may be told of the approved model.
CHAMPION_PARAMETERS = ("ChampionModel", "ChampionTest")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the template tells the function."""

    pipeline_name: str
    workload: str
    cooldown: timedelta
    #: Name of the parameter that holds the approved model package; None when the pipeline asks for none.
    approved_parameter: str | None = None
    #: Parameters by which the pipeline is told of the approved model.
    champion_parameters: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the variables; every problem is reported at once."""
        problems = [
            f"{name} is not set"
            for name in ("PIPELINE_NAME", "WORKLOAD")
            if not environment.get(name, "").strip()
        ]
        text = environment.get("COOLDOWN_HOURS", "")
        try:
            hours = float(text)
        except ValueError:
            hours = -1.0
        if not 0 <= hours <= 24 * 366:
            problems.append(f"COOLDOWN_HOURS must be a number of hours between 0 and 8784, got {text!r}")
        approved = environment.get("APPROVED_PARAMETER", "").strip() or None
        named = tuple(name for name in environment.get("CHAMPION_PARAMETERS", "").split(",") if name)
        unknown = [name for name in named if name not in CHAMPION_PARAMETERS]
        if unknown or (approved is None) != (not named):
            problems.append(
                "APPROVED_PARAMETER goes with CHAMPION_PARAMETERS, some of "
                f"{', '.join(CHAMPION_PARAMETERS)}; got {approved!r} and {named!r}"
            )
        if problems:
            raise MisconfiguredError("; ".join(problems))
        return cls(
            pipeline_name=environment["PIPELINE_NAME"].strip(),
            workload=environment["WORKLOAD"].strip(),
            cooldown=timedelta(hours=hours),
            approved_parameter=approved,
            champion_parameters=named,
        )
