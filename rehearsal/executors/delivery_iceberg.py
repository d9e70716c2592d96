"""What Amazon Data Firehose does with an Iceberg table: load it, read its columns, append rows.

Real commits by pyiceberg, through the Glue catalog of the embedded AWS and as the delivery stream's role.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from rehearsal.executors.delivery_format import Column

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["FAILURES", "append", "hive_columns", "load_table"]

#: Why a commit may fail and be tried again: AWS refused, files were not written, somebody else was quicker.
FAILURES: Final[tuple[type[Exception], ...]] = (ClientError, BotoCoreError, OSError, ValueError, RuntimeError)
#: Property of a snapshot that names the batch it holds.
_BATCH: Final = "firehose.batch"
_HIVE: Final = {
    "long": "bigint",
    "int": "int",
    "double": "double",
    "float": "float",
    "string": "string",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp",
    "timestamptz": "timestamp",
}


def load_table(runtime: Runtime, destination: Mapping[str, Any], region: str) -> Any:
    """Load the one table of an Iceberg destination.

    :raises NotImplementedError: records are to be routed to several tables
    """
    from pyiceberg.catalog.glue import GlueCatalog

    configured = destination.get("DestinationTableConfigurationList") or []
    if len(configured) != 1 or configured[0].get("UniqueKeys"):
        raise NotImplementedError(
            "Iceberg destinations are emulated with one table to append to, "
            f"got {len(configured)} tables, unique keys {[c.get('UniqueKeys') for c in configured]}"
        )
    role = str(destination["RoleARN"])
    given = runtime.identities.for_role(role)
    properties = {
        "s3.endpoint": runtime.endpoint,
        "s3.region": region,
        "s3.access-key-id": given.access_key_id,
        "s3.secret-access-key": given.secret_access_key,
        "s3.session-token": str(given.session_token),
    }
    catalog = GlueCatalog("glue", client=runtime.client("glue", role=role, region=region), **properties)
    only = configured[0]
    return catalog.load_table((only["DestinationDatabaseName"], only["DestinationTableName"]))


def hive_columns(table: Any) -> list[Column]:
    """Return the table's columns with the types that the JSON of records is read by.

    :raises NotImplementedError: a column of a type that the contract does not have
    """
    columns = []
    for field in table.schema().fields:
        kind = str(field.field_type)
        if kind not in _HIVE:
            raise NotImplementedError(f"column {field.name} is {kind}; its type is not emulated")
        columns.append(Column(field.name, _HIVE[kind]))
    return columns


def append(table: Any, parquet: bytes, *, batch: str) -> str:
    """Append the rows of a Parquet file in one snapshot; return what the ledger calls it.

    A batch that a snapshot holds already is not written again: its commit went through, its answer did not.
    """
    import pyarrow.parquet as pq

    for snapshot in table.snapshots():
        if snapshot.summary is not None and snapshot.summary.additional_properties.get(_BATCH) == batch:
            return f"snapshot {snapshot.snapshot_id} of {'.'.join(table.name())}"
    rows = pq.read_table(io.BytesIO(parquet)).cast(table.schema().as_arrow())
    table.append(rows, snapshot_properties={_BATCH: batch})
    return f"snapshot {table.current_snapshot().snapshot_id} of {'.'.join(table.name())}"
