"""Ingestion: how records arrive."""

from ml_lifecycle.ingestion.consumer import StreamConsumer
from ml_lifecycle.ingestion.stream import INGEST_DATE, StreamIngestion

__all__ = ["INGEST_DATE", "StreamConsumer", "StreamIngestion"]
