"""Files whose columns are not the contract's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lake_files.parquet import ParquetFile

#: Arrow types that hold a Hive type without conversion.
_EXACT = {
    "bigint": ("int64",),
    "double": ("double",),
    "string": ("string", "large_string"),
    "boolean": ("bool",),
    "date": ("date32[day]",),
}


@dataclass(frozen=True)
class SchemaDrift:
    """A difference between a file's columns and the contract's."""

    column: str
    #: ``missing``, ``unknown`` or ``type``.
    kind: str
    found: str | None
    expected: str | None
    files: int


def schema_drift(files: Iterable[ParquetFile], columns: Sequence[tuple[str, str]]) -> list[SchemaDrift]:
    """Where the files' columns are not the contract's: missing, unknown, or of another type."""
    expected = dict(columns)
    counts: dict[tuple[str, str, str | None, str | None], int] = {}

    def count(column: str, kind: str, found: str | None, wanted: str | None) -> None:
        key = (column, kind, found, wanted)
        counts[key] = counts.get(key, 0) + 1

    for file in files:
        present = dict(file.columns)
        for name, wanted in expected.items():
            found = present.get(name)
            if found is None:
                count(name, "missing", None, wanted)
            elif not _holds(found, wanted):
                count(name, "type", found, wanted)
        for name, found in present.items():
            if name not in expected:
                count(name, "unknown", found, None)
    return [SchemaDrift(*key, files=number) for key, number in sorted(counts.items(), key=repr)]


def _holds(arrow: str, hive: str) -> bool:
    return arrow.startswith("timestamp") if hive == "timestamp" else arrow in _EXACT[hive]


def by_schema(files: Iterable[ParquetFile]) -> list[tuple[tuple[tuple[str, str], ...], list[ParquetFile]]]:
    """Files of one physical schema together: an engine reads a set of files with one schema only."""
    groups: dict[tuple[tuple[str, str], ...], list[ParquetFile]] = {}
    for file in files:
        groups.setdefault(file.columns, []).append(file)
    return sorted(groups.items())
