"""The labelling block: every wrong value with its line, what is allowed and the fix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ml_contract.extracts.label_rules import label_rules, shown_fields
from ml_contract.load import ContractError, LoadedWorkload, load_workload

YAML = """
version: 1
name: parcel_delay
title: Parcels that arrive late
owner: logistics@example.com
record:
  identifier: parcel
  event_time: sent_at
  fields:
    parcel: {{type: string, required: true, sensitive: pii}}
    sent_at: {{type: timestamp, required: true}}
    weight_kg: {{type: number}}
    sex: {{type: string, sensitive: protected}}
    addressee: {{type: string, sensitive: pii}}
    late: {{type: {kind}}}
    minutes: {{type: number}}
label: {label}
acceptance: {acceptance}
labelling: {labelling}
"""
BINARY = {
    "kind": "boolean",
    "label": "{task: binary, field: late, values: [false, true]}",
    "acceptance": "{metric: auc, at_least: 0.6}",
}
SAY = "instructions: Say whether it was late."


def load(tmp_path: Path, labelling: str, **changes: str) -> LoadedWorkload:
    (tmp_path / "workload.yaml").write_text(YAML.format(**{**BINARY, **changes}, labelling=labelling))
    return load_workload(tmp_path)


def test_should_have_the_documented_defaults(tmp_path: Path) -> None:
    loaded = load(tmp_path, f"{{{SAY}}}")
    block = loaded.workload.labelling
    assert block is not None
    assert block.model_dump(exclude={"instructions"}) == {
        "engine": "own",
        "titles": {},
        "labellers_per_item": 2,
        "labellers_at_most": None,
        "agreement": 0.66,
        "show": "all",
        "review_below_confidence": 0.2,
        "sample_percent": 1.0,
        "expires_hours": 72,
        "lock_minutes": 15,
        "workforce": None,
    }
    assert block.at_most == 3


def test_should_be_off_without_the_block(tmp_path: Path) -> None:
    text = YAML.format(**BINARY, labelling="x").replace("labelling: x\n", "")
    (tmp_path / "workload.yaml").write_text(text)
    workload = load_workload(tmp_path).workload
    assert workload.labelling is None
    assert shown_fields(workload) == ()
    with pytest.raises(ValueError, match="must have labelling"):
        label_rules(workload)


def test_should_show_no_sensitive_field_unless_it_is_named(tmp_path: Path) -> None:
    assert shown_fields(load(tmp_path, f"{{{SAY}}}").workload) == ("sent_at", "weight_kg", "minutes")
    named = load(tmp_path, f"{{{SAY}, show: [addressee, weight_kg]}}").workload
    assert shown_fields(named) == ("addressee", "weight_kg")
    shown = json.loads(label_rules(named))["show"]
    assert [field["personal"] for field in shown] == [True, False]


def test_should_give_classes_as_texts_with_their_titles(tmp_path: Path) -> None:
    rules = json.loads(label_rules(load(tmp_path, f"{{{SAY}, titles: {{'true': Late}}}}").workload))
    assert rules["classes"] == [{"title": "false", "value": "false"}, {"title": "Late", "value": "true"}]


@pytest.mark.parametrize(
    ("labelling", "path", "message"),
    [
        ("{instructions: short}", "labelling.instructions", "at least 10"),
        (f"{{{SAY}, agreement: 0.5}}", "labelling.agreement", "more than 0.5"),
        (f"{{{SAY}, labellers_per_item: 0}}", "labelling.labellers_per_item", "1"),
        (f"{{{SAY}, labellers_per_item: 4, labellers_at_most: 3}}", "labelling", "labellers_per_item (4)"),
        (f"{{{SAY}, engine: mechanical_turk}}", "labelling.engine", "ground_truth"),
        (f"{{{SAY}, engine: ground_truth}}", "labelling", "needs workforce"),
        (f"{{{SAY}, workforce: 'arn:aws:sagemaker:eu-central-1:123456789012:workteam/private-crowd/a'}}",
         "labelling", "goes with engine ground_truth"),
        (f"{{{SAY}, engine: ground_truth, workforce: 'arn:aws:sagemaker:x:1:workteam/public-crowd/default'}}",
         "labelling.workforce", "workteam"),
        (f"{{{SAY}, show: [wieght_kg]}}", "labelling.show[0]", "did you mean weight_kg"),
        (f"{{{SAY}, show: [weight_kg, weight_kg]}}", "labelling.show[1]", "twice"),
        (f"{{{SAY}, show: [late]}}", "labelling.show[0]", "is the label"),
        (f"{{{SAY}, show: []}}", "labelling.show", "names no field"),
        (f"{{{SAY}, titles: {{maybe: x}}}}", "labelling.titles.maybe", "classes are false, true"),
        (f"{{{SAY}, titles: {{'true': Late, 'false': Late}}}}", "labelling.titles", "the same title"),
        (f"{{{SAY}, sample_percent: 101}}", "labelling.sample_percent", "100"),
        (f"{{{SAY}, surprise: 1}}", "labelling.surprise", "unknown key"),
    ],
)  # fmt: skip
def test_should_say_what_is_wrong_and_where(tmp_path: Path, labelling: str, path: str, message: str) -> None:
    with pytest.raises(ContractError) as refused:
        load(tmp_path, labelling)
    found = [p for p in refused.value.problems if p.path == path and message in p.message]
    assert found, [str(p) for p in refused.value.problems]
    assert found[0].line == 19


def test_should_refuse_a_regression_label(tmp_path: Path) -> None:
    regression = {"label": "{task: regression, field: minutes}", "acceptance": "{metric: rmse, at_most: 9}"}
    with pytest.raises(ContractError, match="people vote on classes"):
        load(tmp_path, f"{{{SAY}}}", **regression)
