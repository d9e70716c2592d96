"""Reads the feature table: Parquet files in hive partitions."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ml_runtime.job import BadInputError

#: Hive types of a feature table and how they stand in memory.
ARROW_TYPES = {"string": pa.string(), "double": pa.float64(), "bigint": pa.int64(), "boolean": pa.bool_()}


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A file that could not be read, and why. It stops no batch."""

    file: str
    reason: str


def parquet_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return every Parquet file below ``folder`` in a stable order.

    Spark's hidden and marker files are none.
    """
    if not folder.is_dir():
        raise BadInputError(f"the input folder {folder} is missing; check the job's inputs")
    return sorted(
        path
        for path in folder.rglob("*.parquet")
        if path.is_file() and not any(part.startswith(("_", ".")) for part in path.relative_to(folder).parts)
    )


def _read(path: pathlib.Path, schema: pa.Schema) -> pl.DataFrame:
    # ParquetFile, not read_table: the latter would add the columns of the partition folders.
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        missing = [name for name in schema.names if name not in names]
        if missing:
            raise ValueError(f"columns are missing: {', '.join(missing)}")
        table = file.read(columns=schema.names).select(schema.names)
    # A safe cast: a value that the wanted type cannot hold is an error, not a null.
    frame = pl.from_arrow(table.cast(schema, safe=True))
    if not isinstance(frame, pl.DataFrame):
        raise TypeError(f"expected a table, got {type(frame).__name__}")
    return frame


def read_table(
    folder: pathlib.Path, columns: Iterable[tuple[str, str]]
) -> tuple[pl.DataFrame, tuple[Skipped, ...]]:
    """Read (name, hive type) columns of every file below ``folder``; report files that cannot be read.

    Columns beyond the named ones are left out: an older or newer version of the feature table may have them.
    """
    schema = pa.schema([(name, ARROW_TYPES[hive_type]) for name, hive_type in columns])
    frames = [pl.DataFrame(pl.from_arrow(schema.empty_table()))]
    skipped = []
    for path in parquet_files(folder):
        try:
            frames.append(_read(path, schema))
        except (pa.ArrowException, OSError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            skipped.append(Skipped(str(path.relative_to(folder)), reason))
    return pl.concat(frames), tuple(skipped)


def write_table(frame: pl.DataFrame, path: pathlib.Path) -> None:
    """Write one Parquet file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path, compression="zstd")
