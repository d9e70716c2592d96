"""Deliver the lifecycle: from a commit to every environment."""

from ml_lifecycle.delivery.access import DeliveryAccess, access_role_name, checks_role_name
from ml_lifecycle.delivery.pipeline import DeliveryPipeline
from ml_lifecycle.delivery.sources import CodeCommitSource, ConnectionSource, S3Source, Source
from ml_lifecycle.delivery.waves import Delivered, Wave

__all__ = [
    "CodeCommitSource",
    "ConnectionSource",
    "Delivered",
    "DeliveryAccess",
    "DeliveryPipeline",
    "S3Source",
    "Source",
    "Wave",
    "access_role_name",
    "checks_role_name",
]
