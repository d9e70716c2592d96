"""Rows of features out of what there is: Parquet, CSV, JSON lines or captured traffic, here or in S3."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl
from ml_contract.compiled import CompiledContract
from ml_monitoring.capture import POLARS_TYPES, read_capture
from ml_runtime.job import BadInputError

__all__ = ["Hours", "Table", "TableError", "fetch", "read"]

FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".json": "lines",
}
#: Data capture's folders, and those of anything else that keeps its hours apart.
_HOUR = re.compile(r"(\d{4})/(\d{2})/(\d{2})/(\d{2})/[^/]+$")
SEED = 7


class TableError(Exception):
    """Rows cannot be read from there; the text says why."""


@dataclasses.dataclass(frozen=True)
class Hours:
    """Whole hours up to ``until``, which is not among them."""

    count: int
    until: dt.datetime

    def hold(self, path: str) -> bool:
        """Whether a file lies in the folder of one of the hours."""
        found = _HOUR.search(path)
        if found is None:
            raise TableError(f"{path} lies in no folder of an hour (yyyy/mm/dd/hh): leave --hours out")
        year, month, day, hour = map(int, found.groups())
        moment = dt.datetime(year, month, day, hour, tzinfo=dt.UTC)
        return self.until - dt.timedelta(hours=self.count) <= moment < self.until


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of a contract's features, and what was left out on the way."""

    frame: pl.DataFrame
    notes: tuple[str, ...] = ()


def _listed(path: PurePosixPath) -> bool:
    """Whether a file is data: Spark's markers and hidden files are none."""
    return path.suffix in FORMATS and not any(part.startswith(("_", ".")) for part in path.parts)


def fetch(place: str, folder: Path, client: Callable[[], Any], hours: Hours | None) -> list[Path]:
    """Return the files at a place, a local path or ``s3://bucket/prefix``; ``folder`` takes those of S3.

    Raises:
        TableError: there are none, or not of these hours.
    """
    found = list(_objects(place, folder, client, hours) if place.startswith("s3://") else _here(place, hours))
    if not found:
        among = "" if hours is None else f" of the {hours.count} hours before {hours.until:%Y-%m-%dT%H:%MZ}"
        raise TableError(f"{place} has no {', '.join(FORMATS)}{among}")
    return found


def _here(place: str, hours: Hours | None) -> Iterator[Path]:
    base = Path(place)
    if base.is_file():
        if base.suffix not in FORMATS:
            raise TableError(f"{place} must end in {', '.join(FORMATS)}")
        yield base
        return
    for path in sorted(base.rglob("*")):
        named = PurePosixPath(path.relative_to(base).as_posix())
        if path.is_file() and _listed(named) and (hours is None or hours.hold(path.as_posix())):
            yield path


def _objects(place: str, folder: Path, client: Callable[[], Any], hours: Hours | None) -> Iterator[Path]:
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    s3 = client()
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    for number, key in enumerate(keys):
        if _listed(PurePosixPath(key)) and (hours is None or hours.hold(key)):
            path = folder / f"{number:06}{PurePosixPath(key).suffix}"
            s3.download_file(bucket, key, str(path))
            yield path


def read(files: list[Path], contract: CompiledContract, *, rows: int) -> Table:
    """Return the features' columns of all files; of more than ``rows`` rows an even sample.

    Captured traffic is decoded as the monitor does it, by the contract.

    Raises:
        TableError: formats are mixed, columns are missing, or there is no row.
    """
    formats = sorted({FORMATS[path.suffix] for path in files})
    if len(formats) > 1:
        raise TableError(f"one format at a time, found {' and '.join(formats)}")
    table = _captured(files, contract) if _is_capture(files[0]) else _plain(files, formats[0], contract)
    if not table.frame.height:
        raise TableError(
            f"{files[0].parent} has no row that {contract.name} accepts: {', '.join(table.notes)}"
        )
    if table.frame.height <= rows:
        return table
    note = f"{rows} of {table.frame.height} rows, drawn evenly"
    return Table(table.frame.sample(rows, seed=SEED), (*table.notes, note))


def _is_capture(file: Path) -> bool:
    if FORMATS[file.suffix] != "lines":
        return False
    with file.open(encoding="utf-8", errors="replace") as lines:
        return '"captureData"' in next((line for line in lines if line.strip()), "")


def _captured(files: list[Path], contract: CompiledContract) -> Table:
    try:
        capture = read_capture((file.read_bytes() for file in files), contract)
    except BadInputError as error:
        raise TableError(str(error)) from error
    refused = sum(capture.observed.reasons.values())
    notes = [f"{count} x {what}" for what, count in capture.damaged.items()]
    if refused:
        notes.append(f"{refused} reasons to refuse a record, which the monitor counts as violations")
    if capture.records > capture.observed.total:
        notes.append(f"{capture.observed.total} of {capture.records} records, drawn evenly")
    return Table(capture.observed.frame, tuple(notes))


def _plain(files: list[Path], kind: str, contract: CompiledContract) -> Table:
    types = {feature.name: POLARS_TYPES[feature.type] for feature in contract.features}
    frames = []
    for file in files:
        if kind == "parquet":
            frame = pl.read_parquet(file, hive_partitioning=False)
        elif kind == "csv":
            # Texts first: whether 1 is a number is for the contract to say.
            frame = pl.read_csv(file, infer_schema=False)
        else:
            frame = pl.read_ndjson(file, infer_schema_length=None)
        if missing := types.keys() - set(frame.columns):
            raise TableError(f"{file} lacks the features {', '.join(sorted(missing))} of {contract.name}")
        try:
            frames.append(frame.select(pl.col(name).cast(types[name]) for name in types))
        except pl.exceptions.PolarsError as error:
            raise TableError(f"{file}: {error}") from error
    return Table(pl.concat(frames))
