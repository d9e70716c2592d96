"""Watch what the endpoint is asked and how it answers."""

from ml_lifecycle.monitoring.dashboard import OperationsDashboard
from ml_lifecycle.monitoring.monitor import METRIC_NAMESPACE, Engine, ModelMonitor

__all__ = ["METRIC_NAMESPACE", "Engine", "ModelMonitor", "OperationsDashboard"]
