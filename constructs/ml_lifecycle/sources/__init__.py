"""Batch sources: what does not stream, on one way into the raw zone."""

from ml_lifecycle.sources.batch_source import BatchSource, DropFolder, ThirdPartyReader, ThirdPartyWriter
from ml_lifecycle.sources.landing import BATCH_EVENT, BATCH_EVENT_SOURCE, BatchLanding, landing_spec

__all__ = [
    "BATCH_EVENT",
    "BATCH_EVENT_SOURCE",
    "BatchLanding",
    "BatchSource",
    "DropFolder",
    "ThirdPartyReader",
    "ThirdPartyWriter",
    "landing_spec",
]
