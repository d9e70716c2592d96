"""The story of a lifecycle, told against deployed stacks: one module per chapter."""

from rehearsal.story import (
    deployment,
    ingestion,
    monitoring,
    processing,
    retraining,
    rollback,
    serving,
    teardown,
    training,
)
from rehearsal.story.tale import Tale
from rehearsal.story.telling import Evidence, Listener, Step, StoryError, tell

__all__ = ["STORY", "Evidence", "Listener", "Step", "StoryError", "Tale", "tell"]

#: Every step, in order.
STORY: tuple[Step, ...] = (
    *deployment.STEPS,
    *ingestion.STEPS,
    *processing.STEPS,
    *training.STEPS,
    *serving.STEPS,
    *monitoring.STEPS,
    *retraining.STEPS,
    *rollback.STEPS,
    *teardown.STEPS,
)
