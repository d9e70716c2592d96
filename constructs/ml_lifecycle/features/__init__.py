"""Features: where they are kept for training and for serving."""

from ml_contract.evolution.feature_lock import GroupVersion, schema_hash

from ml_lifecycle.features.feature_group import FeatureGroup, Throughput

__all__ = ["FeatureGroup", "GroupVersion", "Throughput", "schema_hash"]
