"""What the curate job does to rows. Pure: frames and values in, frames and values out.

Every function is deterministic, so a rerun over the same files gives the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from lake_files.report import RuleOutcome
from ml_contract.records.texts import LARGEST, MOMENT, NUMBER, PLAIN, WHOLE
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as sf
from pyspark.sql import types as st

#: Column of the reasons a row is refused for; empty on good rows.
REASONS = "_reasons"
#: Partition column of the curated zone.
MONTH = "event_month"

_INTEGERS = (st.ByteType, st.ShortType, st.IntegerType, st.LongType)
_FRACTIONS = (st.FloatType, st.DoubleType, st.DecimalType)


class CurateContract(Protocol):
    """The part of the compiled contract that curation needs."""

    @property
    def identifier(self) -> str: ...
    @property
    def event_time(self) -> str: ...
    @property
    def late_after_days(self) -> int | None: ...
    def glue_columns(self) -> Sequence[tuple[str, str]]: ...


def typed(frame: DataFrame, contract: CurateContract) -> DataFrame:
    """The contract's columns in their types, plus ``REASONS``.

    A column that the frame lacks is null, one that the contract lacks is left out. A value that does not
    convert without loss becomes a reason, never a silent null.
    """
    present = {field.name: field.dataType for field in frame.schema.fields}
    selected: list[Column] = []
    reasons: list[Column] = []
    for name, hive in contract.glue_columns():
        if name not in present:
            selected.append(sf.lit(None).cast(hive).alias(name))
            continue
        source = sf.col(f"`{name}`")
        value = _converted(source, present[name], hive)
        selected.append(value.alias(name))
        if present[name].simpleString() != hive:
            lost = source.isNotNull() & value.isNull()
            text = f"{name}: a {present[name].simpleString()} that is no {hive}"
            reasons.append(sf.when(lost, sf.lit(text)))
    required = [contract.identifier, contract.event_time]
    frame = frame.select(*selected, *(reason.alias(f"_lost_{i}") for i, reason in enumerate(reasons)))
    reasons = [sf.col(f"_lost_{i}") for i in range(len(reasons))]
    reasons += [sf.when(sf.col(name).isNull(), sf.lit(f"{name}: missing")) for name in required]
    names = [name for name, _ in contract.glue_columns()]
    return frame.select(
        *names, sf.filter(sf.array(*reasons), lambda reason: reason.isNotNull()).alias(REASONS)
    )


def _converted(source: Column, found: st.DataType, hive: str) -> Column:
    """``source`` as the Hive type, null where the value would change its meaning."""
    whole = isinstance(found, _INTEGERS)
    fraction = isinstance(found, _FRACTIONS)
    text = isinstance(found, st.StringType)
    moment = isinstance(found, (st.DateType, st.TimestampType, st.TimestampNTZType))
    value = sf.lit(None)
    if found.simpleString() == hive:
        value = source
    elif hive == "double" and (whole or fraction):
        value = source.cast(hive)
    elif hive == "double" and text:
        value = sf.when(source.rlike(NUMBER), sf.trim(source).cast(hive))
    elif hive == "bigint" and whole:
        value = source.cast(hive)
    elif hive == "bigint" and fraction:
        value = _whole(source)
    elif hive == "bigint" and text:
        value = sf.when(source.rlike(WHOLE), sf.regexp_replace(sf.trim(source), r"\.0*$", "").cast(hive))
    elif hive == "string" and fraction:
        size = sf.abs(source.cast("double"))
        plain = (size >= PLAIN[0]) & (size < PLAIN[1])
        number = _whole(source)
        value = sf.when(number.isNotNull(), number.cast(hive)).when(plain, source.cast(hive))
    elif hive == "string" and (whole or isinstance(found, (st.BooleanType, st.DateType))):
        value = source.cast(hive)
    elif hive == "boolean" and text:
        lower = sf.lower(source)
        value = sf.when(lower == "true", sf.lit(True)).when(lower == "false", sf.lit(False))
    elif hive in ("date", "timestamp") and text:
        day = sf.substring(source, 1, 10).cast("date")
        value = sf.when(source.rlike(MOMENT) & day.isNotNull(), day if hive == "date" else source.cast(hive))
    elif hive in ("date", "timestamp") and moment:
        value = source.cast(hive)
    return value.cast(hive)


def _whole(source: Column) -> Column:
    """A fraction as an integer, null where it is none."""
    number = source.cast("double")
    held = (number == sf.floor(number)) & (number >= -LARGEST) & (number < LARGEST)
    return sf.when(held, source.cast("bigint"))


def union(frames: Sequence[DataFrame]) -> DataFrame:
    """All frames under one another."""
    first, *others = frames
    for other in others:
        first = first.unionByName(other)
    return first


def late(contract: CurateContract) -> Column:
    """Whether a row arrived more than ``late_after_days`` after it happened."""
    if contract.late_after_days is None:
        return sf.lit(False)
    age = sf.datediff(sf.col("received_at"), sf.col(contract.event_time))
    return sf.coalesce(age > contract.late_after_days, sf.lit(False))


def newest(frame: DataFrame, contract: CurateContract, keep: str = "latest_event") -> DataFrame:
    """One row per identifier: the latest event, of those the one received last, or what ``keep`` says.

    ``record_id``, the digest of the raw bytes, settles what is left: the choice never depends on file order.
    """
    columns = [contract.event_time, "received_at", "record_id"]
    if keep != "latest_event":
        columns = ["received_at", contract.event_time, "record_id"]
    first = keep == "first_arrival"
    order = Window.partitionBy(contract.identifier).orderBy(
        *(sf.col(c).asc_nulls_last() if first else sf.col(c).desc_nulls_last() for c in columns)
    )
    return frame.withColumn("_rank", sf.row_number().over(order)).where("_rank = 1").drop("_rank")


def with_month(frame: DataFrame, contract: CurateContract) -> DataFrame:
    """Add the partition column."""
    return frame.withColumn(MONTH, sf.date_format(sf.col(contract.event_time), "yyyy-MM"))


def rule_outcomes(rows: Iterable[Mapping[str, object]], severities: Mapping[str, str]) -> list[RuleOutcome]:
    """The rows of ``EvaluateDataQuality`` as values; ``severities`` by the rule's text."""
    outcomes = []
    for row in rows:
        metrics = row["EvaluatedMetrics"]
        reason = row["FailureReason"]
        outcomes.append(
            RuleOutcome(
                rule=str(row["Rule"]),
                outcome=str(row["Outcome"]),
                value=dict(metrics) if isinstance(metrics, Mapping) else {},
                reason=None if reason is None else str(reason),
                severity=severities.get(str(row["Rule"]), "stop"),
            )
        )
    return outcomes
