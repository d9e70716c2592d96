"""Rules, tracking, folds and several instances: what a workload may say, and what is refused with its fix."""

from __future__ import annotations

from pathlib import Path

import pytest
from ml_contract.compiled import CompiledContract
from ml_contract.load import ContractError, LoadedWorkload, load_workload

RECORD = """
version: 1
name: parcel_delay
title: Parcels that arrive late
owner: logistics@example.com
record:
  identifier: parcel
  event_time: sent_at
  fields:
    parcel: {type: string, required: true}
    sent_at: {type: timestamp, required: true}
    weight_kg: {type: number}
    minutes_late: {type: number}
    late: {type: string, allowed: ["no", "yes"]}
"""
BINARY = (
    'label: {task: binary, field: late, values: ["no", "yes"]}\nacceptance: {metric: auc, at_least: 0.6}\n'
)
NUMBER = "label: {task: regression, field: minutes_late}\nacceptance: {metric: rmse, at_most: 30}\n"


def load(folder: Path, block: str, label: str = BINARY) -> LoadedWorkload:
    """Load the workload with a training block."""
    home = folder / "parcel_delay"
    home.mkdir()
    (home / "workload.yaml").write_text(f"{RECORD}{label}training: {{{block}}}\n")
    return load_workload(home)


def test_should_take_a_rules_defaults_and_hand_them_to_the_image(tmp_path: Path) -> None:
    loaded = load(tmp_path, "rules: {overfit: {}, class_imbalance: {ratio: 4, action: note}}")
    rules = CompiledContract.from_json(loaded.compiled.to_json()).training["rules"]
    assert rules == {
        "loss_not_decreasing": None,
        "overfit": {"action": "stop", "ratio": 0.1, "rounds": 5},
        "exploding": None,
        "class_imbalance": {"action": "note", "ratio": 4.0},
    }


def test_should_watch_and_track_nothing_unless_told_to(tmp_path: Path) -> None:
    loaded = load(tmp_path, "rounds: 10")
    assert (loaded.workload.training.rules, loaded.workload.training.track) == (None, "none")
    # A contract without rules keeps the bytes that it had before there were any.
    assert "rules" not in loaded.compiled.training


def test_should_train_xgboost_on_several_instances(tmp_path: Path) -> None:
    assert load(tmp_path, "instance_count: 3").workload.training.instance_count == 3


@pytest.mark.parametrize(
    ("block", "label", "said"),
    [
        (
            'algorithm: built_in, built_in: {name: xgboost, version: "3.2-0"}, track: mlflow',
            BINARY,
            "training.track: is built into the images of xgboost and pytorch, got algorithm built_in",
        ),
        (
            'algorithm: built_in, built_in: {name: xgboost, version: "3.2-0"}, rules: {overfit: {}}',
            BINARY,
            "training.rules: is built into the images of xgboost and pytorch",
        ),
        ("rules: {class_imbalance: {}}", NUMBER, "a number has no classes; remove the rule"),
        ("rules: {exploding: {largest_gradient: 10.0}}", BINARY, "trees have no gradient of weights"),
        ("k_folds: 5, balance: smote", BINARY, "balance smote repeats rows or makes some up"),
        (
            "k_folds: 5, instance_count: 2",
            BINARY,
            "is for tables that one instance holds, got instance_count 2",
        ),
        ("rules: {overfit: {ratio: 0}}", BINARY, "training.rules.overfit.ratio"),
        ("rules: {vanishing: {}}", BINARY, "vanishing"),
        ("track: wandb", BINARY, "got 'wandb'; allowed: none, mlflow"),
    ],
)
def test_should_refuse_with_the_reason(tmp_path: Path, block: str, label: str, said: str) -> None:
    with pytest.raises(ContractError) as caught:
        load(tmp_path, block, label)
    assert said in str(caught.value), caught.value
