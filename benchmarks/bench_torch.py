"""The PyTorch image's loop beside a plain PyTorch loop, and beside what the device multiplies at best.

Both train the same network on the same rows with the same optimiser, precision and clipping; they differ in
how rows reach the network and in what is done around a step. They run in turns, so that a busy machine slows
both. On a GPU the useful operations of a second (6 per weight and row: 2 forwards, 4 backwards) are held
against a large matrix product in bfloat16 on the same device, measured in the same run.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import Result, Row

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 3
#: Side of the matrices whose product says what a GPU can do.
PEAK_SIDE = 8192
PEAK_PRODUCTS = 30
CLASSES = 4


@dataclass(frozen=True)
class Size:
    """What is trained."""

    rows: int
    columns: int
    width: int
    blocks: int
    batch: int


#: A small one that fits a laptop's minute, and one that keeps a data-centre GPU busy.
ON_CPU = Size(rows=20_000, columns=30, width=128, blocks=2, batch=256)
ON_GPU = Size(rows=1_000_000, columns=256, width=4096, blocks=4, batch=16_384)


def run() -> Result:
    """Measure on the GPU where there is one, small on the CPU where there is none."""
    try:
        import torch
    except ImportError:
        return Result(name="torch", skipped="PyTorch is not installed")
    for folder in ("contract", "containers/shared", "lambda", "containers/training_torch"):
        sys.path.insert(0, str(ROOT / folder))
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    if not on_gpu:
        print("no CUDA device: a small run on one thread of the CPU")
        torch.set_num_threads(1)
    size = ON_GPU if on_gpu else ON_CPU
    raw: dict[str, Any] = {"device": torch.cuda.get_device_name() if on_gpu else "no CUDA device"}
    table = _table(size)
    loops = {"plain": _plain(table, size, device)}
    keeps = ("host", "device") if on_gpu else ("host",)
    waits: dict[str, list[float]] = {keep: [] for keep in keeps}
    for keep in keeps:
        loops[keep] = _ours(table, size, device, keep, waits[keep])
    speeds = _in_turns(loops, size.rows)
    raw |= {"rows_per_second": speeds, "data_wait": waits}
    # The first round warms up.
    typical = {name: statistics.median(found[1:]) for name, found in speeds.items()}
    rows = [
        Row(
            what=f"rows a second of the image, table on the {keep} / of a plain PyTorch loop",
            value=typical[keep] / typical["plain"],
            goal=1.0,
            at_most=False,
        )
        for keep in keeps
    ]
    rows.append(
        Row(
            what="share of a pass in which the loop waits for rows (table on the host)",
            value=100 * statistics.median(waits["host"][1:]),
            # On a CPU gathering and training share the cores: only a GPU can be kept from waiting.
            goal=5 if on_gpu else None,
            unit="%",
        )
    )
    if on_gpu:
        peak = _peak(device)
        best = max(typical[keep] for keep in keeps)
        raw |= {"peak_operations": peak, "operations": best * _operations(size)}
        rows.append(
            Row(
                what="operations of the training / of a large bfloat16 matrix product",
                value=100 * best * _operations(size) / peak,
                unit="%",
            )
        )
    return Result(name="torch", rows=tuple(rows), raw=raw)


def _in_turns(loops: dict[str, Callable[[], float]], rows: int) -> dict[str, list[float]]:
    speeds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(ROUNDS + 1):
        for name, epoch in loops.items():
            speeds[name].append(rows / epoch())
    return speeds


def _table(size: Size) -> Any:
    from ml_training_torch.tables import Table

    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(size.rows, size.columns)).astype(np.float32)
    labels = (matrix[:, :CLASSES] + rng.normal(size=(size.rows, CLASSES))).argmax(axis=1).astype(np.float32)
    return Table(matrix, labels, np.ones(size.rows, dtype=np.float32))


def _network(size: Size) -> Any:
    import torch
    from ml_training_torch.network import TabularNet

    torch.manual_seed(0)
    return TabularNet(
        columns=size.columns, outputs=CLASSES, width=size.width, blocks=size.blocks, dropout=0.1
    )


def _ours(table: Any, size: Size, device: Any, keep: str, waits: list[float]) -> Callable[[], float]:
    """The image's own loop: gathered ahead, copied from pinned memory, or lying on the device."""
    from ml_training_torch.fitting import Fitting, Label
    from ml_training_torch.hyperparameters import read_hyperparameters
    from ml_training_torch.tables import Table
    from ml_training_torch.together import Together

    wanted = read_hyperparameters(
        {"width": size.width, "blocks": size.blocks, "batch_size": size.batch, "table_in_memory": keep}
        | {"rounds": ROUNDS + 1}
    )
    few = Table(table.matrix[:1000], table.labels[:1000], table.weights[:1000])
    rounds = Fitting(
        _network(size),
        label=Label("multiclass", CLASSES),
        wanted=wanted,
        together=Together(device),
        train=table,
        validation=few,
    ).rounds()

    def epoch() -> float:
        one = next(rounds)
        waits.append(one.data_wait)
        return size.rows / one.rows_per_second

    return epoch


def _plain(table: Any, size: Size, device: Any) -> Callable[[], float]:
    """The loop of PyTorch's own tutorials: a data set, a loader, a step."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    network = _network(size).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.002, weight_decay=0.01)
    rows = TensorDataset(torch.from_numpy(table.matrix), torch.from_numpy(table.labels).long())
    on_gpu = device.type == "cuda"
    loader = DataLoader(
        rows, batch_size=size.batch, shuffle=True, pin_memory=on_gpu, num_workers=8 if on_gpu else 0
    )

    def epoch() -> float:
        network.train()
        began = time.perf_counter()
        for features, labels in loader:
            x, y = features.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
                loss = nn.functional.cross_entropy(network(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    return epoch


def _operations(size: Size) -> float:
    """Useful operations per row: two per weight forwards, four backwards."""
    inner = size.blocks * 2 * size.width * 2 * size.width
    return 6.0 * (2 * size.columns * size.width + inner + size.width * CLASSES)


def _peak(device: Any) -> float:
    """Operations a second of a large product in bfloat16."""
    import torch

    one = torch.randn(PEAK_SIDE, PEAK_SIDE, device=device, dtype=torch.bfloat16)
    other = torch.randn_like(one)
    for _ in range(5):
        one @ other
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(PEAK_PRODUCTS):
        one @ other
    torch.cuda.synchronize()
    return PEAK_PRODUCTS * 2 * PEAK_SIDE**3 / (time.perf_counter() - began)
