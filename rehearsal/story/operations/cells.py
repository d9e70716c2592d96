"""A cell of operations: a function as in a story's chapter, and the ground that it stands on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from rehearsal.story import cells
from rehearsal.story.cells import Playable, Row, chosen
from rehearsal.story.telling import Evidence, Step

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["GROUNDS", "Cell", "Ground", "Row", "chosen", "step_of"]

#: What there is when a cell is played; each one after the ones before it.
Ground: TypeAlias = Literal["synthesised", "deployed", "fed", "trained", "serving"]
GROUNDS: tuple[Ground, ...] = get_args(Ground)
#: Of the evidence, what stands in the table as well: of a cell that puts a fault in the way.
FACTS = ("injected", "healed_seconds", "records_after_it")


@dataclass(frozen=True, kw_only=True)
class Cell(Playable):
    """One row of the operations play.

    ``run`` fills its evidence as it goes and fails by ``require``. ``chapter`` is its heading in the report.
    ``ground``: ``synthesised`` is the app's assembly alone, without an embedded AWS; ``deployed`` all stacks
    of the stage, no record and no model; ``fed`` records in the lake, curated; ``trained`` one version that
    waits in the registry; ``serving`` that version behind its endpoint, asked once about usual records.
    """

    run: Callable[[Tale, Evidence], None]
    chapter: str
    ground: Ground = "serving"


def step_of(cell: Cell) -> Step:
    """The step that plays a cell; its failure is its own."""
    return cells.step_of(cell, chapter=cell.chapter, play=_play, keep=_keep)


def _play(tale: Tale, cell: Cell, row: Row, evidence: Evidence) -> None:
    started = time.monotonic()
    try:
        cell.run(tale, evidence)
    finally:
        row.seconds = round(time.monotonic() - started, 1)
        row.facts = {name: evidence[name] for name in FACTS if name in evidence}


def _keep(tale: Tale, cell: Cell, row: Row) -> None:
    tale.report.cells.append(
        {
            "cell": row.cell,
            "title": row.title,
            "chapter": cell.chapter,
            "outcome": row.outcome,
            "why": row.why,
            "seconds": row.seconds,
            "capabilities": list(cell.capabilities),
            "facts": row.facts,
        }
    )
