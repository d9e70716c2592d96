"""Parquet files under a prefix: their schemas, and the ones that cannot be read, each with its reason.

Spark either dies of one unreadable file or skips it without a word (``ignoreCorruptFiles``). A batch must do
neither: the footers are read first, and where Spark still fails, every file is decoded to find the culprit.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lake_files.objects import S3Uri, StoredObject, list_objects

MAGIC = b"PAR1"
#: First guess at how much of a file's end holds its footer.
FOOTER_GUESS = 64 * 1024
READERS = 8


@dataclass(frozen=True)
class ParquetFile:
    """A file whose footer could be read."""

    uri: str
    rows: int
    #: Column name and Arrow type, in file order.
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class UnreadableFile:
    """A file that is no (whole) Parquet file."""

    uri: str
    reason: str


@dataclass(frozen=True)
class Inspection:
    """What lies under a prefix."""

    files: tuple[ParquetFile, ...]
    unreadable: tuple[UnreadableFile, ...]


def inspect(s3: Any, uri: str) -> Inspection:
    """Read the footer of every file under ``uri``."""
    return _inspected(s3, list(list_objects(s3, uri)))


def inspect_files(s3: Any, uris: Iterable[str]) -> Inspection:
    """Read the footer of every named file."""

    def found(uri: str) -> StoredObject:
        where = S3Uri.parse(uri)
        head = s3.head_object(Bucket=where.bucket, Key=where.key)
        return StoredObject(uri, where.key, head["ContentLength"], head["LastModified"])

    with ThreadPoolExecutor(READERS) as pool:
        return _inspected(s3, list(pool.map(found, uris)))


def _inspected(s3: Any, objects: list[StoredObject]) -> Inspection:
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda item: _footer(s3, item), objects))
    return Inspection(
        tuple(one for one in found if isinstance(one, ParquetFile)),
        tuple(one for one in found if isinstance(one, UnreadableFile)),
    )


def undecodable(s3: Any, files: Iterable[ParquetFile]) -> tuple[UnreadableFile, ...]:
    """Decode every column of every file; the ones that fail, with the reason."""
    with ThreadPoolExecutor(READERS) as pool:
        reasons = list(pool.map(lambda file: _decode(s3, file), files))
    return tuple(one for one in reasons if one is not None)


def _footer(s3: Any, item: StoredObject) -> ParquetFile | UnreadableFile:
    smallest = 2 * len(MAGIC) + 4
    if item.size < smallest:
        return UnreadableFile(item.uri, f"{item.size} bytes; the smallest Parquet file has {smallest}")
    where = S3Uri.parse(item.uri)

    def tail(size: int) -> bytes:
        start = max(0, item.size - size)
        answer = s3.get_object(Bucket=where.bucket, Key=where.key, Range=f"bytes={start}-{item.size - 1}")
        data: bytes = answer["Body"].read()
        return data

    end = tail(FOOTER_GUESS)
    if end[-4:] != MAGIC:
        return UnreadableFile(item.uri, "no Parquet footer at its end: truncated, or not Parquet")
    footer = int.from_bytes(end[-8:-4], "little")
    if footer + 8 > item.size:
        return UnreadableFile(item.uri, f"its footer claims {footer} bytes and the file has {item.size}")
    if footer + 8 > len(end):
        end = tail(footer + 8)
    try:
        metadata = pq.read_metadata(pa.BufferReader(end))
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        return UnreadableFile(item.uri, f"its footer cannot be read: {_first_line(error)}")
    beyond = _bytes_claimed(metadata)
    if beyond > item.size - footer - 8:
        return UnreadableFile(
            item.uri, f"its row groups reach to byte {beyond} and only {item.size - footer - 8} are there"
        )
    columns = tuple((field.name, str(field.type)) for field in schema)
    return ParquetFile(item.uri, metadata.num_rows, columns)


def _bytes_claimed(metadata: Any) -> int:
    """Offset of the last byte that a column chunk claims."""
    furthest = 0
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index in range(row_group.num_columns):
            chunk = row_group.column(index)
            start = chunk.data_page_offset
            if chunk.has_dictionary_page and chunk.dictionary_page_offset:
                start = min(start, chunk.dictionary_page_offset)
            furthest = max(furthest, start + chunk.total_compressed_size)
    return furthest


def _decode(s3: Any, file: ParquetFile) -> UnreadableFile | None:
    where = S3Uri.parse(file.uri)
    data = s3.get_object(Bucket=where.bucket, Key=where.key)["Body"].read()
    try:
        rows = pq.read_table(pa.BufferReader(data)).num_rows
    except (pa.ArrowException, OSError) as error:
        return UnreadableFile(file.uri, f"its pages cannot be decoded: {_first_line(error)}")
    if rows != file.rows:
        return UnreadableFile(file.uri, f"its footer promises {file.rows} rows and {rows} are there")
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
