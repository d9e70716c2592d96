"""Batches of rows, brought to where the network is before it asks for them.

On a GPU a thread gathers the next rows from the mapped arrays into pinned memory, from which they are copied
while the network works on the batch before (``host``); or the table lies on the GPU from the start, where it
has room, and no batch is copied at all (``device``). Which rows are a batch depends on the seed and the
round only: a training that was interrupted goes on with the same ones, and several processes share the
batches that one would have.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Iterator
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from ml_training_torch.tables import Table

#: Batches that lie ready at most.
AHEAD: Final = 4
#: Share of a GPU's free memory that a table may take; the network, its gradients and activations need theirs.
TABLE_SHARE: Final = 0.25

Indices = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Batch:
    """The rows of one step that this process has, and of how many of all processes they are."""

    features: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    rows_of_all: int


@dataclasses.dataclass(frozen=True)
class Share:
    """The place of this process among those that train together."""

    rank: int = 0
    processes: int = 1


def where_to_keep(table: Table, wanted: str, device: torch.device) -> Literal["host", "device"]:
    """Return whether the table lies on the GPU, by what is asked for and by what has room."""
    if device.type != "cuda" or wanted == "host":
        return "host"
    if wanted == "device":
        return "device"
    free, _ = torch.cuda.mem_get_info(device)
    return "device" if table.matrix.nbytes < TABLE_SHARE * free else "host"


class Batches:
    """One pass after another over a table.

    Args:
        table: the rows.
        rows: of one step, over all processes.
        device: where the batches go.
        keep: ``host`` or ``device``, see ``where_to_keep``.
        share: this process's place.
        seed: of the order of rows; none keeps the table's own order.
    """

    def __init__(
        self,
        table: Table,
        *,
        rows: int,
        device: torch.device,
        keep: Literal["host", "device"] = "host",
        share: Share = Share(),
        seed: int | None = None,
    ) -> None:
        self.table, self.rows, self.device, self.share, self.seed = table, rows, device, share, seed
        #: Seconds that the loop waited for batches, since the start of the last pass.
        self.waited = 0.0
        self._resident = self._on_device() if keep == "device" else None
        self._pinned: _Pinned | None = None

    def __len__(self) -> int:
        """Steps of a pass."""
        return sum(1 for _ in self._steps(np.arange(len(self.table))))

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of one pass."""
        self.waited = 0.0
        order = np.arange(len(self.table))
        if self.seed is not None:
            order = np.random.default_rng([self.seed, number]).permutation(order)
        if self._resident is not None:
            return self._from_device(order)
        return self._from_host(order)

    def _steps(self, order: Indices) -> Iterator[tuple[Indices, int]]:
        """Yield this process's rows of each step, and how many all have."""
        rank, processes = self.share.rank, self.share.processes
        for start in range(0, len(order), self.rows):
            step = order[start : start + self.rows]
            if len(step) < processes and start:
                # A last step with too few rows for all: every process must have some.
                return
            yield step[len(step) * rank // processes : len(step) * (rank + 1) // processes], len(step)

    # --- the table on the GPU ---

    def _on_device(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        parts = (self.table.matrix, self.table.labels, self.table.weights)
        x, y, w = (torch.from_numpy(np.array(part)).to(self.device) for part in parts)
        return x, y, w

    def _from_device(self, order: Indices) -> Iterator[Batch]:
        assert self._resident is not None
        x, y, w = self._resident
        began = time.perf_counter()
        where = torch.from_numpy(order).to(self.device)
        self.waited += time.perf_counter() - began
        start, rank, processes = 0, self.share.rank, self.share.processes
        for mine, count in self._steps(order):
            first = start + count * rank // processes
            rows = where[first : first + len(mine)]
            start += count
            yield Batch(x[rows], y[rows], w[rows], count)

    # --- the table on disk ---

    def _from_host(self, order: Indices) -> Iterator[Batch]:
        if self._pinned is None and self.device.type == "cuda":
            self._pinned = _Pinned(self.table, self.rows, self.device)
        ready: queue.Queue[_Gathered | BaseException | None] = queue.Queue(AHEAD)
        done = threading.Event()
        thread = threading.Thread(target=self._gather, args=(order, ready, done), daemon=True, name="batches")
        thread.start()
        try:
            while True:
                began = time.perf_counter()
                item = ready.get()
                self.waited += time.perf_counter() - began
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item.batch(self._pinned)
        finally:
            done.set()
            while not ready.empty():
                ready.get_nowait()
            thread.join()

    def _gather(self, order: Indices, ready: queue.Queue[object], done: threading.Event) -> None:
        def put(item: object) -> None:
            while not done.is_set():
                try:
                    ready.put(item, timeout=0.1)
                except queue.Full:
                    continue
                return

        try:
            for mine, count in self._steps(order):
                if done.is_set():
                    return
                put(_gathered(self.table, mine, count, self._pinned))
            put(None)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the loop must hear of it
            put(error)


@dataclasses.dataclass
class _Slot:
    """Pinned memory for one batch, and when its copy was over."""

    features: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    copied: torch.cuda.Event | None = None


class _Pinned:
    """A ring of pinned memory: a slot is filled again when its copy to the GPU is over.

    Copies have a stream of their own, so that they go on while the network works.
    """

    def __init__(self, table: Table, rows: int, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        rows = min(rows, len(table))
        columns = table.matrix.shape[1]
        self._slots = [
            _Slot(
                torch.empty((rows, columns), dtype=torch.float32, pin_memory=True),
                torch.empty(rows, dtype=torch.float32, pin_memory=True),
                torch.empty(rows, dtype=torch.float32, pin_memory=True),
            )
            # As many as can be waiting, one that is gathered and one that is copied.
            for _ in range(AHEAD + 2)
        ]
        self._next = 0

    def slot(self) -> _Slot:
        """Return a slot whose rows nobody needs any more."""
        slot = self._slots[self._next]
        self._next = (self._next + 1) % len(self._slots)
        if slot.copied is not None:
            slot.copied.synchronize()
        return slot


@dataclasses.dataclass(frozen=True)
class _Gathered:
    slot: _Slot
    rows: int
    rows_of_all: int

    def batch(self, pinned: _Pinned | None) -> Batch:
        parts = tuple(part[: self.rows] for part in (self.slot.features, self.slot.labels, self.slot.weights))
        if pinned is not None:
            working = torch.cuda.current_stream(pinned.device)
            with torch.cuda.stream(pinned.stream):
                parts = tuple(part.to(pinned.device, non_blocking=True) for part in parts)
                self.slot.copied = torch.cuda.Event()
                self.slot.copied.record(pinned.stream)
            working.wait_event(self.slot.copied)
            for part in parts:
                # Their memory belongs to the copying stream; it must not be given away while it is read.
                part.record_stream(working)
        features, labels, weights = parts
        return Batch(features, labels, weights, self.rows_of_all)


def _gathered(table: Table, rows: Indices, count: int, pinned: _Pinned | None) -> _Gathered:
    parts = (table.matrix, table.labels, table.weights)
    if pinned is None:
        x, y, w = (torch.from_numpy(np.take(part, rows, axis=0)) for part in parts)
        return _Gathered(_Slot(x, y, w), len(rows), count)
    slot = pinned.slot()
    for part, target in zip(parts, (slot.features, slot.labels, slot.weights), strict=True):
        np.take(part, rows, axis=0, out=target.numpy()[: len(rows)], mode="clip")
    return _Gathered(slot, len(rows), count)
