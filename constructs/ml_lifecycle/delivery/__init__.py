"""Deliver the lifecycle: from a commit to every environment."""

from ml_lifecycle.delivery.pipeline import Delivered, DeliveryPipeline
from ml_lifecycle.delivery.sources import CodeCommitSource, ConnectionSource, S3Source, Source

__all__ = ["CodeCommitSource", "ConnectionSource", "Delivered", "DeliveryPipeline", "S3Source", "Source"]
