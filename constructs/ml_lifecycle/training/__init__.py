"""Train a model: a SageMaker pipeline that prepares, trains, judges and registers.

Names are resolved when they are asked for: ``service_model`` is read without importing the CDK.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_lifecycle.training.hyperpod import HyperPodCluster
    from ml_lifecycle.training.job_role import JobNetwork
    from ml_lifecycle.training.pipeline import TrainingPipeline
    from ml_lifecycle.training.tracking import TrackingServer
    from ml_lifecycle.training.workers import WorkersSecurityGroup

#: Name -> its module.
_HOMES = {
    "HyperPodCluster": "hyperpod",
    "JobNetwork": "job_role",
    "TrackingServer": "tracking",
    "TrainingPipeline": "pipeline",
    "WorkersSecurityGroup": "workers",
}
__all__ = ["HyperPodCluster", "JobNetwork", "TrackingServer", "TrainingPipeline", "WorkersSecurityGroup"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
