"""Watch what the endpoint is asked and how it answers."""

from ml_lifecycle.monitoring.dashboard import OperationsDashboard
from ml_lifecycle.monitoring.ground_truth import GroundTruth
from ml_lifecycle.monitoring.job import METRIC_NAMESPACE
from ml_lifecycle.monitoring.kinds import KINDS, Engine, Kind
from ml_lifecycle.monitoring.model_dashboard import ModelDashboard, ShownModel
from ml_lifecycle.monitoring.monitor import ModelMonitor

__all__ = [
    "KINDS",
    "METRIC_NAMESPACE",
    "Engine",
    "GroundTruth",
    "Kind",
    "ModelDashboard",
    "ModelMonitor",
    "OperationsDashboard",
    "ShownModel",
]
