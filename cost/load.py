"""What a workload is expected to get, and what has to be assumed to turn that into a bill."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ml_contract.spec.workload import Workload

__all__ = ["ASSUMPTIONS", "HOURS", "Assumptions", "Load", "loads_of", "overridden"]

#: Hours of a month: 365 days x 24 hours / 12.
HOURS: Final = 730
DAYS: Final = HOURS / 24


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What no template says. Each is printed with the forecast."""

    processing_minutes: float = 5.0
    training_minutes: float = 10.0
    glue_minutes: float = 5.0
    #: A crawler bills ten minutes at least (AWS Glue pricing).
    crawler_minutes: float = 10.0
    #: Of what is read and written for the optimizers of a small table, a day.
    optimizer_minutes: float = 1.0
    #: Of a function that handles records or predictions, a thousand at a time.
    function_ms_per_record: float = 2.0
    #: Of a function that a schedule or an event starts.
    function_ms: float = 500.0
    bytes_per_field: int = 24
    log_bytes_per_record: int = 200
    #: Of data that is kept: raw, curated and features are three copies, Parquet is a third of the text.
    months_kept: int = 12
    #: The busiest minute against the mean minute; fleets are sized for it.
    peak: float = 3.0


ASSUMPTIONS: Final = Assumptions()


@dataclass(frozen=True, kw_only=True)
class Load:
    """What arrives in a day. ``record_bytes`` is the size of a record as JSON."""

    records_per_day: int
    predictions_per_day: int
    record_bytes: int

    @property
    def records(self) -> float:
        """Records a month."""
        return self.records_per_day * DAYS

    @property
    def predictions(self) -> float:
        """Predictions a month."""
        return self.predictions_per_day * DAYS

    @property
    def gb(self) -> float:
        """GB of records a month; a service that rounds up counts at least 1 KB each."""
        return self.records * max(1024, math.ceil(self.record_bytes / 1024) * 1024) / 1024**3


def load_of(workload: Workload, assumptions: Assumptions = ASSUMPTIONS) -> Load:
    """The load that a workload states."""
    return Load(
        records_per_day=workload.load.records_per_day,
        predictions_per_day=workload.load.predictions_per_day,
        record_bytes=assumptions.bytes_per_field * len(workload.record.fields),
    )


def loads_of(workloads_folder: Path) -> tuple[dict[str, Workload], dict[str, Load]]:
    """Workloads and their loads, by name."""
    from ml_contract.load import discover_workloads

    found = {loaded.workload.name: loaded.workload for loaded in discover_workloads(workloads_folder)}
    return found, {name: load_of(workload) for name, workload in found.items()}


def overridden(loads: Mapping[str, Load], texts: Sequence[str]) -> dict[str, Load]:
    """Loads with what ``--load`` says: ``[WORKLOAD:]records=N[,predictions=N]``.

    Raises:
        ValueError: a text says something else, or names no workload.
    """
    known = {"records": "records_per_day", "predictions": "predictions_per_day"}
    changed = dict(loads)
    for given in texts:
        name, colon, pairs = given.rpartition(":")
        if colon and name not in loads:
            raise ValueError(f"--load: there is no workload {name!r}; there are {', '.join(loads)}")
        for pair in pairs.split(","):
            key, _, number = pair.partition("=")
            if key.strip() not in known or not number.strip().isdigit():
                raise ValueError(
                    f"--load must be [WORKLOAD:]records=N[,predictions=N] with whole numbers, got {given!r}"
                )
            for chosen in (name,) if colon else tuple(changed):
                changed[chosen] = replace(changed[chosen], **{known[key.strip()]: int(number)})
    return changed


def stated(assumptions: Assumptions) -> list[str]:
    """The assumptions as lines for people."""
    return [f"{f.name.replace('_', ' ')}: {getattr(assumptions, f.name):g}" for f in fields(assumptions)]
