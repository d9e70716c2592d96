"""A cell: one thing that is played on deployed stacks by itself, and the row of the report that it leaves.

What a play of its own adds to a cell (a ``serving`` block, the ground it needs) stands in a subclass. A cell
that fails does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rehearsal.story.telling import Evidence, Step, StoryError, require_no_new_failure

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["Playable", "Row", "chosen", "step_of"]

#: Of a reason in the table; the step has all of it.
MOST_TEXT = 400


@dataclass(kw_only=True)
class Row:
    """What came of a cell; a row of the report's table."""

    cell: str
    title: str
    outcome: str = "passed"
    why: str | None = None
    requests: int = 0
    failed: int = 0
    #: Of the thing that the cell measures (from an approval to the last old instance gone, say), not of the
    #: cell.
    seconds: float = 0.0
    #: What else was seen, by name.
    facts: dict[str, Any] = field(default_factory=dict)
    #: Answers per second: at, old, new, failed, and plan, the share that the rollout had given the new model.
    series: list[dict[str, float | None]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Playable:
    """What every cell is.

    ``id`` is dotted, from the general to the special: ``rollout.canary.good``. ``capabilities`` are rows of
    docs/capabilities.yaml. ``why_recorded``: only an account runs it, and why.
    """

    id: str
    title: str
    capabilities: Sequence[str] = ()
    why_recorded: str | None = None


Played = TypeVar("Played", bound=Playable)


def chosen(cells: Sequence[Played], only: str | None) -> tuple[Played, ...]:
    """The cells that ``only`` names: ids or their beginnings, separated by commas; all without it.

    Raises:
        ValueError: a name fits no cell.
    """
    if only is None:
        return tuple(cells)
    names = [name.strip() for name in only.split(",") if name.strip()]
    unknown = [name for name in names if not any(_fits(cell, name) for cell in cells)]
    if unknown or not names:
        raise ValueError(
            f"there is no cell {', '.join(map(repr, unknown)) or 'named'}; "
            f"there are: {', '.join(cell.id for cell in cells)}"
        )
    return tuple(cell for cell in cells if any(_fits(cell, name) for name in names))


def _fits(cell: Playable, name: str) -> bool:
    return cell.id == name or cell.id.startswith(f"{name}.")


def step_of(
    cell: Played,
    *,
    chapter: str,
    play: Callable[[Tale, Played, Row, Evidence], None],
    keep: Callable[[Tale, Played, Row], None],
) -> Step:
    """The step that plays a cell; its failure is its own.

    ``play`` does it, and brings the stacks to what the cell needs before; ``keep`` enters the row into the
    report, whatever came of the cell.
    """
    return Step(
        id=cell.id.replace(".", "-").replace("_", "-"),
        title=cell.title,
        chapter=chapter,
        run=partial(_play, cell, play, keep),
        capabilities=lambda _: tuple(cell.capabilities),
        recorded=cell.why_recorded is not None,
        alone=True,
    )


def _play(
    cell: Played,
    play: Callable[[Tale, Played, Row, Evidence], None],
    keep: Callable[[Tale, Played, Row], None],
    tale: Tale,
    evidence: Evidence,
) -> None:
    # Until it has been played to its end: a cell that somebody interrupts has not passed.
    row = Row(cell=cell.id, title=cell.title, outcome="failed", why="stopped before its end")
    try:
        play(tale, cell, row, evidence)
        require_no_new_failure(tale)
        row.outcome = "passed" if cell.why_recorded is None else "recorded"
        row.why = cell.why_recorded
    except StoryError as error:
        row.outcome, row.why = "failed", str(error)[:MOST_TEXT]
        raise
    except Exception as error:
        row.outcome = "failed"
        row.why = f"{type(error).__name__}: {' '.join(str(error).split())}"[:MOST_TEXT]
        raise
    finally:
        keep(tale, cell, row)
