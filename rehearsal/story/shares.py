"""Which records come on the stream, and which in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_contract.spec.workload import Workload

__all__ = ["dropping", "reading", "shares"]

#: One record of so many comes by each batch source that the rehearsal drives.
EVERY = 12


def dropping(workload: Workload) -> list[str]:
    """Sources whose files the story writes: drop folders and accounts that drop."""
    return [
        name
        for name, source in workload.sources.items()
        if source.kind == "drop" or (source.kind == "thirdparty" and source.access == "write")
    ]


def reading(workload: Workload) -> list[str]:
    """Sources that are tables of databases, which a Glue job reads."""
    return [name for name, source in workload.sources.items() if source.kind == "jdbc"]


def shares(
    records: Sequence[Mapping[str, Any]], workload: Workload
) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """The records that are streamed, and those of each batch source. Each record comes one way."""
    names = [*dropping(workload), *reading(workload)]
    each = max(10, len(records) // EVERY)
    cut = len(records) - each * len(names)
    batches = {
        name: [dict(r) for r in records[cut + i * each : cut + (i + 1) * each]]
        for i, name in enumerate(names)
    }
    return [dict(r) for r in records[:cut]], batches
