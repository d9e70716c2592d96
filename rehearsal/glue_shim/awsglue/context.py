"""The Glue context: a Spark session and the readers and writers of the catalog and of S3."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import boto3
from pyspark.sql import SparkSession

from . import jdbc, local_s3
from .dynamicframe import DynamicFrame

if TYPE_CHECKING:
    from pyspark import SparkContext

_FORMATS = ("parquet", "json", "csv", "orc")


class GlueContext:
    """Entry point of a Glue script."""

    def __init__(self, spark_context: SparkContext, **_: Any) -> None:
        local_s3.install()
        self.spark_context = spark_context
        self.spark_session = SparkSession(spark_context)
        self.create_dynamic_frame = _Reader(self)
        self.write_dynamic_frame = _Writer(self)

    def create_dynamic_frame_from_catalog(self, database: str, table_name: str, **_: Any) -> DynamicFrame:
        """Read a table of the Data Catalog."""
        return self.create_dynamic_frame.from_catalog(database, table_name)

    def get_logger(self) -> Any:
        """Return Spark's logger."""
        jvm: Any = self.spark_context._jvm
        return jvm.org.apache.log4j.LogManager.getLogger("glue")


class _Reader:
    def __init__(self, context: GlueContext) -> None:
        self._context = context

    def from_catalog(self, database: str, table_name: str) -> DynamicFrame:
        table = boto3.client("glue").get_table(DatabaseName=database, Name=table_name)["Table"]
        storage = table["StorageDescriptor"]
        serde = storage.get("SerdeInfo", {}).get("SerializationLibrary", "").lower()
        kind = next((name for name in _FORMATS if name in serde), None)
        if kind is None:
            raise NotImplementedError(
                f"{database}.{table_name} has serde {serde!r}; here: {', '.join(_FORMATS)}"
            )
        return self.from_options("s3", {"paths": [storage["Location"]]}, kind)

    def from_options(
        self,
        connection_type: str,
        connection_options: Mapping[str, Any],
        format: str | None = None,
        format_options: Mapping[str, Any] | None = None,
        transformation_ctx: str = "",
    ) -> DynamicFrame:
        if connection_type in jdbc.CONNECTION_TYPES:
            rows = jdbc.read(
                self._context.spark_session, connection_type, connection_options, transformation_ctx
            )
            return DynamicFrame(rows, self._context, transformation_ctx)
        reader = self._context.spark_session.read
        for name, value in _spark_options(connection_type, format, format_options).items():
            reader = reader.option(name, value)
        read: Callable[..., Any] = getattr(reader, str(format))
        paths = list(connection_options["paths"])
        frame = read(*paths) if format in ("parquet", "orc") else read(paths)
        return DynamicFrame(frame, self._context, transformation_ctx)


class _Writer:
    def __init__(self, context: GlueContext) -> None:
        self._context = context

    def from_options(  # noqa: PLR0917 - Glue's signature
        self,
        frame: DynamicFrame,
        connection_type: str,
        connection_options: Mapping[str, Any],
        format: str | None = None,
        format_options: Mapping[str, Any] | None = None,
        transformation_ctx: str = "",  # noqa: ARG002 - Glue's signature
    ) -> DynamicFrame:
        options = _spark_options(connection_type, format, format_options)
        # Glue's S3 sink only ever adds files.
        writer = frame.toDF().write.mode("append").options(**options)
        if connection_options.get("partitionKeys"):
            writer = writer.partitionBy(*connection_options["partitionKeys"])
        getattr(writer, str(format))(connection_options["path"])
        return frame


def _spark_options(
    connection_type: str, kind: str | None, options: Mapping[str, Any] | None
) -> dict[str, str]:
    if connection_type != "s3":
        raise NotImplementedError(f"connection_type {connection_type!r} is not emulated; here: 's3'")
    if kind not in _FORMATS:
        raise NotImplementedError(f"format {kind!r} is not emulated; here: {', '.join(_FORMATS)}")
    known = {
        "withHeader": "header",
        "separator": "sep",
        "compression": "compression",
        "multiLine": "multiLine",
    }
    given = dict(options or {})
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise NotImplementedError(f"format_options {unknown} are not emulated; here: {sorted(known)}")
    return {known[name]: str(value).lower() for name, value in given.items()}
