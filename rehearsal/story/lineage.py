"""Chapter: from a prediction back to the records that its model learned from."""

from __future__ import annotations

from rehearsal.story.telling import Step

__all__ = ["STEPS"]

CHAPTER = "Lineage"

STEPS: tuple[Step, ...] = ()
