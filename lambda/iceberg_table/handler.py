"""CloudFormation custom resource: an Iceberg table of the Data Catalog.

``AWS::Glue::Table`` can make one and must never update it: its update sends the template's table as a whole,
``metadata_location`` is not in there, and with it goes the only pointer to the table's data. This resource
makes the table when it does not exist, adds the columns that it lacks, and changes nothing else. What it
speaks is Iceberg's own protocol with the Glue catalog: write a metadata file, then point the table at it,
under the condition that nobody else has done so meanwhile.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.exceptions import ClientError
from custom_resource import Made, answered, patiently

from iceberg_table.metadata import TableDefinition, TableRefusedError, evolved, file_name, first

__all__ = ["handler"]

_ATTEMPTS = 5


def handler(event: Mapping[str, Any], _context: object) -> None:
    """Answer CloudFormation; a failure is reported to it, with its reason, and raised."""

    def work() -> Made:
        physical_id, name = apply(event, boto3.client("glue"), boto3.client("s3"))
        return Made(id=physical_id, attributes={"Name": name})

    properties = event.get("ResourceProperties", {})
    answered(event, work, failed_id=f"{properties.get('Database')}.{properties.get('Name')}")


def apply(event: Mapping[str, Any], glue: Any, s3: Any) -> tuple[str, str]:
    """Do what the request asks; returns the resource's id and the table's name.

    ``ResourceProperties``: ``Database``, ``Name``, ``Location`` (``s3://bucket/folder``), ``Columns`` (pairs
    of name and Hive type), ``PartitionBy`` (pairs of transform and column), ``OnDelete`` (``keep`` or
    ``delete``: the entry of the catalog; files are never touched).
    """
    wanted = TableDefinition.of(event["ResourceProperties"])
    if event["RequestType"] == "Delete":
        if event["ResourceProperties"]["OnDelete"] == "delete":
            patiently(lambda: _delete(glue, wanted))
        return str(event["PhysicalResourceId"]), wanted.name
    patiently(lambda: _ensure(glue, s3, wanted))
    return f"{wanted.database}.{wanted.name}", wanted.name


def _ensure(glue: Any, s3: Any, wanted: TableDefinition) -> None:
    for attempt in range(_ATTEMPTS):
        table = _get(glue, wanted)
        try:
            if table is None:
                _create(glue, s3, wanted)
            else:
                _evolve(glue, s3, wanted, table)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            # Somebody made or changed the table meanwhile: look again.
            if code not in ("AlreadyExistsException", "ConcurrentModificationException"):
                raise
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return


def _get(glue: Any, wanted: TableDefinition) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = glue.get_table(DatabaseName=wanted.database, Name=wanted.name)["Table"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "EntityNotFoundException":
            return None
        raise
    return found


def _create(glue: Any, s3: Any, wanted: TableDefinition) -> None:
    location = _write(s3, wanted, first(wanted, now=_now()), version=0)
    glue.create_table(
        DatabaseName=wanted.database,
        TableInput={
            "Name": wanted.name,
            "TableType": "EXTERNAL_TABLE",
            "Parameters": {"table_type": "ICEBERG", "metadata_location": location},
            "StorageDescriptor": {"Location": wanted.location, "Columns": wanted.glue_columns()},
        },
    )


def _evolve(glue: Any, s3: Any, wanted: TableDefinition, table: Mapping[str, Any]) -> None:
    parameters = table.get("Parameters", {})
    if str(parameters.get("table_type", "")).upper() != "ICEBERG":
        raise TableRefusedError(
            f"{wanted.database}.{wanted.name} exists and is no Iceberg table; drop or rename it first"
        )
    current = parameters["metadata_location"]
    bucket, key = _split(current)
    metadata = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    changed = evolved(metadata, wanted, metadata_file=current, now=_now())
    if changed is None:
        return
    version = int(key.rsplit("/", 1)[-1].split("-", 1)[0]) + 1
    location = _write(s3, wanted, changed, version=version)
    glue.update_table(
        DatabaseName=wanted.database,
        TableInput={
            "Name": wanted.name,
            "TableType": "EXTERNAL_TABLE",
            "Parameters": {
                **parameters,
                "metadata_location": location,
                "previous_metadata_location": current,
            },
            "StorageDescriptor": {
                **table.get("StorageDescriptor", {}),
                "Columns": wanted.glue_columns(changed),
            },
        },
        # Refused when the table is no longer the one that was read.
        VersionId=table["VersionId"],
        SkipArchive=True,
    )


def _write(s3: Any, wanted: TableDefinition, metadata: Mapping[str, Any], *, version: int) -> str:
    location = f"{wanted.location}/metadata/{file_name(version)}"
    bucket, key = _split(location)
    s3.put_object(Bucket=bucket, Key=key, Body=json.dumps(metadata).encode(), ContentType="application/json")
    return location


def _delete(glue: Any, wanted: TableDefinition) -> None:
    try:
        glue.delete_table(DatabaseName=wanted.database, Name=wanted.name)
    except ClientError as error:
        if error.response["Error"]["Code"] != "EntityNotFoundException":
            raise


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.split("://", 1)[1].partition("/")
    return bucket, key


def _now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
