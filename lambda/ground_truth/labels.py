"""Labels that are known by now: of the curated records, and what people said of them afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from lake_files.iceberg import NoTableError, Place, open_table
from pyiceberg.expressions import GreaterThanOrEqual

from ground_truth.errors import MisconfiguredError

__all__ = ["known_labels", "written"]

#: SageMaker Runtime API reference, InvokeEndpoint: InferenceId is ASCII of this length at most.
MOST_CHARACTERS = 64


def known_labels(
    catalog: Any,
    *,
    curated: str,
    labels: str | None,
    identifier: str,
    label: str,
    received: str,
    since: datetime,
) -> tuple[dict[str, str], int]:
    """Return the label by inference id of every record that arrived, or was labelled, at ``since`` or later.

    What people said goes before the record's own label, the latest before earlier ones. Also returns how many
    records have an identifier that no caller can pass as InferenceId.
    """
    found: dict[str, str] = {}
    unfit = 0
    for row in _rows(catalog, curated, received, since, (identifier, label)):
        if row[identifier] is None or row[label] is None:
            # Not known yet: it comes with a later version of the record, or never.
            continue
        name = str(row[identifier])
        if _fits(name):
            found[name] = written(row[label])
        else:
            unfit += 1
    if labels is not None:
        columns = ("identifier", "label", "labelled_at", "task", "inference_id")
        rows = list(_rows(catalog, labels, "labelled_at", since, columns))
        for row in sorted(rows, key=lambda row: (row["labelled_at"], row["task"])):
            for name in (row["identifier"], row["inference_id"]):
                if name is not None and row["label"] is not None and _fits(str(name)):
                    found[str(name)] = row["label"]
    return found, unfit


def written(value: object) -> str:
    """Write a label as the contract's label values are written."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _fits(name: str) -> bool:
    return name.isascii() and 1 <= len(name) <= MOST_CHARACTERS


def _rows(
    catalog: Any, place: str, moment: str, since: datetime, columns: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    database, _, name = place.partition(".")
    try:
        table = open_table(catalog, Place(database, name))
    except NoTableError as error:
        raise MisconfiguredError(str(error)) from error
    if table.current_snapshot() is None:
        return
    expression: Any = GreaterThanOrEqual  # its type hints are those of its serialised form
    scan = table.scan(row_filter=expression(moment, since.isoformat()), selected_fields=columns)
    for batch in scan.to_arrow_batch_reader():
        yield from batch.to_pylist()
