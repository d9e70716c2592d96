"""The new model beside the approved one: on the same held-out rows, and on the approved one's own."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from ml_contract.compiled import CompiledContract
from ml_judging.measures import measures_of
from ml_judging.resampling import Bootstrap, difference, strata_of
from ml_runtime.archive import unpack
from ml_runtime.model import Model
from ml_runtime.tables import read_table

from ml_processing.judging.rows import keys_of, labels_of, seen

__all__ = ["Contender", "Duel", "incomparable", "read_champion"]

#: Fewer rows that neither model learned from say too little; then all rows are taken, and the report says so.
MINIMUM_ROWS: Final = 30


@dataclass(frozen=True)
class Contender:
    """A model and the score from which it decides positive."""

    model: Model
    threshold: float


def read_champion(folder: pathlib.Path, scratch: pathlib.Path) -> Model | None:
    """The approved model below an input folder; None where there is no ``model.tar.gz``."""
    found = sorted(folder.rglob("*.tar.gz")) if folder.is_dir() else []
    if not found:
        return None
    scratch.mkdir(parents=True, exist_ok=True)
    unpack(found[-1], scratch)
    return Model.load(scratch)


def incomparable(old: CompiledContract, new: CompiledContract) -> str | None:
    """Why rows of the contract ``new`` cannot be scored by a model of ``old``; None when they can."""
    if (old.label.task, old.label.field, old.label.values) != (
        new.label.task,
        new.label.field,
        new.label.values,
    ):
        return "the approved model predicts another label"
    there = {f.name: (f.type, f.expression.to_json()) for f in new.features}
    gone = [f.name for f in old.features if there.get(f.name) != (f.type, f.expression.to_json())]
    if gone:
        return f"features of the approved model are gone or made otherwise: {', '.join(gone[:5])}"
    return None


@dataclass(frozen=True)
class Duel:
    """Two models, the metric that they are compared by, and how rows are drawn anew."""

    new: Contender
    old: Contender
    metric: str
    how: Bootstrap

    def on_held_out(self, frame: pl.DataFrame, of_old: pathlib.Path) -> dict[str, Any]:
        """Both on the new model's held-out rows, those that the approved one did not learn from.

        ``of_old`` is the folder of the approved model's held-out rows, which says what it learned from.
        """
        why = self._incomparable()
        return self._on(frame, seen(of_old)) if why is None else {"compared": False, "why": why}

    def on_old_data(self, of_old: pathlib.Path, learned: frozenset[str]) -> dict[str, Any]:
        """Both on the approved model's own held-out rows, those that the new one did not learn from."""
        why = self._incomparable()
        if why is not None:
            return {"compared": False, "why": why}
        if not of_old.is_dir():
            return {"compared": False, "why": "its held-out rows are not there"}
        frame, skipped = read_table(of_old, self.new.model.contract.training_columns())
        if skipped:
            return {"compared": False, "why": f"its held-out rows cannot be read: {skipped[0].reason}"}
        if not frame.height:
            return {"compared": False, "why": "its held-out rows are not there"}
        return self._on(frame, learned)

    def _incomparable(self) -> str | None:
        return incomparable(self.old.model.contract, self.new.model.contract)

    def _on(self, frame: pl.DataFrame, learned: frozenset[str]) -> dict[str, Any]:
        contract = self.new.model.contract
        rows, unseen = _unseen(frame, learned, contract)
        labels = labels_of(rows, contract)
        ours, theirs = (
            measures_of(
                contract.label.task,
                labels,
                one.model.scores(one.model.fitted.matrix(rows)),
                threshold=one.threshold,
                columns=len(one.model.fitted.output_names),
            )
            for one in (self.new, self.old)
        )
        if (
            len(np.unique(labels)) < 2
            or self.metric not in ours.values()
            or self.metric not in theirs.values()
        ):
            return {"compared": False, "why": f"{rows.height} rows give no {self.metric}"}
        strata = strata_of(contract.label.task, labels)
        return {"compared": True, "unseen_only": unseen} | difference(
            ours, theirs, self.metric, strata, self.how
        )


def _unseen(
    frame: pl.DataFrame, learned: frozenset[str], contract: CompiledContract
) -> tuple[pl.DataFrame, bool]:
    """Rows that a model did not learn from, where there are enough of them; whether they are."""
    if not learned:
        return frame, False
    rows = frame.filter(~keys_of(frame, contract).is_in(list(learned)))
    values = contract.label.values
    classes = 0 if values is None else rows[contract.label.field].n_unique()
    if rows.height < MINIMUM_ROWS or (values is not None and classes < len(values)):
        return frame, False
    return rows, True
