"""Rows of catalog tables as Arrow tables, read with the caller's rights: what Athena's engine is fed with.

A table that Lake Formation governs is read with the role that registered its location, and only the columns
and rows that were granted reach the engine. Any other table is read with the caller's own permissions on S3.
"""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from rehearsal.executors.hive_types import arrow_type, fitted
from rehearsal.iam import AccessDeniedError, Principal
from rehearsal.ministack_bridge import Check
from rehearsal.services.engine import ApiError
from rehearsal.services.lake_access import Access, Cells, registration_of, table_access
from rehearsal.services.lakeformation import columns_of

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime

__all__ = ["CatalogTable", "QueryError", "Reader"]


class QueryError(Exception):
    """Why a query failed, in Athena's words; ``refused`` when permission was lacking."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


@dataclass(frozen=True, kw_only=True)
class CatalogTable:
    """A table of the catalog as its reader may see it."""

    database: str
    name: str
    #: Name and Hive type of every column, partition keys last.
    columns: tuple[tuple[str, str], ...]
    partition_keys: tuple[str, ...]
    access: Access
    entry: Mapping[str, Any]
    #: The role that reads its files; None is the operator.
    role: str | None

    @property
    def shown(self) -> list[str]:
        """The columns that the reader may see, in order."""
        return [name for name, _ in self.columns if name in self.access.columns]

    @property
    def schema(self) -> Any:
        """The Arrow schema of all columns."""
        import pyarrow as pa

        return pa.schema([(name, arrow_type(kind)) for name, kind in self.columns])

    @property
    def parameters(self) -> Mapping[str, str]:
        """The table's parameters."""
        found: Mapping[str, str] = self.entry.get("Parameters", {})
        return found

    @property
    def view(self) -> tuple[str, str | None] | None:
        """The text of a view, and the role it is evaluated as (None: the reader's own)."""
        definition = self.entry.get("ViewDefinition")
        if definition:
            texts = [
                r["ViewOriginalText"]
                for r in definition.get("Representations", ())
                if r.get("Dialect") == "ATHENA"
            ]
            if not texts:
                raise QueryError(f"INVALID_VIEW: {self.database}.{self.name} has no dialect of Athena")
            return texts[0], definition["Definer"]
        text = self.entry.get("ViewOriginalText") or ""
        match = re.fullmatch(r"/\* Presto View: (\S+) \*/", text)
        if match is None:
            return None
        return json.loads(base64.b64decode(match.group(1)))["originalSql"], None


@dataclass
class Reader:
    """Reads tables as one principal; None is the operator."""

    runtime: Runtime
    region: str
    principal: str | None
    scanned: int = 0
    #: What was read under Lake Formation: table ARN and the columns.
    accesses: list[dict[str, Any]] = field(default_factory=list)

    def find(self, database: str, name: str) -> CatalogTable:
        """Look a table up as the principal; a missing or a refused one is Athena's error."""
        glue = self.runtime.client("glue", role=self.principal, region=self.region)
        try:
            glue.get_table(DatabaseName=database, Name=name)
        except ClientError as error:
            code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
            if code == "EntityNotFoundException":
                text = f"TABLE_NOT_FOUND: Table 'awsdatacatalog.{database}.{name}' does not exist"
                raise QueryError(text) from error
            raise QueryError(f"{code}: {message}", refused=code == "AccessDeniedException") from error
        lake = self.runtime.service("lakeformation", self.region)
        # What the reader is shown lacks the columns that it may not see; data are typed by the whole.
        whole = self.runtime.forwarding_client("glue", region=self.region).get_table(
            DatabaseName=database, Name=name
        )["Table"]
        keys = whole.get("PartitionKeys") or ()
        members = [*whole.get("StorageDescriptor", {}).get("Columns", ()), *keys]
        try:
            access = table_access(lake, self.principal, database, name, columns_of(lake, database, name))
        except ApiError as error:
            raise QueryError(f"{error.code}: {error.message}") from error
        table = CatalogTable(
            database=database,
            name=name,
            columns=tuple((c["Name"], c["Type"]) for c in members),
            partition_keys=tuple(key["Name"] for key in keys),
            access=access,
            entry=whole,
            role=self.principal,
        )
        return table if access.by_iam else self._governed(table)

    def _governed(self, table: CatalogTable) -> CatalogTable:
        """Let Lake Formation decide: refuse, or read with the role of the location's registration."""
        arn = f"arn:aws:glue:{self.region}:{self.runtime.account}:table/{table.database}/{table.name}"
        why = None
        if self.principal is not None:
            check = Check(action="lakeformation:GetDataAccess", resource="*")
            caller = _caller(self.principal)
            try:
                self.runtime.authorizer.require(caller, "lakeformation", [check], self.region)
            except AccessDeniedError as denied:
                why = str(denied)
        if why is None and not table.access.cells:
            why = f"Insufficient Lake Formation permission(s): Required Select on {table.name}"
        self.accesses.append(
            {"table": arn, "principal": self.principal, "columns": sorted(table.access.columns), "error": why}
        )
        if why is not None:
            raise QueryError(f"Insufficient permissions to execute the query. {why}", refused=True)
        location = table.entry.get("StorageDescriptor", {}).get("Location", "")
        lake = self.runtime.service("lakeformation", self.region)
        registration = registration_of(lake, location) if location else None
        role = self.principal if registration is None else registration.get("RoleArn")
        return CatalogTable(**{**table.__dict__, "role": role})

    # -- files ----------------------------------------------------------------------------------------------

    def rows(self, table: CatalogTable, wanted: Iterable[str] | None) -> Any:
        """Return the table's rows with the columns ``wanted`` (None: all of them) as an Arrow table."""
        import pyarrow as pa

        names = {name for name, _ in table.columns} if wanted is None else set(wanted)
        columns = [(name, kind) for name, kind in table.columns if name in names]
        # A table without columns has no rows; one is enough to count them.
        columns = columns or list(table.columns[:1])
        try:
            if table.parameters.get("table_type", "").upper() == "ICEBERG":
                return self._iceberg(table, columns)
            parts = list(self._parts(table, columns))
        except ClientError as error:
            code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
            refused = code in ("AccessDenied", "AccessDeniedException", "403")
            raise QueryError(f"{code}: {message}", refused=refused) from error
        schema = pa.schema([(name, arrow_type(kind)) for name, kind in columns])
        return pa.concat_tables(parts) if parts else schema.empty_table()

    def _parts(self, table: CatalogTable, columns: Sequence[tuple[str, str]]) -> Iterator[Any]:
        import pyarrow as pa

        location = table.entry["StorageDescriptor"]["Location"].rstrip("/") + "/"
        s3 = self.runtime.client("s3", role=table.role, region=self.region)
        place = urlsplit(location)
        pages = s3.get_paginator("list_objects_v2").paginate(
            Bucket=place.netloc, Prefix=place.path.lstrip("/")
        )
        for page in pages:
            for item in page.get("Contents", ()):
                uri = f"s3://{place.netloc}/{item['Key']}"
                # Athena leaves out what begins with a dot or an underscore ("Create tables in Athena").
                if item["Key"].endswith("/") or item["Key"].rsplit("/", 1)[-1][0] in "._":
                    continue
                values = _partition(table, location, uri)
                if values is None:
                    continue
                body = s3.get_object(Bucket=place.netloc, Key=item["Key"])["Body"].read()
                self.scanned += len(body)
                own = [(name, kind) for name, kind in columns if name not in table.partition_keys]
                count, arrays = _read(table, own, body)
                arrays |= {
                    name: pa.array([values[name]] * count, arrow_type("string")).cast(arrow_type(kind))
                    for name, kind in columns
                    if name in table.partition_keys
                }
                yield pa.table(
                    {name: arrays[name] for name, _ in columns},
                    schema=pa.schema([(name, arrow_type(kind)) for name, kind in columns]),
                )

    def _iceberg(self, table: CatalogTable, columns: Sequence[tuple[str, str]]) -> Any:
        import pyarrow as pa
        from pyiceberg.table import StaticTable

        location = table.parameters.get("metadata_location")
        if location is None:
            raise QueryError(f"ICEBERG_MISSING_METADATA: {table.database}.{table.name}")
        variables = (
            self.runtime.operator_environment(self.region)
            if table.role is None
            else self.runtime.role_environment(table.role, self.region)
        )
        properties = {
            "py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO",
            "s3.endpoint": variables["AWS_ENDPOINT_URL"],
            "s3.access-key-id": variables["AWS_ACCESS_KEY_ID"],
            "s3.secret-access-key": variables["AWS_SECRET_ACCESS_KEY"],
            "s3.region": self.region,
        }
        if "AWS_SESSION_TOKEN" in variables:
            properties["s3.session-token"] = variables["AWS_SESSION_TOKEN"]
        try:
            static = StaticTable.from_metadata(location, properties)
            scan = static.scan(selected_fields=tuple(name for name, _ in columns))
            self.scanned += sum(task.file.file_size_in_bytes for task in scan.plan_files())
            found = scan.to_arrow()
        except (OSError, BotoCoreError) as error:
            refused = "ACCESS_DENIED" in str(error) or "403" in str(error)
            raise QueryError(f"ICEBERG_CANNOT_OPEN_SPLIT: {error}", refused=refused) from error
        schema = pa.schema([(name, arrow_type(kind)) for name, kind in columns])
        return found.select([name for name, _ in columns]).cast(schema)

    def filtered(self, table: CatalogTable) -> tuple[list[str], str | None]:
        """Return the select list and the condition that show of a table what was granted.

        A column that one grant shows in some rows and another in others is NULL outside of both.
        """
        cells = table.access.cells
        conditions = [one.rows for one in cells]
        everything = None in conditions or not cells
        where = None if everything else " OR ".join(f"({rows})" for rows in conditions)
        return [_column(name, cells, where) for name in table.shown], where


def _caller(role_arn: str) -> Principal:
    account, name = role_arn.split(":")[4], role_arn.rsplit("/", 1)[-1]
    session = f"arn:aws:sts::{account}:assumed-role/{name}/athena"
    return Principal(role_arn=role_arn, session_arn=session)


def _column(name: str, cells: Sequence[Cells], where: str | None) -> str:
    showing = [one.rows for one in cells if name in one.columns]
    shown_everywhere = None in showing or " OR ".join(f"({rows})" for rows in showing) == where
    if shown_everywhere:
        return f'"{name}"'
    condition = " OR ".join(f"({rows})" for rows in showing)
    return f'CASE WHEN {condition} THEN "{name}" END AS "{name}"'


def _partition(table: CatalogTable, location: str, uri: str) -> dict[str, str] | None:
    """Return the values of the partition that a file lies in; None when it lies in no partition."""
    if not table.partition_keys:
        return {}
    template = table.parameters.get("storage.location.template")
    if template is None:
        parts = dict(part.split("=", 1) for part in uri[len(location) :].split("/")[:-1] if "=" in part)
        values = {key: unquote(parts[key]) for key in table.partition_keys if key in parts}
    else:
        pattern = re.escape(template.rstrip("/"))
        for key in table.partition_keys:
            pattern = pattern.replace(re.escape(f"${{{key}}}"), f"(?P<{key}>.+)")
        match = re.match(pattern + "/[^/]+$", uri)
        values = {} if match is None else match.groupdict()
    return values if len(values) == len(table.partition_keys) else None


def _read(table: CatalogTable, columns: Sequence[tuple[str, str]], body: bytes) -> tuple[int, dict[str, Any]]:
    """Return the number of rows of a file and its columns, by the table's format."""
    import pyarrow as pa

    descriptor = table.entry["StorageDescriptor"]
    library = descriptor.get("SerdeInfo", {}).get("SerializationLibrary", "")
    if library.endswith("ParquetHiveSerDe"):
        return _parquet(columns, body)
    if body[:2] == b"\x1f\x8b":
        body = gzip.decompress(body)
    if descriptor.get("InputFormat", "").endswith("CloudTrailInputFormat"):
        records = json.loads(body)["Records"]
    elif library.endswith(("JsonSerDe",)):
        records = [json.loads(line) for line in body.splitlines() if line.strip()]
    elif library.endswith(("LazySimpleSerDe", "OpenCSVSerde")):
        parameters = descriptor.get("SerdeInfo", {}).get("Parameters", {})
        delimiter = parameters.get("field.delim", parameters.get("separatorChar", "\x01"))
        names = [c["Name"] for c in descriptor["Columns"]]
        lines = csv.reader(io.StringIO(body.decode()), delimiter=delimiter)
        records = [dict(zip(names, line, strict=False)) for line in lines if line]
    else:
        raise QueryError(f"NOT_SUPPORTED: the rehearsal reads no files of {library or 'an unknown format'}")
    lowered = [{key.lower(): value for key, value in record.items()} for record in records]
    arrays = {
        name: pa.array([fitted(record.get(name), arrow_type(kind)) for record in lowered], arrow_type(kind))
        for name, kind in columns
    }
    return len(lowered), arrays


def _parquet(columns: Sequence[tuple[str, str]], body: bytes) -> tuple[int, dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(body))
    there = [name for name, _ in columns if name in file.schema_arrow.names]
    found = file.read(columns=there)
    count = file.metadata.num_rows
    arrays = {
        # A column that a file does not have yet is NULL in it.
        name: found[name].cast(arrow_type(kind)).combine_chunks()
        if name in there
        else pa.nulls(count, arrow_type(kind))
        for name, kind in columns
    }
    return count, arrays
