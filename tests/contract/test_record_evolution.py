"""How a record may change: additive changes pass, breaking ones are refused with the way forward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_contract.__main__ import main
from ml_contract.compiled import Column, CompiledContract
from ml_contract.evolution.record import LOCK_NAME, changes, lock_text, record_schema
from ml_contract.load import ContractError, load_workload
from ml_contract.records.codec import RecordCodec, Rejected

YAML = """
version: 1
name: parcels
title: Parcels that arrive late
owner: logistics@example.com
record:
  identifier: parcel
  event_time: sent_at
  fields:
    parcel: {type: string, required: true, max_length: 40}
    sent_at: {type: timestamp, required: true}
    weight_kg: {type: number, minimum: 0, maximum: 70}
    stops: {type: integer, minimum: 0}
    express: {type: boolean}
    carrier: {type: string, allowed: [north, south], missing: ["?"]}
    person: {type: string, pattern: "[a-z]+", sensitive: pii}
    minutes_late: {type: number}
label: {task: regression, field: minutes_late}
acceptance: {metric: rmse, at_most: 30}
"""


def workload(folder: Path, text: str = YAML) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "workload.yaml").write_text(text)
    return folder


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    folder = workload(tmp_path / "parcels")
    assert main(["lock", str(folder)]) == 0
    return folder


ADDITIVE = [
    ("minutes_late: {type: number}", "minutes_late: {type: number}\n    colour: {type: string}"),
    ("minimum: 0, maximum: 70", "minimum: -5, maximum: 100"),
    ("minimum: 0, maximum: 70", "maximum: 70"),
    ("[north, south]", "[north, south, west]"),
    ("allowed: [north, south], ", ""),
    ("max_length: 40", "max_length: 50"),
    (', pattern: "[a-z]+"', ""),
    ('missing: ["?"]', 'missing: ["?", "-"]'),
    ("express: {type: boolean}", "express: {type: boolean, sensitive: protected}"),
    ("weight_kg: {type: number", "weight_kg: {description: As weighed, type: number"),
]


@pytest.mark.parametrize(("old", "new"), ADDITIVE)
def test_should_pass_an_additive_change(locked: Path, old: str, new: str) -> None:
    assert old in YAML
    workload(locked, YAML.replace(old, new))
    assert load_workload(locked).name == "parcels"


BREAKING = [
    ("    express: {type: boolean}\n", "", "no longer has express", "keep express as an optional field"),
    ("stops: {type: integer", "stops: {type: number", "got number, was integer", "a field of the new type"),
    ("express: {type", "fast: {source: express, type", "was express", "keep the name express"),
    ("stops: {type", "stops: {source: halts, type", "got 'halts', was 'stops'", "senders send the old name"),
    (
        "minutes_late: {type: number}",
        "minutes_late: {type: number}\n    colour: {type: string, required: true}",
        "is a new required field",
        "leave it optional",
    ),
    (
        "express: {type: boolean",
        "express: {required: true, type: boolean",
        "required from now on",
        "optional",
    ),
    ("maximum: 70", "maximum: 60", "got 60, was 70: values above it", "keep 70"),
    ("stops: {type: integer, minimum: 0}", "stops: {type: integer, minimum: 1}", "got 1, was 0", "keep 0"),
    ("[north, south]", "[north]", "'south' would be quarantined", "keep the values"),
    ("express: {type: boolean}", "express: {type: date}", "got date, was boolean", "beside it"),
    ("max_length: 40", "max_length: 30", "got 30, was 40: longer texts", "keep 40"),
    ("[a-z]+", "[a-z]{1,5}", "what matched may not now", "judge by a rule"),
    (', missing: ["?"]', "", "'?' was 'no value' and is a value now", "keep it among missing"),
    ('missing: ["?"]', 'missing: ["?"], sensitive: protected', "", ""),
    ("sensitive: pii", "sensitive: protected", "who may not see it today", "ask the owner"),
    (
        "sent_at: {type: timestamp",
        'sent_at: {format: "%Y-%m-%d %H:%M", type: timestamp',
        "another day",
        "keep",
    ),
    ("event_time: sent_at", "event_time: back_at", "got 'back_at', was 'sent_at'", "name sent_at again"),
    ("field: minutes_late", "field: weight_kg", "models and labels that exist", "a workload of its own"),
]


@pytest.mark.parametrize(("old", "new", "why", "way"), [b for b in BREAKING if b[2]])
def test_should_refuse_a_breaking_change_with_line_value_and_way(
    locked: Path, old: str, new: str, why: str, way: str
) -> None:
    assert old in YAML
    text = YAML.replace(old, new)
    if "back_at" in new:
        text = text.replace("    weight_kg", "    back_at: {type: timestamp, required: true}\n    weight_kg")
    workload(locked, text)
    with pytest.raises(ContractError) as caught:
        load_workload(locked)
    found = [p for p in caught.value.problems if why in p.message]
    assert len(found) == 1, str(caught.value)
    assert way in found[0].message
    assert "raise record.schema_version" in found[0].message
    assert found[0].line > 1
    key = found[0].path.rsplit(".", 1)[-1]
    assert text.splitlines()[found[0].line - 1].lstrip().startswith((key, found[0].path.split(".")[-2]))


def test_should_take_a_breaking_change_with_a_higher_version(
    locked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = YAML.replace("stops: {type: integer", "stops: {type: number")
    workload(locked, text)
    assert main(["lock", str(locked)]) == 1
    workload(locked, text.replace("identifier: parcel", "schema_version: 2\n  identifier: parcel"))
    assert main(["check", str(locked)]) == 0
    assert main(["lock", str(locked)]) == 0
    assert "breaking: record.fields.stops.type: got number, was integer" in capsys.readouterr().out
    assert json.loads((locked / LOCK_NAME).read_text())["schema_version"] == 2


def test_should_refuse_a_version_that_falls(locked: Path) -> None:
    workload(locked, YAML.replace("identifier: parcel", "schema_version: 2\n  identifier: parcel"))
    assert main(["lock", str(locked)]) == 0
    workload(locked)
    with pytest.raises(ContractError, match="got 1, but 2 is recorded; versions only rise"):
        load_workload(locked)


def test_should_compare_with_an_older_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = workload(tmp_path / "old")
    new = workload(tmp_path / "new", YAML.replace("maximum: 70", "maximum: 80"))
    assert main(["check", str(new), "--against", str(old / "workload.yaml")]) == 0
    assert "additive: record.fields.weight_kg.maximum: got 80, was 70" in capsys.readouterr().out
    assert main(["check", str(old), "--against", str(new / "workload.yaml")]) == 1
    assert "values above it would be quarantined" in capsys.readouterr().err


def test_should_refuse_a_lock_file_that_is_none(locked: Path) -> None:
    (locked / LOCK_NAME).write_text("{}")
    with pytest.raises(ContractError, match="lacks event_time, fields, identifier, label, schema_version"):
        load_workload(locked)
    (locked / LOCK_NAME).write_text("nonsense")
    with pytest.raises(ContractError, match="cannot be read"):
        load_workload(locked)


def test_should_keep_the_locks_of_the_repository() -> None:
    root = Path(__file__).resolve().parents[2] / "workloads"
    locks = sorted(root.glob(f"*/{LOCK_NAME}"))
    assert "claims_fraud" in [lock.parent.name for lock in locks]
    for lock in locks:
        why = f"run python -m ml_contract lock workloads/{lock.parent.name}"
        assert lock.read_text(encoding="utf-8") == lock_text(load_workload(lock.parent).workload), why


# --- what additive means, against the code that checks records ------------------------------------

TEXTS = ["", "?", "-", "a", "ab", "abc", "north", "0", "7", "-3", "2.5", "true", "2026-01-02", "01/02/2026"]
VALUES: list[Any] = [*TEXTS, None, True, False, 0, 1, 7, -3, 2.5, 1e9, [], {}]


@st.composite
def fields(draw: st.DrawFn) -> dict[str, Any]:
    """A field as the lock file has it."""
    kind = draw(st.sampled_from(["integer", "number", "string", "boolean", "date"]))
    field: dict[str, Any] = {"type": kind, "source": draw(st.sampled_from(["x", "y"]))}
    maybe = st.booleans()
    if draw(maybe):
        field["required"] = True
    if kind in ("integer", "number"):
        for key, values in (("minimum", [-5, 0, 1]), ("maximum", [5, 7, 100])):
            if draw(maybe):
                field[key] = draw(st.sampled_from(values))
    if kind == "string":
        if draw(maybe):
            field["allowed"] = draw(st.lists(st.sampled_from(["a", "ab", "north"]), min_size=1, unique=True))
        if draw(maybe):
            field["pattern"] = draw(st.sampled_from(["[a-z]+", "[a-z]{1,2}", ".*"]))
        if draw(maybe):
            field["max_length"] = draw(st.sampled_from([1, 2, 5]))
    if kind == "date" and draw(maybe):
        field["format"] = draw(st.sampled_from(["%Y-%m-%d", "%m/%d/%Y"]))
    if draw(maybe):
        free = [t for t in ("?", "-", "0", "true") if t not in field.get("allowed", ())]
        field["missing"] = draw(st.lists(st.sampled_from(free), min_size=1, unique=True))
    if draw(maybe):
        field["sensitive"] = draw(st.sampled_from(["pii", "protected"]))
    return field


def codec(schema: dict[str, Any]) -> RecordCodec:
    base = json.loads(_BASE)
    base["columns"] = [
        {
            **dict.fromkeys(
                ("minimum", "maximum", "allowed", "pattern", "max_length", "format", "sensitive")
            ),
            "required": False,
            "missing": [],
            **field,
            "name": name,
        }
        for name, field in schema["fields"].items()
    ]
    return RecordCodec(CompiledContract.from_json(json.dumps(base)))


def schema_of(field: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "identifier": "id",
        "event_time": "at",
        "label": {"task": "regression", "field": "late", "values": None},
        "fields": {
            "id": {"type": "string", "source": "id", "required": True},
            "at": {"type": "date", "source": "at", "required": True},
            "late": {"type": "number", "source": "late"},
            "field": field,
        },
    }


def _base() -> str:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return load_workload(workload(Path(folder))).compiled.to_json()


_BASE = (
    _base()
    .replace('"identifier":"parcel"', '"identifier":"id"')
    .replace('"event_time":"sent_at"', '"event_time":"at"')
    .replace('"field":"minutes_late"', '"field":"late"')
)


@settings(max_examples=600, deadline=None)
@given(
    old=fields(), new=fields(), mutate=st.booleans(), key=st.sampled_from(sorted({*Column.__annotations__}))
)
def test_should_take_every_record_as_before_unless_a_change_breaks(
    old: dict[str, Any], new: dict[str, Any], mutate: bool, key: str
) -> None:
    """What is called additive is: each record that was taken is taken, with the same value."""
    if mutate:
        # One key at a time: two fields drawn apart are seldom alike.
        given_key = {**old, key: new[key]} if key in new else {k: v for k, v in old.items() if k != key}
        new = given_key if {"type", "source"} <= set(given_key) and new["type"] == old["type"] else old
    before, after = schema_of(old), schema_of(new)
    if any(change.breaking for change in changes(before, after)):
        return
    was, now = codec(before), codec(after)
    for value in VALUES:
        for data in (
            {"id": "a", "at": "2026-01-02", "late": 1, old["source"]: value},
            {"id": "a", "at": "2026-01-02"},
        ):
            body = json.dumps(data).encode()
            taken = was.decode(body)
            if isinstance(taken, Rejected):
                continue
            again = now.decode(body)
            assert not isinstance(again, Rejected), (data, again)
            assert again.values == taken.values


@settings(max_examples=200, deadline=None)
@given(field=fields())
def test_should_find_no_change_in_what_is_the_same(field: dict[str, Any]) -> None:
    assert changes(schema_of(field), schema_of(json.loads(json.dumps(field)))) == []


def test_should_write_what_senders_and_readers_rely_on(tmp_path: Path) -> None:
    schema = record_schema(load_workload(workload(tmp_path / "parcels")).workload)
    assert schema["fields"]["carrier"] == {
        "type": "string",
        "source": "carrier",
        "allowed": ["north", "south"],
        "missing": ["?"],
    }
    assert (schema["schema_version"], schema["identifier"], schema["event_time"]) == (1, "parcel", "sent_at")
