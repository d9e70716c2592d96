"""The splits as arrays on disk, mapped into memory: processes of one machine share one copy of them."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Self

import numpy as np
from ml_runtime.model import Matrix
from ml_trainer.data import Labels, Split

_PARTS = ("matrix", "labels", "weights")


@dataclasses.dataclass(frozen=True)
class Table:
    """One split: rows of the fitted matrix, labels as numbers (a class is its position), weights."""

    matrix: Matrix
    labels: Labels
    weights: Labels

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of(cls, split: Split) -> Self:
        """Return a split that was read; rows without weights weigh 1."""
        weights = np.ones(split.rows, dtype=np.float32) if split.weights is None else split.weights
        return cls(np.ascontiguousarray(split.matrix, dtype=np.float32), split.labels, weights)

    @classmethod
    def open(cls, folder: pathlib.Path, name: str) -> Self:
        """Map what ``save`` wrote; nothing is read before it is asked for."""
        matrix, labels, weights = (np.load(folder / f"{name}-{part}.npy", mmap_mode="r") for part in _PARTS)
        return cls(matrix, labels, weights)

    def save(self, folder: pathlib.Path, name: str) -> None:
        """Write the arrays."""
        for part in _PARTS:
            np.save(folder / f"{name}-{part}.npy", getattr(self, part))
