"""Train a model: a SageMaker pipeline that prepares, trains, judges and registers.

Names are resolved when they are asked for: ``service_model`` is read without importing the CDK.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_lifecycle.training.job_role import JobNetwork
    from ml_lifecycle.training.pipeline import TrainingPipeline

__all__ = ["JobNetwork", "TrainingPipeline"]


def __getattr__(name: str) -> Any:
    if name == "TrainingPipeline":
        from ml_lifecycle.training.pipeline import TrainingPipeline

        return TrainingPipeline
    if name == "JobNetwork":
        from ml_lifecycle.training.job_role import JobNetwork

        return JobNetwork
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
