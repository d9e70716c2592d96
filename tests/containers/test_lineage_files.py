"""What preparation says of a training set: every record by its part, and what the set was made of."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from container_support import features_of, make_records, prepare_inputs, write_features
from ml_contract.compiled import CompiledContract
from ml_contract.records.lineage import record_key
from ml_processing import prepare as prepare_module
from ml_runtime.job import BadInputError
from ml_runtime.tables import read_table
from ml_serving.predictor import JSON_HEADER, Predictor
from ml_serving.settings import Settings


def written(
    base: pathlib.Path, contract: CompiledContract, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Run the step; return the document and the records that it names."""
    zone = prepare_inputs(base, contract)
    write_features(features_of(make_records("binary", 200), contract), contract, zone)
    (zone / "_snapshot.json").write_text('{"curated_snapshot_id": "42"}')
    config = base / "config"
    config.mkdir()
    (config / "processingjobconfig.json").write_text(
        json.dumps(
            {
                "ProcessingJobName": "prepare-1",
                "ProcessingInputs": [
                    {"InputName": "features", "S3Input": {"S3Uri": "s3://zone/data/"}},
                    {"InputName": "code"},
                ],
            }
        )
    )
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(base))
    prepare_module.prepare()
    folder = base / "processing/output/lineage"
    return json.loads((folder / "lineage.json").read_text()), pl.read_parquet(folder / "records.parquet")


def test_should_name_every_record_of_every_part(
    contract: CompiledContract, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, records = written(tmp_path, contract, monkeypatch)
    assert records.columns == ["record", "event_time", "part"]
    for part in ("train", "validation", "test"):
        rows = read_table(tmp_path / "processing/output" / part, contract.feature_columns())[0]
        named = records.filter(pl.col("part") == part)["record"].to_list()
        assert sorted(named) == sorted(rows[contract.identifier].to_list())
        assert document["rows"][part] == len(named)
    assert document["named_by"] == contract.identifier


def test_should_name_a_person_s_record_by_its_key(
    contract: CompiledContract, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = tuple(
        dataclasses.replace(c, sensitive="pii") if c.name == contract.identifier else c
        for c in contract.columns
    )
    personal = dataclasses.replace(contract, columns=columns)
    document, records = written(tmp_path, personal, monkeypatch)
    assert document["named_by"] == "record_key"
    rows = read_table(tmp_path / "processing/output/test", contract.feature_columns())[0]
    keys = {record_key(contract.name, identifier) for identifier in rows[contract.identifier]}
    assert set(records.filter(pl.col("part") == "test")["record"]) == keys
    assert not set(records["record"]) & set(rows[contract.identifier])


def test_should_say_what_the_set_was_made_of(
    contract: CompiledContract, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, _ = written(tmp_path, contract, monkeypatch)
    assert document["features"]["snapshot"] == {"curated_snapshot_id": "42"}
    assert document["job"] == {
        "name": "prepare-1",
        "arn": None,
        "inputs": {"features": "s3://zone/data/", "code": None},
    }
    zone = tmp_path / "processing/input/features"
    files = {item["file"]: item["sha256"] for item in document["features"]["files"]}
    assert set(files) == {p.relative_to(zone).as_posix() for p in zone.rglob("*.parquet")}
    for name, digest in files.items():
        assert hashlib.sha256((zone / name).read_bytes()).hexdigest() == digest
    assert document["contract"] == hashlib.sha256(contract.to_json().encode()).hexdigest()


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("arn:aws:sagemaker:eu-west-1:1:model-package/dev-trips/3", "dev-trips/3"),
        ("", None),
    ],
)
def test_should_call_the_model_by_its_group_and_version(package: str, name: str | None) -> None:
    assert Settings.of({"MODEL_PACKAGE": package}).served_as == name
    assert Settings.of({}).served_as is None


def test_should_say_in_json_which_model_answers(trained: Callable[[str], Any]) -> None:
    binary = trained("binary")
    from ml_runtime.model import Model

    model = Model.load(binary.model)
    plain, named = Predictor(model), Predictor(model, served_as="dev-trips/3")
    label = model.contract.label_column.source
    bodies = [
        json.dumps([{k: v for k, v in record.items() if k != label} for record in binary.records[:count]])
        for count in (1, 2)
    ]
    for body in (b.encode() for b in bodies):
        without = plain.answer(body, "application/json", "application/json")
        answer = named.answer(body, "application/json", "*/*")
        assert (answer.status, answer.content_type) == (200, JSON_HEADER)
        assert json.loads(answer.body) == {**json.loads(without.body), "model": "dev-trips/3"}
        # A table of scores has no place for it.
        csv = named.answer(body, "application/json", "text/csv")
        assert csv == plain.answer(body, "application/json", "text/csv")


@pytest.mark.parametrize("note", [{"writing": True, "run_id": "r1"}, {"rows": 201}, {"rows": 100}])
def test_should_not_learn_from_features_that_are_half_written(
    contract: CompiledContract,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    note: dict[str, Any],
) -> None:
    """A job that died between two files leaves a part of the rows, or some of them twice."""
    zone = prepare_inputs(tmp_path, contract)
    write_features(features_of(make_records("binary", 200), contract), contract, zone)
    (zone / "_snapshot.json").write_text(json.dumps(note))
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    with pytest.raises(BadInputError, match=r"are not whole, 200 rows.*run it to its end, then train"):
        prepare_module.prepare()
    (zone / "_snapshot.json").write_text(json.dumps({"rows": 200}))
    prepare_module.prepare()
