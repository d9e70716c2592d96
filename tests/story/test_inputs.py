"""The records of a rehearsal: made up for any workload, or divided from a file."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ml_contract.load import LoadedWorkload, load_workload
from ml_contract.records.codec import RecordCodec, Rejected

from rehearsal.inputs import FEWEST_CHANGED, FEWEST_RECORDS, HELD_OUT, InputError, Inputs, load_inputs
from rehearsal.preflight import app_folder

CLAIMS = app_folder(None) / "workloads" / "claims_fraud"

OTHER = """
version: 1
name: churn
title: Customers that are about to leave
owner: team@example.com
record:
  identifier: customer
  event_time: seen_on
  fields:
    customer: {type: string, required: true}
    seen_on: {type: date, required: true}
    plan: {type: string, allowed: [basic, plus]}
    minutes: {type: number, minimum: 0, maximum: 1000}
    left: {type: boolean}
label: {task: binary, field: left, values: [false, true]}
acceptance: {metric: auc, at_least: 0.6}
"""


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> LoadedWorkload:
    folder = tmp_path_factory.mktemp("workloads") / "churn"
    folder.mkdir()
    (folder / "workload.yaml").write_text(OTHER)
    return load_workload(folder)


def table(path: Path, rows: int, **changes: Any) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["customer", "seen_on", "plan", "minutes", "left", "_extra"])
        writer.writeheader()
        for i in range(rows):
            row = {
                "customer": f"c{i:05d}",
                "seen_on": f"2026-01-{i % 28 + 1:02d}",
                "plan": "plus" if i % 3 else "basic",
                "minutes": i % 900,
                "left": "true" if i % 3 else "false",
                "_extra": "x",
            }
            writer.writerow({**row, **{k: v for k, v in changes.items() if i % 10 == 0}})
    return path


def identifiers(records: list[dict[str, Any]], source: str) -> set[Any]:
    found = {record[source] for record in records}
    assert len(found) == len(records)
    return found


def assert_disjoint(inputs: Inputs, source: str) -> None:
    sets = [
        identifiers(part, source)
        for part in (inputs.initial, inputs.live, inputs.changed, inputs.changed_live)
    ]
    assert len(set().union(*sets)) == sum(len(s) for s in sets)


def assert_fits(inputs: Inputs, loaded: LoadedWorkload) -> None:
    codec = RecordCodec(loaded.compiled)
    for part in (inputs.initial, inputs.live, inputs.changed, inputs.changed_live):
        for record in part:
            decoded = codec.decode(json.dumps(record).encode())
            assert not isinstance(decoded, Rejected), decoded


def test_should_make_up_records_for_a_workload_that_brings_nothing(other: LoadedWorkload) -> None:
    inputs = load_inputs(other, data=None, records=300, seed=5)

    assert (len(inputs.initial), len(inputs.changed)) == (300, FEWEST_CHANGED)
    assert len(inputs.live) == len(inputs.changed_live) == 400
    assert inputs.source == "made up from the contract"
    assert_disjoint(inputs, "customer")
    assert_fits(inputs, other)


def test_should_make_the_same_records_for_the_same_seed(other: LoadedWorkload) -> None:
    assert load_inputs(other, data=None, records=200, seed=5) == load_inputs(
        other, data=None, records=200, seed=5
    )
    assert load_inputs(other, data=None, records=200, seed=5) != load_inputs(
        other, data=None, records=200, seed=6
    )


def test_should_use_the_workload_s_own_generator() -> None:
    loaded = load_workload(CLAIMS)
    inputs = load_inputs(loaded, data=None, records=200, seed=5)

    assert inputs.source == "claims_fraud/generate.py"
    assert_disjoint(inputs, "policy_number")
    assert_fits(inputs, loaded)


def test_should_change_what_is_measured_but_no_label(other: LoadedWorkload) -> None:
    inputs = load_inputs(other, data=None, records=400, seed=5)

    def mean(records: list[dict[str, Any]], field: str) -> float:
        values = [float(r[field]) for r in records if r[field] is not None]
        return sum(values) / len(values)

    assert abs(mean(inputs.changed, "minutes") - mean(inputs.initial, "minutes")) > 50
    assert abs(mean(inputs.changed, "left") - mean(inputs.initial, "left")) < 0.1


def test_should_divide_a_table_so_that_nothing_judged_was_trained_on(
    other: LoadedWorkload, tmp_path: Path
) -> None:
    inputs = load_inputs(other, data=table(tmp_path / "t.csv", 1000), records=800, seed=5)

    assert inputs.rows == 800
    assert len(inputs.live) == round(HELD_OUT * 800)
    assert len(inputs.initial) + len(inputs.live) == 800
    assert len(inputs.changed) == len(inputs.initial)
    assert len(inputs.changed_live) == len(inputs.live)
    assert inputs.extra_columns == ("_extra",)
    assert_disjoint(inputs, "customer")
    assert inputs.change.endswith("under new identifiers")
    assert_fits(inputs, other)


def test_should_replace_records_whose_identifiers_have_no_room_for_new_ones(tmp_path: Path) -> None:
    folder = tmp_path / "churn"
    folder.mkdir()
    field = "customer: {type: string, required: true}"
    narrow = 'customer: {type: string, required: true, pattern: "c00[0-9]{3}"}'
    (folder / "workload.yaml").write_text(OTHER.replace(field, narrow))

    inputs = load_inputs(load_workload(folder), data=table(tmp_path / "t.csv", 900), records=1000, seed=5)

    assert identifiers(inputs.changed, "customer") == identifiers(inputs.initial, "customer")
    assert identifiers(inputs.changed_live, "customer") == identifiers(inputs.live, "customer")
    assert "in place of what they were" in inputs.change


def test_should_keep_rows_that_do_not_fit_for_the_quarantine(other: LoadedWorkload, tmp_path: Path) -> None:
    inputs = load_inputs(other, data=table(tmp_path / "t.csv", 500, plan="gold"), records=1000, seed=5)

    assert len(inputs.unfit) == 50
    assert {r["plan"] for r in inputs.unfit} == {"gold"}
    assert len(inputs.initial) + len(inputs.live) == 450


def test_should_train_but_not_judge_with_rows_without_a_label(other: LoadedWorkload, tmp_path: Path) -> None:
    inputs = load_inputs(other, data=table(tmp_path / "t.csv", 500, left=""), records=1000, seed=5)

    assert sum(r["left"] is None for r in inputs.initial) == 50
    assert all(r["left"] is not None for r in (*inputs.live, *inputs.changed, *inputs.changed_live))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("customer,seen_on\n", "lacks columns of workload churn: plan, minutes, left"),
        ("customer,seen_on,plan,minutes,left\n", "holds no row"),
        ("", "empty; the first line must name the columns"),
    ],
)
def test_should_say_what_is_wrong_with_a_file(
    other: LoadedWorkload, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content)

    with pytest.raises(InputError, match=message):
        load_inputs(other, data=path, records=1000, seed=5)


def test_should_name_a_missing_file(other: LoadedWorkload, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_inputs(other, data=tmp_path / "none.csv", records=1000, seed=5)


def test_should_refuse_too_few_usable_rows_and_name_the_first_bad_one(
    other: LoadedWorkload, tmp_path: Path
) -> None:
    path = table(tmp_path / "t.csv", FEWEST_RECORDS + 5, plan="gold")

    with pytest.raises(InputError, match=r"184 of 205 rows fit .* needed are 200; the first .*gold"):
        load_inputs(other, data=path, records=1000, seed=5)


def test_should_refuse_too_few_records(other: LoadedWorkload) -> None:
    with pytest.raises(InputError, match="records must be at least 200, got 50"):
        load_inputs(other, data=None, records=50, seed=5)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise RuntimeError('broken')", "cannot be imported: RuntimeError: broken"),
        ("x = 1", r"must define generate\(n, seed\)"),
        ("def generate(count): return []", r"must define generate\(n, seed\)"),
        (
            "def generate(n, seed): return [{'customer': str(i), 'seen_on': 'today'} for i in range(n)]",
            "do not fit the contract, the first: ",
        ),
    ],
)
def test_should_say_what_is_wrong_with_a_generator(
    other: LoadedWorkload, tmp_path: Path, code: str, message: str
) -> None:
    folder = tmp_path / "churn"
    shutil.copytree(other.path.parent, folder)
    (folder / "generate.py").write_text(code)

    with pytest.raises(InputError, match=message):
        load_inputs(load_workload(folder), data=None, records=200, seed=5)
