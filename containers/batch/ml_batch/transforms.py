"""What curation does to rows, on polars; ``glue/curate/transforms.py`` does the same on Spark.

Pure and lazy: frames in, frames out. Tests hold both engines against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import polars as pl
from ml_contract.records.texts import LARGEST, MOMENT, NUMBER, PLAIN, WHOLE

#: Column of the reasons a row is refused for; empty on good rows.
REASONS = "_reasons"
#: The month of the event, by which data files are cut.
MONTH = "event_month"
#: Number of a row among all that were read.
ROW = "_row"

TYPES: dict[str, pl.DataType] = {
    "bigint": pl.Int64(),
    "double": pl.Float64(),
    "string": pl.String(),
    "boolean": pl.Boolean(),
    "date": pl.Date(),
    "timestamp": pl.Datetime("us", "UTC"),
}


class CurateContract(Protocol):
    """The part of the compiled contract that curation needs."""

    @property
    def identifier(self) -> str: ...
    @property
    def event_time(self) -> str: ...
    @property
    def late_after_days(self) -> int | None: ...
    def glue_columns(self) -> Sequence[tuple[str, str]]: ...


def typed(frame: pl.LazyFrame, contract: CurateContract) -> pl.LazyFrame:
    """The contract's columns in their types, plus ``REASONS``.

    A column that the frame lacks is null, one that the contract lacks is left out. A value that does not
    convert without loss becomes a reason, never a silent null.
    """
    present = frame.collect_schema()
    selected: list[pl.Expr] = []
    reasons: list[pl.Expr] = []
    for name, hive in contract.glue_columns():
        wanted = TYPES[hive]
        if name not in present:
            selected.append(pl.lit(None, dtype=wanted).alias(name))
            continue
        source = pl.col(name)
        found = _spark_name(present[name])
        value = source.cast(wanted) if found == hive else _converted(source, present[name], hive)
        selected.append(value.alias(name))
        if found != hive:
            lost = source.is_not_null() & value.is_null()
            reasons.append(pl.when(lost).then(pl.lit(f"{name}: a {found} that is no {hive}")))
    names = [name for name, _ in contract.glue_columns()]
    frame = frame.select(*selected, *(reason.alias(f"_lost_{i}") for i, reason in enumerate(reasons)))
    reasons = [pl.col(f"_lost_{i}") for i in range(len(reasons))]
    reasons += [
        pl.when(pl.col(name).is_null()).then(pl.lit(f"{name}: missing"))
        for name in (contract.identifier, contract.event_time)
    ]
    return frame.select(*names, pl.concat_list(reasons).list.drop_nulls().alias(REASONS))


def _spark_name(kind: pl.DataType) -> str:
    """The type as Spark names it when it reads such a file."""
    if isinstance(kind, pl.Datetime):
        return "timestamp" if kind.time_zone is not None else "timestamp_ntz"
    if isinstance(kind, pl.Decimal):
        return f"decimal({kind.precision},{kind.scale})"
    return {
        "Int8": "tinyint",
        "Int16": "smallint",
        "Int32": "int",
        "Int64": "bigint",
        "UInt8": "smallint",
        "UInt16": "int",
        "UInt32": "bigint",
        "UInt64": "decimal(20,0)",
        "Float32": "float",
        "Float64": "double",
        "String": "string",
    }.get(str(kind), str(kind).lower())


def _converted(source: pl.Expr, found: pl.DataType, hive: str) -> pl.Expr:  # noqa: PLR0911
    """``source`` as the Hive type, null where the value would change its meaning."""
    wanted = TYPES[hive]
    whole = found.is_integer()
    fraction = found.is_float() or found.is_decimal()
    text = found == pl.String
    if hive == "double" and (whole or fraction):
        return source.cast(wanted)
    if hive == "double" and text:
        return pl.when(source.str.contains(NUMBER)).then(
            source.str.strip_chars(" ").cast(wanted, strict=False)
        )
    if hive == "bigint" and whole:
        return source.cast(wanted, strict=False)
    if hive == "bigint" and fraction:
        return _whole(source)
    if hive == "bigint" and text:
        digits = source.str.strip_chars(" ").str.replace(r"\.0*$", "").str.replace(r"^\+", "")
        return pl.when(source.str.contains(WHOLE)).then(digits.cast(wanted, strict=False))
    if hive == "string" and fraction:
        plain = source.abs().cast(pl.Float64).is_between(*PLAIN, closed="left")
        number = _whole(source)
        return pl.when(number.is_not_null()).then(number.cast(wanted)).when(plain).then(source.cast(wanted))
    if hive == "string" and (whole or found in (pl.Boolean, pl.Date)):
        return source.cast(wanted)
    if hive == "boolean" and text:
        lower = source.str.to_lowercase()
        return pl.when(lower == "true").then(True).when(lower == "false").then(False)
    if hive in ("date", "timestamp") and text:
        return _moment(source, hive)
    if hive in ("date", "timestamp") and found.is_temporal() and found != pl.Time:
        moment = source.cast(pl.Datetime("us"))
        if isinstance(found, pl.Datetime) and found.time_zone is not None:
            moment = source.dt.convert_time_zone("UTC").dt.replace_time_zone(None).cast(pl.Datetime("us"))
        return moment.cast(pl.Date) if hive == "date" else moment.dt.replace_time_zone("UTC")
    return pl.lit(None, dtype=wanted)


def _whole(source: pl.Expr) -> pl.Expr:
    """A fraction as an integer, null where it is none."""
    number = source.cast(pl.Float64)
    held = (number == number.floor()) & (number >= -LARGEST) & (number < LARGEST)
    return pl.when(held).then(source.cast(pl.Int64, strict=False))


def _moment(source: pl.Expr, hive: str) -> pl.Expr:
    known = source.str.contains(MOMENT)
    day = source.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
    if hive == "date":
        return pl.when(known).then(day)
    text = source.str.replace(" ", "T", literal=True)
    text = pl.when(text.str.len_chars() == 10).then(text + "T00:00:00").otherwise(text)
    text = text.str.replace("Z$", "+00:00")
    text = pl.when(text.str.contains(r"[+-]\d{2}:\d{2}$")).then(text).otherwise(text + "+00:00")
    moment = text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", strict=False)
    return pl.when(known & day.is_not_null()).then(moment.dt.convert_time_zone("UTC"))


def late(contract: CurateContract) -> pl.Expr:
    """Whether a row arrived more than ``late_after_days`` after it happened."""
    if contract.late_after_days is None:
        return pl.lit(False)
    arrived = pl.col("received_at").dt.date()
    age = (arrived - pl.col(contract.event_time).cast(pl.Date)).dt.total_days()
    return (age > contract.late_after_days).fill_null(False)


def newest_rows(frame: pl.LazyFrame, contract: CurateContract, keep: str) -> pl.LazyFrame:
    """Numbers (``ROW``) of the rows to keep: one per identifier, the one that ``keep`` means.

    ``record_id``, the digest of the raw bytes, settles what is left: the choice never depends on file order.
    """
    columns = order(contract, keep)
    descending = keep != "first_arrival"
    return (
        frame.select(contract.identifier, *columns, ROW)
        .sort(columns, descending=descending, nulls_last=True, maintain_order=True)
        .unique(contract.identifier, keep="first", maintain_order=True)
        .select(ROW)
    )


def order(contract: CurateContract, keep: str) -> list[str]:
    """Columns whose greatest (for ``first_arrival``: smallest) value is kept, the decisive one first."""
    if keep == "latest_event":
        return [contract.event_time, "received_at", "record_id"]
    return ["received_at", contract.event_time, "record_id"]


def with_month(frame: pl.LazyFrame, contract: CurateContract) -> pl.LazyFrame:
    """Add the month of the event."""
    return frame.with_columns(pl.col(contract.event_time).dt.strftime("%Y-%m").alias(MONTH))
