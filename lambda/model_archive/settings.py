"""The function's environment, typed and checked when the first event arrives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from model_archive.logic import Rule

__all__ = ["MisconfiguredError", "Settings"]


class MisconfiguredError(Exception):
    """A variable is missing or wrong; a person has to act."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the template tells the function."""

    group_name: str
    #: Parameters whose values must stay, the approved model's and the challenger's.
    parameters: tuple[str, ...]
    rule: Rule

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the variables; every problem is reported at once."""
        problems: list[str] = []

        def whole(name: str) -> int:
            text = environment.get(name, "")
            if not text.isdecimal() or int(text) < 1:
                problems.append(f"{name} must be a whole number from 1, got {text!r}")
                return 1
            return int(text)

        keep = whole("KEEP_VERSIONS")
        days = whole("AFTER_DAYS") if environment.get("AFTER_DAYS") else None
        group = environment.get("MODEL_PACKAGE_GROUP_NAME", "").strip()
        parameters = tuple(name for name in environment.get("PARAMETER_NAMES", "").split(",") if name)
        problems += [
            f"{name} is not set"
            for name, value in (("MODEL_PACKAGE_GROUP_NAME", group), ("PARAMETER_NAMES", parameters))
            if not value
        ]
        if problems:
            raise MisconfiguredError("; ".join(problems))
        return cls(
            group_name=group,
            parameters=parameters,
            rule=Rule(keep_versions=keep, after=None if days is None else timedelta(days=days)),
        )
