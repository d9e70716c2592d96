"""The operations play: what watches, retrains, delivers, secures and pays for a deployed lifecycle.

``python -m rehearsal operations``. All stacks are deployed once, a model is trained and served; then each
cell is played on them, in order. Each module of this package with ``CELLS`` is an area, found by being there.
Its ``WORKLOAD`` says which blocks of the workload its cells need switched on, its ``ORDER`` (50) where in the
play it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from rehearsal.story.operations.cells import GROUNDS, Cell, chosen, step_of
from rehearsal.story.operations.ground import STAGE, steps_to
from rehearsal.story.telling import Step

__all__ = ["CELLS", "STAGE", "areas_of", "operations", "play"]


def areas_of(package: str, path: Iterable[str]) -> tuple[ModuleType, ...]:
    """The modules of a package that have cells, in the order of their ``ORDER``."""
    found = [import_module(f"{package}.{info.name}") for info in iter_modules(path)]
    return tuple(sorted((m for m in found if hasattr(m, "CELLS")), key=lambda m: (_order(m), m.__name__)))


def _order(area: ModuleType) -> int:
    """Its place in the play: areas whose cells change much (a rollback, a tear-down) come late."""
    order: int = getattr(area, "ORDER", 50)
    return order


_AREAS = areas_of(__name__, __path__)
#: Every cell, in the order in which they are played.
CELLS: tuple[Cell, ...] = tuple(cell for area in _AREAS for cell in area.CELLS)


def play(areas: Sequence[ModuleType], cells: Sequence[Cell], only: str | None) -> tuple[Step, ...]:
    """The steps of the cells that ``only`` names, after those that bring the ground that they stand on.

    Raises:
        ValueError: a name fits no cell.
    """
    wanted = chosen(cells, only)
    ground = max((cell.ground for cell in wanted), key=GROUNDS.index)
    changes: list[Mapping[str, Any]] = [
        area.WORKLOAD
        for area in areas
        if hasattr(area, "WORKLOAD") and any(cell in wanted for cell in area.CELLS)
    ]
    return (*steps_to(ground, changes), *(step_of(cell) for cell in wanted))


def operations(only: str | None = None) -> tuple[Step, ...]:
    """The steps of the cells that ``only`` names, after those that they stand on.

    Args:
        only: ids of cells or their beginnings, separated by commas.

    Raises:
        ValueError: a name fits no cell.
    """
    return play(_AREAS, CELLS, only)
