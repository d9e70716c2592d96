"""How the environment keeps an Iceberg table in order."""

from __future__ import annotations

from ml_lifecycle.data_lake import IcebergTable, TableUpkeep

from constructs import Construct
from environments import Environment


def table_upkeep(
    scope: Construct, construct_id: str, environment: Environment, table: IcebergTable
) -> TableUpkeep | None:
    """Define the optimizers that the environment wants; ``None`` where it wants none."""
    wanted = environment.tables
    if wanted is None:
        return None
    return TableUpkeep(
        scope,
        construct_id,
        table=table,
        snapshot_days=wanted.snapshot_days,
        snapshots_kept=wanted.snapshots_kept,
        orphan_days=wanted.orphan_days,
        compact=wanted.compact,
        compact_files=wanted.compact_files,
    )
