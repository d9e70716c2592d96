"""Chapter: the stream's own consumer writes features as records arrive, under faults."""

from __future__ import annotations

from rehearsal.story.telling import Step

__all__ = ["STEPS"]

CHAPTER = "Consume the stream"

STEPS: tuple[Step, ...] = ()
