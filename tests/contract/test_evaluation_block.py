"""The ``evaluation`` block: what it refuses with its line, and what it adds to the features table."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from ml_contract.compiled import CompiledContract
from ml_contract.features.frame import feature_frame
from ml_contract.features.online import feature_record
from ml_contract.features.row import row_function
from ml_contract.load import ContractError, LoadedWorkload, load_workload

HEAD = """version: 1
name: loans
title: Loans that are paid back
owner: loans@example.com
record:
  identifier: loan
  event_time: asked_at
  fields:
    loan: {type: string, required: true, sensitive: pii}
    asked_at: {type: timestamp, required: true}
    amount: {type: number, minimum: 0}
    branch: {type: string, allowed: [east, west]}
    gender: {type: string, allowed: [f, m], sensitive: protected}
    married: {type: boolean, sensitive: protected}
    age: {type: integer, sensitive: protected}
    phone: {type: string, sensitive: pii}
    paid: {type: string, allowed: ["no", "yes"]}
"""
BINARY = (
    'label: {task: binary, field: paid, values: ["no", "yes"]}\nacceptance: {metric: auc, at_least: 0.6}\n'
)
NUMBER = "label: {task: regression, field: amount}\nacceptance: {metric: rmse, at_most: 9}\n"


def load(folder: Path, block: str, label: str = BINARY) -> LoadedWorkload:
    home = folder / "loans"
    home.mkdir(exist_ok=True)
    (home / "workload.yaml").write_text(f"{HEAD}{label}{block}")
    return load_workload(home)


def refused(folder: Path, block: str, label: str = BINARY) -> list[str]:
    with pytest.raises(ContractError) as caught:
        load(folder, block, label)
    return [f"{problem.path}: {problem.message}" for problem in caught.value.problems]


def test_should_judge_as_before_unless_told_otherwise(tmp_path: Path) -> None:
    loaded = load(tmp_path, "")
    block = loaded.workload.evaluation
    assert (block.confidence, block.resamples, block.subgroups) == (0.95, 1_000, ())
    assert (block.bias, block.explain, block.champion, block.costs) == (None, None, None, None)
    assert loaded.compiled.audit == ()
    assert loaded.compiled.feature_columns() == loaded.compiled.training_columns()


def test_should_carry_what_is_judged_by_to_the_end_of_the_table_and_not_to_training(tmp_path: Path) -> None:
    block = """
evaluation:
  subgroups: [branch, gender]
  bias: {facets: {gender: {disadvantaged: [f]}, married: {disadvantaged: [true]}, age: {above: 60}}}
"""
    contract = load(tmp_path, block).compiled
    again = CompiledContract.from_json(contract.to_json())
    assert [feature.name for feature in again.audit] == ["gender", "married", "age"]
    assert again.feature_columns() == contract.feature_columns()
    assert again.feature_columns()[-3:] == [("gender", "string"), ("married", "double"), ("age", "double")]
    assert again.training_columns() == again.feature_columns()[:-3]
    assert not {"gender", "married", "age"} & {feature.name for feature in again.features}
    # It goes on to the feature group, from which sets of a moment are built.
    assert ("gender", "String") in again.feature_definitions()
    assert again.evaluation["about"]["owner"] == "loans@example.com"


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("{subgroups: [genre]}", "subgroups[0]: got 'genre', which is no field and no derived feature"),
        ("{subgroups: [age]}", "subgroups[0]: age is a number; derive a bin of it and name that"),
        ("{subgroups: [phone]}", "subgroups[0]: phone is pii and never leaves the curated table"),
        ("{subgroups: [paid]}", "subgroups[0]: got 'paid', which is the identifier, the event time or the"),
        ("{subgroups: [branch, branch]}", "subgroups: names a field twice"),
        ("{bias: {facets: {gender: {}}}}", "give either disadvantaged: [values] or above: number"),
        ("{bias: {facets: {gender: {above: 3}}}}", "gender is text; give disadvantaged: [values]"),
        ("{bias: {facets: {age: {disadvantaged: [f]}}}}", "age is a number; give above: number"),
        ("{bias: {facets: {gender: {disadvantaged: [x]}}}}", "gender allows f, m"),
        ("{bias: {facets: {gender: {disadvantaged: [f, m]}}}}", "names every value; nobody is left"),
        ("{bias: {facets: {married: {disadvantaged: [f]}}}}", "married allows true, false"),
        ("{bias: {facets: {gender: {disadvantaged: [f]}}, favourable: [maybe]}}", "the label has no, yes"),
        ('{bias: {facets: {gender: {disadvantaged: [f]}}, favourable: ["no", "yes"]}}', "names every class"),
        ("{bias: {facets: {gender: {disadvantaged: [f]}}, favourable_above: 3}}", "the label has classes"),
        ("{bias: {facets: {gender: {disadvantaged: [f]}}, limits: {CDDL: 0.1}}}", "CDDL needs group"),
        ("{bias: {facets: {gender: {disadvantaged: [f]}}, limits: {DPPL: 0}}}", "limits must be above 0"),
        ("{bias: {facets: {gender: {disadvantaged: [f]}}, limits: {XYZ: 1}}}", "got 'XYZ'"),
        ("{bias: {facets: {}}}", "facets"),
        ("{costs: {false_positive: 1}}", "false_negative"),
        ("{explain: {shap_rows: 0}}", "shap_rows"),
        ("{champion: {forgetting: -1}}", "forgetting"),
    ],
)
def test_should_refuse_what_does_not_fit(block: str, words: str, tmp_path: Path) -> None:
    found = refused(tmp_path, f"evaluation: {block}\n")
    assert any(words in problem for problem in found), found
    assert all(problem.startswith("evaluation") for problem in found)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("{costs: {false_positive: 1, false_negative: 2}}", "a threshold is chosen for a binary label"),
        ("{bias: {facets: {gender: {disadvantaged: [f]}}}}", "give favourable_above"),
    ],
)
def test_should_refuse_of_a_number_what_goes_with_classes(block: str, words: str, tmp_path: Path) -> None:
    [problem] = refused(tmp_path, f"evaluation: {block}\n", NUMBER)
    assert words in problem


def test_should_compute_it_alike_for_a_table_and_for_one_record(tmp_path: Path) -> None:
    block = """
evaluation:
  bias: {facets: {gender: {disadvantaged: [f]}, married: {disadvantaged: [true]}, age: {above: 60}}}
"""
    contract = load(tmp_path, block).compiled
    values = {
        "loan": "a1", "asked_at": "2026-03-01T10:00:00", "amount": 5.5, "branch": "east", "gender": "f",
        "married": True, "age": 61, "phone": None, "paid": "yes",
    }  # fmt: skip
    table = pl.DataFrame(
        {**{name: [value] for name, value in values.items()}, "asked_at": [datetime(2026, 3, 1, 10)]},
        schema_overrides={"phone": pl.String},
    )
    [row] = feature_frame(table, contract).to_dicts()
    assert (row["gender"], row["married"], row["age"]) == ("f", 1.0, 61.0)
    text = feature_record(contract)(values)
    assert (text["gender"], text["married"], text["age"]) == ("f", "1.0", "61.0")
    # A request to the model brings none of it.
    computed = row_function(contract)(values)
    assert not {"gender", "married", "age"} & set(computed)
