"""Train again when there is a reason to."""

from ml_lifecycle.retraining.notices import RetrainingNotices
from ml_lifecycle.retraining.retraining import Retraining

__all__ = ["Retraining", "RetrainingNotices"]
