"""Cells of retraining: what starts a training, what keeps it from starting, and who is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rehearsal.story.operations.cells import Cell
from rehearsal.story.telling import Evidence, require
from rehearsal.story.training import executions, invoke_trigger

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS"]

CHAPTER = "Retraining"


def _cooldown(tale: Tale, evidence: Evidence) -> None:
    """Asked again at once, the function says why not."""
    before = len(executions(tale))
    evidence["answer"] = invoke_trigger(tale, {"reason": "asked again too early"})
    require(not evidence["answer"]["started"], "a trigger within the cooldown started a training")
    require(len(executions(tale)) == before, "there is another execution")


CELLS = (
    Cell(
        id="retrain.guard.cooldown",
        title="Asked again within the cool-down: no training, and the reason",
        chapter=CHAPTER,
        run=_cooldown,
        ground="trained",
        capabilities=("retrain.guard",),
    ),
)
