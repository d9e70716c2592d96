"""A cell of the matrix: one ``serving`` block, played on the deployed stacks, and the row that it leaves.

A cell fills its ``Row`` as it goes, so that one that fails has shown how far it came.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rehearsal.story import cells
from rehearsal.story.cells import Playable, Row, chosen
from rehearsal.story.telling import Evidence, Step

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["Block", "Cell", "Row", "chosen", "step_of"]

CHAPTER = "Matrix"

#: A ``serving`` block, as it stands in a workload.yaml.
Block = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Cell(Playable):
    """One combination: ``block`` is what is deployed before it is played."""

    block: Block
    play: Callable[[Tale, Row], None]


def step_of(cell: Cell, prepare: Callable[[Tale, Cell], None]) -> Step:
    """The step that plays a cell; its failure is its own.

    ``prepare`` brings the stacks to what the cell needs.
    """
    return cells.step_of(cell, chapter=CHAPTER, play=partial(_play, prepare), keep=_keep)


def _play(
    prepare: Callable[[Tale, Cell], None], tale: Tale, cell: Cell, row: Row, evidence: Evidence
) -> None:
    started = time.monotonic()
    try:
        prepare(tale, cell)
        evidence["prepared_after_seconds"] = round(time.monotonic() - started, 1)
        cell.play(tale, row)
    finally:
        evidence |= {"requests": row.requests, "failed": row.failed, "seconds": row.seconds, **row.facts}


def _keep(tale: Tale, _: Cell, row: Row) -> None:
    tale.report.matrix.append(vars(row))
