"""Serve the approved model."""

from ml_lifecycle.serving.base import VARIANT_NAME
from ml_lifecycle.serving.endpoint import CHALLENGER_NAME, ModelEndpoint

__all__ = ["CHALLENGER_NAME", "VARIANT_NAME", "ModelEndpoint"]
