"""The Iceberg table of labels: rows are appended, none is ever changed.

The newest label of a record is the row with the greatest ``(labelled_at, task)`` of its identifier.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import pyarrow as pa
from lake_files.iceberg import NoTableError, Place, open_table
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import In
from pyiceberg.table import Table, TableProperties

from label_landing.errors import MisconfiguredError, TransientError

__all__ = ["ROWS", "LabelTable"]

#: Commits that lose against others are made again on what these have left; then the queue tries later.
ATTEMPTS: Final = 6
#: The table's columns, as Arrow has them; the construct makes the table (``labelling.landing.COLUMNS``).
ROWS: Final = pa.schema(
    [
        pa.field("identifier", pa.string()),
        pa.field("label", pa.string()),
        pa.field("labelled_at", pa.timestamp("us", tz="UTC")),
        pa.field("labelled_by", pa.list_(pa.string())),
        pa.field("votes", pa.int32()),
        pa.field("agreement", pa.float64()),
        pa.field("resolution", pa.string()),
        pa.field("origin", pa.string()),
        pa.field("task", pa.string()),
        pa.field("inference_id", pa.string()),
    ]
)


class LabelTable:
    """One table of labels in ``catalog``. ``place`` is ``database.table``."""

    def __init__(
        self,
        catalog: Any,
        place: str,
        *,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        database, _, name = place.partition(".")
        self._catalog = catalog
        self._place = Place(database, name)
        self._sleep = sleep

    def append(self, rows: Sequence[Mapping[str, Any]]) -> tuple[int, int | None]:
        """Append the rows whose ``task`` is not in the table yet, in one commit.

        Look and commit belong together: a commit on a snapshot that somebody has replaced meanwhile is
        refused by the catalog, and both are done again. Returns how many rows were new and the snapshot's id.
        """
        for attempt in range(ATTEMPTS):
            table = self._table()
            wanted = {row["task"]: row for row in rows}
            if table.current_snapshot() is not None:
                expression: Any = In  # its type hints are those of its serialised form
                known = expression("task", set(wanted))
                there = table.scan(row_filter=known, selected_fields=("task",)).to_arrow()
                for task in there["task"].to_pylist():
                    wanted.pop(task, None)
            new = [_row(row) for row in wanted.values()]
            try:
                if new:
                    table.append(pa.Table.from_pylist(new, schema=ROWS))
            except CommitFailedException:
                self._sleep(random.uniform(0, 0.2 * 2**attempt))  # noqa: S311 - jitter, no secret
                continue
            snapshot = table.current_snapshot()
            return len(new), None if snapshot is None else snapshot.snapshot_id
        raise TransientError(f"others commit to {self._place} all the time")

    def _table(self) -> Table:
        """The table as it is now, whose commits are tried once.

        pyiceberg tries a refused commit again on whatever the other writer left, without looking whether that
        were these very rows.
        """
        try:
            table = open_table(self._catalog, self._place)
        except NoTableError as error:
            raise MisconfiguredError(str(error)) from error
        once = {**table.metadata.properties, TableProperties.COMMIT_NUM_RETRIES: "0"}
        table.metadata = table.metadata.model_copy(update={"properties": once})
        return table


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "labelled_at": datetime.fromisoformat(row["labelled_at"])}
