"""The chaos play: what a deployed lifecycle does when the world around it fails, and that it mends itself.

``python -m rehearsal chaos``. All stacks are deployed once, a model is trained and served; then each cell
puts one fault in the way and looks at what is left of it (``loop.unharmed``). Each module of this package
with ``CELLS`` is an area, found by being there; ``WORKLOAD`` and ``ORDER`` are as in the operations play.
"""

from __future__ import annotations

from rehearsal.story.operations import areas_of, play
from rehearsal.story.operations.cells import Cell
from rehearsal.story.operations.ground import STAGE
from rehearsal.story.telling import Step

__all__ = ["CELLS", "STAGE", "chaos"]

_AREAS = areas_of(__name__, __path__)
#: Every cell, in the order in which they are played.
CELLS: tuple[Cell, ...] = tuple(cell for area in _AREAS for cell in area.CELLS)


def chaos(only: str | None = None) -> tuple[Step, ...]:
    """The steps of the cells that ``only`` names, after those that they stand on.

    Args:
        only: ids of cells or their beginnings, separated by commas.

    Raises:
        ValueError: a name fits no cell.
    """
    return play(_AREAS, CELLS, only)
