"""What nobody uses is found and stopped."""

from ml_lifecycle.cost.idle import IdleStop
from ml_lifecycle.cost.run_state import RUNNING, STOPPED, RunState

__all__ = ["RUNNING", "STOPPED", "IdleStop", "RunState"]
