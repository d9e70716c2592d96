"""Processes that train one model: who they are, what they agree on, how the network is shared out."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any, Self

import torch
import torch.distributed as dist
from ml_runtime.job import BadInputError
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from ml_training_torch.hyperparameters import Distribution

Tensors = dict[str, torch.Tensor]
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


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
            return nn.parallel.DistributedDataParallel(network, device_ids=devices, broadcast_buffers=False)
        if self.distribution == "fully_sharded":
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh(self.device.type, (self.processes,))
            for block in getattr(network, "blocks", ()):
                fully_shard(block, mesh=mesh)
            fully_shard(network, mesh=mesh)
        return network

    def state(self, network: nn.Module) -> Tensors:
        """Return the whole network's tensors on the CPU, on the first process; every process must ask."""
        whole: Tensors = get_model_state_dict(_bare(network), options=_WHOLE)
        # What is on the CPU already is not copied by the option, and would change with the next step.
        return {name: one.clone() for name, one in whole.items()}

    def load(self, network: nn.Module, state: Tensors) -> None:
        """Put back what ``state`` returned; every process has it."""
        set_model_state_dict(_bare(network), dict(state), options=StateDictOptions(full_state_dict=True))

    def optimizer_state(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
        """Return the optimiser's tensors by ``<parameter>/<kind>``, on the first process."""
        whole = get_optimizer_state_dict(_bare(network), optimizer, options=_WHOLE)
        return {
            f"{parameter}/{kind}": value.clone()
            for parameter, of in whole.get("state", {}).items()
            for kind, value in of.items()
        }

    def load_optimizer(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, torch.Tensor]
    ) -> None:
        """Put back what ``optimizer_state`` returned; every process has it."""
        nested: dict[str, dict[str, torch.Tensor]] = {}
        for name, value in state.items():
            parameter, _, kind = name.rpartition("/")
            nested.setdefault(parameter, {})[kind] = value
        names = [name for name, _ in _bare(network).named_parameters()]
        (group,) = optimizer.param_groups
        settings = {key: value for key, value in group.items() if key != "params"}
        set_optimizer_state_dict(
            _bare(network),
            optimizer,
            {"state": nested, "param_groups": [{**settings, "params": names}]},
            options=StateDictOptions(full_state_dict=True),
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
