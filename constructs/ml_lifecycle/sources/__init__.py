"""Batch sources: what does not stream, on one way into the raw zone."""

from ml_lifecycle.sources.batch_source import BatchSource, DropFolder, ThirdPartyReader, ThirdPartyWriter
from ml_lifecycle.sources.datasync import DataSyncTask
from ml_lifecycle.sources.dms import DmsReplication
from ml_lifecycle.sources.jdbc import JdbcTable
from ml_lifecycle.sources.landing import BATCH_EVENT, BATCH_EVENT_SOURCE, BatchLanding, landing_spec

__all__ = [
    "BATCH_EVENT",
    "BATCH_EVENT_SOURCE",
    "BatchLanding",
    "BatchSource",
    "DataSyncTask",
    "DmsReplication",
    "DropFolder",
    "JdbcTable",
    "ThirdPartyReader",
    "ThirdPartyWriter",
    "landing_spec",
]
