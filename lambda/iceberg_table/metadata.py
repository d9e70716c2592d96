"""Metadata files of Iceberg tables, format version 2: a new table's, and one with more columns.

By the table specification of Apache Iceberg, "Table metadata"; the fields that it requires and those that are
changed here, no others: what another engine has put into a file stays in it.
"""

from __future__ import annotations

import copy
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["TableDefinition", "TableRefusedError", "evolved", "file_name", "first"]

_PRIMITIVES = {
    "bigint": "long",
    "int": "int",
    "double": "double",
    "float": "float",
    "string": "string",
    "boolean": "boolean",
    "date": "date",
    # Instants: Hive's timestamp is one here.
    "timestamp": "timestamptz",
    "binary": "binary",
}
_TRANSFORMS = ("identity", "year", "month", "day")
#: Iceberg, "Partitioning": ids of partition fields begin at 1000, so that the last of none is 999.
_FIRST_PARTITION_ID = 1000
_NAME_MAPPING = "schema.name-mapping.default"
_PROPERTIES = {
    "write.parquet.compression-codec": "zstd",
    # Old metadata files go with the commit that makes them so old (Iceberg, "Maintenance").
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "50",
}


class TableRefusedError(Exception):
    """The table cannot become what is asked for without breaking its readers; a person has to decide."""


@dataclass(frozen=True)
class TableDefinition:
    """What the template says of the table."""

    database: str
    name: str
    #: Without a slash at its end.
    location: str
    columns: tuple[tuple[str, str], ...]
    partition_by: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, properties: Mapping[str, Any]) -> TableDefinition:
        """Read the resource's properties."""
        return cls(
            database=properties["Database"],
            name=properties["Name"],
            location=properties["Location"].rstrip("/"),
            columns=_pairs(properties["Columns"]),
            partition_by=_pairs(properties.get("PartitionBy", ())),
        )

    def glue_columns(self, metadata: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The columns as the catalog shows them, as engines write them there for people to see."""
        fields = (
            first(self, now=0)["schemas"][0]["fields"] if metadata is None else _schema(metadata)["fields"]
        )
        kinds = dict(self.columns)
        return [
            {
                "Name": field["name"],
                "Type": kinds.get(field["name"]) or _hive(field["type"]),
                "Parameters": {
                    "iceberg.field.id": str(field["id"]),
                    "iceberg.field.optional": str(not field["required"]).lower(),
                    "iceberg.field.current": "true",
                },
            }
            for field in fields
        ]


def _pairs(found: Sequence[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((str(pair[0]), str(pair[1])) for pair in found)


def first(wanted: TableDefinition, *, now: int) -> dict[str, Any]:
    """The metadata of a new table without rows; ``now`` in milliseconds."""
    numbers = iter(range(1, 10_000))
    fields = [{"id": next(numbers), "name": name, "required": False} for name, _ in wanted.columns]
    for field, (_, kind) in zip(fields, wanted.columns, strict=True):
        field["type"] = _iceberg(kind, numbers)
    return {
        "format-version": 2,
        "table-uuid": str(uuid.uuid4()),
        "location": wanted.location,
        "last-sequence-number": 0,
        "last-updated-ms": now,
        "last-column-id": next(numbers) - 1,
        "schemas": [{"type": "struct", "schema-id": 0, "fields": fields}],
        "current-schema-id": 0,
        "partition-specs": [{"spec-id": 0, "fields": _partition_fields(wanted, fields)}],
        "default-spec-id": 0,
        "last-partition-id": _FIRST_PARTITION_ID - 1 + len(wanted.partition_by),
        "properties": {**_PROPERTIES, _NAME_MAPPING: _mapping(fields)},
        "current-snapshot-id": -1,
        "refs": {},
        "snapshots": [],
        "statistics": [],
        "snapshot-log": [],
        "metadata-log": [],
        "sort-orders": [{"order-id": 0, "fields": []}],
        "default-sort-order-id": 0,
    }


def evolved(
    metadata: Mapping[str, Any], wanted: TableDefinition, *, metadata_file: str, now: int
) -> dict[str, Any] | None:
    """The metadata with the columns that it lacks, ``None`` when it lacks none.

    A column that is no longer wanted stays: rows have it.

    :raises TableRefusedError: a column would change its type, or the table its partitions or place
    """
    schema = _schema(metadata)
    present = {field["name"]: field for field in schema["fields"]}
    _refuse_breaking(metadata, wanted, present)
    missing = [(name, kind) for name, kind in wanted.columns if name not in present]
    if not missing:
        return None
    changed = copy.deepcopy(dict(metadata))
    numbers = iter(range(metadata["last-column-id"] + 1, metadata["last-column-id"] + 10_000))
    added = [{"id": next(numbers), "name": name, "required": False} for name, _ in missing]
    for field, (_, kind) in zip(added, missing, strict=True):
        field["type"] = _iceberg(kind, numbers)
    fields = [*schema["fields"], *added]
    number = 1 + max(one["schema-id"] for one in metadata["schemas"])
    changed["schemas"].append({**schema, "schema-id": number, "fields": fields})
    changed["current-schema-id"] = number
    changed["last-column-id"] = next(numbers) - 1
    # Never earlier than what the table knows (Iceberg, "Table metadata": last-updated-ms).
    changed["last-updated-ms"] = max(now, metadata["last-updated-ms"])
    changed.setdefault("properties", {})[_NAME_MAPPING] = _mapping(fields)
    changed.setdefault("metadata-log", []).append(
        {"metadata-file": metadata_file, "timestamp-ms": metadata["last-updated-ms"]}
    )
    return changed


def _refuse_breaking(
    metadata: Mapping[str, Any], wanted: TableDefinition, present: Mapping[str, Mapping[str, Any]]
) -> None:
    problems = [
        f"column {name} is {_hive(present[name]['type'])} and would become {kind}; add one of another name"
        for name, kind in wanted.columns
        if name in present and _hive(present[name]["type"]) != kind
    ]
    if metadata["location"].rstrip("/") != wanted.location:
        problems.append(f"its files lie below {metadata['location']}, not {wanted.location}")
    spec = next(one for one in metadata["partition-specs"] if one["spec-id"] == metadata["default-spec-id"])
    names = {field["id"]: field["name"] for field in _schema(metadata)["fields"]}
    parts = tuple((field["transform"], names.get(field["source-id"])) for field in spec["fields"])
    if parts != wanted.partition_by:
        problems.append(
            f"it is partitioned by {_said(parts)}, not {_said(wanted.partition_by)}; "
            "change that with an engine, ALTER TABLE ... PARTITION FIELD, and then here"
        )
    if problems:
        raise TableRefusedError(f"{wanted.database}.{wanted.name}: {'; '.join(problems)}")


def _said(parts: Sequence[tuple[str, str | None]]) -> str:
    return ", ".join(f"{transform}({column})" for transform, column in parts) or "nothing"


def _schema(metadata: Mapping[str, Any]) -> dict[str, Any]:
    current = metadata["current-schema-id"]
    found: dict[str, Any] = next(one for one in metadata["schemas"] if one["schema-id"] == current)
    return found


def _partition_fields(wanted: TableDefinition, fields: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    ids = {field["name"]: field["id"] for field in fields}
    problems = [
        f"partition_by must be one of {', '.join(_TRANSFORMS)} of a column, got {transform}({column})"
        for transform, column in wanted.partition_by
        if transform not in _TRANSFORMS or column not in ids
    ]
    if problems:
        raise TableRefusedError(f"{wanted.database}.{wanted.name}: {'; '.join(problems)}")
    return [
        {
            "source-id": ids[column],
            "field-id": _FIRST_PARTITION_ID + number,
            "transform": transform,
            "name": column if transform == "identity" else f"{column}_{transform}",
        }
        for number, (transform, column) in enumerate(wanted.partition_by)
    ]


def _iceberg(hive: str, numbers: Any) -> Any:
    if hive in _PRIMITIVES:
        return _PRIMITIVES[hive]
    if found := re.fullmatch(r"decimal\((\d+),\s*(\d+)\)", hive):
        return f"decimal({found[1]}, {found[2]})"
    if found := re.fullmatch(r"array<(.+)>", hive):
        element_id = next(numbers)
        return {
            "type": "list",
            "element-id": element_id,
            "element": _iceberg(found[1], numbers),
            "element-required": False,
        }
    raise TableRefusedError(
        f"a column's type must be {', '.join(_PRIMITIVES)}, decimal(p,s) or array<...>, got {hive!r}"
    )


def _hive(kind: Any) -> str:
    if isinstance(kind, dict):
        return f"array<{_hive(kind['element'])}>" if kind["type"] == "list" else str(kind["type"])
    if found := re.fullmatch(r"decimal\((\d+),\s*(\d+)\)", kind):
        return f"decimal({found[1]},{found[2]})"
    return next((hive for hive, iceberg in _PRIMITIVES.items() if iceberg == kind), str(kind))


def _mapping(fields: Sequence[Mapping[str, Any]]) -> str:
    """Which field a file's column is, by name: for files that carry no field ids."""

    def one(field: Mapping[str, Any]) -> dict[str, Any]:
        mapped: dict[str, Any] = {"field-id": field["id"], "names": [field["name"]]}
        if isinstance(field["type"], dict) and field["type"]["type"] == "list":
            element = {"id": field["type"]["element-id"], "name": "element", "type": field["type"]["element"]}
            mapped["fields"] = [one(element)]
        return mapped

    return json.dumps([one(field) for field in fields])


def file_name(version: int) -> str:
    """Name of a metadata file: its number, and what tells it from another writer's of that number."""
    return f"{version:05}-{uuid.uuid4()}.metadata.json"
