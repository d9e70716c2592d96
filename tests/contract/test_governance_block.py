"""The governance block, and values that look personal."""

from __future__ import annotations

from pathlib import Path

import pytest
from ml_contract.load import ContractError, load_workload
from ml_contract.records.personal import kinds_of, scan, scanned_columns
from ml_contract.spec.governance import RowFilter

YAML = """
version: 1
name: parcel_delay
title: Parcels that arrive late
owner: logistics@example.com
record:
  identifier: parcel
  event_time: sent_at
  fields:
    parcel: {type: string, required: true, sensitive: pii}
    sent_at: {type: timestamp, required: true}
    weight_kg: {type: number}
    stops: {type: integer}
    note: {type: string}
    carrier: {type: string, allowed: [north, south]}
    minutes_late: {type: number}
label: {task: regression, field: minutes_late}
acceptance: {metric: rmse, at_most: 30}
"""


def _load(folder: Path, governance: str) -> list[str]:
    path = folder / "parcel_delay"
    path.mkdir()
    (path / "workload.yaml").write_text(YAML + governance)
    try:
        loaded = load_workload(path)
    except ContractError as error:
        return [problem.message for problem in error.problems]
    assert loaded.workload.governance.row_filters
    return []


def test_should_take_a_filter_and_a_mask(tmp_path: Path) -> None:
    text = """
governance:
  row_filters:
    data_scientist: {field: carrier, values: [north]}
    mlops_engineer: {field: stops, values: [1, 2]}
  masks: {parcel: redact}
  scan: true
"""
    assert _load(tmp_path, text) == []


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("row_filters: {data_scientist: {field: nope, values: [a]}}", "which is no field of the record"),
        (
            "row_filters: {data_scientist: {field: weight_kg, values: [1]}}",
            "weight_kg is number; a row filter",
        ),
        ("row_filters: {data_scientist: {field: parcel, values: [a]}}", "parcel is pii"),
        ("row_filters: {data_scientist: {field: carrier, values: [west]}}", "which carrier never is"),
        ("row_filters: {data_scientist: {field: carrier, values: [1]}}", "carrier holds string values"),
        ("row_filters: {auditor: {field: carrier, values: [north]}}", "auditor"),
        ("masks: {carrier: hash}", "carrier is not pii and needs no mask"),
        ("masks: {parcel: blur}", "blur"),
    ],
)
def test_should_refuse_what_governs_nothing(tmp_path: Path, block: str, message: str) -> None:
    problems = _load(tmp_path, f"governance:\n  {block}\n")
    assert any(message in problem for problem in problems), problems


def test_should_write_a_filter_as_a_condition() -> None:
    assert RowFilter(field="name", values=("a", "d'Arc")).expression() == "name IN ('a', 'd''Arc')"
    assert RowFilter(field="n", values=(1, 2)).expression() == "n IN (1, 2)"
    assert RowFilter(field="b", values=(True,)).expression() == "b IN (true)"


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("write to ana.b@example.org please", {"email"}),
        ("DE89 3704 0044 0532 0130 00", {"iban"}),
        ("DE88 3704 0044 0532 0130 00", set()),
        ("4111 1111 1111 1111", {"card"}),
        ("4111 1111 1111 1112", set()),
        ("123-45-6789", {"ssn"}),
        ("000-45-6789", set()),
        ("+49 170 1234567", {"phone"}),
        ("(212) 555-0123", {"phone"}),
        ("9935 4th Drive", {"postal_address"}),
        ("2001:db8::1", {"ip_address"}),
        ("250/500", set()),
        ("2015-01-25", set()),
        ("Major Damage", set()),
        ("1.5", set()),
        ("", set()),
    ],
)
def test_should_know_what_looks_personal(text: str, kinds: set[str]) -> None:
    assert kinds_of(text) == kinds


def test_should_find_a_field_that_nobody_marked_and_tell_no_value() -> None:
    rows = [{"note": f"call +1 212 555 01{n:02}" if n % 10 == 0 else "fine", "code": n} for n in range(100)]
    (found,) = scan(rows, ["note", "code"])
    assert (found.column, found.kind, found.share, found.values) == ("note", "phone", 0.1, 100)
    assert "212" not in repr(found)


def test_should_not_take_chance_for_card_numbers() -> None:
    # One number of sixteen digits in ten satisfies the check digit.
    assert scan([{"n": 4_000_000_000_000_000 + n} for n in range(500)], ["n"]) == []
    assert scan([{"n": None}], ["n"]) == []


def test_should_look_at_texts_and_numbers_that_nobody_marked(tmp_path: Path) -> None:
    path = tmp_path / "parcel_delay"
    path.mkdir()
    (path / "workload.yaml").write_text(YAML)
    contract = load_workload(path).compiled
    assert scanned_columns(contract) == ["stops", "note"]
    assert contract.batch["scan"] is False
