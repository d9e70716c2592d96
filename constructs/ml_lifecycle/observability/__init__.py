"""What an operator looks at: saved queries of one workload, a dashboard of the whole environment."""

from ml_lifecycle.observability.platform import PlatformDashboard
from ml_lifecycle.observability.queries import QUERIES, SavedQueries

__all__ = ["QUERIES", "PlatformDashboard", "SavedQueries"]
