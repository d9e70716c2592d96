"""The function's environment, typed and checked when the first event arrives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["MisconfiguredError", "Settings"]


class MisconfiguredError(Exception):
    """The template has given the function something that it cannot work with."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the template tells the function."""

    workload: str
    environment: str
    state_parameter: str
    stacks: tuple[str, ...]
    streams: tuple[str, ...]
    after_hours: int
    topic_arn: str
    #: None: the workload is served by something whose requests nobody counts here.
    endpoint_name: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the variables; every problem is reported at once."""
        problems = [
            f"{name} is not set"
            for name in ("WORKLOAD", "ENVIRONMENT", "STATE_PARAMETER", "STACKS", "TOPIC_ARN", "AFTER_HOURS")
            if not environment.get(name, "").strip()
        ]
        hours = environment.get("AFTER_HOURS", "")
        if not hours.isdigit() or not 1 <= int(hours) <= 720:
            problems.append(f"AFTER_HOURS must be between 1 and 720, got {hours!r}")
        if problems:
            raise MisconfiguredError("; ".join(problems))
        return cls(
            workload=environment["WORKLOAD"],
            environment=environment["ENVIRONMENT"],
            state_parameter=environment["STATE_PARAMETER"],
            stacks=tuple(json.loads(environment["STACKS"])),
            streams=tuple(json.loads(environment.get("STREAMS", "[]"))),
            after_hours=int(hours),
            topic_arn=environment["TOPIC_ARN"],
            endpoint_name=environment.get("ENDPOINT_NAME") or None,
        )
