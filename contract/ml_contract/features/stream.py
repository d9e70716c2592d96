"""Features of a table that does not fit into memory, on one machine: read, computed and written in pieces.

Polars' streaming engine reads row groups, runs the expressions on them and writes them, so memory follows the
size of a row group and the number of cores, not the table's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from ml_contract.compiled import CompiledContract
from ml_contract.features.frame import feature_frame

if TYPE_CHECKING:
    import polars as pl

__all__ = ["ROWS_PER_FILE", "write_features"]

#: Rows of one file at most: as many as the Spark job writes.
ROWS_PER_FILE: Final = 2_000_000


def write_features(
    curated: pl.LazyFrame,
    target: Path,
    contract: CompiledContract,
    *,
    partition: str | None = "event_month",
    label: bool = True,
) -> int:
    """Write the contract's features of ``curated`` as Parquet files below ``target``; return their rows.

    Args:
        curated: typed rows, best ``polars.scan_parquet``; window features must have been added to it.
        target: a folder that is empty or not there yet.
        contract: what the features are.
        partition: name of the hive partition by month of the event, ``target/event_month=2015-01/*.parquet``;
            None writes files right below the folder.
        label: whether the table has the label.

    Raises FrameError as ``feature_frame`` does, and ValueError when the folder holds Parquet files: their
    rows would count as this table's.
    """
    import polars as pl

    if any(target.rglob("*.parquet")):
        raise ValueError(f"{target} holds Parquet files already; give a folder that is empty")
    target.mkdir(parents=True, exist_ok=True)
    features: pl.LazyFrame = feature_frame(curated, contract, label=label)
    key = None
    if partition is not None:
        key = pl.col(contract.event_time).str.slice(0, 7).alias(partition)
    features.sink_parquet(
        pl.PartitionBy(target, key=key, include_key=False if key is not None else None,
                       max_rows_per_file=ROWS_PER_FILE),
        compression="zstd",
        mkdir=True,
        maintain_order=True,
    )  # fmt: skip
    files = sorted(target.rglob("*.parquet"))
    return sum(pl.scan_parquet(f).select(pl.len()).collect().item() for f in files)
