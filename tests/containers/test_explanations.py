"""Shapley values and partial dependence: they add up, and the two ways of getting them agree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import xgboost as xgb
from container_support import Trained
from ml_judging.explain import (
    clarify_report,
    columns_of,
    explain,
    partial_dependence,
    permutation_shares,
    tree_shares,
)
from ml_processing.judging.rows import read_rows
from ml_runtime.model import Model

pytestmark = pytest.mark.slow


def held_out(trained: Trained) -> tuple[Model, pl.DataFrame, np.ndarray]:
    model = Model.load(trained.model)
    frame = read_rows(trained.prepared / "test", trained.contract, "test")
    return model, frame, model.fitted.matrix(frame)


def test_should_add_up_to_the_boosters_sum_of_leaves(workload: Trained) -> None:
    model, _, matrix = held_out(workload)
    shares = tree_shares(workload.model, model, matrix)
    booster = xgb.Booster(model_file=workload.model / "model.ubj")
    expected = booster.predict(xgb.DMatrix(matrix), output_margin=True)
    np.testing.assert_allclose(shares.values.sum(axis=1) + shares.expected, expected, rtol=1e-4, atol=1e-4)
    assert shares.features == tuple(feature.name for feature in workload.contract.features)


def test_should_add_up_to_the_models_score_without_trees(workload: Trained) -> None:
    model, _, matrix = held_out(workload)
    shares = permutation_shares(model, matrix[:5], matrix)
    np.testing.assert_allclose(
        shares.values.sum(axis=1) + shares.expected, model.scores(matrix[:5]), rtol=1e-4, atol=1e-5
    )


def test_should_find_the_same_features_important_either_way(trained: Callable[[str], Trained]) -> None:
    regression = trained("regression")
    model, _, matrix = held_out(regression)
    exact = tree_shares(regression.model, model, matrix[:40]).importance()
    sampled = permutation_shares(model, matrix[:40], matrix).importance()
    assert list(exact)[:2] == list(sampled)[:2] == ["distance", "weather"]
    # One expects what the trees saw, the other what the background rows are.
    assert sampled["distance"] == pytest.approx(exact["distance"], rel=0.3)


def test_should_give_a_feature_all_its_columns(trained: Callable[[str], Trained]) -> None:
    model, _, _ = held_out(trained("binary"))
    places = columns_of(model)
    assert len(places["weather"]) >= 3
    flat = sorted(place for columns in places.values() for place in columns)
    assert flat == list(range(len(model.fitted.output_names)))


def test_should_draw_the_mean_score_by_a_features_value(trained: Callable[[str], Trained]) -> None:
    binary = trained("binary")
    model, frame, _ = held_out(binary)
    distance, weather = partial_dependence(model, frame, ["distance", "weather"])
    assert distance["values"] == sorted(distance["values"])
    # Trips are late when they are long, and in the snow.
    assert distance["scores"][-1] > distance["scores"][0] + 0.2
    scores = dict(zip(weather["values"], weather["scores"], strict=True))
    assert scores["snow"] > scores["dry"]
    one = frame.with_columns(pl.lit("snow").alias("weather"))
    assert scores["snow"] == pytest.approx(float(model.scores(model.fitted.matrix(one)).mean()), rel=1e-5)


def test_should_report_as_clarify_does(trained: Callable[[str], Trained]) -> None:
    binary = trained("binary")
    model, frame, matrix = held_out(binary)
    found = explain(binary.model, model, frame, matrix, rows=20, curves=2)
    assert (found["method"], found["units"], found["rows"]) == ("TreeSHAP", "log-odds", 20)
    assert list(found["importance"].values()) == sorted(found["importance"].values(), reverse=True)
    assert [one["feature"] for one in found["partial_dependence"]] == list(found["importance"])[:2]
    report = clarify_report(found, "outcome")["explanations"]
    assert report["kernel_shap"]["outcome"]["global_shap_values"] == found["importance"]
    assert report["pdp"][0]["data_type"] == "numerical"
    assert clarify_report(None, "outcome")["explanations"] == {}
