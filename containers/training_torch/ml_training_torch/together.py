"""Processes that train one model: who they are, what they agree on, how the network is shared out."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any, Self

import torch
import torch.distributed as dist
from ml_runtime.job import BadInputError
from torch import nn

from ml_training_torch import sharded
from ml_training_torch.hyperparameters import Distribution

Tensors = dict[str, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Together:
    """This process among those that train together; alone it agrees with itself.

    Args:
        device: what this process computes on.
        rank: its place among all processes of all hosts.
        processes: how many there are.
        distribution: how they share the work.
    """

    device: torch.device
    rank: int = 0
    processes: int = 1
    distribution: Distribution = "none"

    @classmethod
    def join(cls, wanted_device: str, distribution: Distribution) -> Self:
        """Meet the others, as torchrun's variables say: NCCL between GPUs, Gloo between CPUs."""
        local, rank = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("RANK", "0"))
        device = device_of(wanted_device, local)
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        if processes > 1:
            if device.type == "cuda":
                torch.cuda.set_device(device)
                dist.init_process_group("nccl", device_id=device)
            else:
                dist.init_process_group("gloo")
        return cls(device, rank, processes, distribution if processes > 1 else "none")

    def leave(self) -> None:
        """Part from the others."""
        if self.processes > 1:
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    # --- what all agree on ---

    def total(self, *values: float) -> list[float]:
        """Return each value summed over all processes, as 64 bits."""
        if self.processes == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return [float(value) for value in sums.tolist()]

    def any(self, one: bool) -> bool:
        """Whether any process says so."""
        return self.total(float(one))[0] > 0

    def first_says(self, what: Any) -> Any:
        """Return what the first process has, JSON, to all."""
        if self.processes == 1:
            return what
        text = torch.tensor(list(json.dumps(what).encode()) if self.first else [], dtype=torch.uint8)
        shared = self._shared(text)
        return json.loads(bytes(shared.tolist()))

    def first_has(self, tensors: Tensors | None) -> Tensors:
        """Return the first process's tensors to all."""
        if self.processes == 1:
            return tensors or {}
        given = tensors or {}
        shapes = self.first_says(
            [(name, str(one.dtype).removeprefix("torch."), list(one.shape)) for name, one in given.items()]
        )
        answer = {}
        for name, dtype, shape in shapes:
            one = given[name] if self.first else torch.empty(shape, dtype=getattr(torch, dtype))
            moved = one.to(self.device).contiguous()
            dist.broadcast(moved, 0)
            answer[name] = moved.cpu()
        return answer

    def _shared(self, text: torch.Tensor) -> torch.Tensor:
        size = torch.tensor([len(text)], device=self.device)
        dist.broadcast(size, 0)
        moved = (
            text.to(self.device)
            if self.first
            else torch.empty(int(size), dtype=torch.uint8, device=self.device)
        )
        dist.broadcast(moved, 0)
        return moved.cpu()

    # --- the network ---

    def share(self, network: nn.Module) -> nn.Module:
        """Return the network as this process trains it: a copy kept alike, or a part of it."""
        network.to(self.device)
        if self.distribution == "data_parallel":
            devices = [self.device] if self.device.type == "cuda" else None
            # Scales stand in buffers: all have the same from the start.
            return nn.parallel.DistributedDataParallel(
                network, device_ids=devices, forward_sync_buffers=False
            )
        if self.distribution == "fully_sharded":
            sharded.share(network, self.device, self.processes)
        return network

    def state(self, network: nn.Module) -> Tensors:
        """Return the whole network's tensors on the CPU; of a shared-out one to the first process only.

        Every process must ask.
        """
        if self.distribution == "fully_sharded":
            return sharded.state(network)
        whole = _bare(network).state_dict()
        # A copy, even where it is on the CPU already: the next step would change it.
        return {name: one.detach().to("cpu", copy=True) for name, one in whole.items()}

    def load(self, network: nn.Module, state: Tensors) -> None:
        """Put back what ``state`` returned; every process has it."""
        if self.distribution == "fully_sharded":
            sharded.load(network, state)
        else:
            _bare(network).load_state_dict(state)

    def optimizer_state(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
        """Return the optimiser's tensors by ``<parameter>/<kind>``, as ``state`` does the network's."""
        if self.distribution == "fully_sharded":
            nested = sharded.optimizer_state(network, optimizer)
        else:
            names = [name for name, _ in _bare(network).named_parameters()]
            nested = {names[place]: of for place, of in optimizer.state_dict()["state"].items()}
        return {
            f"{name}/{kind}": value.detach().to("cpu", copy=True)
            for name, of in nested.items()
            for kind, value in of.items()
        }

    def load_optimizer(self, network: nn.Module, optimizer: torch.optim.Optimizer, state: Tensors) -> None:
        """Put back what ``optimizer_state`` returned; every process has it."""
        nested: dict[str, Tensors] = {}
        for name, value in state.items():
            parameter, _, kind = name.rpartition("/")
            nested.setdefault(parameter, {})[kind] = value
        if self.distribution == "fully_sharded":
            sharded.load_optimizer(network, optimizer, nested)
            return
        places = {name: place for place, (name, _) in enumerate(_bare(network).named_parameters())}
        optimizer.load_state_dict(
            {
                "state": {places[name]: of for name, of in nested.items()},
                "param_groups": optimizer.state_dict()["param_groups"],
            }
        )


def _bare(network: nn.Module) -> nn.Module:
    if isinstance(network, nn.parallel.DistributedDataParallel):
        inner: nn.Module = network.module
        return inner
    return network


def device_of(wanted: str, local_rank: int = 0) -> torch.device:
    """Return the device to compute on. Raises BadInputError when a GPU is asked for and there is none."""
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        built = "this image was built without CUDA" if torch.version.cuda is None else "this machine has none"
        raise BadInputError(f"hyperparameters: device cuda needs a GPU; {built}")
    if wanted == "cpu" or not there:
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise BadInputError(
            f"hyperparameters: processes_per_instance is more than the {torch.cuda.device_count()} GPUs here"
        )
    return torch.device("cuda", local_rank)
