"""The workload's rules of labelling: the file ``label_rules.json`` beside the package."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from label_tasks.errors import MisconfiguredError

__all__ = ["Choice", "Field", "Rules", "load_rules"]

#: Where the construct stages it (``ml_contract.extracts.label_rules.label_rules`` makes it).
RULES = Path(__file__).resolve().parents[1] / "label_rules.json"


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field that a labeller sees; ``source`` is its name in incoming records."""

    name: str
    source: str
    title: str
    personal: bool


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A class of the label, as it stands in records and as people read it."""

    value: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Everything that the functions need to know of a workload."""

    workload: str
    title: str
    instructions: str
    identifier: str
    label_field: str
    task: str
    classes: tuple[Choice, ...]
    show: tuple[Field, ...]
    threshold: float
    review_below_confidence: float
    sample_percent: float
    labellers_per_item: int
    labellers_at_most: int
    agreement: float
    expires_hours: int
    lock_minutes: int

    @classmethod
    def from_json(cls, text: str | bytes) -> Rules:
        """Read what ``label_rules`` wrote. Raises MisconfiguredError when it is something else."""
        try:
            data = json.loads(text)
            return cls(
                classes=tuple(Choice(**c) for c in data.pop("classes")),
                show=tuple(Field(**f) for f in data.pop("show")),
                **data,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MisconfiguredError(f"these are no rules of labelling: {error!r}") from error

    @property
    def values(self) -> tuple[str, ...]:
        """The classes as they stand in records."""
        return tuple(choice.value for choice in self.classes)


@cache
def load_rules() -> Rules:
    """The rules beside the package."""
    try:
        return Rules.from_json(RULES.read_bytes())
    except OSError as error:
        raise MisconfiguredError(f"the rules must stand at {RULES}: {error}") from error
