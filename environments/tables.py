"""Upkeep of the lake's Iceberg tables."""

from __future__ import annotations

from dataclasses import dataclass

from environments.refusal import refuse


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What Glue's table optimizers do to each Iceberg table, once a day.

    Snapshots older than ``snapshot_days`` expire, save the ``snapshots_kept`` newest, and with them the files
    that no other snapshot names: so far back rows can be restored and training sets rebuilt. Files that no
    snapshot ever named (a job that died before its commit) go after ``orphan_days``. With ``compact``, small
    files and files with deleted rows are rewritten once a partition holds ``compact_files`` of them.

    Glue bills an optimizer by the DPU hour that it works (AWS Glue pricing).
    """

    snapshot_days: int = 30
    snapshots_kept: int = 3
    orphan_days: int = 3
    compact: bool = True
    compact_files: int = 100

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be at least {least}, got {getattr(self, name)}"
            for name, least in (
                ("snapshot_days", 1),
                ("snapshots_kept", 1),
                # A run that is under way has files that no snapshot names yet.
                ("orphan_days", 1),
                ("compact_files", 2),
            )
            if getattr(self, name) < least
        ]
        refuse("tables", problems)
