"""Athena: queries over the deployed catalog, run on DuckDB with the rights of who asks.

Workgroups and saved queries are ministack's. A query is parsed as Athena's SQL; each table that it names is
looked up and read as the caller (`athena_tables`), so that what Lake Formation and IAM do not let through
never reaches the engine; what is left is translated and run. Results go as CSV to where the workgroup says,
written with the caller's rights. Emulated is the engine: DuckDB is not Trino, and a function that it lacks
fails.
"""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import hmac
import io
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from rehearsal import ministack_bridge as bridge
from rehearsal.executors import trails
from rehearsal.executors.athena_tables import CatalogTable, QueryError, Reader
from rehearsal.services.engine import ApiError, Call, Record, Service, instead

if TYPE_CHECKING:
    import duckdb

__all__: list[str] = []

_ENGINE = {"SelectedEngineVersion": "AUTO", "EffectiveEngineVersion": "Athena engine version 3"}
#: Views may stand on views; deeper than this is a circle.
_DEEPEST = 10
_PAGE = 1_000
#: Arrow's types as Athena names them in results.
_TYPES = {
    "int64": "bigint",
    "int32": "integer",
    "int16": "smallint",
    "int8": "tinyint",
    "uint64": "bigint",
    "double": "double",
    "float": "float",
    "bool": "boolean",
    "date32[day]": "date",
    "binary": "varbinary",
}


# -- what ministack keeps -----------------------------------------------------------------------------------

# Taken over only for their permissions: a query and a saved query are resources of their workgroup.
for _operation in ("GetWorkGroup", "GetNamedQuery", "BatchGetNamedQuery", "ListNamedQueries"):
    instead("athena", _operation)(lambda service, call: service.forward(call))


# -- executions ---------------------------------------------------------------------------------------------


@instead("athena", "StartQueryExecution")
def _start(service: Service, call: Call) -> dict[str, Any]:
    p = call.params
    name = p.get("WorkGroup", "primary")
    group = service.runtime.forwarding_client("athena", region=service.region).get_work_group(WorkGroup=name)
    group = group["WorkGroup"]
    if group.get("State") != "ENABLED":
        raise ApiError("InvalidRequestException", f"WorkGroup {name} is disabled.")
    settings = group.get("Configuration", {})
    result = settings.get("ResultConfiguration", {})
    # Who enforces its configuration overrides what a client asks for (WorkGroupConfiguration).
    if not settings.get("EnforceWorkGroupConfiguration", True):
        result = {**result, **p.get("ResultConfiguration", {})}
    if not result.get("OutputLocation"):
        raise ApiError(
            "InvalidRequestException",
            "No output location provided. An output location is required either through the Workgroup result "
            "configuration setting or as an API input.",
        )
    token = p.get("ClientRequestToken")
    with service.lock:
        for record in service.records.get("QueryExecution", {}).values():
            if token is not None and record.data["_token"] == token:
                return {"QueryExecutionId": record.name}
        query_id = str(uuid.uuid4())
        data = {
            "QueryExecutionId": query_id,
            "Query": p["QueryString"],
            "StatementType": "DML",
            "ResultConfiguration": {
                **result,
                "OutputLocation": f"{result['OutputLocation'].rstrip('/')}/{query_id}.csv",
            },
            "QueryExecutionContext": p.get("QueryExecutionContext", {}),
            "WorkGroup": name,
            "EngineVersion": _ENGINE,
            "Status": {"State": "QUEUED", "SubmissionDateTime": service.runtime.clock.now()},
            "Statistics": {},
            "_token": token,
            "_principal": call.principal,
            "_cutoff": settings.get("BytesScannedCutoffPerQuery"),
            "_metrics": bool(settings.get("PublishCloudWatchMetricsEnabled")),
        }
        record = service.put("QueryExecution", query_id, data)
    service.runtime.background(f"Athena query {query_id}", _run, service, record)
    return {"QueryExecutionId": query_id}


@instead("athena", "GetQueryExecution")
def _get(service: Service, call: Call) -> dict[str, Any]:
    return {"QueryExecution": _shown(_execution(service, call.params["QueryExecutionId"]))}


@instead("athena", "BatchGetQueryExecution")
def _batch_get(service: Service, call: Call) -> dict[str, Any]:
    ids = call.params["QueryExecutionIds"]
    found = [service.peek("QueryExecution", one) for one in ids]
    return {
        "QueryExecutions": [_shown(record) for record in found if record is not None],
        "UnprocessedQueryExecutionIds": [
            {"QueryExecutionId": one, "ErrorCode": "INVALID_INPUT", "ErrorMessage": "Query not found"}
            for one, record in zip(ids, found, strict=True)
            if record is None
        ],
    }


@instead("athena", "ListQueryExecutions")
def _list(service: Service, call: Call) -> dict[str, Any]:
    name = call.params.get("WorkGroup", "primary")
    with service.lock:
        records = list(service.records.get("QueryExecution", {}).values())
    return {"QueryExecutionIds": [r.name for r in reversed(records) if r.data["WorkGroup"] == name]}


@instead("athena", "StopQueryExecution")
def _stop(service: Service, call: Call) -> dict[str, Any]:
    record = _execution(service, call.params["QueryExecutionId"])
    with service.lock:
        if record.data["Status"]["State"] in ("QUEUED", "RUNNING"):
            _end(service, record, "CANCELLED", "Query was cancelled by the user")
    return {}


@instead("athena", "GetQueryResults")
def _results(service: Service, call: Call) -> dict[str, Any]:
    record = _execution(service, call.params["QueryExecutionId"])
    status = record.data["Status"]
    if status["State"] != "SUCCEEDED":
        why = status.get("StateChangeReason", "")
        raise ApiError(
            "InvalidRequestException",
            f"Query did not finish successfully. Final query state: {status['State']} {why}".strip(),
        )
    columns: list[dict[str, Any]] = record.data["_columns"]
    rows: list[list[str | None]] = record.data["_rows"]
    first = int(call.params.get("NextToken", 0))
    size = int(call.params.get("MaxResults", _PAGE))
    # The first row of the first page holds the names (GetQueryResults).
    every: list[list[str | None]] = [[column["Name"] for column in columns], *rows]
    page = every[first : first + size]
    last = first + len(page)
    return {
        "UpdateCount": 0,
        "ResultSet": {
            "Rows": [
                {"Data": [{} if value is None else {"VarCharValue": value} for value in row]} for row in page
            ],
            "ResultSetMetadata": {"ColumnInfo": columns},
        },
        "NextToken": str(last) if last < len(every) else None,
    }


def _execution(service: Service, query_id: str) -> Record:
    record = service.peek("QueryExecution", query_id)
    if record is None:
        raise ApiError("InvalidRequestException", f"QueryExecution {query_id} was not found")
    return record


def _shown(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.data.items() if not key.startswith("_")}


# -- running ------------------------------------------------------------------------------------------------


def _run(service: Service, record: Record) -> None:
    started = service.runtime.clock.timestamp()
    with service.lock:
        if record.data["Status"]["State"] != "QUEUED":
            return
        record.data["Status"]["State"] = "RUNNING"
    reader = Reader(service.runtime, service.region, record.data["_principal"])
    refused = False
    try:
        database = record.data["QueryExecutionContext"].get("Database")
        found = _evaluate(reader, record.data["Query"], database)
        _within(reader, record.data["_cutoff"])
        columns = [_column_info(field.name, field.type) for field in found.schema]
        rows = [[_text(value) for value in row.values()] for row in found.to_pylist()]
        if len(columns) != len(set(found.schema.names)):
            rows = [[_text(column[i].as_py()) for column in found.columns] for i in range(found.num_rows)]
        _write(service, record, columns, rows)
        record.data |= {"_columns": columns, "_rows": rows}
        state, reason = "SUCCEEDED", ""
    except QueryError as error:
        refused = error.refused
        state, reason = ("CANCELLED" if "Bytes scanned" in str(error) else "FAILED"), str(error)
    except Exception as error:
        with service.lock:
            _end(service, record, "FAILED", f"defect in the rehearsal: {type(error).__name__}: {error}")
        raise
    trails.note_table_reads(service, record.name, reader.accesses)
    with service.lock:
        record.data["Statistics"] = {
            "DataScannedInBytes": reader.scanned,
            "EngineExecutionTimeInMillis": int((service.runtime.clock.timestamp() - started) * 1000),
        }
        _end(service, record, state, reason)
    if record.data["_metrics"]:
        _publish(service, record, reader.scanned)
    # A query that is refused or wrong is an answer to who asked, not a failure of the rehearsal.
    service.runtime.ledger.ran(
        "athena",
        record.data["WorkGroup"],
        query=record.data["Query"][:200],
        state=state,
        refused=refused,
        reason=reason[:300],
        engine="DuckDB over the deployed catalog and grants",
        scanned_bytes=reader.scanned,
    )


def _end(service: Service, record: Record, state: str, reason: str) -> None:
    status = record.data["Status"]
    if status["State"] in ("SUCCEEDED", "FAILED", "CANCELLED"):
        return
    status |= {"State": state, "CompletionDateTime": service.runtime.clock.now()}
    if reason:
        status["StateChangeReason"] = reason
        if state == "FAILED":
            # 2: the user's fault (AthenaError, ErrorCategory).
            status["AthenaError"] = {"ErrorCategory": 2, "ErrorMessage": reason, "Retryable": False}


def _within(reader: Reader, cutoff: int | None) -> None:
    if cutoff is not None and reader.scanned > cutoff:
        raise QueryError(
            f"Bytes scanned limit was exceeded: {reader.scanned} bytes were read, "
            f"the limit of the workgroup is {cutoff}"
        )


def _evaluate(reader: Reader, sql: str, database: str | None, depth: int = 0) -> Any:
    """Run one query as the reader's principal and return an Arrow table."""
    import duckdb
    import sqlglot
    from sqlglot import exp

    if depth > _DEEPEST:
        raise QueryError("INVALID_VIEW: views are nested too deeply or in a circle")
    try:
        statements = [one for one in sqlglot.parse(sql, read="athena") if one is not None]
    except sqlglot.errors.SqlglotError as error:
        raise QueryError(f"SYNTAX_ERROR: {' '.join(str(error).split())[:500]}") from error
    if len(statements) != 1:
        raise QueryError(f"SYNTAX_ERROR: Only one sql statement is allowed. Got: {len(statements)}")
    query = statements[0]
    if not isinstance(query, exp.Query):
        raise QueryError(f"NOT_SUPPORTED: the rehearsal's Athena runs SELECT only, got {query.key.upper()}")
    connection = duckdb.connect()
    try:
        _add_functions(connection, sql)
        tables = _resolve(reader, query, database)
        wanted = _columns_used(query)
        # Data come through what was registered, never from a path in a query.
        connection.execute("SET enable_external_access = false")
        for number, table in enumerate(tables.values()):
            _offer(connection, reader, table, number=number)
        text = _duckdb_text(query)
        # Over empty tables first: a query that is wrong reads nothing.
        connection.execute(f"EXPLAIN {text}")
        for number, table in enumerate(tables.values()):
            connection.register(_place(number), _rows(reader, table, wanted, depth))
        return connection.sql(text).to_arrow_table()
    except duckdb.Error as error:
        raise QueryError(_in_athenas_words(str(error))) from error
    finally:
        connection.close()


def _resolve(reader: Reader, query: Any, database: str | None) -> dict[tuple[str, str], CatalogTable]:
    """Find each table that the query names, and name it in full."""
    from sqlglot import exp
    from sqlglot.optimizer.scope import traverse_scope

    tables: dict[tuple[str, str], CatalogTable] = {}
    for scope in traverse_scope(query):
        for source in scope.sources.values():
            if not isinstance(source, exp.Table):
                continue
            if not isinstance(source.this, exp.Identifier):
                raise QueryError(f"FUNCTION_NOT_FOUND: no table function {source.this.sql('athena')}")
            schema = (source.db or database or "default").lower()
            name = source.name.lower()
            if (schema, name) not in tables:
                tables[schema, name] = reader.find(schema, name)
            source.set("catalog", None)
            source.set("db", exp.to_identifier(schema, quoted=True))
            source.set("this", exp.to_identifier(name, quoted=True))
    return tables


def _columns_used(query: Any) -> frozenset[str] | None:
    """Return the names of all columns that the query may mean; None when it asks for all."""
    from sqlglot import exp

    if any(not isinstance(star.parent, exp.Count) for star in query.find_all(exp.Star)):
        return None
    # A struct's field looks like a column of a table: what stands before a dot is taken for a name as well.
    parts = {part.name.lower() for column in query.find_all(exp.Column) for part in column.parts}
    return frozenset(parts | {name.name.lower() for name in query.find_all(exp.Identifier)})


def _place(number: int) -> str:
    return f"rows of {number}"


def _offer(
    connection: duckdb.DuckDBPyConnection, reader: Reader, table: CatalogTable, *, number: int
) -> None:
    """Let the engine see of a table what its reader may see; there are no rows in it yet."""
    selected, where = reader.filtered(table)
    connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{table.database}"')
    connection.register(_place(number), table.schema.empty_table())
    condition = "" if where is None else f" WHERE {_duckdb_condition(where)}"
    shown = f'SELECT {", ".join(selected)} FROM "{_place(number)}"{condition}'  # noqa: S608 - from the catalog
    connection.execute(f'CREATE VIEW "{table.database}"."{table.name}" AS {shown}')


def _rows(reader: Reader, table: CatalogTable, wanted: frozenset[str] | None, depth: int) -> Any:
    """Return a table's rows; a column that the query does not need is NULL in them."""
    import pyarrow as pa

    view = table.view
    if view is not None:
        text, definer = view
        inner = Reader(reader.runtime, reader.region, reader.principal if definer is None else definer)
        try:
            found = _evaluate(inner, text, table.database, depth + 1)
        finally:
            reader.scanned += inner.scanned
            reader.accesses += inner.accesses
        return found.select(table.schema.names).cast(table.schema)
    needed = None
    if wanted is not None:
        # The condition of a row filter may stand on a column that the reader does not see.
        conditions = " ".join(one.rows or "" for one in table.access.cells).lower()
        needed = [
            name
            for name, _ in table.columns
            if (name in wanted and name in table.access.columns) or name in conditions
        ]
    found = reader.rows(table, needed)
    arrays = [
        found[field.name] if field.name in found.schema.names else pa.nulls(found.num_rows, field.type)
        for field in table.schema
    ]
    return pa.table(arrays, schema=table.schema)


def _duckdb_condition(text: str) -> str:
    import sqlglot

    return str(sqlglot.parse_one(text, read="athena").sql("duckdb"))


def _duckdb_text(query: Any) -> str:
    """Translate a query; several arrays in one UNNEST, which DuckDB lacks, become a lateral query."""
    from sqlglot import exp

    for unnest in list(query.find_all(exp.Unnest)):
        alias = unnest.args.get("alias")
        if len(unnest.expressions) < 2 or alias is None:
            continue
        parts = [
            exp.alias_(exp.Anonymous(this="UNNEST", expressions=[array.copy()]), column.name, quoted=True)
            for array, column in zip(unnest.expressions, alias.columns, strict=True)
        ]
        lateral = exp.Lateral(
            this=exp.Subquery(this=exp.select(*parts)), alias=exp.TableAlias(this=alias.this.copy())
        )
        unnest.replace(lateral)
    return str(query.sql("duckdb"))


def _add_functions(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Add the functions of Athena that DuckDB lacks."""
    if "hmac_sha256" in sql.lower():
        connection.create_function(
            "hmac_sha256",
            lambda message, key: hmac.new(key, message, hashlib.sha256).digest(),
            ["BLOB", "BLOB"],
            "BLOB",
        )


def _in_athenas_words(message: str) -> str:
    """Name a column that is not there as Athena does: it does not tell whether it exists."""
    for pattern in (r'Referenced column "([^"]+)" not found', r'does not have a column named "([^"]+)"'):
        found = re.search(pattern, message)
        if found is not None:
            return (
                f"COLUMN_NOT_FOUND: Column '{found.group(1)}' cannot be resolved or requester is not "
                "authorized to access requested resources"
            )
    return f"GENERIC_USER_ERROR: {' '.join(message.split())[:500]}"


# -- results ------------------------------------------------------------------------------------------------


def _column_info(name: str, kind: Any) -> dict[str, Any]:
    text = str(kind)
    athenas = _TYPES.get(text, "varchar")
    if text.startswith("timestamp"):
        athenas = "timestamp"
    elif text.startswith("decimal"):
        athenas = "decimal"
    elif text.startswith("list"):
        athenas = "array"
    elif text.startswith("struct"):
        athenas = "row"
    return {
        "CatalogName": "hive",
        "SchemaName": "",
        "TableName": "",
        "Name": name,
        "Label": name,
        "Type": athenas,
        "Precision": 0,
        "Scale": 0,
        "Nullable": "UNKNOWN",
        "CaseSensitive": athenas == "varchar",
    }


def _text(value: Any) -> str | None:  # noqa: PLR0911 - one per kind of value
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dt.datetime):
        return value.isoformat(sep=" ", timespec="milliseconds")
    if isinstance(value, bytes):
        return value.hex(" ")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}={_text(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(str(_text(part)) for part in value) + "]"
    return str(value)


def _write(
    service: Service,
    record: Record,
    columns: Sequence[Mapping[str, Any]],
    rows: Sequence[Sequence[str | None]],
) -> None:
    """Write the results where the workgroup says, as the caller."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_NOTNULL if hasattr(csv, "QUOTE_NOTNULL") else csv.QUOTE_ALL)
    writer.writerow([column["Name"] for column in columns])
    writer.writerows(rows)
    result = record.data["ResultConfiguration"]
    bucket, _, key = result["OutputLocation"].removeprefix("s3://").partition("/")
    encryption = result.get("EncryptionConfiguration", {})
    given = {}
    if encryption.get("EncryptionOption") == "SSE_KMS":
        given = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": encryption["KmsKey"]}
    elif encryption.get("EncryptionOption") == "SSE_S3":
        given = {"ServerSideEncryption": "AES256"}
    s3 = service.runtime.client("s3", role=record.data["_principal"], region=service.region)
    try:
        s3.get_bucket_location(Bucket=bucket)
        s3.put_object(Bucket=bucket, Key=key, Body=out.getvalue().encode(), **given)
    except ClientError as error:
        message = error.response["Error"].get("Message", "")
        text = f"Access denied when writing output to url: {result['OutputLocation']}. {message}"
        raise QueryError(text, refused=True) from error


def _publish(service: Service, record: Record, scanned: int) -> None:
    """Publish what a workgroup publishes of a query ("List of CloudWatch metrics for Athena")."""
    state = record.data["Status"]["State"]
    for name, unit, value in (
        ("ProcessedBytes", "Bytes", float(scanned)),
        (
            "EngineExecutionTime",
            "Milliseconds",
            float(record.data["Statistics"]["EngineExecutionTimeInMillis"]),
        ),
    ):
        for dimensions in (
            {"WorkGroup": record.data["WorkGroup"]},
            {"WorkGroup": record.data["WorkGroup"], "QueryState": state, "QueryType": "DML"},
        ):
            bridge.put_metric(
                account=service.account,
                region=service.region,
                namespace="AWS/Athena",
                name=name,
                dimensions=dimensions,
                timestamp=service.runtime.clock.timestamp(),
                unit=unit,
                values=[value],
            )
