"""Cuts the labelled rows into train, validation and test, the same way for the same rows and seed."""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from ml_contract.compiled import CompiledContract, LabelSpec
from ml_runtime.job import BadInputError
from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold, train_test_split

SPLITS = ("train", "validation", "test")
#: Fewer labelled rows than this make no model that could be judged.
MINIMUM_ROWS = 30
#: Groups by which a number is stratified.
LABEL_GROUPS = 10
#: Folds of whole groups that are shared out: parts come within a twentieth of their weights.
GROUP_FOLDS = 20

Positions = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class SplitSpec:
    """Weights of the three parts, and how rows get into them."""

    train: float
    validation: float
    test: float
    strategy: Literal["stratified", "shuffled", "time", "grouped", "stratified_grouped"]
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


def _same(frame: pl.DataFrame, group: str) -> Positions:
    """Return the number of each row's group; a row without one is a group of its own."""
    numbers = frame[group].cast(pl.String).rank("dense").cast(pl.Int64).to_numpy(writable=True)
    unknown = frame[group].is_null().to_numpy()
    numbers = np.where(unknown, 0, np.nan_to_num(numbers, nan=0.0)).astype(np.int64)
    numbers[unknown] = numbers.max(initial=0) + 1 + np.arange(int(unknown.sum()))
    return numbers


def _grouped(rows: Positions, same: Positions, spec: SplitSpec) -> dict[str, Positions]:
    """Share out whole groups, drawn by the seed."""
    held_out = spec.validation + spec.test
    try:
        first = GroupShuffleSplit(1, test_size=held_out, random_state=spec.seed)
        train, rest = next(first.split(rows, groups=same))
        second = GroupShuffleSplit(1, test_size=spec.test / held_out, random_state=spec.seed)
        validation, test = next(second.split(rest, groups=same[rest]))
    except ValueError:
        raise BadInputError(_few_groups(same)) from None
    return {"train": train, "validation": rest[validation], "test": rest[test]}


def _stratified_grouped(
    rows: Positions, same: Positions, classes: Positions, spec: SplitSpec
) -> dict[str, Positions]:
    """Share out whole groups so that the parts' classes are as alike as the groups allow."""
    folds = min(GROUP_FOLDS, len(np.unique(same)), int(np.bincount(classes).max()))
    if folds < len(SPLITS):
        raise BadInputError(_few_groups(same))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=spec.seed)
    with warnings.catch_warnings():
        # A class of fewer rows than folds is absent from some folds; parts that lack one are found below.
        warnings.simplefilter("ignore", UserWarning)
        pieces = [piece for _, piece in splitter.split(rows, classes, same)]
    # Each fold goes to the part that lacks most of its share.
    wanted = {"train": spec.train, "validation": spec.validation, "test": spec.test}
    taken: dict[str, list[Positions]] = {name: [] for name in SPLITS}
    for piece in sorted(pieces, key=len, reverse=True):
        shares = {name: sum(map(len, taken[name])) / len(rows) for name in SPLITS}
        taken[max(SPLITS, key=lambda name: wanted[name] - shares[name])].append(piece)
    if not all(taken.values()):
        raise BadInputError(_few_groups(same))
    return {name: np.sort(np.concatenate(pieces)) for name, pieces in taken.items()}


def _few_groups(same: Positions) -> str:
    return (
        f"{len(np.unique(same))} groups cannot be shared out to {len(SPLITS)} parts;"
        " bring rows of more groups or split by another field"
    )


def _positions(
    frame: pl.DataFrame, label: LabelSpec, spec: SplitSpec, group: str | None
) -> dict[str, Positions]:
    rows = np.arange(frame.height)
    held_out = spec.validation + spec.test
    if spec.strategy == "time":
        first, second = round(frame.height * spec.train), round(frame.height * (spec.train + spec.validation))
        return {"train": rows[:first], "validation": rows[first:second], "test": rows[second:]}
    if group is not None:
        same = _same(frame, group)
        if spec.strategy == "grouped":
            return _grouped(rows, same, spec)
        return _stratified_grouped(rows, same, _groups(frame[label.field], label), spec)
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
    class, or of every tenth of a number; ``grouped`` and ``stratified_grouped`` never part rows of a group.
    """
    given = contract.split
    spec = SplitSpec(given["train"], given["validation"], given["test"], given["strategy"], given["seed"])
    _check_rows(frame, contract.label, spec)
    names = [contract.event_time, contract.identifier]
    ordered = frame.sort([*names, *(c for c in frame.columns if c not in names)], nulls_last=True)
    parts = {
        name: ordered[positions]
        for name, positions in _positions(ordered, contract.label, spec, contract.group).items()
    }
    _check_parts(parts, contract.label, spec)
    return parts
