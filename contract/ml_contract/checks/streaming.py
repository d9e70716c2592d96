"""What must hold between the stream and the rest of a workload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ml_contract.problems import suggest

if TYPE_CHECKING:
    from ml_contract.checks.workload import Checks

__all__ = ["check_stream"]

#: Types whose values divide a table: a float's do not compare, a timestamp's are as many as there are rows.
PARTITION_TYPES: Final = ("string", "integer", "boolean", "date")


def check_stream(checks: Checks) -> None:
    """Shards, partitions, the consumer."""
    stream = checks.workload.stream
    if stream.mode == "on_demand" and ("stream", "shards") in checks.lines:
        checks.wrong(("stream", "shards"), "goes with mode: provisioned; remove it or set the mode")
    if stream.partition_by and stream.format != "iceberg":
        checks.wrong(("stream", "partition_by"), "goes with format: iceberg; remove it or set the format")
    if len(set(stream.partition_by)) != len(stream.partition_by):
        checks.wrong(("stream", "partition_by"), "names a field twice")
    if stream.format == "iceberg":
        _check_iceberg(checks)
    if stream.consumer is not None:
        _check_consumer(checks)
    record = checks.workload.record
    for i, name in enumerate(stream.partition_by):
        field = record.fields.get(name)
        if field is None:
            hint = suggest(name, record.fields)
            checks.wrong(
                ("stream", "partition_by", i), f"got {name!r}, which is no field of the record{hint}"
            )
            continue
        if field.type not in PARTITION_TYPES:
            allowed = ", ".join(PARTITION_TYPES)
            checks.wrong(
                ("stream", "partition_by", i), f"{name} is {field.type}; a partition takes {allowed}"
            )
        if field.sensitive == "pii":
            checks.wrong(
                ("stream", "partition_by", i),
                f"{name} is pii, and a partition's value stands in the names of objects; use another field",
            )
        if name == record.identifier:
            checks.wrong(
                ("stream", "partition_by", i),
                f"{name} is the identifier, so that every record would be a partition; use another field",
            )


def _check_iceberg(checks: Checks) -> None:
    """What does not go with an Iceberg table in the raw zone."""
    workload = checks.workload
    if workload.batch.scale == "medium":
        checks.wrong(
            ("stream", "format"),
            "iceberg goes with batch.scale: small or large; at medium Glue's workflow begins with a crawl of "
            "folders",
        )
    if workload.sources:
        checks.wrong(
            ("stream", "format"),
            "iceberg does not go with sources, whose records land as Parquet beside the table; use parquet",
        )


def _check_consumer(checks: Checks) -> None:
    """What the consumer needs of the features."""
    workload = checks.workload
    if not workload.features.store.online:
        checks.wrong(
            ("stream", "consumer"),
            "puts features into the online store, and features.store.online is false; set it or remove this",
        )
    if workload.windows is not None:
        checks.wrong(
            ("stream", "consumer"),
            "sees one record at a time and would overwrite what windows say of several; remove one of them",
        )
