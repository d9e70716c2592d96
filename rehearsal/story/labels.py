"""Chapter: people label what nobody knows yet."""

from __future__ import annotations

from rehearsal.story.telling import Step

__all__ = ["STEPS"]

CHAPTER = "Label"

STEPS: tuple[Step, ...] = ()
