"""From a file of a batch source to Parquet of the raw table and a quarantine. No AWS, no clock.

Records meet the very checks that streamed ones meet (``ml_contract.records.codec``), as the same bytes: a
line of an NDJSON file has the record id that the same bytes have on the stream. A file is landed as a whole
or, when it cannot be read to its end, refused as a whole. The same file gives the same rows, whenever and
however often it is landed.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ml_contract.compiled import CompiledContract
from ml_contract.records.codec import Reason, RecordCodec, Rejected
from ml_contract.records.tables import json_value

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "CHANGE_COLUMN",
    "Landed",
    "LandingSpec",
    "UnreadableFileError",
    "arrow_schema",
    "land",
    "parquet_bytes",
    "quarantine_line",
    "refused_file",
    "rows",
]

#: Longest row that is read; what is longer is refused without holding it. Far above any record.
MAX_ROW_BYTES: Final = 1_048_576
#: A ``json`` file is parsed at once: more than this does not fit a function beside everything else.
MAX_JSON_BYTES: Final = 64 * 1024 * 1024
#: Rows held in memory at once.
CHUNK_ROWS: Final = 20_000
#: AWS DMS writes it before every row of change data: I, U or D (S3 target, "IncludeOpForFullLoad").
CHANGE_COLUMN: Final = "Op"
#: Added by a DMS task when its target endpoint names a timestamp column.
CHANGE_TIME_COLUMN: Final = "dms_timestamp"
_SHOWN_BYTES: Final = 4_096


class UnreadableFileError(ValueError):
    """A file that cannot be read to its end; the message says why and where."""


@dataclass(frozen=True, kw_only=True)
class LandingSpec:
    """What landing needs to know of a source. It travels as JSON beside the function's code."""

    name: str
    kind: str
    owner: str
    schema_version: int
    format: str
    delimiter: str = ","
    manifest: bool = False
    rename: Mapping[str, str] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    #: The files carry changes (AWS DMS): a column says whether a row was inserted, updated or deleted.
    changes: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LandingSpec:
        """Read what ``to_json`` wrote."""
        return cls(**{**data, "ignore": tuple(data["ignore"])})


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file: the record's bytes, or why there is no record in it."""

    data: bytes
    reason: Reason | None = None
    deleted: bool = False


@dataclass(slots=True)
class Landed:
    """What became of a file's rows: ``read`` is the sum of the next three."""

    read: int = 0
    delivered: int = 0
    quarantined: int = 0
    deleted: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


# --- reading -------------------------------------------------------------------------------------------


def rows(path: Path, spec: LandingSpec, contract: CompiledContract) -> Iterator[Row]:
    """Rows of a file in order. Raises UnreadableFileError when it is not what the source says it is."""
    names = _Names(spec, contract)
    if spec.format == "parquet":
        return _parquet(path, names)
    if spec.format == "csv":
        return _csv(path, spec.delimiter, names)
    if spec.format == "ndjson":
        return _ndjson(path, names)
    if spec.format == "json":
        return _json(path, names)
    raise ValueError(f"format must be csv, json, ndjson or parquet, got {spec.format!r}")


class _Names:
    """Columns of a file to fields of the record."""

    def __init__(self, spec: LandingSpec, contract: CompiledContract) -> None:
        self.spec = spec
        self.contract = contract
        self.sources = {c.source: c for c in contract.columns}
        self._by_name = {c.name: c for c in contract.columns}
        self._ignored = {*spec.ignore, *((CHANGE_COLUMN, CHANGE_TIME_COLUMN) if spec.changes else ())}
        self.plain = not spec.rename and not self._ignored

    def of(self, column: str) -> str | None:
        """Field of a column under its source name, the column's own name when no field is meant, None for
        one that is left out.
        """
        if column in self._ignored:
            return None
        name = self.spec.rename.get(column, column)
        if name in self.sources:
            return name
        known = self._by_name.get(name)
        return name if known is None else known.source

    def header(self, columns: list[str], what: str) -> list[str | None]:
        """Fields of a table's columns."""
        twice = sorted({c for c in columns if columns.count(c) > 1})
        if twice:
            raise UnreadableFileError(f"the {what} names a column twice: {', '.join(map(repr, twice[:5]))}")
        fields = [self.of(c) for c in columns]
        if not any(f in self.sources for f in fields):
            shown = ", ".join(map(repr, columns[:5]))
            raise UnreadableFileError(f"the {what} names no field of {self.contract.name}, but {shown[:200]}")
        double = sorted({f for f in fields if f is not None and fields.count(f) > 1})
        if double:
            raise UnreadableFileError(f"two columns mean the field {double[0]!r}; rename or ignore one")
        return fields


def _csv(path: Path, delimiter: str, names: _Names) -> Iterator[Row]:
    csv.field_size_limit(MAX_ROW_BYTES)
    encode = msgspec.json.encode
    # A byte that is no UTF-8 spoils its own row, not the file.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = next(reader, None)
            if not header:
                raise UnreadableFileError("empty; the first line must name the columns")
            fields = names.header(header, "first line")
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    message = f"{len(cells)} cells in a table of {len(header)} columns"
                    yield Row(_csv_line(cells, delimiter), Reason("malformed_row", None, None, None, message))
                    continue
                values = {
                    name: cell for name, cell in zip(fields, cells, strict=True) if cell and name is not None
                }
                try:
                    data = encode(values)
                except UnicodeEncodeError:
                    yield Row(
                        _csv_line(cells, delimiter),
                        Reason("not_utf8", None, None, None, "the row holds a byte that is not UTF-8"),
                    )
                    continue
                yield Row(data)
        except csv.Error as error:
            raise UnreadableFileError(f"line {reader.line_num}: not CSV: {error}") from None


def _csv_line(cells: Iterable[str], delimiter: str) -> bytes:
    sink = io.StringIO()
    csv.writer(sink, delimiter=delimiter, lineterminator="").writerow(cells)
    return sink.getvalue().encode("utf-8", errors="surrogateescape")


def _ndjson(path: Path, names: _Names) -> Iterator[Row]:
    with path.open("rb") as file:
        while line := file.readline(MAX_ROW_BYTES + 1):
            size = len(line)
            if size > MAX_ROW_BYTES and not line.endswith(b"\n"):
                start = line[:_SHOWN_BYTES]
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_ROW_BYTES)
                    size += len(line)
                message = f"a row of {size:,} bytes; at most {MAX_ROW_BYTES:,}; its beginning is kept"
                yield Row(start, Reason("too_large", None, f"{size} bytes", None, message))
                continue
            data = line.rstrip(b"\r\n")
            if data and not data.isspace():
                yield Row(data) if names.plain else _renamed(data, names)


def _json(path: Path, names: _Names) -> Iterator[Row]:
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise UnreadableFileError(
            f"a json file of {size:,} bytes; at most {MAX_JSON_BYTES:,}: write ndjson, one object a line"
        )
    try:
        found = msgspec.json.decode(path.read_bytes(), type=list[msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableFileError(f"not a JSON array of objects: {str(error)[:200]}") from None
    for item in found:
        data = bytes(item).strip()
        yield Row(data) if names.plain else _renamed(data, names)


def _renamed(data: bytes, names: _Names) -> Row:
    """A JSON row under field names. One that is no object stays as it is: the codec says what is wrong."""
    try:
        values = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Row(data)
    if not isinstance(values, dict):
        return Row(data)
    deleted = names.spec.changes and values.get(CHANGE_COLUMN) == "D"
    renamed = {name: value for column, value in values.items() if (name := names.of(column)) is not None}
    return Row(msgspec.json.encode(renamed), deleted=deleted)


def _parquet(path: Path, names: _Names) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    encode = msgspec.json.Encoder(enc_hook=str).encode
    try:
        # Not memory-mapped: what is damaged must raise, not end the process.
        with pq.ParquetFile(path, memory_map=False) as file:
            columns = list(file.schema_arrow.names)
            fields = names.header(columns, "schema")
            typed = [None if name is None else names.sources.get(name) for name in fields]
            for batch in file.iter_batches(batch_size=CHUNK_ROWS):
                for row in batch.to_pylist():
                    values: dict[str, Any] = {}
                    for column, name, known in zip(columns, fields, typed, strict=True):
                        value = row[column]
                        if name is None or value is None:
                            continue
                        value = value if known is None else json_value(value, known)
                        if value is not None:
                            values[name] = value
                    deleted = names.spec.changes and row.get(CHANGE_COLUMN) == "D"
                    yield Row(encode(values), deleted=deleted)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFileError(f"not Parquet: {' '.join(str(error).split())[:200]}") from None


# --- landing -------------------------------------------------------------------------------------------


def land(
    source: Path,
    spec: LandingSpec,
    codec: RecordCodec,
    *,
    file: str,
    received_at: str,
    data: Path,
    quarantine: Path,
    deletions: Path,
) -> Landed:
    """Check every row of ``source``; write rows to ``data`` and refused ones to ``quarantine``.

    Deletions of change data go to ``deletions``, a JSON line each: the raw zone holds what was, and nothing
    here takes it away. A file without rows of a kind is not written. Memory holds ``CHUNK_ROWS`` rows.

    Args:
        file: the file's name, for the quarantine.
        received_at: when it arrived: ISO 8601, UTC, milliseconds.

    Raises:
        UnreadableFileError: the file cannot be read to its end; what was written is to be thrown away.
    """
    import pyarrow.parquet as pq

    contract = codec.contract
    schema = arrow_schema(contract)
    landed = Landed()
    chunk: list[list[Any]] = []
    writer: pq.ParquetWriter | None = None
    number = 0
    try:
        with quarantine.open("wb") as refused, deletions.open("wb") as gone:
            for number, row in enumerate(rows(source, spec, contract), start=1):
                if row.deleted:
                    landed.deleted += 1
                    gone.write(_deletion(row, contract, spec.name, file, received_at))
                    continue
                record_id = blake2b(row.data, digest_size=16).hexdigest()
                record = codec.decode(row.data) if row.reason is None else Rejected((row.reason,))
                if type(record) is Rejected:
                    landed.quarantined += 1
                    landed.reasons.update({reason.code for reason in record.reasons})
                    refused.write(
                        quarantine_line(
                            record.reasons,
                            row.data,
                            record_id=record_id,
                            received_at=received_at,
                            source=spec.name,
                            file=file,
                            row=number,
                        )
                    )
                    continue
                landed.delivered += 1
                chunk.append([*record.values.values(), record_id, received_at])  # type: ignore[union-attr]
                if len(chunk) == CHUNK_ROWS:
                    writer = _write(writer, chunk, schema, data)
                    chunk.clear()
            if chunk:
                writer = _write(writer, chunk, schema, data)
    finally:
        if writer is not None:
            writer.close()
    landed.read = number
    for path, count in ((quarantine, landed.quarantined), (deletions, landed.deleted)):
        if not count:
            path.unlink()
    return landed


def arrow_schema(contract: CompiledContract) -> pa.Schema:
    """Schema of the raw table's files, as Amazon Data Firehose writes them."""
    import pyarrow as pa

    types = {
        "bigint": pa.int64(),
        "double": pa.float64(),
        "string": pa.string(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }
    return pa.schema([(name, types[kind]) for name, kind in contract.glue_columns()])


def parquet_bytes(rows: Sequence[Sequence[Any]], contract: CompiledContract) -> bytes:
    """A file of the raw table, in memory. ``rows`` hold the record's values, its id and its arrival."""
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    table = _table(rows, arrow_schema(contract))
    pq.write_table(table, sink, compression="snappy", use_deprecated_int96_timestamps=True)
    return sink.getvalue()


def _write(writer: Any, chunk: list[list[Any]], schema: pa.Schema, path: Path) -> Any:
    import pyarrow.parquet as pq

    if writer is None:
        # INT96 times and Snappy as Firehose's Parquet SerDe: all files of the raw table are alike.
        writer = pq.ParquetWriter(path, schema, compression="snappy", use_deprecated_int96_timestamps=True)
    writer.write_table(_table(chunk, schema))
    return writer


def _table(rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    columns = []
    for values, wanted in zip(zip(*rows, strict=True), schema, strict=True):
        if pa.types.is_date(wanted.type) or pa.types.is_timestamp(wanted.type):
            columns.append(pa.array(values, pa.string()).cast(wanted.type))
        else:
            columns.append(pa.array(values, wanted.type))
    return pa.Table.from_arrays(columns, schema=schema)


def quarantine_line(
    reasons: Iterable[Reason],
    data: bytes,
    *,
    record_id: str,
    received_at: str,
    source: str,
    file: str,
    row: int,
) -> bytes:
    """A line of the quarantine: the record transform's four keys, and where in which file it was."""
    line = {
        "received_at": received_at,
        "record_id": record_id,
        "reasons": [reason.to_json() for reason in reasons],
        "data_base64": base64.b64encode(data).decode(),
        "source": source,
        "file": file,
        "row": row,
    }
    return msgspec.json.encode(line) + b"\n"


def refused_file(
    reason: Reason, beginning: bytes, *, identity: str, received_at: str, source: str, file: str
) -> bytes:
    """The quarantine line of a whole file. It holds the file's beginning; the file itself stays in the drop.

    Counted as one record: nobody knows how many it holds.
    """
    return quarantine_line(
        (reason,),
        beginning[:_SHOWN_BYTES],
        record_id=identity,
        received_at=received_at,
        source=source,
        file=file,
        row=0,
    )


def _deletion(row: Row, contract: CompiledContract, source: str, file: str, received_at: str) -> bytes:
    values = json.loads(row.data)
    key = contract.by_name[contract.identifier].source
    line = {contract.identifier: values.get(key), "deleted_at": received_at, "source": source, "file": file}
    return msgspec.json.encode(line) + b"\n"
