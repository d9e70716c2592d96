"""The function's environment, typed and checked when it is called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MODELS", "MisconfiguredError", "Settings", "Watched"]

#: Put there when the function is packed (``ml_lifecycle.monitoring.ModelDashboard``).
MODELS = Path(__file__).resolve().parent.parent / "models.json"


class MisconfiguredError(Exception):
    """A variable is missing or wrong; a person has to act."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """One workload.

    Args:
        name: its name, a dimension of the monitors' metrics.
        title: for people.
        slug: its folder in the artifacts bucket.
        group: its model package group.
        approved: parameter that holds the approved version.
        endpoint: what serves it; None where it is no endpoint.
        variant: the endpoint's variant.
        alarms: what its alarms' names begin with.
        kinds: its monitors.
    """

    name: str
    title: str
    slug: str
    group: str
    approved: str
    endpoint: str | None
    variant: str
    alarms: tuple[str, ...]
    kinds: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the template tells the function, and the models in the file beside its package."""

    environment: str
    bucket: str
    prefix: str
    workloads: tuple[Watched, ...]

    @classmethod
    def read(cls, environment: Mapping[str, str], models: Path = MODELS) -> Settings:
        """Read the variables and the file; every problem is reported at once."""
        names = ("ENVIRONMENT", "ARTIFACTS_BUCKET", "PAGE_PREFIX")
        values = {name: environment.get(name, "").strip() for name in names}
        problems = [f"{name} is not set" for name in names if not values[name]]
        workloads: tuple[Watched, ...] = ()
        try:
            workloads = tuple(
                Watched(**{**one, "alarms": tuple(one["alarms"]), "kinds": tuple(one["kinds"])})
                for one in json.loads(models.read_text(encoding="utf-8"))
            )
        except (OSError, ValueError, TypeError, KeyError) as error:
            problems.append(f"{models.name} must be a list of models: {error!r}")
        if problems:
            raise MisconfiguredError("; ".join(problems))
        return cls(
            environment=values["ENVIRONMENT"],
            bucket=values["ARTIFACTS_BUCKET"],
            prefix=values["PAGE_PREFIX"],
            workloads=workloads,
        )
