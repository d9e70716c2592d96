"""The functions' environment, typed and checked when the first event arrives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from label_tasks.errors import MisconfiguredError

__all__ = ["Settings"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the template tells a function; what it does not need is empty."""

    table: str
    state_machine: str = ""
    bucket: str = ""
    prefix: str = ""
    namespace: str = ""
    sign_in_url: str = ""
    client_id: str = ""
    scope: str = ""
    queue: str = ""
    engine: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], *needed: str) -> Settings:
        """Read the variables of ``needed`` fields and the table's; every problem is reported at once."""
        values = {field.name: environment.get(field.name.upper(), "").strip() for field in fields(cls)}
        missing = [name.upper() for name in ("table", *needed) if not values[name]]
        if missing:
            raise MisconfiguredError(f"not set: {', '.join(missing)}")
        return cls(**values)
