"""Chapter: who may read which columns and rows, what is recoverable, what is personal."""

from __future__ import annotations

from rehearsal.story.telling import Step

__all__ = ["STEPS"]

CHAPTER = "Govern"

STEPS: tuple[Step, ...] = ()
