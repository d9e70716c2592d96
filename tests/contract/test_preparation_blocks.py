"""The blocks that say how features are fitted: what they compile to, and what is wrong with them."""
# ruff: noqa: E501 - one case, one line

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ml_contract.compiled import CompiledContract
from ml_contract.load import ContractError, load_workload

Write = Callable[..., Path]

BLOCKS = """
features:
  derive:
    length_fifth: {kind: quantile_bin, field: length, bins: 5}
    size: {kind: bin, field: length, edges: [1, 20, 80], labels: [boat, ship]}
  impute:
    flag: {kind: constant, value: none, reason: boats without a flag have none}
    crew: {kind: median, indicator: true, reason: forms leave it out}
  outliers:
    length: {kind: clip, upper_quantile: 0.99, lower: 2, reason: typing errors}
  encode:
    flag: {kind: target, smoothing: 10}
    size: {kind: ordinal, order: [below, boat, ship, above]}
  scale: standard
  scale_fields: {crew: robust}
training:
  balance: oversample
  split: {strategy: grouped, group: home}
"""


def problems_of(folder: Path) -> list[str]:
    with pytest.raises(ContractError) as caught:
        load_workload(folder)
    return [str(p).replace(f"{folder}/workload.yaml:", "", 1) for p in caught.value.problems]


def test_should_compile_every_block(workload_file: Write) -> None:
    contract = load_workload(workload_file(extra=BLOCKS)).compiled
    again = CompiledContract.from_json(contract.to_json())
    assert again.to_json() == contract.to_json()
    assert again.fit.bins == {"length_fifth": 5}
    assert again.fit.scale_fields == {"crew": "robust"}
    assert again.fit.impute["flag"]["value"] == "none"
    assert again.fit.encode["size"]["order"] == ["below", "boat", "ship", "above"]
    assert again.training["balance"] == "oversample"
    # The group is pii, so it is no feature; the split needs it nevertheless, as text.
    assert again.group_key == "home"
    assert again.feature_columns()[:5] == [
        ("hull", "string"), ("seen", "string"), ("repair", "string"), ("home", "string"), ("length", "double"),
    ]  # fmt: skip


def test_should_add_no_column_for_a_group_that_is_a_feature(workload_file: Write) -> None:
    extra = "training: {split: {strategy: stratified_grouped, group: flag}}\n"
    contract = load_workload(workload_file(extra=extra)).compiled
    assert contract.group == "flag"
    assert contract.group_key is None
    assert [name for name, _ in contract.feature_columns()].count("flag") == 1


def test_should_fit_nothing_more_unless_asked(workload_file: Write) -> None:
    contract = load_workload(workload_file()).compiled
    spec = contract.fit
    assert (spec.impute, spec.outliers, spec.encode, spec.scale_fields, spec.bins) == ({}, {}, {}, {}, {})
    assert spec.scale == "none"
    assert contract.training["balance"] == "none"
    assert contract.group is None


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("features: {impute: {flg: {kind: none, reason: because}}}", "features.impute.flg: got 'flg', which is no feature; did you mean flag?"),
        ("features: {impute: {home: {kind: none, reason: because}}}", "features.impute.home: home is a field but no feature, so nothing is fitted for it; remove it here"),
        ("features: {impute: {flag: {kind: median, reason: because}}}", "features.impute.flag.kind: got 'median', but flag is a category; allowed: most_frequent, constant, none"),
        ("features: {impute: {flag: {kind: constant, reason: because}}}", "features.impute.flag: kind constant needs a value"),
        ("features: {impute: {flag: {kind: constant, value: '', reason: because}}}", "features.impute.flag: the empty text always means 'no value'"),
        ("features: {impute: {flag: {kind: constant, value: 3, reason: because}}}", "features.impute.flag.value: got 3.0, but flag is a category"),
        ("features: {impute: {crew: {kind: constant, value: few, reason: because}}}", "features.impute.crew.value: got 'few', but crew is a number"),
        ("features: {impute: {crew: {kind: mean, value: 3, reason: because}}}", "features.impute.crew: value goes with kind constant, not with mean"),
        ("features: {impute: {crew: {kind: mean}}}", "features.impute.crew.reason: is missing"),
        ("features: {impute: {crew: {kind: average, reason: because}}}", "features.impute.crew.kind: got 'average'; allowed: median, mean, zero, most_frequent, constant, none"),
        ("features: {outliers: {flag: {kind: clip, upper: 3, reason: because}}}", "features.outliers.flag: flag is a category; only numbers have outliers"),
        ("features: {outliers: {crew: {kind: clip, reason: because}}}", "features.outliers.crew: no limit is given; give lower, upper, lower_quantile or upper_quantile"),
        ("features: {outliers: {crew: {kind: clip, upper: 3, upper_quantile: 0.9, reason: because}}}", "features.outliers.crew: upper and upper_quantile are two limits of one side; keep one"),
        ("features: {outliers: {crew: {kind: clip, lower: 3, upper: 3, reason: because}}}", "features.outliers.crew: lower 3 is not below upper 3"),
        ("features: {outliers: {crew: {kind: clip, lower_quantile: 0.9, upper_quantile: 0.1, reason: because}}}", "features.outliers.crew: lower_quantile 0.9 is not below upper_quantile 0.1"),
        ("features: {outliers: {crew: {kind: clip, upper_quantile: 1, reason: because}}}", "features.outliers.crew.upper_quantile: got 1; less than 1 is allowed"),
        ("features: {outliers: {crew: {kind: clip, upper: 3, reason: because}}, impute: {crew: {kind: constant, value: 9, reason: because}}}", "features.impute.crew.value: got 9, beyond features.outliers.crew.upper 3; move one of them"),
        ("features: {encode: {crew: {kind: frequency}}}", "features.encode.crew: crew is a number; only categories are encoded"),
        ("features: {encode: {flag: {kind: ordinal, order: [a, b, a]}}}", "features.encode.flag.order: got [\"a\", \"b\", \"a\"], which names a value twice"),
        ("features: {fields: [sex], encode: {flag: {kind: hash}}}", "features.encode.flag: kind: got 'hash'; allowed: one_hot, ordinal, frequency, target"),
        ("features: {encode: {flag: {kind: ordinal, order: [a, b]}}, impute: {flag: {kind: constant, value: c, reason: because}}}", "features.encode.flag.order: lacks 'c', which features.impute.flag fills gaps with; add it to the order"),
        ("features: {derive: {r: {kind: bin, field: length, edges: [1, 3], labels: [a]}}, encode: {r: {kind: ordinal, order: [below, a]}}}", "features.encode.r.order: lacks above, which would count as missing; place it in the order"),
        ("features: {derive: {r: {kind: bin, field: length, edges: [1, 3], labels: [a]}}, encode: {r: {kind: ordinal, order: [below, a, above, abov]}}}", "features.encode.r.order[3]: got 'abov', which r never is; did you mean above?"),
        ("features: {encode: {flag: {kind: target}}}\ntraining: {balance: smote}", "features.encode.flag.kind: got 'target', but training.balance smote makes rows up"),
        ("features: {scale: log}", "features.scale: got 'log'; allowed: none, standard, min_max, robust"),
        ("features: {scale_fields: {flag: standard}}", "features.scale_fields.flag: flag is encoded one hot; columns of 0 and 1 are not scaled, remove it here"),
        ("features: {derive: {r: {kind: quantile_bin, field: length, bins: 3}}, scale_fields: {r: standard}}", "features.scale_fields.r: r is a column per interval"),
        ("features: {derive: {r: {kind: quantile_bin, field: flag, bins: 3}}}", "features.derive.r.field: flag is string; quantile_bin takes integer or number"),
        ("features: {derive: {r: {kind: quantile_bin, field: length, bins: 1}}}", "features.derive.r.bins: got 1; at least 2 is allowed"),
        ("training: {split: {strategy: grouped}}", "training.split: strategy grouped needs group, the field whose rows stay together"),
        ("training: {split: {group: flag}}", "training.split: group goes with strategy grouped or stratified_grouped, not with stratified"),
        ("training: {split: {strategy: grouped, group: flg}}", "training.split.group: got 'flg', which is no field of the record; did you mean flag?"),
        ("training: {split: {strategy: grouped, group: hull}}", "training.split.group: got 'hull', the identifier: every row is a group of its own"),
        ("training: {split: {strategy: grouped, group: repair}}", "training.split.group: got 'repair', the label"),
        ("training: {split: {strategy: grouped, group: built}}", "training.split.group: built is date; allowed here: string, integer, boolean"),
        ("training: {balance: smote, hyperparameters: {scale_pos_weight: 3}}", "training.hyperparameters.scale_pos_weight: balances the classes as training.balance smote does; keep one"),
        ("training: {balance: undersample}", "training.balance: got 'undersample'; allowed: none, class_weight, oversample, smote"),
    ],
)  # fmt: skip
def test_should_point_at_the_block_and_name_the_fix(workload_file: Write, extra: str, expected: str) -> None:
    found = problems_of(workload_file(extra=f"{extra}\n"))
    assert any(line.partition(": ")[2].startswith(expected) for line in found), found


def test_should_refuse_to_balance_a_number(workload_file: Write) -> None:
    folder = workload_file(
        (
            'label: {task: binary, field: repair, values: ["no", "yes"]}',
            "label: {task: regression, field: length}",
        ),
        ("metric: auc, at_least: 0.6", "metric: rmse, at_most: 9"),
        extra="training: {balance: class_weight}\n",
    )
    assert any(
        "training.balance: got 'class_weight'; a regression label has no classes" in p
        for p in problems_of(folder)
    )


def test_should_report_all_blocks_at_once(workload_file: Write) -> None:
    extra = (
        "features:\n"
        "  impute: {nobody: {kind: zero, reason: because}}\n"
        "  outliers: {flag: {kind: clip, upper: 3, reason: because}}\n"
        "  encode: {crew: {kind: frequency}}\n"
        "  scale_fields: {flag: standard}\n"
        "training: {split: {strategy: grouped, group: nobody}}\n"
    )
    assert len(problems_of(workload_file(extra=extra))) == 5
