"""Measures: values by scikit-learn, resampled ones the same as of rows repeated; intervals as SciPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ml_contract.spec.judging import LOSS_METRICS, METRICS
from ml_judging.measures import LOSSES, Measures, measures_of
from ml_judging.resampling import SAMPLE_ROWS, Bootstrap, difference, strata_of, with_intervals
from ml_runtime.job import BadInputError
from scipy import stats
from sklearn import metrics as sk

ROWS = 240
COLUMNS = 4


def sample(task: str, rows: int = ROWS, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and scores that know something of them; scores come in steps, so that there are ties."""
    rng = np.random.default_rng(5)
    if task == "regression":
        labels = rng.normal(20, 5, rows)
        return labels, labels + rng.normal(0, 2, rows)
    classes = 2 if task == "binary" else 3
    labels = rng.integers(0, classes, rows)
    if task == "binary":
        return labels, np.clip(np.round(labels * 0.4 + rng.normal(0.3, noise, rows), 2), 0.01, 0.99)
    raw = rng.random((rows, classes)) + np.eye(classes)[labels] * 0.6
    return labels, (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)


def measured(task: str, labels: np.ndarray, scores: np.ndarray) -> Measures:
    return measures_of(task, labels, scores, threshold=0.45, columns=COLUMNS)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_should_measure_what_a_workload_may_ask_for(task: str) -> None:
    assert set(measured(task, *sample(task)).values()) == set(METRICS[task])
    assert LOSSES == LOSS_METRICS


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_should_measure_weighted_rows_as_rows_repeated(task: str) -> None:
    labels, scores = sample(task)
    weights = np.random.default_rng(1).integers(0, 4, (6, ROWS)).astype(np.float64)
    weights[0] = 1
    found = measured(task, labels, scores).of_samples(weights)
    for position, drawn in enumerate(weights):
        rows = np.repeat(np.arange(ROWS), drawn.astype(int))
        for name, plain in measured(task, labels[rows], scores[rows]).values().items():
            expected = plain
            if name == "adjusted_r2":
                # A sample has as many rows as there are; these have more and less.
                expected = 1 - (1 - found["r2"][position]) * (ROWS - 1) / (ROWS - COLUMNS - 1)
            assert found[name][position] == pytest.approx(expected, rel=1e-9, abs=1e-9), name


def test_should_adjust_r2_for_the_columns_and_give_none_without_rows_to_spare() -> None:
    labels, scores = sample("regression")
    values = measured("regression", labels, scores).values()
    assert values["adjusted_r2"] == pytest.approx(1 - (1 - values["r2"]) * (ROWS - 1) / (ROWS - COLUMNS - 1))
    few = measures_of("regression", labels[:5], scores[:5], threshold=0.5, columns=4)
    assert "adjusted_r2" not in few.values()


@pytest.mark.parametrize(
    ("name", "function"),
    [("auc", sk.roc_auc_score), ("accuracy", lambda y, s: sk.accuracy_score(y, s >= 0.45))],
)
def test_should_draw_the_interval_that_scipy_draws(name: str, function: Any) -> None:
    labels, scores = sample("binary")
    how = Bootstrap(0.9, 1_000)
    found = with_intervals(measured("binary", labels, scores), [np.arange(ROWS)], how)[name]
    oracle = stats.bootstrap(
        (np.arange(ROWS),),
        lambda rows: function(labels[rows], scores[rows]),
        n_resamples=300,
        vectorized=False,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(3),
    )
    assert found["standard_deviation"] == pytest.approx(float(oracle.standard_error), rel=0.2)
    assert found["interval"] == pytest.approx(list(oracle.confidence_interval), abs=0.025)


def test_should_cover_the_true_value_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    hits = 0
    for _ in range(50):
        labels, right = np.ones(200, dtype=int), rng.random(200) < 0.7
        labels[:100] = 0
        scores = np.where(right, labels * 0.8 + 0.1, 0.9 - labels * 0.8)
        found = with_intervals(
            measured("binary", labels, scores), strata_of("binary", labels), Bootstrap(0.9, 200)
        )["accuracy"]
        hits += found["interval"][0] <= 0.7 <= found["interval"][1]
    # 45 are expected; three standard deviations of a binomial either way.
    assert 39 <= hits <= 50


def test_should_scale_the_spread_of_more_rows_than_a_sample_holds() -> None:
    labels, scores = sample("binary", 4 * SAMPLE_ROWS)
    found = with_intervals(
        measured("binary", labels, scores), strata_of("binary", labels), Bootstrap(0.95, 100)
    )["accuracy"]
    expected = np.sqrt(found["value"] * (1 - found["value"]) / len(labels))
    assert found["standard_deviation"] == pytest.approx(expected, rel=0.25)
    assert found["interval"][0] < found["value"] < found["interval"][1]


def test_should_compare_two_models_on_the_same_draws() -> None:
    labels, better = sample("binary", 400, noise=0.1)
    _, worse = sample("binary", 400, noise=0.6)
    strata = strata_of("binary", labels)
    found = difference(
        measured("binary", labels, better), measured("binary", labels, worse), "auc", strata, Bootstrap()
    )
    assert found["better_by"] == pytest.approx(found["value"] - found["champion"])
    assert found["interval"][0] > 0
    assert found["probability_better"] == 1
    same = difference(
        measured("binary", labels, better),
        measured("binary", labels, better),
        "log_loss",
        strata,
        Bootstrap(),
    )
    assert (same["better_by"], same["interval"]) == (0, [0, 0])


def test_should_call_a_smaller_loss_better() -> None:
    labels, _ = sample("regression")
    near, far = (measured("regression", labels, labels + error) for error in (1.0, 3.0))
    found = difference(near, far, "rmse", strata_of("regression", labels), Bootstrap(resamples=100))
    assert found["better_by"] == pytest.approx(2)


def test_should_keep_every_class_in_every_sample() -> None:
    labels = np.array([0] * 50 + [1] * 2 + [2])
    strata = strata_of("multiclass", labels)
    # A class of one row cannot be drawn from by itself; alone in that, it is drawn with all.
    assert [len(group) for group in strata] == [53]
    assert [len(g) for g in strata_of("multiclass", np.array([0] * 5 + [1, 2]))] == [5, 2]


def test_should_refuse_scores_that_are_no_finite_numbers() -> None:
    with pytest.raises(BadInputError, match="1 test scores that are not finite"):
        measured("binary", np.array([0, 1]), np.array([0.5, np.nan]))
