"""The training loop: passes over the rows until the validation split says enough."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from ml_contract.algorithms.pytorch import METRICS
from ml_contract.algorithms.values import Task
from ml_runtime.job import BadInputError
from ml_trainer import progress
from torch import nn
from torch.nn import functional

from ml_training_torch.batches import Batch, Batches, Share, where_to_keep
from ml_training_torch.hyperparameters import Hyperparameters
from ml_training_torch.tables import Table
from ml_training_torch.together import Tensors, Together

#: Rows that are scored at once where nothing is learned of them.
SCORED_ROWS = 16_384


@dataclasses.dataclass(frozen=True)
class Label:
    """What the network learns: its task, its classes, and for a number where the zero of its scale lies."""

    task: Task
    classes: int = 0
    center: float = 0.0
    width: float = 1.0

    @property
    def outputs(self) -> int:
        """Logits of the network."""
        return self.classes if self.task == "multiclass" else 1

    def losses(self, answers: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """Return the loss of each row, in 32 bits: log loss, or the squared error of the scaled number."""
        if self.task == "multiclass":
            return functional.cross_entropy(
                answers, labels.long(), reduction="none", label_smoothing=smoothing
            )
        if self.task == "binary":
            wanted = labels * (1 - smoothing) + smoothing / 2
            return functional.binary_cross_entropy_with_logits(answers[:, 0], wanted, reduction="none")
        return (answers[:, 0] - (labels - self.center) / self.width) ** 2

    def wrong(self, answers: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return per row whether the most likely class is another, or by how much the number is off."""
        if self.task == "multiclass":
            return (answers.argmax(dim=1) != labels.long()).float()
        if self.task == "binary":
            return ((answers[:, 0] > 0).float() != labels).float()
        return (answers[:, 0] * self.width + self.center - labels).abs()

    def told(self, loss: float) -> float:
        """Return a mean loss as the metric has it: of a number the root, in the label's unit."""
        return self.width * math.sqrt(loss) if self.task == "regression" else loss


@dataclasses.dataclass
class State:
    """Where a training stands after some rounds; what a checkpoint keeps."""

    rounds: int = 0
    history: progress.History = dataclasses.field(default_factory=dict)
    best: Tensors = dataclasses.field(default_factory=dict)
    #: What the network that it started from was worth, where that one was trained before.
    parent: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Round:
    """What one round brought."""

    metrics: dict[str, float]
    gradient_norm: float
    data_wait: float
    rows_per_second: float


class Fitting:
    """One training of one network.

    Args:
        network: the whole one, the same on every process; it is shared out here.
        label: what is learned.
        wanted: the hyperparameters.
        together: this process among the others.
        train, validation: the rows.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        label: Label,
        wanted: Hyperparameters,
        together: Together,
        train: Table,
        validation: Table,
    ) -> None:
        rows = min(int(wanted["batch_size"]), len(train))
        if rows < together.processes:
            raise BadInputError(
                f"a step of {rows} rows cannot be shared by {together.processes} processes; "
                "raise batch_size or use fewer"
            )
        self.label, self.wanted, self.together = label, wanted, together
        self.network = together.share(network)
        device = together.device
        share = Share(together.rank, together.processes)
        keep = where_to_keep(train, wanted["table_in_memory"], device)
        self.train = Batches(train, rows=rows, device=device, keep=keep, share=share, seed=wanted["seed"])
        self.validation = Batches(validation, rows=SCORED_ROWS, device=device, share=share)
        self.steps = len(self.train)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=wanted["learning_rate"],
            weight_decay=wanted["weight_decay"],
            fused=device.type == "cuda",
        )
        self.half = bfloat16_on(device, wanted["precision"])
        self.state = State()
        self.loss_name = METRICS[label.task][-1]

    def begin_with_parent(self) -> None:
        """Hold the network as it is for the best so far: a training that only makes it worse is not kept."""
        self.state.parent = self.judge()
        self.state.best = self.together.state(self.network)

    # --- rounds ---

    def rounds(self) -> Iterator[Round]:
        """Yield a round after another until the last one or until the loss no longer gets better."""
        losses = self.state.history.setdefault(f"validation-{self.loss_name}", [])
        while self.state.rounds < self.wanted.rounds:
            if progress.should_stop(losses, self.wanted.early_stopping_rounds):
                return
            one = self._round(self.state.rounds)
            for name, value in one.metrics.items():
                self.state.history.setdefault(name, []).append(value)
            if losses[-1] == losses[-1] and best_of(self) == len(losses) - 1:
                self.state.best = self.together.state(self.network)
            self.state.rounds += 1
            yield one

    def _round(self, number: int) -> Round:
        began = time.perf_counter()
        # Which values are left out follows from the round: a resumed training leaves out the same ones.
        torch.manual_seed(_seed(self.wanted["seed"], number, self.together.rank))
        self.network.train()
        sums = torch.zeros(3, device=self.together.device, dtype=torch.float64)
        largest = torch.zeros((), device=self.together.device)
        for step, batch in enumerate(self.train.epoch(number)):
            largest = torch.maximum(largest, self._step(batch, number * self.steps + step, sums))
        seconds = time.perf_counter() - began
        trained = self._metrics("train", sums)
        # Reading the sums has waited for the GPU: what went before is the time of the whole pass.
        seconds = max(time.perf_counter() - began, seconds)
        metrics = {**trained, **self.judge()}
        waited = self.train.waited / seconds
        return Round(metrics, float(largest), waited, len(self.train.table) / seconds)

    def _step(self, batch: Batch, number: int, sums: torch.Tensor) -> torch.Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self.wanted["learning_rate"] * self._schedule(number)
        self.optimizer.zero_grad(set_to_none=True)
        with self._precision():
            answers = self.network(batch.features)
        answers = answers.float()
        losses = self.label.losses(answers, batch.labels, self.wanted["label_smoothing"])
        weighted = (losses * batch.weights).sum()
        # Gradients are averaged over the processes: so each counts its rows against those of all.
        (weighted * (self.together.processes / batch.rows_of_all)).backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.wanted["gradient_clip"])
        self.optimizer.step()
        with torch.no_grad():
            sums += torch.stack(
                [
                    weighted.detach().double(),
                    (self.label.wrong(answers, batch.labels) * batch.weights).sum().double(),
                    batch.weights.sum().double(),
                ]
            )
        return _local(norm)

    def _schedule(self, step: int) -> float:
        """Return the share of the learning rate: a rise, then half a cosine down to nothing."""
        last = self.wanted.rounds * self.steps
        rise: int = max(1, round(self.wanted["warmup_share"] * last))
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, last - rise)))

    def judge(self) -> dict[str, float]:
        """Return the metrics on the validation split."""
        self.network.eval()
        sums = torch.zeros(3, device=self.together.device, dtype=torch.float64)
        with torch.no_grad():
            for batch in self.validation.epoch(0):
                with self._precision():
                    answers = self.network(batch.features)
                answers = answers.float()
                losses = self.label.losses(answers, batch.labels)
                wrong = self.label.wrong(answers, batch.labels)
                sums += torch.stack(
                    [
                        (losses * batch.weights).sum().double(),
                        (wrong * batch.weights).sum().double(),
                        batch.weights.sum().double(),
                    ]
                )
        return self._metrics("validation", sums)

    def _metrics(self, split: str, sums: torch.Tensor) -> dict[str, float]:
        loss, wrong, weight = self.together.total(*sums.tolist())
        share, name = METRICS[self.label.task]
        return {
            f"{split}-{share}": wrong / weight,
            f"{split}-{name}": self.label.told(loss / weight),
        }

    def _precision(self) -> Any:
        return torch.autocast(self.together.device.type, torch.bfloat16, enabled=self.half)

    # --- where it stands ---

    def tensors(self) -> Tensors:
        """Return what a checkpoint keeps, on the first process; every process must ask."""
        return {
            **{f"network/{name}": one for name, one in self.together.state(self.network).items()},
            **{
                f"optimizer/{name}": one
                for name, one in self.together.optimizer_state(self.network, self.optimizer).items()
            },
            **{f"best/{name}": one for name, one in self.state.best.items()},
        }

    def resume(
        self, tensors: Tensors, rounds: int, history: progress.History, parent: dict[str, float]
    ) -> None:
        """Go on where a checkpoint stands; every process has its tensors."""
        parts: dict[str, Tensors] = {"network": {}, "optimizer": {}, "best": {}}
        for name, one in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = one
        self.together.load(self.network, parts["network"])
        self.together.load_optimizer(self.network, self.optimizer, parts["optimizer"])
        told = {name: list(series) for name, series in history.items()}
        self.state = State(rounds, told, parts["best"], dict(parent))


def fit_to_end(fitting: Fitting, each: Callable[[Round], None] | None = None) -> int:
    """Run every round and return the best one. Raises BadInputError when no round had a loss."""
    for one in fitting.rounds():
        if each is not None:
            each(one)
    return best_of(fitting)


def best_of(fitting: Fitting) -> int:
    """Return the round with the lowest validation loss, -1 where none was better than the parent.

    Raises BadInputError when no round's loss is a number.
    """
    name = f"validation-{fitting.loss_name}"
    losses = fitting.state.history[name]
    try:
        best = progress.best_round(losses)
    except ValueError:
        raise BadInputError(
            "the loss was never a finite number; lower learning_rate or gradient_clip"
        ) from None
    return -1 if fitting.state.parent and fitting.state.parent[name] <= losses[best] else best


def bfloat16_on(device: torch.device, wanted: str) -> bool:
    """Return whether to multiply in bfloat16: where a GPU has it, or where it is asked for."""
    if wanted == "auto":
        return device.type == "cuda" and bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if wanted == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise BadInputError("hyperparameters: precision bfloat16 needs a newer GPU (A10G or later)")
    return wanted == "bfloat16"


def deterministic(seed: int, threads: int | None, device: torch.device) -> None:
    """Make the CPU's sums come in one order, so that the same rows give the same network."""
    torch.manual_seed(seed)
    if threads is not None:
        torch.set_num_threads(threads)
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)


def _seed(seed: int, number: int, rank: int) -> int:
    return (seed * 1_000_003 + number) * 65_537 + rank


def _local(norm: torch.Tensor) -> torch.Tensor:
    # The norm of a shared-out network is a tensor of all processes.
    whole = getattr(norm, "full_tensor", None)
    plain: torch.Tensor = norm if whole is None else whole()
    return plain.detach()
