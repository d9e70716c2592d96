"""SQLite files that stand for the databases of a workload's sources."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from rehearsal.story.shares import reading
from rehearsal.story.tale import Tale

__all__ = ["insert", "make_tables"]

Raw = Mapping[str, Any]
#: Type of a field and of the column that stands for it; dates are texts in the field's own format.
_COLUMN_TYPES = {"integer": "BIGINT", "number": "DOUBLE", "boolean": "BOOLEAN"}


def make_tables(tale: Tale) -> None:
    """Make every table, empty: a database is there before the job that reads it, whose hour may come."""
    for name in reading(tale.workload):
        insert(tale, tale.workload.sources[name], ())


def insert(tale: Tale, source: Any, rows: Sequence[tuple[int, Raw]]) -> None:
    """Write numbered records into the table; the number is each bookmark column."""
    column_of = {field: column for column, field in source.rename.items()}
    # A field that has texts for 'no value' is a column of texts.
    fields = {
        c.source: "TEXT" if c.missing else _COLUMN_TYPES.get(c.type, "TEXT") for c in tale.contract.columns
    }
    columns = [*(column_of.get(f, f) for f in fields), *(b for b in source.bookmark if b in source.ignore)]
    types = [*fields.values(), *("BIGINT" for b in source.bookmark if b in source.ignore)]
    names = ", ".join(f'"{column}" {kind}' for column, kind in zip(columns, types, strict=True))
    values = [
        (
            *(_stored(record.get(field)) for field in fields),
            *(number for b in source.bookmark if b in source.ignore),
        )
        for number, record in rows
    ]
    file = tale.state / "databases" / source.host / f"{source.database}.sqlite"
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f'CREATE TABLE IF NOT EXISTS "{source.table}" ({names})')
        places = ", ".join("?" * len(columns))
        connection.executemany(f'INSERT INTO "{source.table}" VALUES ({places})', values)  # noqa: S608 - our own names


def _stored(value: Any) -> Any:
    """A truth value as a database has it, also when a data file brought it as a text."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return value
