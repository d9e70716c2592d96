"""The ``windows`` block of a ``workload.yaml``: features over the time before a record."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ml_contract.spec.blocks import ColumnName, Strict

__all__ = ["WindowFeature", "Windows"]

#: Flink's and Spark's interval literals take two digits of days or hours without a precision of their own
#: (Apache Flink, "Data Types": INTERVAL DAY is DAY(2)), so one text serves every engine.
LONGEST_HOURS = 99
LONGEST_DAYS = 99


class WindowFeature(Strict):
    """One number over the records of the same key in the hours before a record, itself included."""

    aggregate: Literal["count", "sum", "mean", "minimum", "maximum"]
    field: ColumnName | None = Field(default=None, description="Number to aggregate; none for count.")
    over_hours: int = Field(
        ge=1, description=f"At most {LONGEST_HOURS}, or whole days (a multiple of 24) up to {LONGEST_DAYS}."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if (self.field is None) != (self.aggregate == "count"):
            problems.append(
                "count counts records: leave field out"
                if self.aggregate == "count"
                else f"{self.aggregate} needs the field that it is taken of"
            )
        whole_days = self.over_hours % 24 == 0 and self.over_hours <= 24 * LONGEST_DAYS
        if self.over_hours > LONGEST_HOURS and not whole_days:
            problems.append(
                f"over_hours must be at most {LONGEST_HOURS} or a multiple of 24 up to {24 * LONGEST_DAYS}, "
                f"got {self.over_hours}"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self


class Windows(Strict):
    """Features over time. A record's own values count; records of the same moment count for each other."""

    key: ColumnName = Field(description="Records with the same value of this field share their windows.")
    features: dict[ColumnName, WindowFeature] = Field(min_length=1)
    engine: Literal["batch", "flink"] = Field(
        default="batch",
        description="flink also keeps them current in an online store as records arrive.",
    )
    allowed_lateness_hours: int = Field(
        default=1,
        ge=0,
        le=LONGEST_HOURS,
        description="flink only: records that arrive later than this behind the newest one are left to the "
        "batch run.",
    )
