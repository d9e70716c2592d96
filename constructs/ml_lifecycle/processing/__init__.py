"""Processing: from raw rows to features."""

from ml_lifecycle.processing.batch import GLUE_VERSION, BatchTransform
from ml_lifecycle.processing.databrew import DataBrewProfile
from ml_lifecycle.processing.emr import EMR_RELEASE, EmrServerlessTransform
from ml_lifecycle.processing.gpu_batch import GpuBatchQueue
from ml_lifecycle.processing.point_in_time import PointInTime
from ml_lifecycle.processing.single_node import SingleNodeTransform
from ml_lifecycle.processing.streaming import StreamingTransform
from ml_lifecycle.processing.text_enrichment import TextEnrichment
from ml_lifecycle.processing.workflow import BatchWorkflow
from ml_lifecycle.processing.zones import EVENT_MONTH, BatchTables, Transform

__all__ = [
    "EMR_RELEASE",
    "EVENT_MONTH",
    "GLUE_VERSION",
    "BatchTables",
    "BatchTransform",
    "BatchWorkflow",
    "DataBrewProfile",
    "EmrServerlessTransform",
    "GpuBatchQueue",
    "PointInTime",
    "SingleNodeTransform",
    "StreamingTransform",
    "TextEnrichment",
    "Transform",
]
