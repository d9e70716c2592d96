"""What holds between a workload's batch sources and the rest of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from ml_contract.problems import Lines, Location, suggest
from ml_contract.spec.sources import DmsSource, ThirdPartySource

if TYPE_CHECKING:
    from ml_contract.spec.workload import Workload

__all__ = ["CLASSES", "source_problems"]

#: Classifications from the least to the most sensitive.
CLASSES: Final = ("public", "internal", "confidential", "restricted")
#: A dozen rules and roles each: well below what one stack holds (CloudFormation quotas, 500 resources).
MOST_SOURCES: Final = 20


def source_problems(workload: Workload, lines: Lines) -> Iterator[tuple[Location, str]]:
    """Place and message of everything that is wrong with the sources."""
    if len(workload.sources) > MOST_SOURCES:
        yield ("sources",), f"names {len(workload.sources)} sources; at most {MOST_SOURCES} a workload"
    ids: dict[str, str] = {}
    for name, source in workload.sources.items():
        here: Location = ("sources", name)
        other = ids.setdefault(_id(name), name)
        if other != name:
            yield here, f"has the construct id {_id(name)}, which {other} has too; rename one"
        yield from _columns(workload, here, source)
        sent, known = source.schema_version, workload.record.schema_version
        if sent > known:
            message = f"got {sent}, but the record's is {known}; raise record.schema_version first"
            yield (*here, "schema_version"), message
        if source.classification is not None and CLASSES.index(source.classification) > CLASSES.index(
            workload.classification
        ):
            yield (
                (*here, "classification"),
                f"got {source.classification}, but the workload it lands in is {workload.classification}; "
                "raise the workload's classification or send less",
            )
        if isinstance(source, ThirdPartySource) and source.access == "read":
            yield from _reader(here, source, lines)


def _id(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _columns(workload: Workload, here: Location, source: Any) -> Iterator[tuple[Location, str]]:
    fields = {
        field.source if field.source is not None else name for name, field in workload.record.fields.items()
    }
    known = sorted(fields | set(workload.record.fields))
    for column, field in source.rename.items():
        if field not in known:
            yield (
                (*here, "rename", column),
                f"got {field!r}, which is no field of the record{suggest(field, known)}",
            )
    for i, column in enumerate(source.ignore):
        if column in known:
            yield (
                (*here, "ignore", i),
                f"got {column!r}, which is a field of the record; take it out here or out of record.fields",
            )
        if column in source.ignore[:i]:
            yield (*here, "ignore", i), f"got {column!r} a second time; keep one"
    if isinstance(source, DmsSource):
        for reserved in ("Op", "dms_timestamp"):
            if reserved in known:
                yield here, f"DMS adds a column {reserved}, which is also a field; rename the field"


def _reader(here: Location, source: ThirdPartySource, lines: Lines) -> Iterator[tuple[Location, str]]:
    """A reader sends nothing: what is said of files means nothing for it."""
    for key in ("format", "delimiter", "manifest", "accelerate", "rename", "ignore", "fresh_within_hours"):
        if (*here, key) in lines and getattr(source, key) is not None:
            yield (*here, key), "goes with access: write; a reader sends nothing, remove it"
