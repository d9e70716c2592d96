"""The ``monitoring`` block: what it is by default, and what it refuses with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from ml_contract.compiled import CompiledContract
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
    phone: {type: string, sensitive: pii}
    paid: {type: string, allowed: ["no", "yes"]}
label: {task: binary, field: paid, values: ["no", "yes"]}
acceptance: {metric: auc, at_least: 0.6}
"""
BIAS = "evaluation: {bias: {facets: {gender: {disadvantaged: [f]}}, limits: {DPPL: 0.1}}}\n"


def load(folder: Path, block: str) -> LoadedWorkload:
    home = folder / "loans"
    home.mkdir(exist_ok=True)
    (home / "workload.yaml").write_text(HEAD + block + "\n")
    return load_workload(home)


def refused(folder: Path, block: str) -> list[str]:
    with pytest.raises(ContractError) as caught:
        load(folder, block)
    return [f"{problem.path}: {problem.message}" for problem in caught.value.problems]


def test_should_watch_data_alone_unless_told_otherwise(tmp_path: Path) -> None:
    block = load(tmp_path, "").workload.monitoring
    assert (block.quality, block.bias, block.attribution, block.segments) == (None, None, None, ())
    assert (block.drift.distance, block.drift.threshold, block.false_discovery_rate) == ("psi", 0.25, 0.001)


def test_should_compile_the_defaults_of_each_kind(tmp_path: Path) -> None:
    more = BIAS.replace("{bias", "{explain: {}, bias")
    contract = load(tmp_path, f"{more}monitoring: {{quality: {{}}, bias: {{}}, attribution: {{}}}}").compiled
    again = CompiledContract.from_json(contract.to_json())
    assert again.monitoring["quality"] == {
        "delay_hours": 24,
        "every_hours": 24,
        "limits": {},
        "tolerance": 0.1,
        "minimum_labels": 50,
    }
    assert again.monitoring["bias"] == {"every_hours": 24, "limits": {}, "tolerance": 0.1}
    assert again.monitoring["attribution"] == {"every_hours": 24, "rows": 200, "ndcg": 0.9}


def test_should_keep_a_segment_beside_the_features(tmp_path: Path) -> None:
    contract = load(tmp_path, "monitoring: {segments: [branch, gender]}").compiled
    assert [feature.name for feature in contract.audit] == ["gender"]
    assert contract.feature_columns()[-1] == ("gender", "string")


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("monitoring: {fields: {amount: {distance: chi2}}}",
         "monitoring.fields.amount: chi2 does not measure a number; allowed: psi, ks, js, wasserstein"),
        ("monitoring: {fields: {branch: {distance: wasserstein}}}",
         "monitoring.fields.branch: wasserstein does not measure a category; allowed: psi, ks, js, chi2"),
        ("monitoring: {drift: {distance: chi2}}",
         "monitoring.drift: chi2 does not measure amount; take psi, ks or js here"),
        ("monitoring: {segments: [amount]}",
         "monitoring.segments[0]: amount is a number; derive a bin of it and name that"),
        ("monitoring: {segments: [phone]}", "monitoring.segments[0]: phone is pii"),
        ("monitoring: {segments: [branch, branch]}", "monitoring.segments: names a field twice"),
        ("monitoring: {segments: [brnch]}", "monitoring.segments[0]: got 'brnch', which is no field"),
        ("monitoring: {quality: {limits: {rmse: {maximum: 3}}}}",
         "monitoring.quality.limits.rmse: got 'rmse'; for a binary label: auc"),
        ("monitoring: {quality: {limits: {recall: {maximum: 0.3}}}}",
         "monitoring.quality: recall is better when it is higher: give minimum"),
        ("monitoring: {quality: {limits: {brier: {minimum: 0.3}}}}",
         "monitoring.quality: brier is better when it is lower: give maximum"),
        ("monitoring: {quality: {limits: {recall: {}}}}",
         "monitoring.quality.limits.recall: give either minimum or maximum"),
        ("monitoring: {quality: {tolerance: null}}",
         "monitoring.quality: nothing is judged: give limits or a tolerance"),
        ("monitoring: {bias: {}}", "monitoring.bias: watches the facets of evaluation.bias"),
        (BIAS + "monitoring: {bias: {limits: {RD: 0.1}}}",
         "monitoring.bias.limits.RD: RD needs labels, which monitoring.quality brings"),
        (BIAS + "monitoring: {bias: {limits: {KL: 0.1}}}",
         "monitoring.bias.limits.KL: KL is of labels, not of predictions"),
        (BIAS + "monitoring: {bias: {limits: {CDDPL: 0.1}}}",
         "monitoring.bias.limits.CDDPL: needs evaluation.bias.group"),
        (BIAS + "monitoring: {bias: {limits: {DI: 0}}}",
         "monitoring.bias: limits must be above 0, got 0 for DI"),
        (BIAS.replace(", limits: {DPPL: 0.1}", "") + "monitoring: {bias: {}}",
         "monitoring.bias: nothing is judged: give limits here"),
        ("monitoring: {attribution: {}}",
         "monitoring.attribution: is judged against the explanation that travels with the model"),
    ],
)  # fmt: skip
def test_should_refuse_what_cannot_be_watched(tmp_path: Path, block: str, expected: str) -> None:
    found = refused(tmp_path, block)
    assert any(line.startswith(expected) for line in found), found
