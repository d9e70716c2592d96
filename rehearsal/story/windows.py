"""Chapter: features over time, in batches and as records arrive."""

from __future__ import annotations

from rehearsal.story.telling import Step

__all__ = ["STEPS"]

CHAPTER = "Windows"

STEPS: tuple[Step, ...] = ()
