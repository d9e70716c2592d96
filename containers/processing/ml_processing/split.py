"""Cuts the labelled rows into train, validation and test, the same way for the same rows and seed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from ml_contract.compiled import CompiledContract, LabelSpec
from ml_runtime.job import BadInputError
from sklearn.model_selection import train_test_split

SPLITS = ("train", "validation", "test")
#: Fewer labelled rows than this make no model that could be judged.
MINIMUM_ROWS = 30
#: Groups by which a number is stratified.
LABEL_GROUPS = 10

Positions = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class SplitSpec:
    """Weights of the three parts, and how rows get into them."""

    train: float
    validation: float
    test: float
    strategy: Literal["stratified", "shuffled", "time"]
    seed: int


def _groups(labels: pl.Series, label: LabelSpec) -> Positions:
    """Return the group of each row that every part must have its share of.

    Its class, or the tenth of its number.
    """
    if label.values is not None:
        order = {value: position for position, value in enumerate(label.values)}
        return np.array([order[value] for value in labels], dtype=np.int64)
    numbers = labels.to_numpy()
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, LABEL_GROUPS + 1)[1:-1]))
    groups = np.searchsorted(edges, numbers, side="right")
    # A group too small to be shared out joins its neighbour: numbers, unlike classes, are next to each other.
    sizes = np.bincount(groups)
    if (sizes[sizes > 0] < len(SPLITS)).any():
        return np.zeros(len(numbers), dtype=np.int64)
    return groups.astype(np.int64)


def _positions(frame: pl.DataFrame, label: LabelSpec, spec: SplitSpec) -> dict[str, Positions]:
    rows = np.arange(frame.height)
    held_out = spec.validation + spec.test
    if spec.strategy == "time":
        first, second = round(frame.height * spec.train), round(frame.height * (spec.train + spec.validation))
        return {"train": rows[:first], "validation": rows[first:second], "test": rows[second:]}
    groups = _groups(frame[label.field], label) if spec.strategy == "stratified" else None
    train, rest = train_test_split(
        rows, test_size=held_out, random_state=spec.seed, stratify=groups, shuffle=True
    )
    validation, test = train_test_split(
        rest,
        test_size=spec.test / held_out,
        random_state=spec.seed,
        stratify=None if groups is None else groups[rest],
        shuffle=True,
    )
    return {"train": train, "validation": validation, "test": test}


def _check_rows(frame: pl.DataFrame, label: LabelSpec, spec: SplitSpec) -> None:
    if frame.height < MINIMUM_ROWS:
        raise BadInputError(
            f"{frame.height} labelled rows are too few to train, validate and test on;"
            f" at least {MINIMUM_ROWS} are needed"
        )
    if label.values is None:
        if frame[label.field].n_unique() == 1:
            raise BadInputError(
                f"every row has the label {frame[label.field][0]:g}; there is nothing to learn"
            )
        return
    counts = Counter(frame[label.field])
    counted = ", ".join(f"{value} {counts[value]}" for value in label.values)
    if sum(counts[value] > 0 for value in label.values) == 1:
        raise BadInputError(f"all labelled rows are of one class ({counted}); there is nothing to tell apart")
    few = [value for value in label.values if counts[value] < len(SPLITS)]
    if few:
        raise BadInputError(
            f"a class needs at least {len(SPLITS)} rows, one for each part;"
            f" too few of {', '.join(few)} (rows: {counted})"
        )
    if spec.strategy == "stratified":
        # Every part needs room for every class.
        smallest = min(spec.train, spec.validation, spec.test)
        if int(frame.height * smallest) < len(label.values):
            raise BadInputError(
                f"{frame.height} rows give the smallest part {int(frame.height * smallest)}, fewer than the"
                f" {len(label.values)} classes; bring more rows or a larger part"
            )


def _check_parts(parts: dict[str, pl.DataFrame], label: LabelSpec, spec: SplitSpec) -> None:
    for name, part in parts.items():
        if not part.height:
            raise BadInputError(
                f"the {name} part is empty; bring more rows or give it a larger share of the split"
            )
        # Two classes must be there to be judged at all; of many, the training part must show each.
        if label.values is not None and (name == "train" or label.task == "binary"):
            absent = sorted(set(label.values) - set(part[label.field]))
            if absent:
                raise BadInputError(
                    f"the {name} part ({part.height} rows) has no row of class {', '.join(absent)};"
                    f" bring more rows, or another split than {spec.strategy}"
                )


def split_rows(frame: pl.DataFrame, contract: CompiledContract) -> dict[str, pl.DataFrame]:
    """Return the three parts of a table whose rows all have a known label.

    Rows are put in order first, so the files that they came in, and their order, do not matter. ``time``
    gives the oldest rows to train and the newest to test; ``stratified`` gives each part its share of every
    class, or of every tenth of a number.
    """
    given = contract.split
    spec = SplitSpec(given["train"], given["validation"], given["test"], given["strategy"], given["seed"])
    _check_rows(frame, contract.label, spec)
    names = [contract.event_time, contract.identifier]
    ordered = frame.sort([*names, *(c for c in frame.columns if c not in names)], nulls_last=True)
    parts = {
        name: ordered[positions] for name, positions in _positions(ordered, contract.label, spec).items()
    }
    _check_parts(parts, contract.label, spec)
    return parts
