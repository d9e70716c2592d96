"""The tables: texts of the curated one that are not enriched yet, and the one that holds what was found.

A text is known by its identifier and the SHA-256 of its UTF-8 bytes: a text that changes is enriched again,
beside what was found in the earlier one.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from lake_files.iceberg import NoTableError, Place, open_table
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import In
from pyiceberg.table import Table, TableProperties

from text_enrichment.errors import MisconfiguredError, TransientError

__all__ = ["Text", "TextTable", "curated_texts"]

#: Commits that lose against others are made again on what these have left.
ATTEMPTS: Final = 6


@dataclass(frozen=True)
class Text:
    """The text of one curated row."""

    identifier: str | int
    text: str
    digest: str

    @property
    def key(self) -> bytes:
        """What tells it from others, in 16 bytes: a run keeps those of the whole table."""
        return _key(self.identifier, self.digest)


def _key(identifier: str | int, digest: str) -> bytes:
    return hashlib.blake2b(f"{identifier}\0{digest}".encode(), digest_size=16).digest()


def curated_texts(
    catalog: Any, place: str, *, identifier: str, field: str
) -> tuple[int | None, Iterator[Text]]:
    """The snapshot that readers see now, and its texts; rows whose text is null or blank have none."""
    table = _open(catalog, place)
    snapshot = table.current_snapshot()
    if snapshot is None:
        return None, iter(())
    scan = table.scan(snapshot_id=snapshot.snapshot_id, selected_fields=(identifier, field))

    def texts() -> Iterator[Text]:
        for batch in scan.to_arrow_batch_reader():
            columns = (batch.column(identifier).to_pylist(), batch.column(field).to_pylist())
            for name, text in zip(*columns, strict=True):
                if name is not None and text is not None and text.strip():
                    yield Text(name, text, hashlib.sha256(text.encode()).hexdigest())

    return snapshot.snapshot_id, texts()


class TextTable:
    """The table of what was found. ``place`` is ``database.table``."""

    def __init__(self, catalog: Any, place: str, *, sleep: Callable[[float], object] = time.sleep) -> None:
        self._catalog, self._place, self._sleep = catalog, place, sleep
        self._seen: int | None = None

    def known(self) -> set[bytes]:
        """Keys of every text that is in the table."""
        table = _open(self._catalog, self._place)
        self._seen = _snapshot(table)
        if self._seen is None:
            return set()
        reader = table.scan(selected_fields=("identifier", "text_sha256")).to_arrow_batch_reader()
        return {
            _key(name, digest)
            for batch in reader
            for name, digest in zip(
                batch.column("identifier").to_pylist(), batch.column("text_sha256").to_pylist(), strict=True
            )
        }

    def append(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Append the rows whose text is not in the table yet, in one commit; return how many they were.

        ``known`` was asked before. Look and commit belong together: a commit on a snapshot that somebody has
        replaced meanwhile is refused by the catalog, and both are done again.
        """
        wanted = {_key(row["identifier"], row["text_sha256"]): row for row in rows}
        for attempt in range(ATTEMPTS):
            table = self._once()
            if _snapshot(table) != self._seen:
                wanted = self._missing(table, wanted)
            try:
                if wanted:
                    schema = table.schema().as_arrow()
                    table.append(pa.Table.from_pylist([dict(row) for row in wanted.values()], schema=schema))
            except CommitFailedException:
                self._seen = -1  # somebody was quicker: look again
                self._sleep(random.uniform(0, 0.2 * 2**attempt))  # noqa: S311 - jitter, no secret
                continue
            self._seen = _snapshot(table)
            return len(wanted)
        raise TransientError(f"others commit to {self._place} all the time")

    @staticmethod
    def _missing(table: Table, wanted: Mapping[bytes, Mapping[str, Any]]) -> dict[bytes, Mapping[str, Any]]:
        if _snapshot(table) is None:
            return dict(wanted)
        expression: Any = In  # its type hints are those of its serialised form
        digests = expression("text_sha256", {row["text_sha256"] for row in wanted.values()})
        there = table.scan(row_filter=digests, selected_fields=("identifier", "text_sha256")).to_arrow()
        known = {_key(row["identifier"], row["text_sha256"]) for row in there.to_pylist()}
        return {key: row for key, row in wanted.items() if key not in known}

    def _once(self) -> Table:
        """The table as it is now, whose commits are tried once.

        pyiceberg tries a refused commit again on whatever the other writer left, without looking whether that
        were these very rows.
        """
        table = _open(self._catalog, self._place)
        once = {**table.metadata.properties, TableProperties.COMMIT_NUM_RETRIES: "0"}
        table.metadata = table.metadata.model_copy(update={"properties": once})
        return table


def _open(catalog: Any, place: str) -> Table:
    database, _, name = place.partition(".")
    try:
        return open_table(catalog, Place(database, name))
    except NoTableError as error:
        raise MisconfiguredError(str(error)) from error


def _snapshot(table: Table) -> int | None:
    found = table.current_snapshot()
    return None if found is None else found.snapshot_id
