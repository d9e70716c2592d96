"""What the curate job does to rows. Pure: frames and values in, frames and values out.

Every function is deterministic, so a rerun over the same files gives the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as sf
from pyspark.sql import types as st

if TYPE_CHECKING:
    from lake_files.parquet import ParquetFile

#: Column of the reasons a row is refused for; empty on good rows.
REASONS = "_reasons"
#: Partition column of the curated zone.
MONTH = "event_month"

_NUMBERS = ("bigint", "double")
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


@dataclass(frozen=True)
class SchemaDrift:
    """A difference between a file's columns and the contract's."""

    column: str
    #: ``missing``, ``unknown`` or ``type``.
    kind: str
    found: str | None
    expected: str | None
    files: int


#: Arrow types that hold a Hive type without conversion.
_EXACT = {
    "bigint": ("int64",),
    "double": ("double",),
    "string": ("string", "large_string"),
    "boolean": ("bool",),
    "date": ("date32[day]",),
}


def schema_drift(files: Iterable[ParquetFile], columns: Sequence[tuple[str, str]]) -> list[SchemaDrift]:
    """Where the files' columns are not the contract's: missing, unknown, or of another type."""
    expected = dict(columns)
    counts: dict[tuple[str, str, str | None, str | None], int] = {}

    def count(column: str, kind: str, found: str | None, wanted: str | None) -> None:
        key = (column, kind, found, wanted)
        counts[key] = counts.get(key, 0) + 1

    for file in files:
        present = dict(file.columns)
        for name, wanted in expected.items():
            found = present.get(name)
            if found is None:
                count(name, "missing", None, wanted)
            elif not _holds(found, wanted):
                count(name, "type", found, wanted)
        for name, found in present.items():
            if name not in expected:
                count(name, "unknown", found, None)
    return [SchemaDrift(*key, files=number) for key, number in sorted(counts.items(), key=repr)]


def _holds(arrow: str, hive: str) -> bool:
    return arrow.startswith("timestamp") if hive == "timestamp" else arrow in _EXACT[hive]


def by_schema(files: Iterable[ParquetFile]) -> list[tuple[tuple[tuple[str, str], ...], list[ParquetFile]]]:
    """Files of one physical schema together: Spark reads a set of files with one schema only."""
    groups: dict[tuple[tuple[str, str], ...], list[ParquetFile]] = {}
    for file in files:
        groups.setdefault(file.columns, []).append(file)
    return sorted(groups.items())


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
    number = source.cast("decimal(38,9)")
    is_whole = number == sf.floor(number)
    value = sf.lit(None)
    if found.simpleString() == hive:
        value = source
    elif hive == "double" and (whole or fraction or text):
        value = source.cast(hive)
    elif hive == "bigint" and (whole or fraction or text):
        value = sf.when(is_whole, number.cast(hive))
    elif hive == "string" and fraction:
        value = sf.when(is_whole, number.cast("bigint").cast(hive)).otherwise(source.cast(hive))
    elif hive == "string" and (whole or isinstance(found, (st.BooleanType, st.DateType))):
        value = source.cast(hive)
    elif hive == "boolean" and text:
        lower = sf.lower(source)
        value = sf.when(lower == "true", sf.lit(True)).when(lower == "false", sf.lit(False))
    elif hive in ("date", "timestamp") and (text or moment):
        value = source.cast(hive)
    return value.cast(hive)


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


def newest(frame: DataFrame, contract: CurateContract) -> DataFrame:
    """One row per identifier: the latest event, of those the one received last.

    ``record_id``, the digest of the raw bytes, settles what is left: the choice never depends on file order.
    """
    order = Window.partitionBy(contract.identifier).orderBy(
        sf.col(contract.event_time).desc_nulls_last(),
        sf.col("received_at").desc_nulls_last(),
        sf.col("record_id").desc_nulls_last(),
    )
    return frame.withColumn("_rank", sf.row_number().over(order)).where("_rank = 1").drop("_rank")


def with_month(frame: DataFrame, contract: CurateContract) -> DataFrame:
    """Add the partition column."""
    return frame.withColumn(MONTH, sf.date_format(sf.col(contract.event_time), "yyyy-MM"))


@dataclass(frozen=True)
class RuleOutcome:
    """What became of one rule of the ruleset."""

    rule: str
    outcome: str
    value: Mapping[str, float]
    reason: str | None

    @property
    def passed(self) -> bool:
        """Whether the data keeps the rule."""
        return self.outcome == "Passed"


def rule_outcomes(rows: Iterable[Mapping[str, object]]) -> list[RuleOutcome]:
    """The rows of ``EvaluateDataQuality`` as values."""
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
            )
        )
    return outcomes
