"""Tables of databases: a SQLite file stands for each database that a Glue connection names.

``GLUE_DATABASES`` is a folder; ``<host>/<database>.sqlite`` in it is that database, and a table in it has its
whole name, ``public.claims``. The connection and its secret are asked for as the job's role, as Glue does;
no driver, no TLS and no network is involved.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3

from . import bookmarks

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: AWS Glue Developer Guide, "JDBC connections": the connection types of databases.
CONNECTION_TYPES = ("postgresql", "mysql", "redshift", "oracle", "sqlserver")
_URL = re.compile(
    r"jdbc:(?P<engine>\w+):(?:thin:@)?//(?P<host>[^:/;]+):(?P<port>\d+)(?:/|;databaseName=)(?P<database>[\w$#.-]+)"
)
_KNOWN = {
    "useConnectionProperties",
    "connectionName",
    "dbtable",
    "jobBookmarkKeys",
    "jobBookmarkKeysSortOrder",
}
#: Declared type of a SQLite column, by its first word, and its type in Spark.
_TYPES = {
    "INTEGER": "bigint",
    "BIGINT": "bigint",
    "REAL": "double",
    "DOUBLE": "double",
    "BOOLEAN": "boolean",
    "DATE": "date",
    "TIMESTAMP": "timestamp",
    "TEXT": "string",
    "VARCHAR": "string",
}


class ConnectionRefusedInRehearsalError(Exception):
    """No SQLite file stands for the database."""


def read(
    spark: SparkSession, connection_type: str, options: Mapping[str, Any], transformation_ctx: str
) -> DataFrame:
    """Rows of the table beyond the bookmark, in the order of its keys."""
    unknown = sorted(set(options) - _KNOWN)
    if unknown or options.get("useConnectionProperties") != "true":
        raise NotImplementedError(
            f"connection_options {unknown or 'without useConnectionProperties'} are not emulated; here: "
            f"{', '.join(sorted(_KNOWN))}"
        )
    if options.get("jobBookmarkKeysSortOrder", "asc") != "asc":
        raise NotImplementedError("bookmark keys that fall are not emulated")
    database = _database(connection_type, options["connectionName"])
    keys = list(options.get("jobBookmarkKeys", ()))
    return _rows(spark, database, options["dbtable"], keys, transformation_ctx)


def _database(connection_type: str, name: str) -> Path:
    """File of the connection's database; its login is read as Glue reads it."""
    found = boto3.client("glue").get_connection(Name=name)["Connection"]["ConnectionProperties"]
    match = _URL.fullmatch(found["JDBC_CONNECTION_URL"].replace(":thin:@", ":thin:@//", 1))
    if match is None or match["engine"] != connection_type:
        raise ValueError(f"{found['JDBC_CONNECTION_URL']} is no URL of a {connection_type} database")
    if "SECRET_ID" in found:
        secret = boto3.client("secretsmanager").get_secret_value(SecretId=found["SECRET_ID"])
        missing = {"username", "password"} - json.loads(secret["SecretString"]).keys()
        if missing:
            raise ValueError(f"the secret of {name} lacks {', '.join(sorted(missing))}")
    file = Path(os.environ["GLUE_DATABASES"]) / match["host"] / f"{match['database']}.sqlite"
    if not file.exists():
        raise ConnectionRefusedInRehearsalError(
            f"nothing answers at {match['host']}:{match['port']}; a SQLite file {file} would stand for it"
        )
    return file


def _rows(spark: SparkSession, database: Path, table: str, keys: Sequence[str], context: str) -> DataFrame:
    quoted = ", ".join(_quoted(key) for key in keys)
    since = bookmarks.last(context) if keys else None
    where = f" WHERE ({quoted}) > ({', '.join('?' * len(keys))})" if since is not None else ""
    order = f" ORDER BY {quoted}" if keys else ""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        columns = [
            (str(row[1]), _spark_type(str(row[1]), str(row[2])))
            for row in connection.execute(f"PRAGMA table_info({_quoted(table)})")
        ]
        if not columns:
            raise ValueError(f"{database.stem} has no table {table}")
        # Names are quoted; values are bound.
        found = connection.execute(f"SELECT * FROM {_quoted(table)}{where}{order}", since or []).fetchall()  # noqa: S608
    finally:
        connection.close()
    names = [name for name, _ in columns]
    if found and keys:
        bookmarks.seen(context, [found[-1][names.index(key)] for key in keys])
    typed = [
        tuple(_value(value, kind) for value, (_, kind) in zip(row, columns, strict=True)) for row in found
    ]
    schema = ", ".join(f"`{name}` {kind}" for name, kind in columns)
    return spark.createDataFrame(typed, schema)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _spark_type(column: str, declared: str) -> str:
    kind = _TYPES.get(re.split(r"\W", declared.upper())[0])
    if kind is None:
        raise NotImplementedError(f"column {column} is {declared}; here: {', '.join(_TYPES)}")
    return kind


def _value(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "boolean":
        return bool(value)
    if kind == "date":
        return dt.date.fromisoformat(value)
    return dt.datetime.fromisoformat(value) if kind == "timestamp" else value
