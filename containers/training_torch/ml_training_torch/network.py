"""The network: a residual multilayer perceptron that takes gaps and any scale as they come."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from ml_contract.algorithms.values import Task
from ml_runtime.model import Matrix
from torch import nn

#: A standardised value beyond this says no more than this: what a network has never seen would else decide
#: by its size alone, up to infinity.
LIMIT = 8.0
#: Rows, evenly spread, that scales are taken from at most.
SCALE_ROWS = 50_000


@dataclasses.dataclass(frozen=True)
class Scales:
    """What stands for an ordinary value and for its spread, per column."""

    center: torch.Tensor
    width: torch.Tensor


def scales_of(matrix: Matrix) -> Scales:
    """Return mean and standard deviation of each column, without the outermost 1 % on either side.

    Gaps are left out. A column of one value has a width of 1.
    """
    rows = np.asarray(matrix[:: max(1, len(matrix) // SCALE_ROWS)], dtype=np.float64)
    known = np.where(np.isfinite(rows), rows, np.nan)
    empty = np.isnan(known).all(axis=0)
    known[:, empty] = 0
    low, high = np.nanpercentile(known, (1, 99), axis=0)
    # A column that is 0 in 99 of 100 rows would lose the one that tells something.
    narrow = high <= low
    low, high = (
        np.where(narrow, np.nanmin(known, axis=0), low),
        np.where(narrow, np.nanmax(known, axis=0), high),
    )
    kept = np.clip(known, low, high)
    center, width = np.nanmean(kept, axis=0), np.nanstd(kept, axis=0)
    # What is as narrow as the rounding of 32 bits has no width.
    flat = width <= 1e-6 * np.maximum(1e-30, np.abs(center))
    width[flat] = 1
    return Scales(torch.from_numpy(center.astype(np.float32)), torch.from_numpy(width.astype(np.float32)))


class Block(nn.Module):  # type: ignore[misc]
    """A step that adds to what it gets."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, 2 * width)
        self.outer = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [rows, width]."""
        added: torch.Tensor = self.outer(self.dropout(torch.relu(self.inner(self.norm(x)))))
        return x + added


class TabularNet(nn.Module):  # type: ignore[misc]
    """Logits, one per class (one for a binary label), or the standardised number.

    A row is standardised, gaps are the ordinary value and a column of their own that says so.

    Args:
        columns: of the fitted matrix.
        outputs: logits.
        width: of every block.
        blocks: residual blocks; none is a single layer.
        dropout: share of the inner values that a training step leaves out.
    """

    def __init__(self, *, columns: int, outputs: int, width: int, blocks: int, dropout: float) -> None:
        super().__init__()
        self.center: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("center", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))
        self.stem = nn.Linear(2 * columns, width)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def set_scales(self, scales: Scales) -> None:
        """Say what an ordinary row looks like."""
        self.center.copy_(scales.center)
        self.scale.copy_(scales.width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return [rows, outputs]."""
        missing = torch.isnan(features)
        x = ((torch.where(missing, self.center, features) - self.center) / self.scale).clamp(-LIMIT, LIMIT)
        x = self.stem(torch.cat([x, missing.to(x.dtype)], dim=1))
        for block in self.blocks:
            x = block(x)
        answer: torch.Tensor = self.head(self.norm(x))
        return answer


class Scorer(nn.Module):  # type: ignore[misc]
    """A network with the scores that the serving image answers: probabilities of every class, or the number.

    Args:
        network: the trained one.
        task: what the label is.
        center: of the labels of the training rows; a number's label is learned in standard deviations.
        width: their standard deviation.
    """

    def __init__(self, network: nn.Module, *, task: Task, center: float = 0.0, width: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.center, self.width = center, width

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return [rows, 2], [rows, classes] or [rows, 1]."""
        answer: torch.Tensor = self.network(features)
        if self.task == "binary":
            positive = torch.sigmoid(answer)
            return torch.cat([1 - positive, positive], dim=1)
        if self.task == "multiclass":
            return torch.softmax(answer, dim=1)
        return answer * self.width + self.center
