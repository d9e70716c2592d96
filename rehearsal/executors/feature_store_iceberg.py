"""The offline store of a feature group as an Iceberg table in the Data Catalog.

The service makes the table with the group, partitions it by the day of the event and commits what it writes
as the group's role.
"""

from __future__ import annotations

import io
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyiceberg.catalog.glue import GlueCatalog

    from rehearsal.services.engine import Record, Service

__all__ = ["add_columns", "append", "create"]

#: Days of ISO 8601 texts: the first ten characters. The service calls the partition ``<event time>_trunc``.
_DAY_CHARACTERS = 10
#: Commits of one process wait for each other, as those of one service do.
_COMMITS = threading.Lock()


def _catalog(service: Service) -> GlueCatalog:
    """The catalog and its metadata files as the service itself reaches them."""
    from pyiceberg.catalog.glue import GlueCatalog

    runtime = service.runtime
    given = runtime.operator_environment(service.region)
    return GlueCatalog(
        "glue",
        client=runtime.client("glue", region=service.region),
        **{
            "s3.region": service.region,
            "s3.endpoint": runtime.endpoint,
            "s3.access-key-id": given["AWS_ACCESS_KEY_ID"],
            "s3.secret-access-key": given["AWS_SECRET_ACCESS_KEY"],
        },
    )


def _type(kind: str) -> Any:
    from pyiceberg.types import DoubleType, LongType, StringType

    return {"String": StringType, "Integral": LongType, "Fractional": DoubleType}[kind]()


def create(service: Service, record: Record, catalog: Mapping[str, str], location: str) -> None:
    """Make the table, as the service does when the group is made."""
    from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
    from pyiceberg.schema import Schema
    from pyiceberg.transforms import TruncateTransform
    from pyiceberg.types import BooleanType, NestedField, TimestamptzType

    columns = [(d["FeatureName"], _type(d["FeatureType"])) for d in record.data["FeatureDefinitions"]]
    columns += [
        ("write_time", TimestamptzType()),
        ("api_invocation_time", TimestamptzType()),
        ("is_deleted", BooleanType()),
    ]
    schema = Schema(
        *(NestedField(number, name, kind, required=False) for number, (name, kind) in enumerate(columns, 1))
    )
    event_time = record.data["EventTimeFeatureName"]
    kinds = {d["FeatureName"]: d["FeatureType"] for d in record.data["FeatureDefinitions"]}
    spec = UNPARTITIONED_PARTITION_SPEC
    if kinds[event_time] == "String":
        day = PartitionField(
            source_id=schema.find_field(event_time).field_id,
            field_id=1000,
            transform=TruncateTransform(_DAY_CHARACTERS),
            name=f"{event_time}_trunc",
        )
        spec = PartitionSpec(day)
    _catalog(service).create_table(
        (catalog["Database"], catalog["TableName"]),
        schema=schema,
        # The service's files lie in a folder of that name below the table's location.
        location=location.rstrip("/").removesuffix("/data"),
        partition_spec=spec,
        properties={"format-version": "2"},
    )


def add_columns(
    service: Service, record: Record, catalog: Mapping[str, str], added: Iterable[Mapping[str, Any]]
) -> None:
    """Add the columns of new features; rows that are there have no value of them."""
    del record
    with _COMMITS:
        table = _catalog(service).load_table((catalog["Database"], catalog["TableName"]))
        with table.update_schema() as update:
            for item in added:
                update.add_column(item["FeatureName"], _type(item["FeatureType"]))


def append(
    service: Service,
    record: Record,
    days: Mapping[str, Any],
    put: Callable[[str, bytes], str],
) -> list[str]:
    """Commit rows by their day; ``put`` writes a file below the table and returns its URI."""
    import pyarrow.parquet as pq
    from pyiceberg.io.pyarrow import parquet_file_to_data_file

    catalog = record.data["OfflineStoreConfig"]["DataCatalogConfig"]
    event_time = record.data["EventTimeFeatureName"]
    with _COMMITS:
        table = _catalog(service).load_table((catalog["Database"], catalog["TableName"]))
        uris = []
        for day, rows in sorted(days.items()):
            sink = io.BytesIO()
            pq.write_table(rows, sink, compression="zstd")
            folder = f"{uuid.uuid4().hex[:8]}/" + (f"{event_time}_trunc={day}/" if day else "")
            uris.append(
                put(f"{folder}{day.replace('-', '')}_{uuid.uuid4().hex[:16]}.parquet", sink.getvalue())
            )
        with table.transaction() as transaction:
            # Files without field ids are read by their columns' names.
            transaction.set_properties(
                {"schema.name-mapping.default": table.schema().name_mapping.model_dump_json()}
            )
            with transaction.update_snapshot().fast_append() as producer:
                for uri in uris:
                    producer.append_data_file(
                        parquet_file_to_data_file(table.io, transaction.table_metadata, uri)
                    )
    return uris
