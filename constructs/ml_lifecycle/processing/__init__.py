"""Processing: from raw rows to features."""

from ml_lifecycle.processing.batch import EVENT_MONTH, GLUE_VERSION, BatchTransform

__all__ = ["EVENT_MONTH", "GLUE_VERSION", "BatchTransform"]
