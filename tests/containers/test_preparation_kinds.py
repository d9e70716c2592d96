"""Groups that stay together, classes made even, and a model of every kind of preparation."""

from __future__ import annotations

import json
import pathlib
import random
from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pytest
from container_support import (
    features_of,
    make_contract,
    make_records,
    prepare_inputs,
    run_image,
    training_inputs,
    write_features,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_contract.compiled import CompiledContract
from ml_processing import prepare as prepare_module
from ml_processing.balance import balanced
from ml_processing.split import split_rows
from ml_runtime.job import BadInputError
from ml_runtime.model import Model
from ml_runtime.tables import read_table
from ml_serving.predictor import Predictor
from ml_trainer.data import class_weights

ALL_KINDS = """features:
  impute:
    weather: {kind: constant, value: unknown, indicator: true, reason: the sensor fails in the cold}
    distance: {kind: median, indicator: true, reason: some trips are not measured}
    electric: {kind: most_frequent, reason: most cars say so}
  outliers:
    distance: {kind: clip, upper_quantile: 0.98, lower: 0, reason: detours}
    passengers: {kind: missing, upper: 4, reason: no car has five seats for guests}
  encode:
    weather: {kind: ordinal, order: [dry, unknown, rain, snow]}
    driver: {kind: target, smoothing: 5, folds: 3}
  scale: standard
  scale_fields: {distance: robust}
"""
QUANTILES = """  derive:
    distance_quarter: {kind: quantile_bin, field: distance, bins: 4}
"""


def grouped_contract(folder: pathlib.Path, strategy: str, task: str = "binary") -> CompiledContract:
    return make_contract(folder, task, **{"strategy: stratified": f"strategy: {strategy}, group: driver"})


def balancing(folder: pathlib.Path, how: str, task: str = "binary") -> CompiledContract:
    return make_contract(folder, task, **{"training:": f"training:\n  balance: {how}"})


def feature_rows(contract: CompiledContract, count: int = 400, task: str = "binary") -> pl.DataFrame:
    return features_of(make_records(task, count), contract)


def drivers(frame: pl.DataFrame, count: int) -> pl.DataFrame:
    """As many drivers, some with many trips, and some trips without one."""
    rng = random.Random(count)
    names = [None if n % 11 == 0 else f"d{int(count * rng.random() ** 2)}" for n in range(frame.height)]
    return frame.with_columns(pl.Series("driver", names, pl.String))


# --- groups -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["grouped", "stratified_grouped"])
def test_should_keep_the_rows_of_a_group_in_one_part(strategy: str, tmp_path: pathlib.Path) -> None:
    contract = grouped_contract(tmp_path, strategy)
    frame = drivers(feature_rows(contract), 60)
    parts = split_rows(frame, contract)
    assert sum(part.height for part in parts.values()) == frame.height
    homes: dict[str, set[str]] = {}
    for name, part in parts.items():
        for driver in part["driver"].drop_nulls():
            homes.setdefault(driver, set()).add(name)
    assert len(homes) > 20
    assert all(len(where) == 1 for where in homes.values())
    # Rows that nobody drove are not one group: they would all be in one part.
    assert all(part["driver"].null_count() for part in parts.values())
    again = split_rows(frame.sample(fraction=1, shuffle=True, seed=1), contract)
    assert all(parts[name].equals(again[name]) for name in parts)


@settings(max_examples=40)
@given(groups=st.integers(8, 80), strategy=st.sampled_from(["grouped", "stratified_grouped"]))
def test_should_never_part_a_group(
    tmp_path_factory: pytest.TempPathFactory, groups: int, strategy: str
) -> None:
    contract = grouped_contract(tmp_path_factory.mktemp("workload"), strategy)
    parts = split_rows(drivers(feature_rows(contract, 200), groups), contract)
    seen = Counter(driver for part in parts.values() for driver in set(part["driver"].drop_nulls()))
    assert max(seen.values()) == 1


def test_should_give_grouped_parts_their_share_of_every_class(tmp_path: pathlib.Path) -> None:
    contract = grouped_contract(tmp_path, "stratified_grouped")
    frame = drivers(feature_rows(contract, 1000), 200)
    late = (frame["outcome"] == "late").mean()
    parts = split_rows(frame, contract)
    for name, part in parts.items():
        assert part.height / frame.height == pytest.approx(contract.split[name], abs=0.06)
        assert (part["outcome"] == "late").mean() == pytest.approx(late, abs=0.06)


@pytest.mark.parametrize("strategy", ["grouped", "stratified_grouped"])
def test_should_say_that_groups_are_too_few(strategy: str, tmp_path: pathlib.Path) -> None:
    contract = grouped_contract(tmp_path, strategy)
    frame = feature_rows(contract, 100).with_columns(pl.lit("only one").alias("driver"))
    with pytest.raises(BadInputError, match="1 groups cannot be shared out to 3 parts"):
        split_rows(frame, contract)


def test_should_group_by_a_field_that_is_no_feature(tmp_path: pathlib.Path) -> None:
    contract = make_contract(
        tmp_path,
        "binary",
        **{
            "strategy: stratified": "strategy: grouped, group: driver",
            "driver: {type: string}": "driver: {type: string, sensitive: pii}",
        },
    )
    frame = feature_rows(contract)
    assert contract.group_key == "driver"
    assert frame.columns == [name for name, _ in contract.feature_columns()]
    assert "driver" not in [feature.name for feature in contract.features]
    with pytest.raises(BadInputError, match=r"has no row of class|cannot be shared out|part is empty"):
        split_rows(frame.filter(pl.col("driver") == "ann"), contract)
    parts = split_rows(drivers(frame, 60), contract)
    assert not set(parts["train"]["driver"].drop_nulls()) & set(parts["test"]["driver"].drop_nulls())


# --- balance ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["none", "class_weight"])
def test_should_leave_rows_as_they_are(how: str, tmp_path: pathlib.Path) -> None:
    contract = balancing(tmp_path, how)
    frame = feature_rows(contract)
    assert balanced(frame, contract) is frame


@pytest.mark.parametrize("how", ["oversample", "smote"])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_should_make_the_classes_even(how: str, task: str, tmp_path: pathlib.Path) -> None:
    contract = balancing(tmp_path, how, task)
    frame = feature_rows(contract, task=task)
    before = Counter(frame["outcome"])
    assert len(set(before.values())) > 1
    after = balanced(frame, contract)
    assert after.schema == frame.schema
    assert after[: frame.height].equals(frame)
    assert set(Counter(after["outcome"]).values()) == {max(before.values())}
    assert balanced(frame, contract).equals(after)


def test_should_repeat_rows_that_are_there(tmp_path: pathlib.Path) -> None:
    contract = balancing(tmp_path, "oversample")
    frame = feature_rows(contract)
    after = balanced(frame, contract)
    assert set(after["trip_id"]) == set(frame["trip_id"])
    rare = min(Counter(frame["outcome"]).items(), key=lambda item: item[1])[0]
    assert set(after[frame.height :]["outcome"]) == {rare}


def test_should_make_rows_up_between_neighbours(tmp_path: pathlib.Path) -> None:
    contract = balancing(tmp_path, "smote")
    frame = feature_rows(contract, 600)
    made = balanced(frame, contract)[frame.height :]
    assert made.height > 50
    assert made["trip_id"].null_count() == made["started_at"].null_count() == made.height
    like = frame.filter(pl.col("outcome") == made["outcome"][0])
    for name in ("distance", "passengers", "start_hour", "lead_days"):
        assert like[name].min() <= made[name].min()  # type: ignore[operator]
        assert made[name].max() <= like[name].max()  # type: ignore[operator]
    assert not set(made["distance"].drop_nulls()) <= set(like["distance"].drop_nulls())
    passengers = made["passengers"].drop_nulls()
    assert (passengers == passengers.round()).all()
    assert set(made["electric"].drop_nulls()) == {0.0, 1.0}
    assert set(made["weather"]) <= {"dry", "rain", "snow", None}


def test_should_keep_gaps_in_rows_that_are_made_up(tmp_path: pathlib.Path) -> None:
    """Were gaps filled, the model would learn that a filled row is of the rare class."""
    contract = balancing(tmp_path, "smote")
    frame = feature_rows(contract, 600)
    rare = min(Counter(frame["outcome"]).items(), key=lambda item: item[1])[0]
    frame = frame.with_columns(
        pl.when(pl.col("outcome") == rare).then(None).otherwise(pl.col("distance")).alias("distance")
    )
    assert balanced(frame, contract)[frame.height :]["distance"].null_count() > 0


def test_should_say_that_nothing_lies_between_one_row(tmp_path: pathlib.Path) -> None:
    contract = balancing(tmp_path, "smote")
    frame = feature_rows(contract, 100).with_columns(pl.Series("outcome", ["late"] + ["on time"] * 99))
    with pytest.raises(BadInputError, match="balance smote needs two training rows of each class"):
        balanced(frame, contract)


def test_should_weigh_classes_alike(tmp_path: pathlib.Path) -> None:
    contract = balancing(tmp_path, "class_weight")
    labels = np.array([0, 0, 0, 1], dtype=np.float32)
    weights = class_weights(labels, contract)
    assert weights is not None
    assert weights.tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])
    assert class_weights(labels, make_contract(tmp_path, "binary")) is None


# --- the whole way ----------------------------------------------------------------------------------------


def prepare(base: pathlib.Path, contract: CompiledContract, records: list[dict[str, Any]]) -> dict[str, Any]:
    write_features(features_of(records, contract), contract, prepare_inputs(base, contract))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGEMAKER_BASE_DIR", str(base))
        prepare_module.prepare()
    report: dict[str, Any] = json.loads((base / "processing/output/transform/preparation.json").read_text())
    return report


def test_should_tell_what_was_done_to_each_feature(tmp_path: pathlib.Path) -> None:
    contract = make_contract(tmp_path, "binary", **{"features:\n": ALL_KINDS, "  derive:\n": QUANTILES})
    report = prepare(tmp_path / "base", contract, make_records("binary", 400))
    distance = report["features"]["distance"]
    assert distance["limits"]["kind"] == "clip"
    assert distance["limits"]["lower"] == 0
    assert distance["filled_with"] is not None
    assert distance["reasons"] == {"impute": "some trips are not measured", "outliers": "detours"}
    assert distance["columns"] == 2
    rows = distance["rows"]
    quarter = report["features"]["distance_quarter"]
    assert all(rows[name]["missing"] == quarter["rows"][name]["missing"] for name in rows)
    assert rows["train"]["filled"] == rows["train"]["missing"] > 0
    assert rows["train"]["above"] > 0
    assert len(quarter["intervals"]) == 3
    assert report["features"]["weather"]["encoding"] == "ordinal"
    assert report["features"]["weather"]["rows"]["train"]["unknown"] == 0
    assert report["features"]["driver"]["values"] == 4
    assert report["balance"]["kind"] == "none"


def test_should_balance_only_the_part_that_is_trained_on(tmp_path: pathlib.Path) -> None:
    contract = balancing(tmp_path, "oversample")
    report = prepare(tmp_path / "base", contract, make_records("binary", 400))
    parts = {
        name: read_table(tmp_path / "base/processing/output" / name, contract.feature_columns())[0]
        for name in ("train", "validation", "test")
    }
    balance = report["balance"]
    assert len(set(balance["after"].values())) == 1 < len(set(balance["before"].values()))
    assert dict(Counter(parts["train"]["outcome"])) == balance["after"]
    assert report["rows"] == {"train": 240, "validation": 80, "test": 80}
    for name in ("validation", "test"):
        assert parts[name].height == 80
        assert len(set(Counter(parts[name]["outcome"]).values())) == 2
    # What is typical of the data is that of the rows as they came.
    statistics = json.loads((tmp_path / "base/processing/output/baseline/statistics.json").read_text())
    assert statistics["dataset"]["item_count"] == 240


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "balance"), [("binary", "class_weight"), ("multiclass", "oversample"), ("regression", "none")]
)
def test_should_serve_what_was_trained_with_every_kind(
    task: str, balance: str, tmp_path: pathlib.Path
) -> None:
    """The endpoint's scores of raw records are those of the prepared table."""
    contract = make_contract(
        tmp_path,
        task,
        **{
            "features:\n": ALL_KINDS,
            "  derive:\n": QUANTILES,
            "training:": f"training:\n  balance: {balance}",
        },
    )
    records = make_records(task, 500)
    prepare(tmp_path / "prepare", contract, records)
    prepared = tmp_path / "prepare/processing/output"
    training_inputs(tmp_path / "train", prepared, contract)
    done = run_image("training", tmp_path / "train", "train")
    assert done.returncode == 0, done.stderr
    model = Model.load(tmp_path / "train/model")
    test, _ = read_table(prepared / "test", contract.feature_columns())
    scores = model.scores(model.fitted.matrix(test))
    by_id = {record["trip_id"]: record for record in records}
    predictor = Predictor(model)
    for identifier, expected in zip(test["trip_id"], scores, strict=True):
        answer = predictor.answer(
            json.dumps(by_id[identifier]).encode(), "application/json", "application/json"
        )
        assert answer.status == 200, answer.body
        (prediction,) = json.loads(answer.body)["predictions"]
        got = list(prediction["scores"].values()) if task == "multiclass" else prediction["score"]
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    metadata = json.loads((tmp_path / "train/model/metadata.json").read_text())
    assert metadata["balance"] == balance
    names = set(metadata["columns"])
    assert {"weather=<missing>", "distance=<missing>", "distance_quarter=4", "weather"} <= names
    assert ("driver=late" in names) == (task == "multiclass")
