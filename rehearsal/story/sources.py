"""Chapter: what does not stream arrives in batches: one landing, one quarantine, one audit record."""

from __future__ import annotations

from rehearsal.story.telling import Step

__all__ = ["STEPS"]

CHAPTER = "Batch sources"

STEPS: tuple[Step, ...] = ()
