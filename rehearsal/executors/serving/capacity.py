"""What an instance type offers: processors, memory, accelerators, by the rules of its name.

Source: "Amazon EC2 instance type naming conventions" and the instance type pages: a size doubles the one
before it from `large` with 2 vCPUs on; a family has a fixed amount of memory per vCPU; accelerators do not
follow from the name and stand in a table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Capacity", "Need", "capacity_of"]

_TYPE = re.compile(r"ml\.([a-z]+)(\d+)([a-z-]*)\.(medium|large|xlarge|(\d+)xlarge)")
#: GiB of memory per vCPU by the letters of the family.
_MEMORY = {"t": 4, "m": 4, "c": 2, "r": 8, "g": 4, "inf": 2, "trn": 4, "p": 8}
_EXCEPTIONS = {"c5.large": 2.0, "t2.medium": 2.0, "p4d": 12.0, "p4de": 12.0, "p5": 10.67, "p5e": 10.67}
#: Accelerator devices by family and size; a family without sizes: the same on each.
_DEVICES: dict[str, dict[str, int]] = {
    "g4dn": {"12xlarge": 4},
    "g5": {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8},
    "g6": {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8},
    "g6e": {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8},
    "inf2": {"24xlarge": 6, "48xlarge": 12},
    "p3": {"8xlarge": 4, "16xlarge": 8},
    "p4d": {"24xlarge": 8},
    "p4de": {"24xlarge": 8},
    "p5": {"48xlarge": 8, "4xlarge": 1},
    "p5e": {"48xlarge": 8},
    "p5en": {"48xlarge": 8},
    "trn1": {"32xlarge": 16},
    "trn1n": {"32xlarge": 16},
}


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one copy of a model asks for."""

    cpus: float = 0.0
    memory_mb: int = 0
    accelerators: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What one instance has."""

    cpus: float
    memory_mb: int
    accelerators: int = 0

    def fits(self, needs: list[Need]) -> bool:
        """Whether all of them have room together."""
        return (
            sum(need.cpus for need in needs) <= self.cpus
            and sum(need.memory_mb for need in needs) <= self.memory_mb
            and sum(need.accelerators for need in needs) <= self.accelerators
        )


def capacity_of(instance_type: str) -> Capacity | None:
    """What an instance type offers; None when its name does not tell."""
    match = _TYPE.fullmatch(instance_type)
    if match is None:
        return None
    letters, generation, extra, size, times = match.groups()
    family = f"{letters}{generation}{extra}"
    cpus = 2 if size in ("medium", "large") else 4 * int(times or 1)
    per_cpu = _EXCEPTIONS.get(f"{family}.{size}", _EXCEPTIONS.get(family, _MEMORY.get(letters)))
    if per_cpu is None:
        return None
    accelerated = letters in ("g", "p", "inf", "trn")
    devices = _DEVICES.get(family, {}).get(size, 1) if accelerated else 0
    return Capacity(cpus=cpus, memory_mb=int(cpus * per_cpu * 1024), accelerators=devices)
