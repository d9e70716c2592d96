"""Iceberg tables of the lake: data files of any engine become one snapshot; readers ask a snapshot.

Only pyiceberg, pyarrow and boto3 in here, no Spark. Who writes puts Parquet files below the table's location,
at paths that nobody has used before, and then commits them: until then no reader sees them. A process that
dies in between leaves files that no snapshot names (orphans), never half a table.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NoSuchTableError,
    TableAlreadyExistsError,
    ValidationException,
)
from pyiceberg.io.pyarrow import parquet_file_to_data_file
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.snapshots import ancestors_of
from pyiceberg.transforms import DayTransform, IdentityTransform, MonthTransform, YearTransform
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import FileScanTask, Table
    from pyiceberg.table.snapshots import Snapshot

#: A commit that meets another is built anew on what the other left, so often.
ATTEMPTS = 5
#: Seconds between two attempts, doubled each time.
WAIT = 0.2
#: Made with every table. Files are read by the fields' ids, or by their names where a file has no ids.
PROPERTIES: Mapping[str, str] = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    # Old metadata files go with the commit that makes them so old (Iceberg, "Maintenance").
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "50",
}
_NAME_MAPPING = "schema.name-mapping.default"
_TRANSFORMS: Mapping[str, Callable[[], Any]] = {
    "identity": IdentityTransform,
    "year": YearTransform,
    "month": MonthTransform,
    "day": DayTransform,
}
#: Instants are kept with their zone: Hive's timestamp is one here.
_TYPES: Mapping[str, Callable[[], IcebergType]] = {
    "bigint": LongType,
    "int": IntegerType,
    "double": DoubleType,
    "float": FloatType,
    "string": StringType,
    "boolean": BooleanType,
    "date": DateType,
    "timestamp": TimestamptzType,
    "binary": BinaryType,
}


class TableError(Exception):
    """The table is not what the caller takes it for."""


class NoTableError(TableError):
    """There is no such table in the catalog."""


class NoSnapshotError(TableError):
    """The table has no (such) snapshot."""


class SchemaChangeError(TableError):
    """A column would change its type or go: readers of what is there would break."""


class DeletesPendingError(TableError):
    """Rows were deleted by delete files, which readers of bare data files would not see."""


@dataclass(frozen=True)
class Place:
    """A table's place in the catalog."""

    database: str
    name: str

    def __str__(self) -> str:
        """``database.name``."""
        return f"{self.database}.{self.name}"


def glue_catalog(client: Any) -> GlueCatalog:
    """The Data Catalog of the client's account and Region, with files through the same credentials.

    Arrow's S3 client is told the endpoint, which other clients take from the environment.
    """
    properties = {"s3.region": client.meta.region_name}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        properties["s3.endpoint"] = endpoint
    return GlueCatalog("glue", client=client, **properties)


def open_table(catalog: Any, place: Place) -> Table:
    """Load a table as it is now.

    :raises NoTableError: the catalog has none
    """
    try:
        return cast("Table", catalog.load_table((place.database, place.name)))
    except NoSuchTableError as error:
        raise NoTableError(f"there is no Iceberg table {place}: deploy its stack first") from error


def ensure_table(
    catalog: Any,
    place: Place,
    *,
    location: str,
    columns: Sequence[tuple[str, str]],
    partition_by: Sequence[tuple[str, str]] = (),
    properties: Mapping[str, str] | None = None,
) -> Table:
    """Load the table; make it if there is none; add the columns that it lacks.

    ``columns`` are pairs of name and Hive type, ``partition_by`` pairs of transform (``identity``, ``year``,
    ``month``, ``day``) and column.
    """
    try:
        table = open_table(catalog, place)
    except NoTableError:
        schema = schema_of(columns)
        try:
            table = cast(
                "Table",
                catalog.create_table(
                    (place.database, place.name),
                    schema=schema,
                    location=location.rstrip("/"),
                    partition_spec=spec_of(schema, partition_by),
                    properties={**PROPERTIES, **(properties or {})},
                ),
            )
        except TableAlreadyExistsError:  # another writer was quicker
            table = open_table(catalog, place)
    return evolve(table, columns)


def evolve(table: Table, columns: Sequence[tuple[str, str]]) -> Table:
    """Add the columns that the table lacks, all of them optional; nothing else ever changes in place.

    A column that ``columns`` lacks stays, and is null in new rows.

    :raises SchemaChangeError: a column is there in another type
    """
    for attempt in range(ATTEMPTS):
        missing = _missing(table, columns)
        if not missing:
            return table
        try:
            with table.update_schema() as update:
                for name, kind in missing:
                    update.add_column(name, iceberg_type(kind))
        except CommitFailedException:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(WAIT * 2**attempt)
            table.refresh()
        else:
            return table
    raise AssertionError("the loop returns or raises")


def _name(table: Table) -> str:
    return ".".join(table.name())


def _missing(table: Table, columns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    present = dict(hive_columns(table))
    problems = [
        f"{name} is {present[name]} and would become {kind}"
        for name, kind in columns
        if name in present and present[name] != kind
    ]
    if problems:
        raise SchemaChangeError(
            f"{_name(table)}: {'; '.join(problems)}; add a column of another name and fill it instead"
        )
    return [(name, kind) for name, kind in columns if name not in present]


def replace_rows(
    table: Table, uris: Sequence[str], *, properties: Mapping[str, str] | None = None
) -> Snapshot:
    """Make these files the table's whole content, in one snapshot; what was there stays in older snapshots.

    ``properties`` go into the snapshot's summary. Where another writer was quicker, the commit is built anew
    on what that writer left, so nothing of either is there twice.

    :raises CommitFailedException: others were quicker each time
    """
    return _commit(table, uris, properties or {}, replace=True)


def append_rows(
    table: Table, uris: Sequence[str], *, properties: Mapping[str, str] | None = None
) -> Snapshot:
    """Add these files to the table's content, in one snapshot."""
    return _commit(table, uris, properties or {}, replace=False)


def _commit(table: Table, uris: Sequence[str], properties: Mapping[str, str], *, replace: bool) -> Snapshot:
    if len(set(uris)) != len(uris):
        raise ValueError("a data file is named twice")
    for attempt in range(ATTEMPTS):
        table.refresh()
        try:
            with table.transaction() as transaction:
                if table.metadata.name_mapping() is None:
                    mapping = table.schema().name_mapping.model_dump_json()
                    transaction.set_properties({_NAME_MAPPING: mapping})
                update = transaction.update_snapshot(snapshot_properties=dict(properties))
                with update.overwrite() if replace else update.fast_append() as producer:
                    if replace:
                        for file in _current_files(table):
                            producer.delete_data_file(file)
                    for uri in uris:
                        added = parquet_file_to_data_file(table.io, transaction.table_metadata, uri)
                        producer.append_data_file(added)
        except (CommitFailedException, ValidationException):
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(WAIT * 2**attempt)
        else:
            return current_snapshot(table)
    raise AssertionError("the loop returns or raises")


def _current_files(table: Table) -> Iterable[DataFile]:
    if table.current_snapshot() is None:
        return ()
    return [task.file for task in table.scan().plan_files()]


def current_snapshot(table: Table) -> Snapshot:
    """The snapshot that readers see now.

    :raises NoSnapshotError: nothing was ever committed
    """
    found = table.current_snapshot()
    if found is None:
        raise NoSnapshotError(f"{_name(table)} has no snapshot: nothing was committed yet")
    return found


def snapshot_at(table: Table, moment: datetime) -> Snapshot:
    """The snapshot that readers saw at a moment (with a zone).

    :raises NoSnapshotError: there was none yet, or it has expired
    """
    found = table.snapshot_as_of_timestamp(int(moment.timestamp() * 1000))
    if found is None:
        raise NoSnapshotError(f"{_name(table)} had no snapshot at {moment.isoformat()}, or it has expired")
    return found


def snapshot_of(table: Table, snapshot_id: int) -> Snapshot:
    """One snapshot by its id.

    :raises NoSnapshotError: there is none, or it has expired
    """
    found = table.snapshot_by_id(snapshot_id)
    if found is None:
        kept = ", ".join(str(one.snapshot_id) for one in table.snapshots()) or "none"
        raise NoSnapshotError(f"{_name(table)} has no snapshot {snapshot_id}; it keeps: {kept}")
    return found


def data_files(table: Table, snapshot_id: int | None = None) -> list[str]:
    """URIs of the data files of a snapshot (the current one), in the order of their names.

    :raises NoSnapshotError: there is no such snapshot
    :raises DeletesPendingError: rows of it were deleted by delete files, as Athena does
    """
    tasks = _tasks(table, snapshot_id)
    if any(task.delete_files for task in tasks):
        raise DeletesPendingError(
            f"{_name(table)} holds rows that delete files hide; "
            f"rewrite them first, in Athena: OPTIMIZE {table.name()[-1]} REWRITE DATA USING BIN_PACK"
        )
    return sorted(task.file.file_path for task in tasks)


def row_count(table: Table, snapshot_id: int | None = None) -> int:
    """Rows of a snapshot (the current one), by its files' own counts."""
    return sum(task.file.record_count for task in _tasks(table, snapshot_id))


def partitions(table: Table, snapshot_id: int | None = None) -> set[str]:
    """Values of the first partition field, as people write them: ``2026-11`` of a month."""
    if snapshot_id is None and table.current_snapshot() is None:
        return set()
    found = set()
    for task in _tasks(table, snapshot_id):
        spec = table.specs()[task.file.spec_id]
        if spec.fields:
            field = spec.fields[0]
            source = table.schema().find_type(field.source_id)
            found.add(field.transform.to_human_string(source, task.file.partition[0]))
    return found


def _tasks(table: Table, snapshot_id: int | None) -> list[FileScanTask]:
    chosen = current_snapshot(table) if snapshot_id is None else snapshot_of(table, snapshot_id)
    return list(table.scan(snapshot_id=chosen.snapshot_id).plan_files())


def hive_columns(table: Table, snapshot_id: int | None = None) -> list[tuple[str, str]]:
    """Columns with their Hive types: of the table now, or as a snapshot had them."""
    schema = table.schema()
    if snapshot_id is not None:
        schema_id = snapshot_of(table, snapshot_id).schema_id
        schema = schema if schema_id is None else table.schemas()[schema_id]
    return [(field.name, hive_type(field.field_type)) for field in schema.fields]


def field_ids(table: Table) -> dict[str, int]:
    """The columns' ids, which writers put into their files (``parquet.field.id`` of Spark)."""
    return {field.name: field.field_id for field in table.schema().fields}


def roll_back(table: Table, snapshot_id: int) -> Snapshot:
    """Make an earlier snapshot the current one; the later ones stay until they expire.

    :raises NoSnapshotError: there is no such snapshot among the current one's ancestors
    """
    known = {one.snapshot_id for one in ancestors_of(current_snapshot(table), table.metadata)}
    if snapshot_id not in known:
        snapshot_of(table, snapshot_id)
        raise NoSnapshotError(f"snapshot {snapshot_id} of {_name(table)} is no ancestor of the current one")
    table.manage_snapshots().rollback_to_snapshot(snapshot_id).commit()
    table.refresh()
    return current_snapshot(table)


def schema_of(columns: Sequence[tuple[str, str]]) -> Schema:
    """An Iceberg schema of optional columns, numbered from 1."""
    return Schema(
        *(
            NestedField(number, name, iceberg_type(kind, element_id=len(columns) + number), required=False)
            for number, (name, kind) in enumerate(columns, start=1)
        )
    )


def spec_of(schema: Schema, partition_by: Sequence[tuple[str, str]]) -> PartitionSpec:
    """A partition spec from pairs of transform and column."""
    if not partition_by:
        return UNPARTITIONED_PARTITION_SPEC
    unknown = sorted({transform for transform, _ in partition_by} - set(_TRANSFORMS))
    if unknown:
        raise ValueError(f"partition_by must use {', '.join(_TRANSFORMS)}, got {', '.join(unknown)}")
    return PartitionSpec(
        *(
            PartitionField(
                source_id=schema.find_field(column).field_id,
                # Iceberg, "Partitioning": ids of partition fields begin at 1000.
                field_id=1000 + number,
                transform=_TRANSFORMS[transform](),
                name=column if transform == "identity" else f"{column}_{transform}",
            )
            for number, (transform, column) in enumerate(partition_by)
        )
    )


def iceberg_type(hive: str, *, element_id: int = -1) -> IcebergType:
    """The Iceberg type of a Hive type."""
    if hive in _TYPES:
        return _TYPES[hive]()
    if found := re.fullmatch(r"decimal\((\d+),\s*(\d+)\)", hive):
        return DecimalType(int(found[1]), int(found[2]))
    if found := re.fullmatch(r"array<(\w+)>", hive):
        return ListType(element_id=element_id, element_type=iceberg_type(found[1]), element_required=False)
    raise ValueError(
        f"a column's type must be {', '.join(_TYPES)}, decimal(p,s) or array<...> of those, got {hive!r}"
    )


def hive_type(kind: IcebergType) -> str:
    """The Hive type of an Iceberg type."""
    for name, made in _TYPES.items():
        if kind == made():
            return name
    if isinstance(kind, DecimalType):
        return f"decimal({kind.precision},{kind.scale})"
    if isinstance(kind, ListType):
        return f"array<{hive_type(kind.element_type)}>"
    raise ValueError(f"no Hive type for {kind}")
