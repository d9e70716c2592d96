"""The window features as a Flink SQL job: statements that a job runs as they stand. Standard library only.

The job reads the records as they were sent, leaves out what cannot be used (no key, no event time, values
that the contract refuses in a field that a window uses, an identifier seen before), and writes one row per
record: key, event time and every window. ``${...}`` are properties of the running application
(``string.Template``).

Two things the batch run does that a stream cannot: a record that the contract refuses for another field's
sake counts here until the batch run, and so does the first version of a record that is sent again with other
values. Records that come later than the contract allows are left out here (Flink's late events).
"""

from __future__ import annotations

import re
from typing import Final

from ml_contract.compiled import Column, CompiledContract
from ml_contract.windows.engines import MOMENT, window_sql

__all__ = ["PROPERTIES", "SINK", "SOURCE", "flink_format", "window_definitions", "window_job"]

SOURCE: Final = "records"
SINK: Final = "windows"
#: What the application's properties must give.
PROPERTIES: Final = ("source_arn", "sink_arn", "region")

_TYPES: Final = {
    "integer": "BIGINT",
    "number": "DOUBLE",
    "string": "STRING",
    "boolean": "BOOLEAN",
    "date": "STRING",
    "timestamp": "STRING",
}
#: strptime's directives as Flink's TO_TIMESTAMP knows them (java.text.SimpleDateFormat).
_DIRECTIVES: Final = {
    "Y": "yyyy", "m": "MM", "d": "dd", "H": "HH", "M": "mm", "S": "ss", "y": "yy", "b": "MMM", "B": "MMMM",
}  # fmt: skip


def window_definitions(contract: CompiledContract) -> tuple[tuple[str, str], ...]:
    """Names and Feature Store types of the rows that the job writes: key, event time, windows."""
    spec = contract.windows
    if spec is None:
        return ()
    key = "Integral" if contract.types[spec.key] == "integer" else "String"
    return (
        (spec.key, key),
        (contract.event_time, "String"),
        *((window.name, "Fractional") for window in spec.windows),
    )


def window_job(contract: CompiledContract, *, lateness_hours: int) -> str:
    """Return the statements, each ended by ``;`` and a line feed.

    Raises:
        ValueError: the contract has no windows, or its event time a format that Flink cannot read.
    """
    spec = contract.windows
    if spec is None:
        raise ValueError(f"workload {contract.name} has no windows")
    event_time = contract.by_name[contract.event_time]
    used = [contract.by_name[name] for name in dict.fromkeys((contract.identifier, spec.key, *spec.fields))]
    columns = [f"{_name(c.source)} {_TYPES[c.type]}" for c in (*used, event_time)]
    columns += [
        # Flink stops at a record without an event time: an unreadable one gets a moment that is left out.
        f"{_name(MOMENT)} AS COALESCE({_moment(event_time)}, {_NEVER})",
        f"WATERMARK FOR {_name(MOMENT)} AS {_name(MOMENT)} - INTERVAL '{lateness_hours}' HOUR",
        f"{_name(_ARRIVAL)} AS PROCTIME()",
    ]
    source = f"CREATE TABLE {SOURCE} (\n  " + ",\n  ".join(columns) + "\n) WITH (\n" + _SOURCE_OPTIONS + ")"
    written = [
        f"{_name(name)} {'STRING' if kind == 'String' else 'BIGINT' if kind == 'Integral' else 'DOUBLE'}"
        for name, kind in window_definitions(contract)
    ]
    sink = (
        f"CREATE TABLE {SINK} (\n  "
        + ",\n  ".join(written)
        + f"\n) PARTITIONED BY ({_name(spec.key)}) WITH (\n"
        f"{_SINK_OPTIONS})"
    )
    renamed = [f"{_name(c.source)} AS {_name(c.name)}" for c in used]
    usable = (
        f"SELECT {', '.join(renamed)}, {_name(MOMENT)}, {_name(_ARRIVAL)}\nFROM {SOURCE}\n"
        f"WHERE {_name(MOMENT)} <> {_NEVER} AND "
        + " AND ".join(_usable(used, required={contract.identifier, spec.key}))
    )
    rank = f"PARTITION BY {_name(contract.identifier)} ORDER BY {_name(_ARRIVAL)} ASC"
    first = (
        f"SELECT * FROM (SELECT *, ROW_NUMBER() OVER ({rank}) AS {_name(_RANK)}\n"  # noqa: S608 - quoted names
        f"FROM (\n{usable}\n)) WHERE {_name(_RANK)} = 1"
    )
    windows = window_sql(spec, f"(\n{first}\n)", ())
    chosen = [
        _name(spec.key),
        f"CONCAT(REPLACE(DATE_FORMAT({_name(MOMENT)}, 'yyyy-MM-dd HH:mm:ss'), ' ', 'T'), 'Z')",
        *(_name(window.name) for window in spec.windows),
    ]
    insert = f"INSERT INTO {SINK}\nSELECT {', '.join(chosen)}\nFROM (\n{windows}\n)"
    text = "".join(f"{statement};\n" for statement in (source, sink, insert)).replace("$", "$$")
    for given in PROPERTIES:
        text = text.replace(f"$${{{given}}}", f"${{{given}}}")
    return text


_ARRIVAL: Final = "_arrival"
_RANK: Final = "_rank"
_NEVER: Final = "TIMESTAMP '1970-01-01 00:00:00.000'"
_SOURCE_OPTIONS: Final = """  'connector' = 'kinesis',
  'stream.arn' = '${source_arn}',
  'aws.region' = '${region}',
  'source.init.position' = 'TRIM_HORIZON',
  'format' = 'json',
  'json.ignore-parse-errors' = 'true'
"""
_SINK_OPTIONS: Final = """  'connector' = 'kinesis',
  'stream.arn' = '${sink_arn}',
  'aws.region' = '${region}',
  'format' = 'json'
"""


def _name(column: str) -> str:
    return "`" + column.replace("`", "``") + "`"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _moment(column: Column) -> str:
    """The event time in UTC, without a zone, as the other engines have it."""
    name = _name(column.source)
    if column.format is not None:
        return f"CAST(TO_TIMESTAMP({name}, {_text(flink_format(column.format))}) AS TIMESTAMP(3))"
    if column.type == "date":
        return f"CAST(TO_TIMESTAMP({name}, 'yyyy-MM-dd') AS TIMESTAMP(3))"
    bare = f"REPLACE(REGEXP_REPLACE({name}, '(Z|[+-][0-9]{{2}}:?[0-9]{{2}})$', ''), 'T', ' ')"
    zone = f"REGEXP_EXTRACT({name}, '([+-])([0-9]{{2}}):?([0-9]{{2}})$', %d)"
    minutes = (
        f"(CAST({zone % 2} AS INT) * 60 + CAST({zone % 3} AS INT)) * "
        f"(CASE {zone % 1} WHEN '-' THEN 1 WHEN '+' THEN -1 END)"
    )
    return f"CAST(TIMESTAMPADD(MINUTE, COALESCE({minutes}, 0), TO_TIMESTAMP({bare})) AS TIMESTAMP(3))"


def flink_format(format: str) -> str:
    """A strptime format as Flink writes it; raises ValueError for what Flink cannot read."""
    parts = re.split(r"%(.)", format)
    unknown = [f"%{d}" for d in parts[1::2] if d not in _DIRECTIVES]
    if unknown or any(re.search(r"[A-Za-z']", text) for text in parts[::2]):
        raise ValueError(
            f"got the format {format!r}; Flink reads {', '.join(f'%{d}' for d in _DIRECTIVES)} between signs "
            "that are no letters; send the event time in another format, or set windows.engine to batch"
        )
    return "".join(text if i % 2 == 0 else _DIRECTIVES[text] for i, text in enumerate(parts))


def _usable(columns: list[Column], *, required: set[str]) -> list[str]:
    """Conditions that the contract sets on the fields of the job."""
    found = []
    for column in columns:
        name = _name(column.source)
        conditions = []
        if column.minimum is not None:
            conditions.append(f"{name} >= {column.minimum!r}")
        if column.maximum is not None:
            conditions.append(f"{name} <= {column.maximum!r}")
        if column.allowed is not None:
            conditions.append(f"{name} IN ({', '.join(_text(value) for value in column.allowed)})")
        if column.missing:
            conditions.append(f"{name} NOT IN ({', '.join(_text(value) for value in column.missing)})")
        if column.name in required:
            found.append(" AND ".join([f"{name} IS NOT NULL", *conditions]))
        elif conditions:
            found.append(f"({name} IS NULL OR ({' AND '.join(conditions)}))")
    return found
