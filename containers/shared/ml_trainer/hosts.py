"""Which hosts train together (``resourceconfig.json``), and which of them this is."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Self

from ml_runtime.job import BadInputError, base_folder

#: Where the first host listens; SageMaker's hosts reach each other on every port that their security group
#: opens to itself.
PORT = 23_456


@dataclasses.dataclass(frozen=True)
class Hosts:
    """The hosts of a job.

    ``MASTER_ADDR`` and ``MASTER_PORT``, torchrun's own variables, move the first host's address; without them
    it is its name, which SageMaker's hosts resolve.
    """

    names: tuple[str, ...]
    current: str
    interface: str | None

    @classmethod
    def read(cls) -> Self:
        """Read the job's own file; without one this is the only host."""
        path = base_folder() / "input" / "config" / "resourceconfig.json"
        if not path.is_file():
            return cls(("algo-1",), "algo-1", None)
        given = json.loads(path.read_text())
        names, current = tuple(sorted(given["hosts"], key=_number)), given["current_host"]
        if current not in names:
            raise BadInputError(f"resourceconfig.json: current_host {current} is none of {', '.join(names)}")
        return cls(names, current, given.get("network_interface_name"))

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.names)

    @property
    def rank(self) -> int:
        """The place of this one, from 0; the first writes the model."""
        return self.names.index(self.current)

    @property
    def first(self) -> bool:
        """Whether this is the first."""
        return self.rank == 0

    @property
    def address(self) -> str:
        """Where the first host is reached."""
        return os.environ.get("MASTER_ADDR", self.names[0])

    @property
    def port(self) -> int:
        """Where the first host listens."""
        return int(os.environ.get("MASTER_PORT", PORT))


def _number(name: str) -> tuple[int, str]:
    # algo-10 comes after algo-2.
    tail = name.rpartition("-")[2]
    return (int(tail) if tail.isdigit() else 0, name)
