"""Generators, dirt, drift and data files: what a rehearsal feeds the system with."""

# ruff: noqa: E501 - a table of cases reads best with one case a line

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest
import zoo  # type: ignore[import-not-found]  # beside this file, where pytest looks
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_contract.compiled import CompiledContract, FitSpec
from ml_contract.features.fit import fit
from ml_contract.features.frame import feature_frame
from ml_contract.features.row import row_function
from ml_contract.load import LoadedWorkload, load_workload
from ml_contract.made_up.dirt import DELIVERED, Dirt, soil
from ml_contract.made_up.identifiers import NewIdentifiers
from ml_contract.made_up.patterns import PatternError, Texts
from ml_contract.made_up.synthetic import Drift, drift_records, generate
from ml_contract.quality.rules import dqdl
from ml_contract.records.codec import Record, RecordCodec, Rejected
from ml_contract.records.tables import TableError, read_table

from workloads.claims_fraud import generate as claims_generator

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "data" / "insurance_claims.csv"
Records = list[dict[str, Any]]


def fitting(records: Records, contract: CompiledContract) -> Records:
    """Typed values; fails on the first record that the contract refuses."""
    codec = RecordCodec(contract)
    typed = []
    for record in records:
        result = codec.decode(json.dumps(record).encode())
        assert isinstance(result, Record), (record, result)
        typed.append(result.values)
    return typed


class Model:
    """XGBoost on the contract's features, as the training container trains it."""

    def __init__(self, records: Records, contract: CompiledContract) -> None:
        import random

        import xgboost as xgb

        self.contract = contract
        shuffled = list(records)
        random.Random(1).shuffle(shuffled)
        held_out = shuffled[int(0.75 * len(shuffled)) :]
        table, labels = self._table(shuffled[: len(shuffled) - len(held_out)])
        self.fitted = fit(table, contract)
        parameters = {
            "max_depth": 4, "eta": 0.1, "subsample": 0.8, "colsample_bytree": 0.7, "min_child_weight": 3,
            "objective": "binary:logistic", "nthread": 1, "seed": 1,
        }  # fmt: skip
        self.booster = xgb.train(parameters, xgb.DMatrix(self.fitted.matrix(table), labels), 80)
        self.auc = self.judged(held_out)

    def _table(self, records: Records) -> tuple[Any, Any]:
        function = row_function(self.contract)
        typed = fitting(records, self.contract)
        schema = {f.name: pl.Float64 if f.type == "number" else pl.String for f in self.contract.features}
        values = self.contract.label.values
        assert values is not None
        labels = [values.index(str(r[self.contract.label.field])) for r in typed]
        return pl.DataFrame([function(r) for r in typed], schema=schema), np.array(labels)

    def judged(self, records: Records) -> float:
        import xgboost as xgb
        from sklearn.metrics import roc_auc_score

        table, labels = self._table(records)
        return float(roc_auc_score(labels, self.booster.predict(xgb.DMatrix(self.fitted.matrix(table)))))


# --- claims ------------------------------------------------------------------------------------------------


def test_should_make_the_same_claims_for_the_same_seed() -> None:
    first = claims_generator.generate(50, 7)
    assert claims_generator.generate(20, 7) == first[:20]
    assert claims_generator.generate(50, 8) != first
    numbers = {c["policy_number"] for seed in (7, 8) for c in claims_generator.generate(200, seed)}
    assert len(numbers) == 400


def test_should_make_claims_that_fit_the_contract(claims: LoadedWorkload) -> None:
    worst = Drift(covariate=1, prior=0.7, concept=1)
    for records in (claims_generator.generate(300, 3), claims_generator.generate(300, 3, drift=worst)):
        typed = fitting(records, claims.compiled)
        assert [c.source for c in claims.compiled.columns] == list(records[0])
        assert all(
            r["total_claim_amount"] == r["injury_claim"] + r["property_claim"] + r["vehicle_claim"]
            for r in typed
        )


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 1.0])
def test_should_make_the_share_of_frauds_asked_for(share: float) -> None:
    records = claims_generator.generate(2000, 5, drift=Drift(prior=share))
    assert np.mean([r["fraud_reported"] == "Y" for r in records]) == pytest.approx(share, abs=0.04)


def test_should_make_claims_a_model_can_learn_and_drift_it_recovers_from(claims: LoadedWorkload) -> None:
    contract = claims.compiled
    old = claims_generator.generate(1000, 7)
    drifted = claims_generator.generate(1500, 8, drift=Drift(concept=1, covariate=0.5))
    later = claims_generator.generate(1000, 9, drift=Drift(concept=1, covariate=0.5))
    before, after = Model(old, contract), Model(old + drifted, contract)
    assert 0.78 < before.auc < 0.95
    assert before.judged(later) < 0.6
    assert after.auc > 0.75
    assert after.judged(later) > 0.75


def test_should_print_claims(capsys: pytest.CaptureFixture[str]) -> None:
    assert claims_generator.main(["3", "--seed", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == claims_generator.generate(3, 1)
    assert claims_generator.main(["3", "--seed", "1", "--format", "csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [r["policy_number"] for r in rows] == [json.loads(line)["policy_number"] for line in lines]
    with pytest.raises(SystemExit):
        claims_generator.main(["3", "--concept", "2"])
    assert "concept must lie between 0 and 1, got 2.0" in capsys.readouterr().err


@pytest.mark.skipif(not REAL.exists(), reason="the real table of claims is not part of the project")
def test_should_take_every_row_of_the_real_table(claims: LoadedWorkload) -> None:
    rows, report = read_table(REAL, claims.compiled)
    records = list(rows)
    assert (report.rows, report.extra_columns, len(records)) == (1000, ("_c39",), 1000)
    fitting(records, claims.compiled)
    drifted = drift_records(
        records, claims.compiled, Drift(concept=1, covariate=0.5), 1, new_identifiers=True
    )
    fitting(drifted, claims.compiled)
    identifiers = {r["policy_number"] for r in records + drifted}
    assert len(identifiers) == 2000
    before, after = Model(records, claims.compiled), Model(records + drifted, claims.compiled)
    assert before.auc > 0.75
    assert before.judged(drifted) < 0.65
    assert after.auc > 0.7


# --- any workload ------------------------------------------------------------------------------------------

OTHER = """\
version: 1
name: meters
title: Meters that will fail
owner: grid@example.com
record:
  identifier: meter
  event_time: read_at
  late_after_days: 30
  fields:
    meter: {type: string, required: true, pattern: "[A-Z]{2}-[0-9]{6,}"}
    read_at: {type: timestamp, required: true}
    load: {type: number, source: Load (kW), minimum: 0, maximum: 20}
    age: {type: integer, minimum: 0, maximum: 40}
    kind: {type: string, allowed: [a, b, c]}
    indoor: {type: boolean}
    site: {type: string, max_length: 8}
    failed: {type: boolean, required: true}
label: {task: binary, field: failed, values: [false, true]}
acceptance: {metric: auc, at_least: 0.6}
"""


@pytest.fixture
def other(tmp_path: Path) -> CompiledContract:
    (tmp_path / "workload.yaml").write_text(OTHER)
    return load_workload(tmp_path).compiled


def test_should_make_records_for_a_workload_nobody_has_seen(other: CompiledContract) -> None:
    records = generate(other, 800, 1)
    typed = fitting(records, other)
    assert generate(other, 10, 1) == records[:10]
    assert len({r["meter"] for r in typed}) == 800
    assert not {r["meter"] for r in records} & {r["meter"] for r in generate(other, 800, 2)}
    assert 0.2 < np.mean([r["failed"] for r in typed]) < 0.8
    assert any(r["Load (kW)"] is None for r in records)


def test_should_refuse_a_pattern_it_cannot_make_up(tmp_path: Path) -> None:
    (tmp_path / "workload.yaml").write_text(OTHER.replace("[A-Z]{2}-[0-9]{6,}", "(?=x)y"))
    with pytest.raises(ValueError, match=r"meter: no text could be made up for the pattern .*DATA=file\.csv"):
        generate(load_workload(tmp_path).compiled, 1, 1)


def test_should_drift_any_records_and_keep_them_fitting(other: CompiledContract) -> None:
    records = generate(other, 600, 4)
    shifted = drift_records(records, other, Drift(covariate=1), 1)
    fitting(shifted, other)
    load = [
        np.nanmean([np.nan if r["Load (kW)"] is None else r["Load (kW)"] for r in rs])
        for rs in (records, shifted)
    ]
    assert abs(load[0] - load[1]) > 2
    assert [r["meter"] for r in shifted] == [r["meter"] for r in records]
    rare = drift_records(records, other, Drift(prior=0.05), 1)
    fitting(rare, other)
    assert np.mean([r["failed"] for r in rare]) == pytest.approx(0.05, abs=0.01)
    assert len({r["meter"] for r in rare}) == 600
    turned = drift_records(records, other, Drift(concept=1), 1)
    fitting(turned, other)
    assert drift_records(records, other, Drift(concept=1), 1) == turned


@pytest.mark.parametrize("drift", [{"covariate": 1.1}, {"prior": -0.1}, {"concept": 2}])
def test_should_refuse_drift_out_of_range(drift: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must lie between 0 and 1, got"):
        Drift(**drift)


def test_should_mix_dirt_that_is_refused_for_its_own_reason(
    claims: LoadedWorkload, other: CompiledContract
) -> None:
    dirt = Dirt(
        wrong_type=3, missing_identifier=3, not_json=3, not_utf8=3, huge=2, unknown_field=3, unknown_label=3,
        duplicate=4, late=5,
    )  # fmt: skip
    reasons = {
        "wrong_type": "wrong_type", "missing_identifier": "missing_required", "not_json": "not_json",
        "not_utf8": "not_utf8", "huge": "too_large", "unknown_field": "unknown_field",
    }  # fmt: skip
    for contract in (claims.compiled, other):
        reasons["unknown_label"] = "unknown_label" if contract is claims.compiled else "wrong_type"
        messages = soil(generate(contract, 100, 1), contract, dirt, 1)
        assert messages == soil(generate(contract, 100, 1), contract, dirt, 1)
        assert len(messages) == 100 + dirt.total
        codec = RecordCodec(contract)
        for message in messages:
            result = codec.decode(message.data)
            if message.kind in DELIVERED:
                assert isinstance(result, Record), (message.kind, result)
            else:
                assert isinstance(result, Rejected)
                assert [r.code for r in result.reasons] == [reasons[message.kind]]
        counts = Counter(m.kind for m in messages)
        assert (counts["clean"], counts["late"], counts["duplicate"], counts["huge"]) == (100, 5, 4, 2)
        assert len({m.data for m in messages}) == len(messages) - 4


def test_should_say_which_dirt_a_workload_cannot_have() -> None:
    contract = zoo.contract()
    with pytest.raises(ValueError, match="late: the workload names no late_after_days"):
        soil([{"key": "k"}], contract, Dirt(late=1), 1)
    with pytest.raises(ValueError, match="counts must not be negative: huge"):
        Dirt(huge=-1)
    with pytest.raises(ValueError, match="give one at least"):
        soil([], contract, Dirt(huge=1), 1)


PATTERNS = st.recursive(
    st.sampled_from(["a", "-", r"\d", r"\w", "[a-c]", "[^0-9]", "[A-Z0-9_]", r"\.", "[x-]", r"[\d.]"]),
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("(?:{}|{})".format, inner, inner),
        st.builds("(?:{}){}".format, inner, st.sampled_from(["?", "*", "+", "{3}", "{2,}", "{1,4}", "+?"])),
    ),
    max_leaves=6,
)


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(pattern=PATTERNS, n=st.integers(0, 10**9))
def test_should_make_up_texts_for_patterns(pattern: str, n: int) -> None:
    texts = Texts(pattern)
    assert re.fullmatch(pattern, texts[n % texts.count])


def test_should_make_up_as_many_identifiers_as_asked() -> None:
    for pattern in (
        "[0-9]{1,12}",
        "R[0-9]+",
        "[A-Z]{2}-[0-9]{6,}",
        "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    ):
        texts = Texts(pattern)
        assert texts.count >= 10**9
        assert len({texts[n] for n in range(3000)}) == 3000
    assert len(Texts("[a-z]+", max_length=3)[0]) == 3
    with pytest.raises(PatternError, match="gives 100 texts, number 100 was asked for"):
        Texts(r"\d\d")[100]


@pytest.mark.parametrize("pattern", ["(?=x)y", r"(a)\1", r"\bx", "[^\x21-\x7e]"])
def test_should_say_when_a_pattern_is_beyond_it(pattern: str) -> None:
    with pytest.raises(PatternError, match="no text could be made up"):
        Texts(pattern)


@pytest.mark.parametrize(
    ("taken", "like", "expected"),
    [(["9", "10"], "9", "11"), (["A-007"], "A-007", "A-008"), (["x"], "x", "x1"), (["b"], "", "1")],
)
def test_should_count_identifiers_on(taken: list[str], like: str, expected: str) -> None:
    assert NewIdentifiers([{"key": t} for t in taken], zoo.contract()).like(like) == expected


# --- files -------------------------------------------------------------------------------------------------


def test_should_read_csv_as_texts_and_report_other_columns(tmp_path: Path, other: CompiledContract) -> None:
    file = tmp_path / "meters.csv"
    file.write_text(
        "extra,meter,read_at,load,age,kind,indoor,site,failed\n"
        '1,AB-000001,2015-01-01T00:00:00Z,1.5,,a,true,"x,y",false\n'
    )
    rows, report = read_table(file, other)
    assert report.extra_columns == ("extra",)
    (record,) = rows
    assert record == {
        "meter": "AB-000001", "read_at": "2015-01-01T00:00:00Z", "Load (kW)": "1.5", "age": None, "kind": "a",
        "indoor": "true", "site": "x,y", "failed": "false",
    }  # fmt: skip
    (typed,) = fitting([record], other)
    assert (typed["load"], typed["indoor"], typed["failed"]) == (1.5, True, False)


def test_should_read_parquet_as_json_values(tmp_path: Path, claims: LoadedWorkload) -> None:
    contract = claims.compiled
    typed = fitting(generate(contract, 20, 1), contract)
    frame = pl.DataFrame(typed).with_columns(
        pl.col("policy_bind_date", "incident_date").str.to_date(),
        pl.col("policy_number").cast(pl.Int64),
        pl.lit(1).alias("extra"),
    )
    frame.write_parquet(tmp_path / "claims.parquet")
    rows, report = read_table(tmp_path / "claims.parquet", contract)
    assert (report.rows, report.extra_columns) == (20, ("extra",))
    again = fitting(list(rows), contract)
    # As whole numbers they have no zeros in front.
    assert [r.pop("policy_number") for r in again] == [r.pop("policy_number").lstrip("0") for r in typed]
    assert again == typed


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "empty; the first line must name the columns"),
        ("t.csv", b"meter,read_at\n", r"lacks columns of workload meters: Load \(kW\), age, kind, indoor, site, failed$"),
        ("t.csv", b"meter,read_at,load,agge,kind,indoor,site,failed\n", r"lacks columns of workload meters: age \(did you mean agge\?\)"),
        ("t.csv", b"meter,meter\n", "the header names a column twice: meter"),
        ("t.csv", b"meter,read_at,load,age,kind,indoor,site,failed\n1,2\n", "t.csv:2: 2 cells in a table of 8 columns"),
        ("t.csv", b"meter\xff\n", "not UTF-8"),
        ("t.parquet", b"no parquet", "not Parquet: "),
        ("t.xlsx", b"", "got a file ending .xlsx; allowed: .csv, .tsv, .parquet, .pq"),
    ],
)  # fmt: skip
def test_should_say_what_is_wrong_with_a_file(
    tmp_path: Path, other: CompiledContract, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match=message):
        read_table(tmp_path / name, other)


def test_should_say_that_a_data_file_is_missing(tmp_path: Path, other: CompiledContract) -> None:
    with pytest.raises(TableError, match=r"nowhere.csv: no such file"):
        read_table(tmp_path / "nowhere.csv", other)


# --- quality rules -----------------------------------------------------------------------------------------


def test_should_write_quality_rules_from_the_fields(workload_file: Callable[..., Path]) -> None:
    folder = workload_file(
        ("{type: string}\n", "{type: string, max_length: 8, allowed: ['a\"b', c]}\n"),
        extra="batch: {rules: ['Mean \"length\" < 50']}\n",
    )
    assert dqdl(load_workload(folder).compiled).splitlines() == [
        "Rules = [",
        "    RowCount > 0,",
        '    IsUnique "hull",',
        '    IsComplete "hull",',
        '    IsComplete "seen",',
        '    ColumnValues "length" >= 1 where "length is not null",',
        '    ColumnValues "length" <= 200 where "length is not null",',
        '    ColumnValues "crew" >= 0 where "crew is not null",',
        '    ColumnValues "flag" in [ "a\\"b", "c" ] where "flag is not null",',
        '    ColumnLength "flag" <= 8 where "flag is not null",',
        '    ColumnValues "repair" in [ "no", "yes" ] where "repair is not null",',
        '    Mean "length" < 50',
        "]",
    ]


# --- fitting -----------------------------------------------------------------------------------------------


def test_should_fit_gaps_and_categories_on_what_it_is_given() -> None:
    contract = zoo.contract({"n": zoo.x, "c": zoo.s})
    base = dict.fromkeys(c.name for c in zoo.COLUMNS) | {"key": "k", "day": None}
    records = [
        base | {"x": v, "s": s} for v, s in ((1.0, "a"), (None, "a"), (4.0, "b"), (2.0, "c"), (9.0, None))
    ]
    table = feature_frame(zoo.polars_frame(records), contract)
    fitted = fit(table, zoo.with_columns(contract, fit=FitSpec(impute_numbers="median", max_categories=2)))
    assert fitted.imputed == {"f_n": 3.0}
    assert fitted.output_names == ["f_n", "f_c=a", "f_c=b", "f_c=<other>"]
    assert fitted.matrix(table).tolist() == [
        [1, 1, 0, 0],
        [3, 1, 0, 0],
        [4, 0, 1, 0],
        [2, 0, 0, 1],
        [9, 0, 0, 0],
    ]
    assert fitted.vector({"f_n": None, "f_c": "never seen"}) == [3.0, 0.0, 0.0, 1.0]
    assert type(fitted).from_json(fitted.to_json()).output_names == fitted.output_names
    rare = fit(
        table, zoo.with_columns(contract, fit=FitSpec(impute_numbers="none", minimum_category_count=2))
    )
    assert rare.categories == {"f_c": ("a",)}
    assert np.isnan(rare.matrix(table)[1, 0])
    ways: tuple[tuple[Literal["mean", "zero"], float], ...] = (("mean", 4.0), ("zero", 0.0))
    for how, value in ways:
        assert fit(table, zoo.with_columns(contract, fit=FitSpec(impute_numbers=how))).imputed == {
            "f_n": value
        }


def test_should_refuse_a_fitted_transform_of_another_version() -> None:
    from ml_contract.features.fit import Fitted

    with pytest.raises(ValueError, match="fitted transform of version 7; this reader knows versions 1 and 2"):
        Fitted.from_json('{"version": 7}')
