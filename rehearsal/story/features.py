"""Chapter: features as of a moment, their history, their evolution."""

from __future__ import annotations

from rehearsal.story.telling import Step

__all__ = ["STEPS"]

CHAPTER = "Feature Store"

STEPS: tuple[Step, ...] = ()
