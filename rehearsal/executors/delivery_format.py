"""What Amazon Data Firehose makes of records: object names, Parquet by a catalog table, error records.

Pure: no AWS in here.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

__all__ = ["Column", "ConversionError", "compressed", "error_line", "object_prefix", "parquet", "row_of"]

_EXPRESSION = re.compile(r"!\{([^}]*)\}")
_JAVA_FIELD = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|[^A-Za-z']+")
_JAVA = {
    "yyyy": "%Y",
    "MM": "%m",
    "dd": "%d",
    "HH": "%H",
    "mm": "%M",
    "ss": "%S",
    "yy": "%y",
    "DDD": "%j",
    "SSS": "%f",
}


class ConversionError(Exception):
    """A record that the table's columns cannot hold. ``code`` is Firehose's error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _UnfitError(ValueError):
    """A value that a column's type does not hold."""


# -- names --------------------------------------------------------------------------------------------------


def object_prefix(prefix: str, arrival: datetime, *, error_type: str | None = None, random: str = "") -> str:
    """Evaluate the expressions of a prefix; without one, Firehose appends ``yyyy/MM/dd/HH/``.

    :raises ValueError: an expression that Firehose does not have, or that has no meaning here
    """

    def value(match: re.Match[str]) -> str:
        namespace, _, name = match.group(1).partition(":")
        if namespace == "timestamp":
            return java_time(name, arrival)
        if (namespace, name) == ("firehose", "random-string"):
            return random
        if (namespace, name) == ("firehose", "error-output-type"):
            if error_type is None:
                raise ValueError("!{firehose:error-output-type} goes with ErrorOutputPrefix only")
            return error_type
        raise ValueError(f"prefix expression {match.group(0)} is not emulated")

    if not _EXPRESSION.search(prefix):
        # Without an expression an error prefix also gets the type of the error.
        middle = "" if error_type is None else f"{error_type}/"
        return f"{prefix}{middle}{arrival:%Y/%m/%d/%H}/"
    return _EXPRESSION.sub(value, prefix)


def java_time(pattern: str, moment: datetime) -> str:
    """Format a time by a Java ``DateTimeFormatter`` pattern."""
    return "".join(_java_parts(pattern, lambda field: _formatted(field, moment)))


def _formatted(field: str, moment: datetime) -> str:
    text = moment.strftime(_JAVA[field])
    return text[:3] if field == "SSS" else text


def _java_parts(pattern: str, field: Callable[[str], str]) -> list[str]:
    parts = []
    for match in _JAVA_FIELD.finditer(pattern):
        text = match.group(0)
        if text.startswith("'"):
            parts.append("'" if text == "''" else text[1:-1].replace("''", "'"))
        elif text[0].isalpha():
            if text not in _JAVA:
                raise ValueError(f"time pattern {text!r} is not emulated; known: {', '.join(_JAVA)}")
            parts.append(field(text))
        else:
            parts.append(text)
    return parts


# -- rows ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column of a catalog table."""

    name: str
    type: str


def row_of(
    data: bytes,
    columns: Sequence[Column],
    formats: Sequence[str] | None = None,
    *,
    fold_case: bool = True,
) -> dict[str, Any]:
    """Read one JSON record into the table's columns; unknown fields are ignored, missing ones are null.

    :param formats: ``TimestampFormats`` of the Hive JSON SerDe; None means the OpenX JSON SerDe
    :raises ConversionError: not one JSON object, or a value that its column's type does not hold
    """
    try:
        record = json.loads(data)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConversionError("DataFormatConversion.ParseError", f"the record is not JSON: {error}") from None
    if not isinstance(record, dict):
        kind = type(record).__name__
        raise ConversionError("DataFormatConversion.MalformedData", f"the record is a {kind}, not an object")
    # Names in the catalog are lower case; the SerDe matches without regard to case unless told otherwise.
    folded = {str(name).lower() if fold_case else name: value for name, value in record.items()}
    row: dict[str, Any] = {}
    for column in columns:
        value = folded.get(column.name)
        try:
            row[column.name] = None if value is None else _value(value, column.type, formats)
        except (ValueError, InvalidOperation, OverflowError):
            raise ConversionError(
                "DataFormatConversion.MalformedData",
                f"column {column.name} is {column.type}, got {_shown(value)}",
            ) from None
    return row


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


_BITS = {"tinyint": 8, "smallint": 16, "int": 32, "integer": 32, "bigint": 64}


def _value(value: Any, kind: str, formats: Sequence[str] | None) -> Any:
    if kind in _BITS:
        return _whole(value, _BITS[kind])
    base = kind.partition("(")[0]
    converter = _CONVERTERS.get(base)
    if converter is not None:
        return converter(value)
    if base == "timestamp":
        return _timestamp(value, formats)
    raise NotImplementedError(f"column type {kind!r} is not emulated by the format conversion")


def _whole(value: Any, bits: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise _UnfitError(value)
    number = int(value) if isinstance(value, int) else int(value.strip())
    if not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
        raise _UnfitError(value)
    return number


def _fraction(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise _UnfitError(value)
    number = float(value)
    if not math.isfinite(number):
        raise _UnfitError(value)
    return number


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise _UnfitError(value)
    return Decimal(str(value))


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise _UnfitError(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _date(value: Any) -> date:
    if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        raise _UnfitError(value)
    return date.fromisoformat(value)


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "double": _fraction,
    "float": _fraction,
    "decimal": _decimal,
    "boolean": _truth,
    "string": _text,
    "varchar": _text,
    "char": _text,
    "date": _date,
}
_SQL_TIME = re.compile(r"(\d{4}-\d{2}-\d{2}) (\d{2}:\d{2}:\d{2})(\.\d{1,9})?")
_ISO_TIME = re.compile(r"(\d{4}-\d{2}-\d{2})T(\d{2}:\d{2}:\d{2})(\.\d{1,9})?(Z|[+-]\d{2}:?\d{2})?")


def _timestamp(value: Any, formats: Sequence[str] | None) -> datetime:
    """Read a time. The OpenX SerDe takes ISO 8601 and epochs, the Hive SerDe what its formats say."""
    if formats is not None:
        for pattern in formats:
            found = _by_format(value, pattern)
            if found is not None:
                return found
        if formats:
            raise _UnfitError(value)
    if isinstance(value, str):
        match = _SQL_TIME.fullmatch(value)
        if match is None and formats is None:
            match = _ISO_TIME.fullmatch(value)
        if match is None:
            raise _UnfitError(value)
        fraction = (match.group(3) or ".0")[1:7].ljust(6, "0")
        zone = match.group(4) if match.re is _ISO_TIME and match.group(4) else "Z"
        text = f"{match.group(1)}T{match.group(2)}.{fraction}{zone.replace('Z', '+00:00')}"
        return datetime.fromisoformat(text).astimezone(UTC)
    if formats is None and isinstance(value, (int, float)) and not isinstance(value, bool):
        # Thirteen digits and more are milliseconds.
        seconds = value / 1000 if abs(value) >= 1e11 else value
        return datetime.fromtimestamp(seconds, UTC)
    raise _UnfitError(value)


def _by_format(value: Any, pattern: str) -> datetime | None:
    if pattern == "millis":
        if isinstance(value, bool) or not isinstance(value, int):
            return None
        return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=value)
    if not isinstance(value, str):
        return None
    python = "".join(_java_parts(pattern, _JAVA.__getitem__))
    try:
        found = datetime.strptime(value, python)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


# -- files --------------------------------------------------------------------------------------------------


def parquet(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], compression: str) -> bytes:
    """Write rows as Firehose's Parquet SerDe does: the table's columns in order, times as INT96."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([pa.field(column.name, _arrow(column.type)) for column in columns])
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    sink = io.BytesIO()
    kind = {"UNCOMPRESSED": "none", "GZIP": "gzip", "SNAPPY": "snappy"}[compression]
    pq.write_table(table, sink, compression=kind, use_deprecated_int96_timestamps=True)
    return sink.getvalue()


def _arrow(kind: str) -> Any:
    import pyarrow as pa

    simple = {
        "tinyint": pa.int8(),
        "smallint": pa.int16(),
        "int": pa.int32(),
        "integer": pa.int32(),
        "bigint": pa.int64(),
        "float": pa.float32(),
        "double": pa.float64(),
        "boolean": pa.bool_(),
        "string": pa.string(),
        "varchar": pa.string(),
        "char": pa.string(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }
    base, _, rest = kind.partition("(")
    if base in simple:
        return simple[base]
    if base == "decimal":
        precision, scale = (int(part) for part in rest.rstrip(")").split(",")) if rest else (10, 0)
        return pa.decimal128(precision, scale)
    raise NotImplementedError(f"column type {kind!r} is not emulated by the format conversion")


def compressed(data: bytes, compression: str) -> tuple[bytes, str]:
    """Compress an object that is not converted; returns it and the extension that Firehose gives it."""
    if compression == "UNCOMPRESSED":
        return data, ""
    if compression == "GZIP":
        return gzip.compress(data, mtime=0), ".gz"
    raise NotImplementedError(f"compression {compression!r} is not emulated; here: UNCOMPRESSED, GZIP")


def error_line(raw: bytes, arrival: datetime, ended: datetime, attempts: int, **members: Any) -> bytes:
    """One record of an error object: a JSON line with the data as it came."""
    line = {
        "attemptsMade": attempts,
        "arrivalTimestamp": int(arrival.timestamp() * 1000),
        "attemptEndingTimestamp": int(ended.timestamp() * 1000),
        "rawData": base64.b64encode(raw).decode(),
        **members,
    }
    return json.dumps(line).encode() + b"\n"
