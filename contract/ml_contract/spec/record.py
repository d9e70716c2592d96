"""The ``record`` block and the ``label``: what a record is, and what is predicted of it."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ml_contract.spec.blocks import ColumnName, Strict

#: Feature Store reserves these column names (CreateFeatureGroup, FeatureDefinitions).
RESERVED_COLUMNS = frozenset(
    {"is_deleted", "write_time", "api_invocation_time", "year", "month", "day", "hour"}
)
#: The columns that delivery adds to every record of the raw zone.
DELIVERY_COLUMNS = frozenset({"record_id", "received_at"})

FieldType = Literal["integer", "number", "string", "boolean", "date", "timestamp"]
Sensitivity = Literal["pii", "protected"]
Task = Literal["binary", "multiclass", "regression"]


class RecordField(Strict):
    """One field of a record."""

    type: FieldType
    source: str | None = Field(
        default=None,
        min_length=1,
        description="Name of the field in incoming records when it is not the column's name.",
    )
    format: str | None = Field(
        default=None, description="strptime format of a date or timestamp; the default is ISO 8601."
    )
    required: bool = Field(
        default=False, description="A record without a value for this field is quarantined."
    )
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="The only values of a string."
    )
    pattern: str | None = Field(
        default=None, description="Regular expression that a string must match as a whole."
    )
    max_length: int | None = Field(default=None, ge=1, description="Longest string, in characters.")
    missing: tuple[str, ...] = Field(default=(), description="Texts that mean 'no value', e.g. '?'.")
    sensitive: Sensitivity | None = Field(
        default=None,
        description="pii identifies a person and is never a feature; "
        "protected is one only when a feature names it.",
    )
    description: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if self.type not in ("integer", "number") and (self.minimum is not None or self.maximum is not None):
            problems.append(f"minimum and maximum go with integer and number, not with {self.type}")
        if self.type != "string" and (self.allowed or self.pattern or self.max_length):
            problems.append(f"allowed, pattern and max_length go with string, not with {self.type}")
        if self.type not in ("date", "timestamp") and self.format:
            problems.append(f"format goes with date and timestamp, not with {self.type}")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            problems.append(f"minimum {self.minimum:g} is above maximum {self.maximum:g}")
        if self.pattern:
            try:
                re.compile(self.pattern)
            except re.error as error:
                problems.append(f"pattern {self.pattern!r} is no regular expression: {error}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class RecordSpec(Strict):
    """What a record is."""

    schema_version: int = Field(
        default=1,
        ge=1,
        description="Raised with a change that breaks senders or readers; see record.lock.json.",
    )
    identifier: ColumnName = Field(
        description="Field that identifies a record; a later one replaces an earlier one."
    )
    event_time: ColumnName = Field(description="Date or timestamp field that says when it happened (UTC).")
    late_after_days: int | None = Field(
        default=None, ge=0, description="Records older than this on arrival are kept and counted as late."
    )
    fields: dict[ColumnName, RecordField] = Field(min_length=3)


class BinaryLabel(Strict):
    """Two classes; the second value is the positive one and becomes 1."""

    task: Literal["binary"]
    field: ColumnName
    values: tuple[str | bool | int, str | bool | int] = Field(
        description="[negative, positive], as they stand in records."
    )


class MulticlassLabel(Strict):
    """Three classes or more; a class becomes its position."""

    task: Literal["multiclass"]
    field: ColumnName
    values: tuple[str | bool | int, ...] = Field(min_length=3)


class RegressionLabel(Strict):
    """A number."""

    task: Literal["regression"]
    field: ColumnName


Label = Annotated[BinaryLabel | MulticlassLabel | RegressionLabel, Field(discriminator="task")]


def class_text(value: str | bool | int) -> str:
    """A class of the label as a text, the same wherever it is written."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
