"""The manifest of sources: what sends records to a workload, who answers for it, where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ml_contract.spec.sources import (
    DataSyncSource,
    DmsSource,
    DropSource,
    JdbcSource,
    Source,
    ThirdPartySource,
)

if TYPE_CHECKING:
    from ml_contract.spec.workload import Workload

__all__ = ["SourceEntry", "source_entries", "source_table"]

HEAD = ("Source", "Kind", "Owner", "Schema", "Fresh within", "Classification", "From", "Lands in")


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """One line of the manifest."""

    source: str
    kind: str
    owner: str
    description: str
    #: Version of the record that it sends, of the record's own.
    schema_version: int
    fresh_within_hours: int | None
    classification: str
    sends: str
    lands: str

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def source_entries(workload: Workload) -> tuple[SourceEntry, ...]:
    """Every source of a workload, the stream first."""
    rows = f"{workload.slug}/data/ of the raw zone"
    stream = SourceEntry(
        source="stream",
        kind=f"stream ({workload.stream.mode.replace('_', ' ')})",
        owner=workload.owner,
        description="Records one at a time",
        schema_version=workload.record.schema_version,
        fresh_within_hours=None,
        classification=workload.classification,
        sends="whoever may put records on the Kinesis stream",
        lands=rows,
    )
    batches = []
    for name, source in workload.sources.items():
        reads = isinstance(source, ThirdPartySource) and source.access == "read"
        batches.append(
            SourceEntry(
                source=name,
                kind=f"{source.kind} (reads)" if reads else source.kind,
                owner=source.owner,
                description=source.description or "",
                schema_version=source.schema_version,
                fresh_within_hours=None if reads else source.fresh_within_hours,
                classification=source.classification or workload.classification,
                sends=_sender(source),
                lands="nothing: it reads" if reads else rows,
            )
        )
    return (stream, *batches)


def _sender(source: Source) -> str:
    if isinstance(source, DropSource):
        return f"{source.format} files{' with a manifest' if source.manifest else ''}"
    if isinstance(source, JdbcSource):
        return f"{source.engine} table {source.table}, {source.schedule}"
    if isinstance(source, DmsSource):
        return f"{source.engine} {', '.join(source.tables)}: {source.mode.replace('_', ' ')}"
    if isinstance(source, DataSyncSource):
        return f"{source.format} files of {source.location} {source.server}{source.folder}, {source.schedule}"
    if source.access == "read":
        return f"account {source.account} reads the {source.zone} zone"
    return f"{source.format} files of account {source.account}"


def source_table(entries: Sequence[SourceEntry]) -> str:
    """The entries as a Markdown table."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    for entry in entries:
        fresh = "" if entry.fresh_within_hours is None else f"{entry.fresh_within_hours} h"
        cells = (
            f"`{entry.source}`",
            entry.kind,
            entry.owner,
            str(entry.schema_version),
            fresh,
            entry.classification,
            entry.sends,
            entry.lands,
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
