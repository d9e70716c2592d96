"""The batch block: engines, severities of rules, what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import botocore.session
import pytest
from ml_contract.load import ContractError, LoadedWorkload, load_workload
from ml_contract.quality.rules import parsed_rules, severity_of
from ml_contract.spec.batching import Language

YAML = """
version: 1
name: parcel_delay
title: Parcels that arrive late
owner: logistics@example.com
record:
  identifier: parcel
  event_time: sent_at
  fields:
    parcel: {type: string, required: true, max_length: 40, sensitive: pii}
    sent_at: {type: timestamp, required: true}
    weight_kg: {type: number, minimum: 0, maximum: 70}
    minutes_late: {type: number}
label: {task: regression, field: minutes_late}
acceptance: {metric: rmse, at_most: 30}
"""


def load(folder: Path, batch: str) -> object:
    path = folder / "parcel_delay"
    path.mkdir()
    (path / "workload.yaml").write_text(f"{YAML}batch: {batch}\n")
    return load_workload(path)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ("{scale: large, workers: 3}", "workers goes with scale: medium, got scale: large"),
        (
            "{scale: medium, instance_type: ml.m5.xlarge}",
            "instance_type goes with scale: small, got scale: medium",
        ),
        (
            "{scale: medium, execution_class: flex, worker_type: G.8X}",
            "execution_class: flex runs on G.1X and G.2X workers, got worker_type: G.8X",
        ),
        ('{rules: ["Entropy \\"weight_kg\\" > 1"]}', "batch.rules: rule type 'Entropy' is not known here"),
        ("{severity: {IsUnique: quarantine}}", "judges the table and no single row; choose stop or warn"),
        (
            "{severity: {ColumnValue: warn}}",
            "got 'ColumnValue', which is no rule; did you mean 'ColumnValues'?",
        ),
        ("{severity: {CustomSql: warn}}", "got 'CustomSql', which no rule of this workload has"),
        ("{dedup: {keep: best}}", "dedup.keep"),
        ("{profile: {}}\nstream: {format: iceberg}", "batch.profile: DataBrew reads no Iceberg table"),
        ("{profile: {schedule: rate(1 day)}}", "batch.profile.schedule"),
    ],
)
def test_should_refuse_what_no_engine_could_follow(tmp_path: Path, batch: str, message: str) -> None:
    with pytest.raises(ContractError) as caught:
        load(tmp_path, batch)
    assert message in str(caught.value)


def test_should_run_on_one_machine_unless_told_otherwise(tmp_path: Path) -> None:
    loaded = load_workload((tmp_path, load(tmp_path, "{}"))[0] / "parcel_delay")
    assert loaded.workload.batch.scale == "small"
    assert {severity_of(rule, loaded.compiled) for rule in parsed_rules(loaded.compiled)} == {"stop"}


def test_should_let_a_whole_rule_win_over_its_type(tmp_path: Path) -> None:
    whole = 'ColumnValues "weight_kg" <= 70 where "weight_kg is not null"'
    load(tmp_path, f"{{severity: {{ColumnValues: quarantine, '{whole}': warn}}}}")
    contract = load_workload(tmp_path / "parcel_delay").compiled
    found = {rule.text: severity_of(rule, contract) for rule in parsed_rules(contract)}
    assert found.pop(whole) == "warn"
    assert found['ColumnValues "weight_kg" >= 0 where "weight_kg is not null"'] == "quarantine"
    assert found['IsUnique "parcel"'] == "stop"


ENRICHED = YAML.replace("    minutes_late:", "    remark: {type: string}\n    minutes_late:")


def load_enriched(folder: Path, enrich: str) -> LoadedWorkload:
    path = folder / "parcel_delay"
    path.mkdir()
    (path / "workload.yaml").write_text(f"{ENRICHED}batch: {{enrich: {enrich}}}\n")
    return load_workload(path)


def test_should_take_a_text_field_and_its_language(tmp_path: Path) -> None:
    enrich = load_enriched(tmp_path, "{field: remark, language: de}").workload.batch.enrich
    assert enrich is not None
    assert (enrich.sentiment, enrich.entities, enrich.allow_pii, enrich.most_texts) == (
        True,
        True,
        False,
        100_000,
    )


def test_should_send_personal_data_only_where_that_is_said(tmp_path: Path) -> None:
    # The identifier is what is wrong then, not its sensitivity.
    with pytest.raises(ContractError) as caught:
        load_enriched(tmp_path, "{field: parcel, language: de, allow_pii: true}")
    assert "is the identifier and no text" in str(caught.value)
    assert "allow_pii" not in str(caught.value)


@pytest.mark.parametrize(
    ("enrich", "message"),
    [
        ("{field: remarks, language: en}", "did you mean remark?"),
        ("{field: weight_kg, language: en}", "weight_kg is number; a text is string: parcel, remark"),
        ("{field: parcel, language: en}", "set allow_pii: true"),
        ("{field: remark, language: en, allow_pii: true}", "nothing to allow"),
        ("{field: remark, language: tlh}", "language"),
        ("{field: remark, language: en, sentiment: false, entities: false}", "nothing is asked"),
        ("{field: remark, language: en, most_texts: 0}", "most_texts"),
    ],
)
def test_should_refuse_texts_that_comprehend_cannot_or_must_not_read(
    tmp_path: Path, enrich: str, message: str
) -> None:
    with pytest.raises(ContractError, match=re.escape(message)):
        load_enriched(tmp_path, enrich)


def test_should_know_the_languages_of_comprehend() -> None:
    model = botocore.session.get_session().get_service_model("comprehend")
    assert set(get_args(Language)) == set(model.shape_for("LanguageCode").enum)
