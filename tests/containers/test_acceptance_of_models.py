"""The verdict: what refuses a model, what only warns, and what could not be judged."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from container_support import make_contract
from ml_contract.compiled import CompiledContract
from ml_processing.judging.acceptance import WHY_LIMIT, accept
from ml_processing.judging.card import LIMIT, model_card

BLOCK = """
evaluation:
  bias:
    facets: {{driver: {{disadvantaged: [ann]}}}}
    limits: {{DPPL: 0.1, DI: 0.2}}
    beyond: {beyond}
  champion: {{margin: 0.01, forgetting: 0.05}}
monitoring:"""


def contract(folder: pathlib.Path, beyond: str = "refuse") -> CompiledContract:
    return make_contract(folder, "binary", **{"\nmonitoring:": BLOCK.format(beyond=beyond)})


def compared(better_by: float) -> dict[str, Any]:
    return {
        "compared": True, "unseen_only": True, "metric": "auc", "rows": 80, "value": 0.8 + better_by,
        "champion": 0.8, "better_by": better_by, "interval": [better_by] * 2, "probability_better": 0.9,
    }  # fmt: skip


def report(
    *, auc: float = 0.8, dppl: float | None = 0.05, di: float = 1.1, champion: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "rows": 100,
        "confidence": 0.95,
        "metrics": {"auc": {"value": auc, "standard_deviation": 0.02, "interval": [auc - 0.04, auc + 0.04]}},
        "subgroups": [],
        "bias": {
            "favourable": "late",
            "facets": {
                "driver": {
                    "group": "ann",
                    "rows": 100,
                    "disadvantaged_rows": 20,
                    "before_training": {"DPL": 0.0},
                    "after_training": {"DPPL": dppl, "DI": di},
                }
            },
        },
        "champion": champion,
    }


def test_should_accept_what_meets_every_check(tmp_path: pathlib.Path) -> None:
    held = {"held_out": compared(0.02), "old_data": compared(-0.03)}
    found = accept(contract(tmp_path), report(champion=held))
    assert (found["verdict"], found["warnings"]) == ("accepted", [])
    names = ["auc", "DPPL of driver", "DI of driver", "champion", "forgetting"]
    assert [check["check"] for check in found["checks"]] == names
    assert all(check["passed"] for check in found["checks"])


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"auc": 0.5}, "auc must be at least 0.6 on the held-out part, got 0.5000"),
        ({"dppl": -0.2}, "DPPL of driver (ann) must be within 0.1 of 0, got -0.2000"),
        ({"di": 0.7}, "DI of driver (ann) must be within 0.2 of 1, got 0.7000"),
        (
            {"champion": {"held_out": compared(0.005), "old_data": None}},
            "auc must be better than the approved model's by 0.01 on the same rows, got 0.8050 beside 0.8000",
        ),
        (
            {"champion": {"held_out": compared(0.02), "old_data": compared(-0.06)}},
            "auc must be no more than 0.05 worse than the approved model's on its own held-out rows, "
            "got 0.7400 beside 0.8000",
        ),
    ],
)
def test_should_refuse_a_model_and_say_why(found: dict[str, Any], words: str, tmp_path: pathlib.Path) -> None:
    outcome = accept(contract(tmp_path), report(**found))
    assert (outcome["verdict"], outcome["why"]) == ("refused", words)


def test_should_name_every_reason_at_once_and_no_more_than_a_step_takes(tmp_path: pathlib.Path) -> None:
    outcome = accept(contract(tmp_path), report(auc=0.1, dppl=0.9))
    assert outcome["why"].count(";") == 1
    assert len(outcome["why"]) <= WHY_LIMIT


def test_should_only_warn_of_bias_where_the_workload_says_so(tmp_path: pathlib.Path) -> None:
    outcome = accept(contract(tmp_path, "warn"), report(dppl=0.4))
    assert outcome["verdict"] == "accepted"
    assert outcome["warnings"] == ["DPPL of driver (ann) must be within 0.1 of 0, got 0.4000"]


def test_should_not_judge_what_the_rows_do_not_define(tmp_path: pathlib.Path) -> None:
    gone = {"held_out": {"compared": False, "why": "it predicts another label"}, "old_data": None}
    outcome = accept(contract(tmp_path), report(dppl=None, champion=gone))
    passed = {check["check"]: check["passed"] for check in outcome["checks"]}
    assert outcome["verdict"] == "accepted"
    assert (passed["DPPL of driver"], passed["champion"]) == (None, None)


def test_should_write_a_card_that_fits_a_package(tmp_path: pathlib.Path) -> None:
    found = report()
    found["subgroups"] = [
        {"field": "driver", "value": f"d{i}", "rows": 50, "metrics": found["metrics"]} for i in range(2_000)
    ]
    outcome = found | {"acceptance": accept(contract(tmp_path), found)}
    text = model_card(contract(tmp_path / "again"), outcome, {"metrics": {}, "hyperparameters": {"eta": 0.1}})
    assert len(text) <= LIMIT
    assert "Subgroups" not in text
