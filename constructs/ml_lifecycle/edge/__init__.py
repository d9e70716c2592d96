"""The approved model on devices."""

from ml_lifecycle.edge.component import EdgeComponent

__all__ = ["EdgeComponent"]
