"""The story of a lifecycle, told against deployed stacks: one module per chapter."""

from rehearsal.story import (
    deployment,
    features,
    governance,
    ingestion,
    judging,
    labels,
    lineage,
    monitoring,
    processing,
    recovery,
    registry,
    retraining,
    rollback,
    serving,
    sources,
    streaming,
    teardown,
    texts,
    training,
    windows,
)
from rehearsal.story.tale import Tale
from rehearsal.story.telling import Evidence, Listener, Step, StoryError, tell

__all__ = ["STORY", "Evidence", "Listener", "Step", "StoryError", "Tale", "tell"]

#: Every step, in order.
STORY: tuple[Step, ...] = (
    *deployment.STEPS,
    *ingestion.STEPS,
    *streaming.STEPS,
    *sources.STEPS,
    *processing.STEPS,
    *texts.STEPS,
    *governance.STEPS,
    *recovery.RECOVERY,
    *features.STEPS,
    *windows.STEPS,
    *training.STEPS,
    *judging.STEPS,
    *serving.STEPS,
    *lineage.STEPS,
    *labels.STEPS,
    *monitoring.STEPS,
    *retraining.STEPS,
    *rollback.STEPS,
    *retraining.TOLD,
    *registry.STEPS,
    *recovery.UPKEEP,
    *teardown.STEPS,
)
