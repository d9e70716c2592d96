"""The prepare step: which rows, which parts, and what it says when it cannot."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import polars as pl
import pytest
from container_support import (
    features_of,
    make_contract,
    make_records,
    prepare_inputs,
    run_image,
    write_features,
)
from ml_contract.compiled import CompiledContract
from ml_processing import prepare as prepare_module
from ml_processing.split import split_rows
from ml_runtime.job import BadInputError
from ml_runtime.tables import read_table


def prepared(
    base: pathlib.Path, contract: CompiledContract, frame: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Run the step in this process; return its report."""
    write_features(frame, contract, prepare_inputs(base, contract))
    return again(base, monkeypatch)


def again(base: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the step on inputs that are already there."""
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(base))
    prepare_module.prepare()
    report: dict[str, Any] = json.loads((base / "processing/output/transform/preparation.json").read_text())
    return report


def part(base: pathlib.Path, name: str, contract: CompiledContract) -> pl.DataFrame:
    """Return one part as it was written."""
    return read_table(base / "processing/output" / name, contract.feature_columns())[0]


def test_should_report_a_damaged_file_and_go_on(
    contract: CompiledContract, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = features_of(make_records("binary", 200), contract)
    zone = prepare_inputs(tmp_path, contract)
    write_features(frame, contract, zone)
    (zone / "event_month=2026-01/damaged.parquet").write_bytes(b"PAR1 and nothing more")
    (zone / "event_month=2026-02/empty.parquet").write_bytes(b"")
    frame.drop("driver").write_parquet(zone / "older.parquet")
    frame.with_columns(pl.lit("far").alias("distance")).write_parquet(zone / "other-type.parquet")
    (zone / "_SUCCESS").write_bytes(b"")
    (zone / "_temporary").mkdir()
    (zone / "_temporary/x.parquet").write_bytes(b"x")
    report = again(tmp_path, monkeypatch)
    assert report["rows_read"] == 200
    assert [(file["file"], bool(file["reason"])) for file in report["files_skipped"]] == [
        ("event_month=2026-01/damaged.parquet", True),
        ("event_month=2026-02/empty.parquet", True),
        ("older.parquet", True),
        ("other-type.parquet", True),
    ]
    assert report["files_skipped"][2]["reason"] == "columns are missing: driver"


def test_should_learn_from_labelled_rows_only(
    contract: CompiledContract, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = features_of(make_records("binary", 200), contract)
    identifier = pl.col("trip_id")
    frame = frame.with_columns(
        pl.when(identifier.str.ends_with("7"))
        .then(None)
        .when(identifier.str.ends_with("8"))
        .then(pl.lit("perhaps"))
        .otherwise(pl.col("outcome"))
        .alias("outcome")
    )
    report = prepared(tmp_path, contract, frame, monkeypatch)
    assert (report["unlabelled"], report["unknown_label"]) == (20, 20)
    assert sum(report["rows"].values()) == 160


def test_should_split_alike_whatever_the_order_of_rows_and_files(contract: CompiledContract) -> None:
    frame = features_of(make_records("binary", 200), contract)
    one = split_rows(frame, contract)
    other = split_rows(frame.sample(fraction=1, shuffle=True, seed=3), contract)
    assert all(one[name].equals(other[name]) for name in one)


def test_should_split_another_way_by_another_seed(contract: CompiledContract, tmp_path: pathlib.Path) -> None:
    frame = features_of(make_records("binary", 200), contract)
    other = make_contract(tmp_path / "other", "binary", **{"seed: 3": "seed: 4"})
    assert not split_rows(frame, contract)["test"].equals(split_rows(frame, other)["test"])


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_should_give_each_part_its_share_of_every_class(task: str, tmp_path: pathlib.Path) -> None:
    contract = make_contract(tmp_path, task)
    frame = features_of(make_records(task, 300), contract)
    whole = dict(frame["outcome"].value_counts(normalize=True).iter_rows())
    for piece in split_rows(frame, contract).values():
        for value, share in piece["outcome"].value_counts(normalize=True).iter_rows():
            assert share == pytest.approx(whole[value], abs=0.02)


def test_should_stratify_a_number_by_its_size(tmp_path: pathlib.Path) -> None:
    contract = make_contract(tmp_path, "regression")
    parts = split_rows(features_of(make_records("regression", 300), contract), contract)
    medians = [piece["outcome"].median() for piece in parts.values()]
    assert max(medians) - min(medians) < 4  # type: ignore[operator, type-var]


def test_should_train_on_the_past_and_test_on_the_future(tmp_path: pathlib.Path) -> None:
    contract = make_contract(tmp_path, "binary", stratified="time")
    parts = split_rows(features_of(make_records("binary", 300), contract), contract)
    assert parts["train"]["started_at"].max() <= parts["validation"]["started_at"].min()  # type: ignore[operator]
    assert parts["validation"]["started_at"].max() <= parts["test"]["started_at"].min()  # type: ignore[operator]
    assert [piece.height for piece in parts.values()] == [180, 60, 60]


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (["late", "on time"] * 10, "20 labelled rows are too few"),
        (["late"] * 60, r"all labelled rows are of one class \(on time 0, late 60\)"),
        (["on time"] * 58 + ["late"] * 2, "too few of late"),
    ],
)
def test_should_say_why_rows_do_not_do(contract: CompiledContract, labels: list[str], reason: str) -> None:
    frame = features_of(make_records("binary", len(labels)), contract)
    with pytest.raises(BadInputError, match=reason):
        split_rows(frame.with_columns(pl.Series("outcome", labels)), contract)


def test_should_say_that_a_later_part_lacks_a_class(tmp_path: pathlib.Path) -> None:
    contract = make_contract(tmp_path, "binary", stratified="time")
    frame = features_of(make_records("binary", 100), contract).sort("started_at")
    frame = frame.with_columns(pl.Series("outcome", ["late"] * 10 + ["on time"] * 90))
    with pytest.raises(BadInputError, match=r"the validation part .* has no row of class late"):
        split_rows(frame, contract)


def test_should_say_that_a_number_never_changes(tmp_path: pathlib.Path) -> None:
    contract = make_contract(tmp_path, "regression")
    frame = features_of(make_records("regression", 60), contract)
    with pytest.raises(BadInputError, match="every row has the label 5"):
        split_rows(frame.with_columns(pl.lit(5.0).alias("outcome")), contract)


def test_should_describe_the_training_part_as_the_baseline(
    contract: CompiledContract, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = features_of(make_records("binary", 200), contract)
    prepared(tmp_path, contract, frame, monkeypatch)
    statistics = json.loads((tmp_path / "processing/output/baseline/statistics.json").read_text())
    train = part(tmp_path, "train", contract)
    assert statistics["dataset"] == {"item_count": train.height}
    by_name = {feature["name"]: feature for feature in statistics["features"]}
    assert by_name["distance"]["numerical_statistics"]["mean"] == pytest.approx(train["distance"].mean())
    assert "trip_id" not in by_name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("no rows", "hold no rows"),
        ("damaged", "1 files could not be read, the first is x.parquet"),
        ("no label", "none of 100 rows has a label: outcome must be one of on time, late"),
        ("two contracts", "must hold exactly one *.json file, got 2"),
        ("no contract", "contract is missing"),
    ],
)
def test_should_leave_its_reason_where_sagemaker_looks(
    contract: CompiledContract, tmp_path: pathlib.Path, case: str, reason: str
) -> None:
    zone = prepare_inputs(tmp_path, contract)
    if case == "damaged":
        (zone / "x.parquet").write_bytes(b"x")
    if case == "no label":
        frame = features_of(make_records("binary", 100), contract)
        write_features(frame.with_columns(pl.lit(None, pl.String).alias("outcome")), contract, zone)
    inputs = tmp_path / "processing/input/contract"
    if case == "two contracts":
        (inputs / "second.json").write_text(contract.to_json())
    if case == "no contract":
        shutil.rmtree(inputs)
    done = run_image("processing", tmp_path, "prepare")
    assert done.returncode == 1
    assert reason in (tmp_path / "output/message").read_text()
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_should_know_two_commands(tmp_path: pathlib.Path) -> None:
    done = run_image("processing", tmp_path, "train")
    assert done.returncode == 2
    assert "prepare, evaluate" in done.stderr
