"""The data lake: zones, catalog, Lake Formation."""

from ml_lifecycle.data_lake.iceberg_table import IcebergTable
from ml_lifecycle.data_lake.labels import labels_place
from ml_lifecycle.data_lake.lake import DEEP_ARCHIVE_LEAST_DAYS, DataLake, Expiration, ZoneName
from ml_lifecycle.data_lake.table import json_table, month_projection, parquet_table
from ml_lifecycle.data_lake.upkeep import TableUpkeep
from ml_lifecycle.data_lake.zone import Zone

__all__ = [
    "DEEP_ARCHIVE_LEAST_DAYS",
    "DataLake",
    "Expiration",
    "IcebergTable",
    "TableUpkeep",
    "Zone",
    "ZoneName",
    "json_table",
    "labels_place",
    "month_projection",
    "parquet_table",
]
