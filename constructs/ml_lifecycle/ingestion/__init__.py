"""Ingestion: how records arrive."""

from ml_lifecycle.ingestion.consumer import StreamConsumer
from ml_lifecycle.ingestion.kafka import KafkaSource
from ml_lifecycle.ingestion.stream import INGEST_DATE, StreamIngestion
from ml_lifecycle.ingestion.video import VideoSource

__all__ = ["INGEST_DATE", "KafkaSource", "StreamConsumer", "StreamIngestion", "VideoSource"]
