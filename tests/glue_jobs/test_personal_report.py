"""The quality report names fields that look personal, and never what stands in them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from lake_files.report import Report
from ml_contract.compiled import CompiledContract
from ml_contract.load import load_workload
from ml_contract.records.personal import SAMPLE

WORKLOAD = Path(__file__).resolve().parents[2] / "workloads" / "claims_fraud"


@pytest.fixture(scope="module")
def contract() -> CompiledContract:
    return load_workload(WORKLOAD).compiled


def _contract(contract: CompiledContract, *, scan: bool) -> CompiledContract:
    return dataclasses.replace(contract, batch={**contract.batch, "scan": scan})


def test_should_name_the_field_and_not_the_value(
    contract: CompiledContract, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report(None, "s3://b/r.json")
    asked: list[Any] = []

    def sample(names: list[str], most: int) -> list[dict[str, Any]]:
        asked.append((names, most))
        return [{"insured_hobbies": "ana@example.org" if number < 3 else "chess"} for number in range(30)]

    report.look_for_personal_data(_contract(contract, scan=True), sample)
    (found,) = report["personal_data"]["found"]
    assert (found["column"], found["kind"], found["share"]) == ("insured_hobbies", "email", 0.1)
    assert "ana@" not in json.dumps(report) + capsys.readouterr().out
    ((names, most),) = asked
    assert most == SAMPLE
    assert "insured_hobbies" in names
    # What is marked is known to be personal, and not looked at.
    assert not {"policy_number", "insured_zip", "incident_location", "insured_sex"} & set(names)


def test_should_look_at_nothing_unless_told(contract: CompiledContract) -> None:
    report = Report(None, "s3://b/r.json")

    def sample(names: list[str], most: int) -> list[dict[str, Any]]:
        raise AssertionError("nobody asked for a sample")

    report.look_for_personal_data(_contract(contract, scan=False), sample)
    assert "personal_data" not in report
