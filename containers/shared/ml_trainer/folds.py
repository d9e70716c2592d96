"""K-fold: how far a figure of a small table can be trusted, from the training split alone."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from ml_contract.compiled import CompiledContract
from ml_runtime.job import BadInputError, say

from ml_trainer.data import Split

Positions = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Folds:
    """What the folds said: each one's metrics, and their mean and standard deviation."""

    strategy: str
    each: list[dict[str, float]]

    def as_json(self) -> dict[str, Any]:
        """Return what the model's metadata holds."""
        names = list(self.each[0])
        values = {name: [fold[name] for fold in self.each] for name in names}
        return {
            "folds": len(self.each),
            "strategy": self.strategy,
            "each": self.each,
            "mean": {name: statistics.fmean(of) for name, of in values.items()},
            "standard_deviation": {name: statistics.stdev(of) for name, of in values.items()},
        }


def fold_positions(
    split: Split, contract: CompiledContract, folds: int
) -> tuple[str, list[tuple[Positions, Positions]]]:
    """Return the name of the strategy and (rows to train on, rows held out) per fold, as the table is split.

    Rows of a group stay together; by time each fold is judged on what came after it; classes are shared out
    evenly. Raises BadInputError when there are too few rows, groups or rows of a class.
    """
    from sklearn.model_selection import (
        GroupKFold,
        KFold,
        StratifiedGroupKFold,
        StratifiedKFold,
        TimeSeriesSplit,
    )

    wanted, seed = contract.split["strategy"], contract.split["seed"]
    rows = np.arange(split.rows)
    classes = None if contract.label.values is None else split.labels.astype(np.int64)
    groups = None if contract.group is None else _groups(split, contract.group)
    if classes is not None:
        smallest = int(np.bincount(classes).min()) if wanted.startswith("stratified") else folds
        if smallest < folds:
            raise BadInputError(
                f"k_folds: the smallest class has {smallest} training rows, fewer than the {folds} folds"
            )
    if groups is not None and len(np.unique(groups)) < folds:
        raise BadInputError(
            f"k_folds: {len(np.unique(groups))} groups are fewer than the {folds} folds; rows of one stay"
            " together"
        )
    if split.rows < 2 * folds:
        raise BadInputError(f"k_folds: {split.rows} training rows are too few for {folds} folds")
    if wanted == "time":
        order = split.frame[contract.event_time].arg_sort().to_numpy().astype(np.int64)
        parts = TimeSeriesSplit(folds).split(order)
        return "time", [(order[train], order[held]) for train, held in parts]
    if groups is not None and classes is not None and wanted == "stratified_grouped":
        splitter: Any = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        return wanted, list(splitter.split(rows, classes, groups))
    if groups is not None:
        return "grouped", list(GroupKFold(folds).split(rows, groups=groups))
    if classes is not None and wanted == "stratified":
        return wanted, list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(rows, classes))
    return "shuffled", list(KFold(folds, shuffle=True, random_state=seed).split(rows))


def _groups(split: Split, name: str) -> Positions:
    """Return a number per row's group; a row without one is a group of its own."""
    texts = split.frame[name].cast(str).to_list()
    numbers: dict[object, int] = {}
    return np.array(
        [
            numbers.setdefault((row,) if text is None else text, len(numbers))
            for row, text in enumerate(texts)
        ],
        dtype=np.int64,
    )


def cross_validate(
    split: Split,
    contract: CompiledContract,
    folds: int,
    fit: Callable[[Split, Split], Mapping[str, float]],
) -> Folds:
    """Train once per fold; ``fit(train, held_out)`` returns the metrics on the rows that it did not see.

    What was fitted on the whole training split (imputed values, encodings) has seen the held-out rows too:
    the figures are a little better than the test split's.
    """
    strategy, parts = fold_positions(split, contract, folds)
    each = []
    for number, (train, held) in enumerate(parts, 1):
        metrics = {name: float(value) for name, value in fit(split.part(train), split.part(held)).items()}
        say(f"fold {number} of {folds}: {' '.join(f'{name}={value:.6f}' for name, value in metrics.items())}")
        each.append(metrics)
    return Folds(strategy, each)
