"""What the process of a host leaves in a folder for those that train, and they for it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from safetensors.torch import load_file, save_file

from ml_training_torch.fitting import Label
from ml_training_torch.network import Scales, TabularNet, scales_of
from ml_training_torch.tables import Table
from ml_training_torch.together import Tensors

_JOB, _SCALES, _START, _BEST, _OUTCOME, _INTERRUPTED = (
    "job.json",
    "scales.safetensors",
    "start.safetensors",
    "best.safetensors",
    "outcome.json",
    "interrupted",
)


@dataclasses.dataclass(frozen=True)
class Job:
    """One training: its tables, its label, where it starts.

    Args:
        folder: holds all of it.
        fingerprint: tells its checkpoints from those of others.
        label: what is learned.
        columns: of the fitted matrix.
    """

    folder: pathlib.Path
    fingerprint: str
    label: Label
    columns: int

    def save(self, start: Tensors | None) -> None:
        """Write it down, after its tables; ``start`` holds a parent's tensors, its scales among them."""
        told = {**dataclasses.asdict(self), "folder": None}
        (self.folder / _JOB).write_text(json.dumps(told))
        if start is not None:
            save_file(start, self.folder / _START)
            return
        scales = scales_of(self.table("train").matrix)
        save_file({"center": scales.center, "width": scales.width}, self.folder / _SCALES)

    @classmethod
    def read(cls, folder: pathlib.Path) -> Job:
        """Read what ``save`` wrote."""
        told = json.loads((folder / _JOB).read_text())
        return cls(folder, told["fingerprint"], Label(**told["label"]), told["columns"])

    @property
    def has_parent(self) -> bool:
        """Whether it goes on from another model."""
        return (self.folder / _START).exists()

    def table(self, name: str) -> Table:
        """Map a split."""
        return Table.open(self.folder, name)

    def network(self, values: dict[str, Any]) -> TabularNet:
        """Return the network as it starts."""
        network = new_network(values, self.columns, self.label)
        if self.has_parent:
            network.load_state_dict(load_file(self.folder / _START))
        else:
            network.set_scales(Scales(**load_file(self.folder / _SCALES)))
        return network

    # --- what comes of it ---

    def finish(self, best: Tensors, outcome: dict[str, Any]) -> None:
        """Leave the best network, and how it came about."""
        save_file(best, self.folder / _BEST)
        (self.folder / _OUTCOME).write_text(json.dumps(outcome))

    def interrupt(self) -> None:
        """Leave word that the training was asked to end."""
        (self.folder / _INTERRUPTED).touch()

    @property
    def interrupted(self) -> bool:
        """Whether it was."""
        return (self.folder / _INTERRUPTED).exists()

    def outcome(self) -> tuple[Tensors, dict[str, Any]]:
        """Return what ``finish`` left."""
        return load_file(self.folder / _BEST), json.loads((self.folder / _OUTCOME).read_text())


def new_network(values: dict[str, Any], columns: int, label: Label) -> TabularNet:
    """Return a network of the size that is asked for."""
    return TabularNet(
        columns=columns,
        outputs=label.outputs,
        width=values["width"],
        blocks=values["blocks"],
        dropout=values["dropout"],
    )
