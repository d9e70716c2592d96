"""Tables of the Glue Data Catalog over Parquet in a zone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aws_cdk import aws_glue as glue

from constructs import Construct
from ml_lifecycle.data_lake.zone import Zone
from ml_lifecycle.pseudo import ACCOUNT, stack_of


def parquet_table(
    scope: Construct,
    construct_id: str,
    *,
    zone: Zone,
    name: str,
    columns: Sequence[tuple[str, str]],
    prefix: str,
    partition_key: tuple[str, str],
    projection: Mapping[str, str] | None = None,
) -> glue.CfnTable:
    """Define an external table over the Parquet files below ``prefix`` of ``zone``.

    ``columns`` are pairs of name and Hive type. With a ``projection`` Athena computes the partitions from
    these properties (Athena User Guide, "Partition projection") and nobody has to register them; without
    one a crawler does.
    """
    if zone.database_name is None or zone.database is None:
        raise ValueError(
            f"zone must have a database to hold table {name!r}, got zone {zone.node.id} without one"
        )
    parameters: dict[str, str] = {"classification": "parquet", "EXTERNAL": "TRUE"}
    if projection is not None:
        parameters |= {"projection.enabled": "true", **projection}
    table = glue.CfnTable(
        scope,
        construct_id,
        catalog_id=ACCOUNT,
        database_name=zone.database_name,
        table_input=glue.CfnTable.TableInputProperty(
            name=name,
            table_type="EXTERNAL_TABLE",
            parameters=parameters,
            partition_keys=[glue.CfnTable.ColumnProperty(name=partition_key[0], type=partition_key[1])],
            storage_descriptor=glue.CfnTable.StorageDescriptorProperty(
                columns=[glue.CfnTable.ColumnProperty(name=column, type=kind) for column, kind in columns],
                location=zone.uri(prefix),
                input_format="org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
                output_format="org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
                serde_info=glue.CfnTable.SerdeInfoProperty(
                    serialization_library="org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
                ),
            ),
        ),
    )
    if stack_of(scope) is stack_of(zone):
        table.add_resource_dependency(zone.database)
    return table


def json_table(
    scope: Construct,
    construct_id: str,
    *,
    zone: Zone,
    name: str,
    columns: Sequence[tuple[str, str]],
    prefix: str,
    partition_key: tuple[str, str],
) -> glue.CfnTable:
    """Define an external table over files of one JSON object a line below ``prefix`` of ``zone``.

    Partitions are days from 2026 on, computed by Athena ("Partition projection").
    """
    if zone.database_name is None or zone.database is None:
        raise ValueError(
            f"zone must have a database to hold table {name!r}, got zone {zone.node.id} without one"
        )
    props = glue.CfnTable
    key = partition_key[0]
    table = props(
        scope,
        construct_id,
        catalog_id=ACCOUNT,
        database_name=zone.database_name,
        table_input=props.TableInputProperty(
            name=name,
            table_type="EXTERNAL_TABLE",
            parameters={
                "classification": "json",
                "EXTERNAL": "TRUE",
                "projection.enabled": "true",
                f"projection.{key}.type": "date",
                f"projection.{key}.format": "yyyy-MM-dd",
                f"projection.{key}.range": "2026-01-01,NOW",
            },
            partition_keys=[props.ColumnProperty(name=key, type=partition_key[1])],
            storage_descriptor=props.StorageDescriptorProperty(
                columns=[props.ColumnProperty(name=column, type=kind) for column, kind in columns],
                location=zone.uri(prefix),
                input_format="org.apache.hadoop.mapred.TextInputFormat",
                output_format="org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
                serde_info=props.SerdeInfoProperty(
                    serialization_library="org.openx.data.jsonserde.JsonSerDe"
                ),
            ),
        ),
    )
    if stack_of(scope) is stack_of(zone):
        table.add_resource_dependency(zone.database)
    return table


def month_projection(column: str) -> dict[str, str]:
    """Return the projection of a partition column that holds months, ``2026-11``, from 1970 to now."""
    return {
        f"projection.{column}.type": "date",
        f"projection.{column}.format": "yyyy-MM",
        f"projection.{column}.range": "1970-01,NOW",
        f"projection.{column}.interval": "1",
        f"projection.{column}.interval.unit": "MONTHS",
    }
