"""The function's environment, typed and checked when the first event arrives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ground_truth.errors import MisconfiguredError

__all__ = ["MOST_HOURS", "Settings"]

#: The longest that anybody looks back: a year.
MOST_HOURS = 24 * 366


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the template tells the function.

    Args:
        curated: table of the curated records, ``database.table``.
        labels: table of people's labels, or None.
        identifier: column that names a record; callers pass its value as InferenceId.
        label: column of the label.
        received: column of the moment a record arrived.
        target: ``s3://bucket/prefix`` of the files.
        lookback_hours: records and labels older than this were seen by earlier runs.
    """

    curated: str
    labels: str | None
    identifier: str
    label: str
    received: str
    target: str
    lookback_hours: int

    @property
    def bucket(self) -> str:
        """Bucket of the target."""
        return self.target.removeprefix("s3://").partition("/")[0]

    @property
    def prefix(self) -> str:
        """Prefix of the target, with its slash."""
        return self.target.removeprefix("s3://").partition("/")[2].rstrip("/") + "/"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the variables; every problem is reported at once."""
        names = {
            "curated": "CURATED_TABLE",
            "identifier": "IDENTIFIER",
            "label": "LABEL",
            "received": "RECEIVED",
            "target": "GROUND_TRUTH_URI",
            "hours": "LOOKBACK_HOURS",
        }
        values = {key: environment.get(name, "").strip() for key, name in names.items()}
        problems = [f"{name} is not set" for key, name in names.items() if not values[key]]
        labels = environment.get("LABELS_TABLE", "").strip() or None
        for name, table in (("CURATED_TABLE", values["curated"]), ("LABELS_TABLE", labels)):
            if table and table.count(".") != 1:
                problems.append(f"{name} must be database.table, got {table!r}")
        target = values["target"]
        if target and not (target.startswith("s3://") and target.removeprefix("s3://").partition("/")[2]):
            problems.append(f"GROUND_TRUTH_URI must be s3://bucket/prefix, got {target!r}")
        hours = values.pop("hours")
        if hours and not (hours.isascii() and hours.isdigit() and 1 <= int(hours) <= MOST_HOURS):
            problems.append(f"LOOKBACK_HOURS must be a number from 1 to {MOST_HOURS}, got {hours!r}")
        if problems:
            raise MisconfiguredError("; ".join(problems))
        return cls(**values, labels=labels, lookback_hours=int(hours))
