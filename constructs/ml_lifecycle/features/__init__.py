"""Features: where they are kept for training and for serving."""

from ml_lifecycle.features.feature_group import FeatureGroup, schema_hash

__all__ = ["FeatureGroup", "schema_hash"]
