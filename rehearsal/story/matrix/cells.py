"""A cell of the matrix: one ``serving`` block, played on the deployed stacks, and the row that it leaves.

A cell fills its ``Row`` as it goes, so that one that fails has shown how far it came.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from rehearsal.story.telling import Evidence, Step, StoryError, require_no_new_failure

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["Block", "Cell", "Row", "chosen", "step_of"]

CHAPTER = "Matrix"

#: Of a reason in the table; the step has all of it.
MOST_TEXT = 400

#: A ``serving`` block, as it stands in a workload.yaml.
Block = Mapping[str, Any]


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
class Cell:
    """One combination.

    ``id`` is dotted, from the general to the special: ``rollout.canary.good``. ``block`` is what is deployed
    before it is played. ``capabilities`` are rows of docs/capabilities.yaml. ``why_recorded``: only an
    account runs it, and why.
    """

    id: str
    title: str
    block: Block
    play: Callable[[Tale, Row], None]
    capabilities: Sequence[str] = ()
    why_recorded: str | None = None


def chosen(cells: Sequence[Cell], only: str | None) -> tuple[Cell, ...]:
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


def _fits(cell: Cell, name: str) -> bool:
    return cell.id == name or cell.id.startswith(f"{name}.")


def step_of(cell: Cell, prepare: Callable[[Tale, Cell], None]) -> Step:
    """The step that plays a cell; its failure is its own.

    ``prepare`` brings the stacks to what the cell needs.
    """
    return Step(
        id=cell.id.replace(".", "-").replace("_", "-"),
        title=cell.title,
        chapter=CHAPTER,
        run=partial(_play, cell, prepare),
        capabilities=lambda _: tuple(cell.capabilities),
        recorded=cell.why_recorded is not None,
        alone=True,
    )


def _play(cell: Cell, prepare: Callable[[Tale, Cell], None], tale: Tale, evidence: Evidence) -> None:
    # Until it has been played to its end: a cell that somebody interrupts has not passed.
    row = Row(cell=cell.id, title=cell.title, outcome="failed", why="stopped before its end")
    started = time.monotonic()
    try:
        prepare(tale, cell)
        evidence["prepared_after_seconds"] = round(time.monotonic() - started, 1)
        cell.play(tale, row)
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
        evidence |= {"requests": row.requests, "failed": row.failed, "seconds": row.seconds, **row.facts}
        tale.report.matrix.append(vars(row))
