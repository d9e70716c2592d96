"""The ``retraining`` block: which monitors start a training, what data is worth one, what it may cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from ml_contract.load import ContractError, load_workload
from ml_contract.spec.retraining import Budget, NewData, drift_monitors
from ml_contract.spec.workload import Workload

BINARY = """\
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
    late: {type: boolean}
label: {task: binary, field: late, values: [false, true]}
acceptance: {metric: f1, at_least: 0.1}
"""

QUALITY = "monitoring: {quality: {}}\n"


def workload(tmp_path: Path, block: str, more: str = "") -> Workload:
    folder = tmp_path / "parcel_delay"
    folder.mkdir(exist_ok=True)
    (folder / "workload.yaml").write_text(f"{BINARY}retraining: {block}\n{more}")
    return load_workload(folder).workload


def refusals(tmp_path: Path, block: str, more: str = "") -> list[str]:
    with pytest.raises(ContractError) as caught:
        workload(tmp_path, block, more)
    return [f"{p.line} {p.path}: {p.message}" for p in caught.value.problems]


@pytest.mark.parametrize(
    ("block", "more", "kinds"),
    [
        ("{}", "", ("data",)),
        ("{}", QUALITY, ("data", "quality")),
        ("{on: [quality]}", QUALITY, ("quality",)),
        ("{on_drift: false}", QUALITY, ()),
    ],
)
def test_should_take_the_monitors_that_are_on_unless_some_are_named(
    tmp_path: Path, block: str, more: str, kinds: tuple[str, ...]
) -> None:
    found = workload(tmp_path, block, more)

    assert drift_monitors(found.retraining, found.monitoring) == kinds


def test_should_read_how_much_data_and_money_a_training_is_worth(tmp_path: Path) -> None:
    found = workload(
        tmp_path,
        "{on_new_data: {minimum_records: 500}, "
        "budget: {usd_per_month: 20, usd_per_hour: {ml.m5.large: 0.1}}}",
    ).retraining

    assert found.on_new_data == NewData(minimum_records=500)
    assert found.budget == Budget(usd_per_month=20, usd_per_hour={"ml.m5.large": 0.1})


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("{on: [bias]}", "15 retraining.on[0]: bias is not watched; add monitoring.bias or leave it out"),
        ("{on: []}", "15 retraining.on: names no monitor; say on_drift: false instead"),
        ("{on: [data, data]}", "15 retraining.on: names a monitor twice"),
        (
            "{on_drift: false, on: [data]}",
            "15 retraining.on: says which monitors start a training, but on_drift is false; leave one out",
        ),
        ("{budget: {}}", "15 retraining.budget: must be exactly one of usd_per_month and runs_per_month"),
        (
            "{budget: {usd_per_month: 1, runs_per_month: 1}}",
            "15 retraining.budget: must be exactly one of usd_per_month and runs_per_month",
        ),
        (
            "{budget: {runs_per_month: 1, usd_per_hour: {ml.m5.large: 1}}}",
            "15 retraining.budget.usd_per_hour: are prices for usd_per_month, which is not given",
        ),
    ],
)
def test_should_refuse_what_cannot_be_meant_with_its_line(tmp_path: Path, block: str, said: str) -> None:
    assert refusals(tmp_path, block) == [said]
