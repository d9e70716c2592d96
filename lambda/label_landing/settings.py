"""The function's environment, typed and checked when the first message arrives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from label_landing.errors import MisconfiguredError

__all__ = ["Settings"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the template tells the function. ``items`` is the DynamoDB table, ``labels`` the Iceberg one."""

    items: str
    labels: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the variables; every problem is reported at once."""
        names = {"items": "TABLE", "labels": "LABEL_TABLE"}
        values = {field: environment.get(name, "").strip() for field, name in names.items()}
        problems = [f"{name} is not set" for field, name in names.items() if not values[field]]
        if values["labels"] and values["labels"].count(".") != 1:
            problems.append(f"LABEL_TABLE must be database.table, got {values['labels']!r}")
        if problems:
            raise MisconfiguredError("; ".join(problems))
        return cls(**values)
