"""Labels that came later replace those of the records, on any engine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import narwhals as nw
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lake_files.labels import newest_labels, with_labels
from ml_contract.compiled import Column, CompiledContract, LabelSpec

NOW = datetime(2026, 11, 1, tzinfo=UTC)


class FakeTable:
    """Rows behind one snapshot, as pyiceberg hands them over."""

    def __init__(self, rows: list[dict[str, Any]] | None) -> None:
        self.rows = rows

    def current_snapshot(self) -> Any:
        return None if self.rows is None else SimpleNamespace(snapshot_id=7)

    def scan(self, *, snapshot_id: int, selected_fields: tuple[str, ...]) -> Any:
        assert snapshot_id == 7
        rows = [{name: row[name] for name in selected_fields} for row in self.rows or []]
        return SimpleNamespace(to_arrow=lambda: pa.Table.from_pylist(rows))


def row(identifier: str, label: str, days: int, task: str) -> dict[str, Any]:
    return {
        "identifier": identifier,
        "label": label,
        "labelled_at": NOW + timedelta(days=days),
        "task": task,
        "votes": 2,
    }


def contract(kind: str = "string", identifier: str = "string") -> CompiledContract:
    columns = (
        Column(name="claim", source="claim", type=identifier, required=True),
        Column(name="at", source="at", type="date", required=True),
        Column(name="fraud", source="fraud", type=kind),
    )
    values = {"string": ("N", "Y"), "integer": ("0", "1"), "boolean": ("false", "true")}[kind]
    made = object.__new__(CompiledContract)
    for name, value in {
        "identifier": "claim",
        "columns": columns,
        "label": LabelSpec(task="binary", field="fraud", values=values),
    }.items():
        object.__setattr__(made, name, value)
    return made


def test_should_have_no_label_before_the_first_one_lands() -> None:
    labels, snapshot = newest_labels(FakeTable(None))  # type: ignore[arg-type]
    assert labels.num_rows == 0
    assert snapshot is None


@given(
    st.permutations(
        [row("1", "N", 0, "b"), row("1", "Y", 2, "a"), row("2", "N", 1, "a"), row("2", "Y", 1, "b")]
    )
)
def test_should_take_the_newest_label_whatever_the_order_of_rows(rows: list[dict[str, Any]]) -> None:
    labels, snapshot = newest_labels(FakeTable(rows))  # type: ignore[arg-type]
    # The corrected one of 1; of two at the same moment the greater task.
    assert labels.to_pylist() == [
        {"identifier": "1", "label": "Y"},
        {"identifier": "2", "label": "Y"},
    ]
    assert snapshot == 7


@pytest.mark.parametrize(
    ("kind", "old", "text", "new"),
    [("string", "N", "Y", "Y"), ("integer", 0, "1", 1), ("boolean", False, "true", True)],
)
@pytest.mark.parametrize("identifier", ["string", "integer"])
def test_should_replace_the_label_of_labelled_records_only(
    kind: str, old: object, text: str, new: object, identifier: str
) -> None:
    keys: list[object] = ["1", "2", "3"] if identifier == "string" else [1, 2, 3]
    frame = pl.DataFrame({"fraud": [old, None, old], "claim": keys, "other": [1.5, 2.5, 3.5]})
    labels = pl.DataFrame({"identifier": ["2", "3", "9"], "label": [text, text, text]})
    found = with_labels(
        nw.from_native(frame.lazy()), nw.from_native(labels.lazy()), contract(kind, identifier)
    )
    result = nw.to_native(found).collect().sort("claim")
    assert result.columns == frame.columns
    assert result["fraud"].to_list() == [old, new, new]
    assert result["other"].to_list() == [1.5, 2.5, 3.5]
    assert result.schema == frame.schema


def test_should_leave_the_records_as_they_are_without_labels() -> None:
    frame = pl.DataFrame({"claim": ["1"], "fraud": ["N"]})
    labels = pl.DataFrame(schema={"identifier": pl.String, "label": pl.String})
    found = with_labels(nw.from_native(frame.lazy()), nw.from_native(labels.lazy()), contract())
    assert nw.to_native(found).collect().to_dicts() == [{"claim": "1", "fraud": "N"}]
