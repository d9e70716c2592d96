"""Serve the approved model."""

from ml_lifecycle.serving.endpoint import VARIANT_NAME, ModelEndpoint

__all__ = ["VARIANT_NAME", "ModelEndpoint"]
