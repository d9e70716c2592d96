"""Where people work: a SageMaker Studio domain."""

from ml_lifecycle.studio.domain import StudioDomain

__all__ = ["StudioDomain"]
