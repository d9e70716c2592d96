"""The function's environment, typed and checked when the first event arrives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["MisconfiguredError", "Settings"]


class MisconfiguredError(Exception):
    """A variable is missing or wrong; a person has to act."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the template tells the function."""

    topic_arn: str
    workload: str
    environment: str
    region: str
    #: What an alarm watches, by its name: the kind of monitor and where its reports lie.
    monitors: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the variables; every problem is reported at once."""
        names = ("TOPIC_ARN", "WORKLOAD", "ENVIRONMENT", "AWS_REGION")
        texts = {name: environment.get(name, "").strip() for name in names}
        problems = [f"{name} is not set" for name, text in texts.items() if not text]
        monitors: dict[str, tuple[str, str]] = {}
        try:
            for found in json.loads(environment.get("MONITORS", "[]")):
                monitors[str(found["alarm"])] = (str(found["kind"]), str(found["uri"]))
        except (ValueError, KeyError, TypeError):
            problems.append("MONITORS must be a JSON list of alarm, kind and uri")
        if problems:
            raise MisconfiguredError("; ".join(problems))
        return cls(
            topic_arn=texts["TOPIC_ARN"],
            workload=texts["WORKLOAD"],
            environment=texts["ENVIRONMENT"],
            region=texts["AWS_REGION"],
            monitors=monitors,
        )
