"""The function's environment, typed and checked when the first event arrives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from text_enrichment.errors import MisconfiguredError

__all__ = ["KINDS", "Settings"]

#: What can be asked of a text.
KINDS = ("sentiment", "entities")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the template tells the function. Tables are ``database.table``; ``most_texts`` is per run."""

    curated: str
    texts: str
    identifier: str
    field: str
    language: str
    kinds: tuple[str, ...]
    most_texts: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the variables; every problem is reported at once."""
        names = {
            "curated": "CURATED_TABLE",
            "texts": "TEXTS_TABLE",
            "identifier": "IDENTIFIER",
            "field": "FIELD",
            "language": "LANGUAGE",
            "kinds": "KINDS",
            "most_texts": "MOST_TEXTS",
        }
        values = {key: environment.get(name, "").strip() for key, name in names.items()}
        problems = [f"{name} is not set" for key, name in names.items() if not values[key]]
        problems += [
            f"{names[key]} must be database.table, got {values[key]!r}"
            for key in ("curated", "texts")
            if values[key] and values[key].count(".") != 1
        ]
        kinds = tuple(kind for kind in values.pop("kinds").split(",") if kind)
        if unknown := [kind for kind in kinds if kind not in KINDS]:
            problems.append(f"KINDS must be of {', '.join(KINDS)}, got {', '.join(unknown)}")
        most = values.pop("most_texts")
        if most and not (most.isascii() and most.isdigit() and int(most) > 0):
            problems.append(f"MOST_TEXTS must be a number from 1, got {most!r}")
        if problems:
            raise MisconfiguredError("; ".join(problems))
        return cls(**values, kinds=kinds, most_texts=int(most))
