"""Features written in pieces are those of the whole table."""

from __future__ import annotations

import datetime as dt
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zoo  # type: ignore[import-not-found]  # beside this file, where pytest looks
from ml_contract.features.frame import FrameError, feature_frame
from ml_contract.features.stream import write_features

CONTRACT = zoo.contract()


def curated(folder: Path, rows: int) -> pl.LazyFrame:
    """Rows of five months in three files of small row groups."""
    rng = random.Random(3)
    records: list[dict[str, Any]] = [
        {c.name: None for c in zoo.COLUMNS}
        | {
            "key": f"k{n}",
            "day": dt.date(2015, 1, 1) + dt.timedelta(days=rng.randrange(150)),
            "x": rng.choice([None, 0.0, float("nan"), float("inf"), rng.gauss(0, 9)]),
            "s": rng.choice([None, "a", "Ab", "ÀB"]),
            "m": dt.datetime(2015, 1, 1) + dt.timedelta(seconds=rng.randrange(10**7)),
            "d": rng.choice([None, dt.date(1969, 12, 31), dt.date(2000, 2, 29)]),
            "outcome": rng.choice([None, "no", "yes"]),
        }
        for n in range(rows)
    ]
    folder.mkdir()
    frame = zoo.polars_frame(records)
    third = -(-rows // 3)
    for number in range(3):
        frame[number * third : (number + 1) * third].write_parquet(
            folder / f"{number}.parquet", row_group_size=50
        )
    return pl.scan_parquet(folder)


def read(folder: Path) -> pl.DataFrame:
    return pl.scan_parquet(sorted(folder.rglob("*.parquet")), hive_partitioning=False).collect().sort("key")


def test_should_write_the_features_of_the_whole_table(tmp_path: Path) -> None:
    table = curated(tmp_path / "curated", 700)
    expected = feature_frame(table.collect(), CONTRACT).sort("key")
    assert write_features(table, tmp_path / "flat", CONTRACT, partition=None) == 700
    assert read(tmp_path / "flat").equals(expected)
    assert write_features(table, tmp_path / "months", CONTRACT) == 700
    assert read(tmp_path / "months").equals(expected)
    folders = {path.name for path in (tmp_path / "months").iterdir()}
    assert folders == {f"event_month=2015-0{month}" for month in range(1, 6)}
    for folder in folders:
        part = read(tmp_path / "months" / folder)
        assert part.columns == [name for name, _ in CONTRACT.feature_columns()]
        assert set(part["day"].str.slice(0, 7)) == {folder.removeprefix("event_month=")}


def test_should_write_the_same_bytes_again(tmp_path: Path) -> None:
    table = curated(tmp_path / "curated", 400)
    for name in ("one", "two"):
        write_features(table, tmp_path / name, CONTRACT)
    files = [path.relative_to(tmp_path / "one") for path in sorted((tmp_path / "one").rglob("*.parquet"))]
    assert len(files) == 5
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_should_write_unlabelled_rows(tmp_path: Path) -> None:
    table = curated(tmp_path / "curated", 30).drop("outcome")
    write_features(table, tmp_path / "out", CONTRACT, label=False)
    assert "outcome" not in read(tmp_path / "out").columns


def test_should_not_mix_rows_with_those_of_an_earlier_run(tmp_path: Path) -> None:
    table = curated(tmp_path / "curated", 30)
    write_features(table, tmp_path / "out", CONTRACT)
    with pytest.raises(ValueError, match="out holds Parquet files already; give a folder that is empty"):
        write_features(table, tmp_path / "out", CONTRACT)


def test_should_write_nothing_of_a_table_that_does_not_fit(tmp_path: Path) -> None:
    table = curated(tmp_path / "curated", 30).drop("x")
    with pytest.raises(FrameError, match="column x is missing"):
        write_features(table, tmp_path / "out", CONTRACT)
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_should_write_no_row_of_an_empty_table(tmp_path: Path) -> None:
    table = curated(tmp_path / "curated", 3).filter(pl.lit(value=False))
    assert write_features(table, tmp_path / "out", CONTRACT) == 0
