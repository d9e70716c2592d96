"""Serve the approved model: a construct a style, and ``served``, which picks it."""

from ml_lifecycle.serving.asynchronous import AsynchronousEndpoint
from ml_lifecycle.serving.base import VARIANT_NAME, SageMakerEndpoint
from ml_lifecycle.serving.batch import BatchTransform
from ml_lifecycle.serving.components import InferenceComponents
from ml_lifecycle.serving.endpoint import CHALLENGER_NAME, ModelEndpoint
from ml_lifecycle.serving.factory import Served, served
from ml_lifecycle.serving.function import LambdaTarget
from ml_lifecycle.serving.metrics import Watch, traffic_widgets
from ml_lifecycle.serving.multi_model import MultiModelEndpoint
from ml_lifecycle.serving.recommender import InstanceRecommender
from ml_lifecycle.serving.serverless import ServerlessEndpoint
from ml_lifecycle.serving.service import EcsService
from ml_lifecycle.serving.shelf import ModelShelf

__all__ = [
    "CHALLENGER_NAME",
    "VARIANT_NAME",
    "AsynchronousEndpoint",
    "BatchTransform",
    "EcsService",
    "InferenceComponents",
    "InstanceRecommender",
    "LambdaTarget",
    "ModelEndpoint",
    "ModelShelf",
    "MultiModelEndpoint",
    "SageMakerEndpoint",
    "Served",
    "ServerlessEndpoint",
    "Watch",
    "served",
    "traffic_widgets",
]
