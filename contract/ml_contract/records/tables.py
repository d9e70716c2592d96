"""Data files: CSV and Parquet tables with a workload's fields, as raw records."""

from __future__ import annotations

import csv
import datetime as dt
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ml_contract.compiled import Column, CompiledContract
from ml_contract.problems import closest

__all__ = ["TableError", "TableReport", "json_value", "read_table"]

CSV_SUFFIXES: Final = (".csv", ".tsv")
PARQUET_SUFFIXES: Final = (".parquet", ".pq")


class TableError(ValueError):
    """A file that cannot be read as the workload's table; the message says what to do."""


@dataclass(frozen=True)
class TableReport:
    """What the file holds beside the workload's fields."""

    rows: int
    extra_columns: tuple[str, ...]


def read_table(path: Path, contract: CompiledContract) -> tuple[Iterator[dict[str, Any]], TableReport]:
    """Records under source names, and a report. Columns that the workload does not know are left out.

    A column may carry the field's source name or its column name. A CSV file gives texts (an empty cell is no
    value), a Parquet file JSON values. Nothing is checked but the header: records meet the contract where all
    records do. Raises TableError naming every missing column, before the first record is read.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in CSV_SUFFIXES:
            return _csv(path, contract, "\t" if suffix == ".tsv" else ",")
        if suffix in PARQUET_SUFFIXES:
            return _parquet(path, contract)
    except FileNotFoundError:
        raise TableError(f"{path}: no such file") from None
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror or error}") from None
    allowed = ", ".join((*CSV_SUFFIXES, *PARQUET_SUFFIXES))
    raise TableError(f"{path}: got a file ending {suffix or 'without a dot'}; allowed: {allowed}")


def _mapping(
    path: Path, header: list[str], contract: CompiledContract
) -> tuple[dict[str, Column], list[str]]:
    """Column of every header name that the contract knows, and the other names."""
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise TableError(f"{path}: the header names a column twice: {', '.join(twice)}")
    known: dict[str, Column] = {}
    missing = []
    for column in contract.columns:
        name = next((n for n in (column.source, column.name) if n in header and n not in known), None)
        if name is not None:
            known[name] = column
        else:
            missing.append(column.source)
    extra = [name for name in header if name not in known]
    if missing:
        hints = [f"{m} (did you mean {close}?)" if (close := closest(m, extra)) else m for m in missing]
        raise TableError(f"{path}: lacks columns of workload {contract.name}: {', '.join(hints)}")
    return known, extra


# --- CSV -----------------------------------------------------------------------------------------------


def _csv(
    path: Path, contract: CompiledContract, delimiter: str
) -> tuple[Iterator[dict[str, Any]], TableReport]:
    rows = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = next(reader, None)
            if not header:
                raise TableError(f"{path}: empty; the first line must name the columns")
            known, extra = _mapping(path, header, contract)
            for row in reader:
                if row and len(row) != len(header):
                    raise TableError(
                        f"{path}:{reader.line_num}: {len(row)} cells in a table of {len(header)} columns"
                    )
                rows += bool(row)
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert it") from None
    except csv.Error as error:
        raise TableError(f"{path}: not CSV: {error}") from None
    return _csv_records(path, delimiter, known), TableReport(rows, tuple(extra))


def _csv_records(path: Path, delimiter: str, known: dict[str, Column]) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file, delimiter=delimiter, strict=True):
            yield {column.source: row[name] or None for name, column in known.items()}


# --- Parquet -------------------------------------------------------------------------------------------


def _parquet(path: Path, contract: CompiledContract) -> tuple[Iterator[dict[str, Any]], TableReport]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise TableError(f"{path}: not Parquet: {error}") from None
    known, extra = _mapping(path, list(file.schema_arrow.names), contract)
    return _parquet_records(file, known), TableReport(file.metadata.num_rows, tuple(extra))


def _parquet_records(file: Any, known: dict[str, Column]) -> Iterator[dict[str, Any]]:
    for batch in file.iter_batches(columns=list(known)):
        for row in batch.to_pylist():
            yield {column.source: json_value(row[name], column) for name, column in known.items()}


def json_value(value: Any, column: Column) -> Any:
    """As a JSON record carries it: dates in the field's format, whole numbers of a text field as text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, dt.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(dt.UTC).replace(tzinfo=None)
        if column.format is not None:
            return value.strftime(column.format)
        return value.date().isoformat() if column.type == "date" else value.isoformat() + "Z"
    if isinstance(value, dt.date):
        return value.strftime(column.format) if column.format is not None else value.isoformat()
    if isinstance(value, int) and not isinstance(value, bool) and column.type == "string":
        return str(value)
    return value
