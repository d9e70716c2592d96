"""The matrix: every way to serve, to scale and to roll out, each deployed and played on its own.

A story of its own, because each cell deploys the serving stack anew: ``python -m rehearsal matrix``. Models
are trained once; then each cell is the same workload.yaml with another ``serving`` block.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rehearsal.story import deployment, ingestion, processing
from rehearsal.story.matrix import (
    challengers,
    promotions,
    resuming,
    rollouts,
    scaling,
    styles,
    training,
    tuning,
)
from rehearsal.story.matrix.cells import CHAPTER, Cell, chosen, step_of
from rehearsal.story.matrix.ground import (
    FIRST,
    GROUND,
    Ground,
    deploy_first,
    first_service,
    prepare,
    register_bad,
    synthesize_first,
    train_two,
)
from rehearsal.story.matrix.variants import Variants
from rehearsal.story.telling import Evidence, Step

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS", "matrix"]

#: Every cell, in the order in which they are played: those of one block one after the other.
CELLS: tuple[Cell, ...] = (
    *styles.CELLS,
    *rollouts.CELLS,
    *challengers.CELLS,
    *promotions.CELLS,
    *scaling.CELLS,
    *resuming.CELLS,
    *tuning.CELLS,
    *training.CELLS,
)


def _nothing(_: object) -> tuple[str, ...]:
    return ()


def matrix(only: str | None = None, *, context: Mapping[str, str] | None = None) -> tuple[Step, ...]:
    """The steps of the cells that ``only`` names, after those that they stand on.

    Args:
        only: ids of cells or their beginnings, separated by commas.
        context: context keys of every synthesis.

    Raises:
        ValueError: a name fits no cell.
    """
    cells = chosen(CELLS, only)

    def begin(tale: Tale, evidence: Evidence) -> None:
        folder: Path = tale.out / "matrix"
        tale.known[GROUND] = Ground(
            variants=Variants(tale.app, tale.loaded.path.parent, folder, context=context),
            plan=(FIRST, *(cell.block for cell in cells)),
        )
        synthesize_first(tale, evidence)

    def step(step_id: str, title: str, run: object) -> Step:
        return Step(id=step_id, title=title, chapter=CHAPTER, run=run, capabilities=_nothing)  # type: ignore[arg-type]

    others = {s.id: s for s in (*deployment.STEPS, *ingestion.STEPS, *processing.STEPS)}
    return (
        step("synth", "Synthesise the app with the first block", begin),
        others["bootstrap"],
        step("deploy", "Deploy all that serving stands on; no model yet", deploy_first),
        others["send"],
        others["deliver"],
        others["curate"],
        step("train", "Two versions are trained and registered", train_two),
        step("spoil", "Two versions that pass for good ones are registered", register_bad),
        step("serve", "The first version comes into service", first_service),
        *(step_of(cell, prepare) for cell in cells),
    )
