"""A network of which each process holds a part (FSDP), and how its whole is put together again.

The libraries for it take seconds to import: only who shares a network out loads them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

Tensors = dict[str, torch.Tensor]


def share(network: nn.Module, device: torch.device, processes: int) -> None:
    """Share the network out, block by block: only one block at a time is whole on a process."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes,))
    for block in getattr(network, "blocks", ()):
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def state(network: nn.Module) -> Tensors:
    """Return the whole network's tensors, to the first process."""
    from torch.distributed.checkpoint.state_dict import get_model_state_dict

    whole: Tensors = get_model_state_dict(network, options=_options(offload=True))
    return {name: one.detach().to("cpu", copy=True) for name, one in whole.items()}


def load(network: nn.Module, tensors: Tensors) -> None:
    """Give each process its part."""
    from torch.distributed.checkpoint.state_dict import set_model_state_dict

    set_model_state_dict(network, dict(tensors), options=_options())


def optimizer_state(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensors]:
    """Return the optimiser's tensors by parameter and kind, to the first process."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    whole = get_optimizer_state_dict(network, optimizer, options=_options(offload=True))
    found: dict[str, Tensors] = whole.get("state", {})
    return found


def load_optimizer(network: nn.Module, optimizer: torch.optim.Optimizer, nested: dict[str, Tensors]) -> None:
    """Give each process its part of the optimiser's tensors."""
    from torch.distributed.checkpoint.state_dict import set_optimizer_state_dict

    (group,) = optimizer.param_groups
    settings = {key: value for key, value in group.items() if key != "params"}
    names = [name for name, _ in network.named_parameters()]
    set_optimizer_state_dict(
        network,
        optimizer,
        {"state": nested, "param_groups": [{**settings, "params": names}]},
        options=_options(),
    )


def _options(*, offload: bool = False) -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=offload)
