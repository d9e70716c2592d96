"""Partitions of a Hive table, entered into the catalog by who reads its files: no crawler has to run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lake_files.objects import S3Uri, partition_of

#: BatchCreatePartition takes at most this many (AWS Glue API reference).
BATCH = 100


def register(glue: Any, database: str, table: str, uris: Iterable[str]) -> list[str]:
    """Enter the partitions that the files lie in and the table lacks; returns their values.

    The table has one partition column. Somebody who entered a partition in the meantime is no error.
    """
    found = glue.get_table(DatabaseName=database, Name=table)["Table"]
    (column,) = (key["Name"] for key in found["PartitionKeys"])
    wanted = {partition_of(S3Uri.parse(uri).key, column) for uri in uris} - {None}
    pages = glue.get_paginator("get_partitions").paginate(
        DatabaseName=database, TableName=table, ExcludeColumnSchema=True
    )
    present = {part["Values"][0] for page in pages for part in page["Partitions"]}
    missing = sorted(value for value in wanted - present if value is not None)
    storage = found["StorageDescriptor"]
    location = str(storage["Location"]).rstrip("/")
    for start in range(0, len(missing), BATCH):
        answer = glue.batch_create_partition(
            DatabaseName=database,
            TableName=table,
            PartitionInputList=[
                {
                    "Values": [value],
                    "StorageDescriptor": {**storage, "Location": f"{location}/{column}={value}/"},
                }
                for value in missing[start : start + BATCH]
            ],
        )
        errors = [
            error
            for error in answer.get("Errors", ())
            if error.get("ErrorDetail", {}).get("ErrorCode") != "AlreadyExistsException"
        ]
        if errors:
            raise RuntimeError(
                f"{len(errors)} partitions of {database}.{table} were not entered: {errors[0]}"
            )
    return missing
