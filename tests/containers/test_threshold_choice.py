"""The decision threshold that costs least, against every other one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_processing.judging.threshold import cheapest, cost_per_row

ROWS = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])), min_size=1
)
#: Every threshold between them that parts the rows otherwise.
OPEN = [0.1, 0.25, 0.5, 0.75, 0.9]
PRICES = st.sampled_from([0.5, 1.0, 3.0, 40.0])


@given(rows=ROWS, wrong=PRICES, missed=PRICES)
def test_should_choose_what_costs_least(rows: list[tuple[int, float]], wrong: float, missed: float) -> None:
    labels, scores = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    costs = {"false_positive": wrong, "false_negative": missed}
    chosen = cheapest(labels, scores, costs)
    every = [cost_per_row(labels, scores, level, costs) for level in [*OPEN, 1e-6, 1 - 1e-6]]
    assert chosen.cost_per_row == pytest.approx(min(every))
    assert cost_per_row(labels, scores, chosen.threshold, costs) == pytest.approx(chosen.cost_per_row)
    assert 0 < chosen.threshold < 1


def test_should_go_lower_the_dearer_a_miss_is() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 2_000)
    scores = np.clip(labels * 0.3 + rng.random(2_000) * 0.7, 0, 1)
    thresholds = [
        cheapest(labels, scores, {"false_positive": 1.0, "false_negative": price}).threshold
        for price in (0.2, 1.0, 5.0, 25.0)
    ]
    assert thresholds == sorted(thresholds, reverse=True)
    assert thresholds[0] > thresholds[-1]


def test_should_decide_halfway_between_two_scores() -> None:
    chosen = cheapest(
        np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9]), {"false_positive": 1, "false_negative": 1}
    )
    assert chosen.threshold == pytest.approx(0.4)
    assert chosen.cost_per_row == 0
