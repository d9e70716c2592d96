"""Labels that people gave later: the newest of each record takes the place of the record's own.

No Spark in here: frames come and go as narwhals frames, of Spark or of polars.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import narwhals as nw
import pyarrow as pa

from lake_files import iceberg

if TYPE_CHECKING:
    from ml_contract.compiled import CompiledContract
    from pyiceberg.table import Table

__all__ = ["NO_LABELS", "newest_labels", "read_labels", "with_labels"]

#: Asked for instead of a snapshot: the labels of a time when there were none.
NO_LABELS = "none"

_GIVEN, _KEY = "__label_given_later", "__labelled_record"
SCHEMA = pa.schema([pa.field("identifier", pa.string()), pa.field("label", pa.string())])


def read_labels(catalog: Any, name: str, asked: str | None = None) -> tuple[pa.Table, int | None]:
    """The newest label of each record in the table ``name`` (``database.table``), and its snapshot's id.

    ``asked`` is the snapshot to read, or ``none``; without it the current one is. Before the first label
    there may be no table yet.

    :raises NoTableError, NoSnapshotError: a snapshot was asked for that is not there
    """
    if asked == NO_LABELS:
        return SCHEMA.empty_table(), None
    database, _, table_name = name.partition(".")
    try:
        table = iceberg.open_table(catalog, iceberg.Place(database, table_name))
    except iceberg.NoTableError:
        if asked is not None:
            raise
        return SCHEMA.empty_table(), None
    return newest_labels(table, None if asked is None else int(asked))


def newest_labels(table: Table, snapshot_id: int | None = None) -> tuple[pa.Table, int | None]:
    """The newest label of each record, and the snapshot that says so.

    The newest is the one with the greatest ``(labelled_at, task)``: the same whatever the order of the rows.
    A label that people corrected later is still in the table, and does not count any more.
    """
    snapshot = table.current_snapshot()
    if snapshot_id is not None:
        snapshot = iceberg.snapshot_of(table, snapshot_id)
    if snapshot is None:
        return SCHEMA.empty_table(), None
    columns = ("identifier", "label", "labelled_at", "task")
    rows = table.scan(snapshot_id=snapshot.snapshot_id, selected_fields=columns).to_arrow().to_pylist()
    newest: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["labelled_at"], row["task"])):
        newest[row["identifier"]] = {"identifier": row["identifier"], "label": row["label"]}
    return pa.Table.from_pylist([newest[key] for key in sorted(newest)], schema=SCHEMA), snapshot.snapshot_id


def with_labels(frame: Any, labels: Any, contract: CompiledContract) -> Any:
    """Return the rows of ``frame`` with the labels of ``labels`` where there is one.

    Both are narwhals frames of one engine; ``labels`` has the columns ``identifier`` and ``label``, texts,
    one row per record. Rows, their number and the other columns stay as they are.
    """
    field, key = contract.label.field, contract.identifier
    columns = frame.collect_schema().names()
    given = labels.select(nw.col("identifier").alias(_KEY), nw.col("label").alias(_GIVEN))
    kind = contract.types[field]
    value = nw.col(_GIVEN)
    if kind == "integer":
        value = value.cast(nw.Int64)
    elif kind == "boolean":
        value = nw.when(~value.is_null()).then(value == "true")
    joined = frame.with_columns(nw.col(key).cast(nw.String).alias(_KEY)).join(given, on=_KEY, how="left")
    return joined.with_columns(
        nw.when(~nw.col(_GIVEN).is_null()).then(value).otherwise(nw.col(field)).alias(field)
    ).select(*columns)
