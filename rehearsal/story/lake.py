"""The lake's Iceberg tables as an operator reads them: the current snapshot, or an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from rehearsal.story.tale import Tale

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.table import Table

__all__ = ["curated_table", "open_table", "read_curated", "read_table"]


def open_table(tale: Tale, database: str, name: str) -> Table:
    """An Iceberg table of the Data Catalog, with the operator's credentials."""
    from pyiceberg.catalog.glue import GlueCatalog

    environment = tale.cloud.server.environment()
    catalog: Any = GlueCatalog(
        "rehearsal",
        client=tale.cloud.client("glue"),
        **{
            "s3.endpoint": tale.cloud.server.endpoint,
            "s3.region": environment["AWS_REGION"],
            "s3.access-key-id": environment["AWS_ACCESS_KEY_ID"],
            "s3.secret-access-key": environment["AWS_SECRET_ACCESS_KEY"],
        },
    )
    return cast("Table", catalog.load_table((database, name)))


def read_table(table: Table, columns: Sequence[str] = ("*",), snapshot_id: int | None = None) -> pa.Table:
    """Rows of a snapshot, the current one by default."""
    return table.scan(selected_fields=tuple(columns), snapshot_id=snapshot_id).to_arrow()


def curated_table(tale: Tale) -> Table:
    """The workload's curated table, as it is now."""
    outputs = tale.outputs("Data")
    return open_table(tale, outputs["CuratedDatabase"], outputs["CuratedTable"])


def read_curated(tale: Tale, columns: Sequence[str] = ("*",), snapshot_id: int | None = None) -> pa.Table:
    """Rows of the curated table."""
    return read_table(curated_table(tale), columns, snapshot_id)
