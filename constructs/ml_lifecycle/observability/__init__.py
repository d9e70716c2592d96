"""What an operator looks at: saved queries of one workload, a dashboard of the environment, traces."""

from ml_lifecycle.observability.platform import PlatformDashboard
from ml_lifecycle.observability.queries import QUERIES, SavedQueries
from ml_lifecycle.observability.tracing import SpanForwarder

__all__ = ["QUERIES", "PlatformDashboard", "SavedQueries", "SpanForwarder"]
