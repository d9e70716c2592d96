"""Bias by Clarify's formulas, against an example worked out by hand."""

from __future__ import annotations

import pathlib
from math import log, sqrt

import numpy as np
import polars as pl
import pytest
from container_support import make_contract
from ml_contract.spec.evaluation import BIAS_AFTER, BIAS_BEFORE
from ml_judging.bias import (
    DESCRIPTIONS,
    Outcomes,
    after,
    after_training,
    before,
    before_training,
    clarify_report,
    unfairness,
)

# Seven rows of facet a: 3 true positives, 1 false negative, 1 false positive, 2 true negatives. Four of facet
# d: 2 true positives, 1 false positive, 1 true negative.
D = np.array([False] * 7 + [True] * 4)
Y = np.array([1, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0], dtype=bool)
P = np.array([1, 1, 1, 0, 1, 0, 0, 1, 1, 1, 0], dtype=bool)
GROUPS = np.array(list("xxyyxyy") + list("xyxy"))
EXAMPLE = Outcomes(D, Y, P, None, GROUPS)

BY_HAND_BEFORE = {
    "CI": (7 - 4) / 11,
    "DPL": 4 / 7 - 2 / 4,
    "KL": 3 / 7 * log(3 / 7 / (1 / 2)) + 4 / 7 * log(4 / 7 / (1 / 2)),
    "JS": (
        3 / 7 * log(3 / 7 / (13 / 28))
        + 4 / 7 * log(4 / 7 / (15 / 28))
        + 1 / 2 * log(1 / 2 / (13 / 28))
        + 1 / 2 * log(1 / 2 / (15 / 28))
    )
    / 2,
    "LP": sqrt(2 * (1 / 14) ** 2),
    "TVD": 1 / 14,
    "KS": 1 / 14,
    # Stratum x: of two refused one is of d, of three accepted one: 1/6 of 5 rows. Stratum y: 1/3 - 1/3.
    "CDDL": (5 * (1 / 2 - 1 / 3) + 6 * 0) / 11,
}
BY_HAND_AFTER = {
    "DPPL": 4 / 7 - 3 / 4,
    "DI": (3 / 4) / (4 / 7),
    "DCAcc": 4 / 4 - 2 / 3,
    "DCR": 2 / 1 - 3 / 3,
    "SD": 1 / 2 - 2 / 3,
    "RD": 3 / 4 - 2 / 2,
    "DAR": 3 / 4 - 2 / 3,
    "DRR": 1 / 1 - 2 / 3,
    "AD": 5 / 7 - 3 / 4,
    # Stratum x: everybody is accepted. Stratum y: of four refused one is of d, of two accepted one.
    "CDDPL": 6 * (1 / 4 - 1 / 2) / 11,
    "TE": 0 / 1 - 1 / 1,
    # Benefits 2, 0, 2 and eight times 1; their mean is 12/11.
    "GE": (16 / (12 / 11) ** 2 - 11) / (2 * 11),
}


def test_should_measure_the_data_as_worked_out_by_hand() -> None:
    assert before(EXAMPLE) == pytest.approx(BY_HAND_BEFORE)
    assert tuple(BY_HAND_BEFORE) == BIAS_BEFORE


def test_should_measure_the_model_as_worked_out_by_hand() -> None:
    found = after(EXAMPLE)
    # No matrix, no neighbours.
    assert found.pop("FT") is None
    assert found == pytest.approx(BY_HAND_AFTER)
    assert {*BY_HAND_AFTER, "FT"} == set(BIAS_AFTER)
    assert set(DESCRIPTIONS) == {*BIAS_BEFORE, *BIAS_AFTER}


def test_should_flip_rows_for_their_neighbours_of_the_other_facet() -> None:
    # Five accepted rows of a around 0, five refused around 10. Of d two are refused among the accepted and
    # one is accepted among the refused.
    places = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 10, 10.1, 10.2, 10.3, 10.4, 0.15, 0.25, 10.15])[:, None]
    disadvantaged = np.array([False] * 10 + [True] * 3)
    accepted = np.array([True] * 5 + [False] * 5 + [False, False, True])
    outcomes = Outcomes(disadvantaged, accepted, accepted, matrix=places)
    assert after(outcomes)["FT"] == pytest.approx((2 - 1) / 3)


def test_should_find_nothing_where_both_facets_fare_alike() -> None:
    half = np.array([1, 1, 0, 0] * 2, dtype=bool)
    said = np.array([1, 0, 1, 0] * 2, dtype=bool)
    same = Outcomes(np.array([True] * 4 + [False] * 4), half, said, None, np.array(["x"] * 8))
    found = before(same) | after(same)
    fair = {name: unfairness(name, value) for name, value in found.items() if value is not None}
    # Generalized entropy is of everybody, and here some are better off than others.
    assert {name for name, value in fair.items() if value > 1e-12} == {"GE"}
    assert found["DI"] == 1


def test_should_see_several_classes_apart_in_the_distances_of_distributions() -> None:
    labels = np.array([0, 0, 1, 2, 0, 1, 2, 2])
    facet = np.array([False] * 4 + [True] * 4)
    found = before(Outcomes(facet, labels == 0, labels=labels))
    assert found["TVD"] == pytest.approx(0.25)
    assert found["KS"] == pytest.approx(0.25)
    assert found["LP"] == pytest.approx(sqrt(2 * 0.25**2))


@pytest.mark.parametrize("facet", [np.zeros(4, dtype=bool), np.ones(4, dtype=bool)])
def test_should_have_no_value_where_a_facet_has_no_rows(facet: np.ndarray) -> None:
    y = np.array([True, False, True, False])
    found = before(Outcomes(facet, y)) | after(Outcomes(facet, y, y))
    assert {name for name, value in found.items() if value is not None} == {"CI", "GE"}


def test_should_have_no_divergence_from_what_never_happens() -> None:
    facet, y = np.array([False, False, True, True]), np.array([True, False, False, False])
    assert before(Outcomes(facet, y))["KL"] is None


def test_should_read_facets_of_texts_booleans_and_thresholds(tmp_path: pathlib.Path) -> None:
    contract = make_contract(
        tmp_path,
        "binary",
        **{
            "\nmonitoring:": """
evaluation:
  bias:
    facets:
      driver: {disadvantaged: [ann, bob]}
      electric: {disadvantaged: [true]}
      passengers: {above: 2}
    favourable: ["on time"]
    group: weather
monitoring:"""
        },
    )
    frame = pl.DataFrame(
        {
            "driver": ["ann", "bob", "cid", None],
            "electric": [1.0, 0.0, 1.0, 0.0],
            "passengers": [3.0, 2.0, None, 5.0],
            "weather": ["dry", "dry", None, "rain"],
        }
    )
    labels = np.array([0, 1, 0, 1])
    earlier = before_training(frame, labels, contract)
    counted = {name: (one["group"], one["rows"], one["disadvantaged_rows"]) for name, one in earlier.items()}
    assert counted == {
        "driver": ("ann, bob", 3, 2),
        "electric": ("true", 4, 2),
        "passengers": ("(2, +inf)", 3, 2),
    }
    # On time is label 0: of the drivers ann is, bob is not, and cid is.
    assert earlier["driver"]["metrics"]["DPL"] == pytest.approx(1 - 1 / 2)
    later = after_training(frame, labels, np.array([0, 0, 0, 1]), np.arange(8.0).reshape(4, 2), contract)
    assert later["driver"]["metrics"]["DPPL"] == 0
    report = clarify_report("outcome", earlier, later)
    [facet] = report["post_training_bias_metrics"]["facets"]["driver"]
    assert facet["value_or_threshold"] == "ann, bob"
    assert {"name": "DPPL", "description": DESCRIPTIONS["DPPL"], "value": 0.0} in facet["metrics"]
