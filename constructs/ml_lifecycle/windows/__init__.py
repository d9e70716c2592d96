"""Features over time, kept current as records arrive."""

from ml_lifecycle.windows.windowed_features import WindowedFeatures

__all__ = ["WindowedFeatures"]
