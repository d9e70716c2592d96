"""Labels with the features as they were known: both engines against a walk through every row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_contract.features.as_of import AsOf, AsOfError, as_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

START = datetime(2025, 1, 1, tzinfo=UTC)
FEATURES = ("amount", "colour")
SPEC = AsOf(
    identifier="id",
    label_time="asked_at",
    event_time="at",
    features=FEATURES,
    write_time="write_time",
    invocation_time="api_invocation_time",
    deleted="is_deleted",
    found_at="found_at",
)
LABELS = pl.Schema({"id": pl.String, "asked_at": pl.Datetime("us", "UTC"), "label": pl.Int64})
HISTORY = pl.Schema(
    {
        "id": pl.String,
        "at": pl.Datetime("us", "UTC"),
        "amount": pl.Float64,
        "colour": pl.String,
        "write_time": pl.Datetime("us", "UTC"),
        "api_invocation_time": pl.Datetime("us", "UTC"),
        "is_deleted": pl.Boolean,
    }
)
Row = dict[str, Any]


def hours(number: int) -> datetime:
    return START + timedelta(hours=number)


# Few identifiers and few moments: ties, equal instants and corrections in every example.
moments = st.integers(0, 6).map(hours)
ids = st.sampled_from(["a", "b", "c"])
label_rows = st.fixed_dictionaries(
    {"id": st.none() | ids, "asked_at": st.none() | moments, "label": st.integers(0, 1)}
)
history_rows = st.fixed_dictionaries(
    {
        "id": ids,
        "at": moments,
        "amount": st.none() | st.sampled_from([0.5, 1.0, 2.0]),
        "colour": st.none() | st.sampled_from(["blue", "red"]),
        "write_time": moments,
        "api_invocation_time": st.integers(0, 1).map(hours),
        "is_deleted": st.none() | st.booleans(),
    }
)
tables = st.tuples(
    st.lists(label_rows, max_size=12), st.lists(history_rows, max_size=25), st.none() | moments
)


def oracle(labels: list[Row], history: list[Row], cutoff: datetime | None) -> list[Row]:
    """Look at every row of the history for every label."""

    def newest(row: Row) -> tuple[Any, ...]:
        values = tuple((row[name] is not None, row[name]) for name in FEATURES)
        return (row["at"], row["write_time"], row["api_invocation_time"], bool(row["is_deleted"]), *values)

    result = []
    for label in labels:
        known = [
            row
            for row in history
            if label["id"] is not None
            and label["asked_at"] is not None
            and row["id"] == label["id"]
            and row["at"] <= label["asked_at"]
            and (cutoff is None or row["write_time"] <= cutoff)
        ]
        best: Row | None = None
        for row in known:
            if best is None or _less(newest(best), newest(row)):
                best = row
        found = best if best is not None and not best["is_deleted"] else None
        result.append(
            {
                **label,
                **{name: None if found is None else found[name] for name in FEATURES},
                "found_at": None if found is None else found["at"],
            }
        )
    return result


def _less(left: tuple[Any, ...], right: tuple[Any, ...]) -> bool:
    for one, other in zip(left, right, strict=True):
        if one != other:
            # (False, None) is less than (True, anything); no value is never compared with one.
            return (
                bool(one[0] < other[0] or (one[0] == other[0] and one[1] < other[1]))
                if isinstance(one, tuple)
                else bool(one < other)
            )
    return False


def polars_rows(labels: list[Row], history: list[Row], spec: AsOf) -> list[Row]:
    frame = as_of(pl.DataFrame(labels, schema=LABELS), pl.DataFrame(history, schema=HISTORY), spec)
    rows: list[Row] = frame.to_dicts()
    return rows


def with_cutoff(cutoff: datetime | None) -> AsOf:
    import dataclasses

    return dataclasses.replace(SPEC, cutoff=cutoff)


@settings(max_examples=400)
@given(tables)
def test_should_join_as_the_oracle_on_one_machine(
    given_tables: tuple[list[Row], list[Row], datetime | None],
) -> None:
    labels, history, cutoff = given_tables
    assert polars_rows(labels, history, with_cutoff(cutoff)) == oracle(labels, history, cutoff)


@pytest.mark.slow
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(tables=tables)
def test_should_join_as_the_oracle_on_spark(
    spark: SparkSession, tables: tuple[list[Row], list[Row], datetime | None]
) -> None:
    labels, history, cutoff = tables
    found = as_of(
        spark.createDataFrame(labels, "id string, asked_at timestamp, label long"),
        spark.createDataFrame(
            history,
            "id string, at timestamp, amount double, colour string, write_time timestamp, "
            "api_invocation_time timestamp, is_deleted boolean",
        ),
        with_cutoff(cutoff),
    )
    rows = [row.asDict() for row in found.collect()]
    for row in rows:
        for name in ("asked_at", "found_at"):
            # PySpark gives the instants in the machine's zone, and says no zone.
            row[name] = None if row[name] is None else row[name].astimezone(UTC)

    def key(row: Row) -> str:
        return repr(sorted(row.items()))

    assert sorted(rows, key=key) == sorted(oracle(labels, history, cutoff), key=key)


def test_should_read_times_as_texts_and_days_and_take_no_more_than_it_needs() -> None:
    import datetime as dt

    labels = pl.DataFrame({"id": ["a", "a"], "asked_at": [dt.date(2025, 1, 2), dt.date(2025, 1, 1)]})
    history = pl.DataFrame(
        {"id": ["a", "a"], "at": ["2025-01-02T00:00:00.500Z", "2025-01-02T00:00:00Z"], "amount": [2.0, 1.0]}
    )
    spec = AsOf(identifier="id", label_time="asked_at", event_time="at", features=("amount",))
    assert as_of(labels, history, spec)["amount"].to_list() == [1.0, None]


def test_should_name_everything_that_is_wrong_at_once() -> None:
    with pytest.raises(AsOfError, match=r"features must name .*; a cutoff needs write_time"):
        AsOf(identifier="id", label_time="t", event_time="at", features=(), cutoff=START)
    with pytest.raises(
        AsOfError, match="labels lack asked_at; history lacks at; labels have a column amount"
    ):
        as_of(
            pl.DataFrame({"id": ["a"], "amount": [1]}),
            pl.DataFrame({"id": ["a"], "amount": [1.0]}),
            AsOf(identifier="id", label_time="asked_at", event_time="at", features=("amount",)),
        )
