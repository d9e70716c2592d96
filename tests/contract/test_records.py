"""The door: what passes, what is refused and why, and that both paths agree."""

# ruff: noqa: E501 - a table of cases reads best with one case a line

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from typing import Any

import pytest
import zoo  # type: ignore[import-not-found]  # beside this file, where pytest looks
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_contract.compiled import Column, CompiledContract, LabelSpec
from ml_contract.load import LoadedWorkload
from ml_contract.records.codec import Record, RecordCodec, Rejected
from ml_contract.records.dates import date_parser

QUICK: settings = zoo.QUICK
COLUMNS = (
    Column(name="key", source="Key", type="string", required=True, pattern="[A-Z]{2}[0-9]+"),
    Column(name="seen", source="seen", type="date", required=True, format="%d.%m.%Y"),
    Column(name="at", source="at", type="timestamp"),
    Column(name="count", source="count", type="integer", minimum=0, maximum=10, missing=("?",)),
    Column(name="big", source="big", type="integer"),
    Column(name="price", source="unit-price", type="number", minimum=-1.5, maximum=2.5),
    Column(name="colour", source="colour", type="string", allowed=("red", "blue"), missing=("?", "n/a")),
    Column(name="code", source="code", type="string", pattern="a|bc", missing=("-",)),
    Column(name="note", source="note", type="string", max_length=5),
    Column(name="open", source="open", type="boolean"),
    Column(name="outcome", source="outcome", type="string"),
)
CONTRACT = zoo.with_columns(
    zoo.contract({}),
    name="door",
    columns=COLUMNS,
    identifier="key",
    event_time="seen",
    label=LabelSpec(task="binary", field="outcome", values=("no", "yes")),
)
CODEC = RecordCodec(CONTRACT)
GOOD: dict[str, Any] = {"Key": "AB12", "seen": "31.01.2015"}


def codes(data: bytes | dict[str, Any], codec: RecordCodec = CODEC) -> list[tuple[str, str | None]]:
    result = codec.decode(data if isinstance(data, bytes) else json.dumps(data).encode())
    assert isinstance(result, Rejected), result
    return [(r.code, r.field) for r in result.reasons]


def values(record: dict[str, Any]) -> dict[str, Any]:
    result = CODEC.decode(json.dumps(record).encode())
    assert isinstance(result, Record), result
    return result.values


def test_should_type_and_rename_what_fits() -> None:
    record = GOOD | {
        "at": "2015-01-31T23:30:00+02:00", "count": 3, "big": -(2**63), "unit-price": 2, "colour": "red",
        "code": "bc", "note": "ünïcö", "open": True, "outcome": "yes",
    }  # fmt: skip
    assert values(record) == {
        "key": "AB12", "seen": "2015-01-31", "at": "2015-01-31T21:30:00.000Z", "count": 3, "big": -(2**63), "price": 2.0,
        "colour": "red", "code": "bc", "note": "ünïcö", "open": True, "outcome": "yes",
    }  # fmt: skip
    assert list(values(GOOD)) == [c.name for c in COLUMNS]


def test_should_read_missing_texts_empty_texts_and_nulls_as_no_value() -> None:
    record = GOOD | {
        "count": "?",
        "colour": "n/a",
        "code": "-",
        "note": "",
        "big": "",
        "open": None,
        "unit-price": "",
    }
    assert {name: v for name, v in values(record).items() if v is not None} == {
        "key": "AB12",
        "seen": "2015-01-31",
    }


def test_should_accept_numbers_and_booleans_as_csv_sources_send_them() -> None:
    got = values(GOOD | {"count": "7", "big": "-5.0", "unit-price": "1.25e0", "open": "TRUE"})
    assert (got["count"], got["big"], got["price"], got["open"]) == (7, -5, 1.25, True)
    assert values(GOOD | {"count": 7.0})["count"] == 7


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"count": "seven"}, "wrong_type", "count"),
        ({"count": 1.5}, "wrong_type", "count"),
        ({"count": True}, "wrong_type", "count"),
        ({"count": [1]}, "wrong_type", "count"),
        ({"count": " 7"}, "wrong_type", "count"),
        ({"count": "1_0"}, "wrong_type", "count"),
        ({"count": 11}, "out_of_range", "count"),
        ({"count": "-1"}, "out_of_range", "count"),
        ({"big": 2**63}, "out_of_range", "big"),
        ({"unit-price": "nan"}, "wrong_type", "price"),
        ({"unit-price": "1e999"}, "out_of_range", "price"),
        ({"unit-price": 2.6}, "out_of_range", "price"),
        ({"unit-price": False}, "wrong_type", "price"),
        ({"colour": "green"}, "not_allowed", "colour"),
        ({"colour": 1}, "wrong_type", "colour"),
        ({"code": "b"}, "pattern", "code"),
        ({"code": "a\n"}, "pattern", "code"),
        ({"Key": "ab1"}, "pattern", "key"),
        ({"Key": None}, "missing_required", "key"),
        ({"Key": ""}, "missing_required", "key"),
        ({"note": "longer"}, "too_long", "note"),
        ({"open": "yes"}, "wrong_type", "open"),
        ({"open": 1}, "wrong_type", "open"),
        ({"seen": "2015-01-31"}, "unparseable_date", "seen"),
        ({"seen": "31.02.2015"}, "unparseable_date", "seen"),
        ({"seen": 20150131}, "wrong_type", "seen"),
        ({"at": "yesterday"}, "unparseable_date", "at"),
        ({"outcome": "maybe"}, "unknown_label", "outcome"),
        ({"extra": 1}, "unknown_field", "extra"),
        ({"record_id": "x"}, "unknown_field", "record_id"),
        ({"key": "AB12"}, "unknown_field", "key"),
    ],
)
def test_should_refuse_with_the_reason(change: dict[str, Any], code: str, field: str) -> None:
    assert codes(GOOD | change) == [(code, field)]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b'{"Key":"AB1"} {}', "not_json"),
        (b"[1]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"null", "not_an_object"),
        (b'{"Key":"\xff"}', "not_utf8"),
        (b"[" * 60_000, "not_json"),
        (b'{"Key":"\\ud800"}', "not_json"),
        (b'{"Key":"' + b"A" * 70_000 + b'"}', "too_large"),
    ],
)
def test_should_refuse_what_is_no_record(data: bytes, code: str) -> None:
    assert codes(data) == [(code, None)]


def test_should_give_all_reasons_with_value_and_what_is_allowed() -> None:
    result = CODEC.decode(b'{"count":99,"colour":"green","seen":"?","other":{"a":[1]}}')
    assert isinstance(result, Rejected)
    shown = [(r.code, r.field, r.value, r.allowed) for r in result.reasons]
    assert shown == [
        ("out_of_range", "count", "99", "0 to 10"),
        ("not_allowed", "colour", "green", "red, blue"),
        ("unparseable_date", "seen", "?", "%d.%m.%Y"),
        ("unknown_field", "other", '{"a":[1]}', None),
        ("missing_required", "key", None, None),
    ]
    assert result.reasons[0].to_json()["message"] == "count: 99 is out of range 0 to 10"


def test_should_shorten_long_values_in_reasons() -> None:
    (reason,) = RecordCodec(CONTRACT).check(GOOD | {"colour": "x" * 5000}).reasons  # type: ignore[union-attr]
    assert reason.value is not None
    assert len(reason.value) == 100


def test_should_require_nothing_of_a_request_to_a_model() -> None:
    codec = RecordCodec(CONTRACT, inference=True)
    result = codec.decode(b'{"count":3}')
    assert isinstance(result, Record)
    assert result.values["count"] == 3
    assert codes(b'{"count":"x"}', codec) == [("wrong_type", "count")]


def test_should_write_one_line_under_column_names() -> None:
    record = CODEC.decode(json.dumps(GOOD | {"unit-price": 1, "note": '":,"'}).encode())
    assert isinstance(record, Record)
    line = CODEC.encode(record, record_id="ab", received_at="2015-02-01T00:00:00.000Z")
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    written = json.loads(line)
    assert written == record.values | {"record_id": "ab", "received_at": "2015-02-01T00:00:00.000Z"}
    assert set(written) == {name for name, _ in CONTRACT.glue_columns()}


@settings(QUICK, max_examples=200)
@given(note=st.text(st.characters(codec="utf-8"), max_size=40), key=st.from_regex(r"\A[A-Z]{2}[0-9]{1,5}\Z"))
def test_should_not_mistake_a_text_for_a_key_when_it_renames(note: str, key: str) -> None:
    columns = tuple(dataclasses.replace(c, max_length=None) if c.name == "note" else c for c in COLUMNS)
    codec = RecordCodec(zoo.with_columns(CONTRACT, columns=columns))
    for text in (note, f'"unit-price":{note}', f'\\"Key":{note}', '"Key":'):
        record = codec.decode(json.dumps(GOOD | {"Key": key, "note": text}).encode())
        assert isinstance(record, Record)
        line = codec.encode(record, record_id="ab", received_at="cd")
        assert json.loads(line) == record.values | {"record_id": "ab", "received_at": "cd"}


def test_should_write_columns_whose_names_change_places() -> None:
    columns = (
        COLUMNS[0],
        COLUMNS[1],
        Column(name="a", source="b", type="integer"),
        Column(name="b", source="a", type="integer"),
        Column(name="source_id", source="record_id", type="string"),
        Column(name="outcome", source="outcome", type="string"),
    )
    codec = RecordCodec(zoo.with_columns(CONTRACT, columns=columns))
    record = codec.decode(json.dumps(GOOD | {"a": 1, "b": 2, "record_id": "theirs"}).encode())
    assert isinstance(record, Record)
    written = json.loads(codec.encode(record, record_id="ours", received_at="now"))
    assert (written["a"], written["b"], written["source_id"], written["record_id"]) == (
        2,
        1,
        "theirs",
        "ours",
    )


ANY = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**65), 2**65), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=6), st.lists(st.integers(), max_size=2),
    st.sampled_from(["?", "-", "n/a", "", "red", "a", "bc", "yes", "AB1", "31.1.2015", "2015-01-31", "7", "1.5", "true", "2015-01-31T10:00:00Z", 3, 0.5, 10, 11]),
)  # fmt: skip


@settings(QUICK, max_examples=400)
@given(
    record=st.dictionaries(st.sampled_from([*(c.source for c in COLUMNS), "other", "record_id"]), ANY),
    whole=st.booleans(),
)
def test_should_agree_on_both_paths(record: dict[str, Any], whole: bool) -> None:
    """Whatever the fast path accepts is what the field-by-field path makes of it; what it refuses, that one explains."""
    if whole:
        record = GOOD | record
    data = json.dumps(record).encode()
    fast, slow = CODEC.decode(data), CODEC.check(record)
    assert type(fast) is type(slow)
    if isinstance(fast, Record) and isinstance(slow, Record):
        assert fast.values == slow.values
        assert {type(v) for v in fast.values.values()} == {type(v) for v in slow.values.values()}
    else:
        assert fast == slow


@settings(QUICK, max_examples=300)
@given(
    text=st.one_of(st.text("0129azAZ_- \n", max_size=7), st.text(max_size=4)),
    pattern=st.sampled_from(
        ["[0-9]{1,4}", "[A-Z]{2}", "[a-z0-9_-]{2,5}", "[0-9]+", "[0-9]{2}[a-z]{1,3}", "[^0-9]{1,3}"]
    ),
)
def test_should_match_patterns_as_re_does(text: str, pattern: str) -> None:
    """Simple patterns are checked without a regular expression."""
    import re

    columns = (*COLUMNS[:2], Column(name="code", source="code", type="string", pattern=pattern), COLUMNS[-1])
    result = RecordCodec(zoo.with_columns(CONTRACT, columns=columns)).decode(
        json.dumps(GOOD | {"code": text}).encode()
    )
    assert isinstance(result, Record) == (text == "" or re.fullmatch(pattern, text) is not None)


def test_should_take_the_fast_path_for_typed_records(
    monkeypatch: pytest.MonkeyPatch, claims: LoadedWorkload
) -> None:
    from ml_contract.made_up.synthetic import generate

    monkeypatch.setattr(RecordCodec, "check", lambda *_: pytest.fail("a clean record went the slow way"))
    codec = RecordCodec(claims.compiled)
    for record in generate(claims.compiled, 50, 1):
        assert isinstance(codec.decode(json.dumps(record).encode()), Record)


@pytest.mark.parametrize("label", ["integer", "boolean"])
def test_should_know_labels_of_every_type(label: str) -> None:
    columns = (*COLUMNS[:2], Column(name="outcome", source="outcome", type=label))
    values_: tuple[str, str] = ("0", "1") if label == "integer" else ("false", "true")
    contract: CompiledContract = zoo.with_columns(
        CONTRACT, columns=columns, label=LabelSpec(task="binary", field="outcome", values=values_)
    )
    codec = RecordCodec(contract)
    assert isinstance(
        codec.decode(json.dumps(GOOD | {"outcome": 1 if label == "integer" else True}).encode()), Record
    )
    wrong = codes(GOOD | {"outcome": 2}, codec)
    assert wrong == [("unknown_label" if label == "integer" else "wrong_type", "outcome")]


@settings(QUICK, max_examples=200)
@given(
    day=st.dates(dt.date(1000, 1, 1)),
    form=st.sampled_from([None, "%m/%d/%Y", "%d.%m.%Y", "%Y%m%d", "%d %B %Y", "%Y-%j"]),
)
def test_should_read_dates_as_strptime_does(day: dt.date, form: str | None) -> None:
    text = day.isoformat() if form is None else day.strftime(form)
    assert date_parser("date", form)(text) == day.isoformat()


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2015-01-31", "2015-01-31T00:00:00.000Z"),
        ("2015-01-31 10:20", "2015-01-31T10:20:00.000Z"),
        ("2015-01-31T10:20:30.123456Z", "2015-01-31T10:20:30.123Z"),
        ("2015-01-31T00:30:00+0200", "2015-01-30T22:30:00.000Z"),
        ("0001-01-01T00:00:00+05:00", None),
        ("2015-W05-6", None),
        ("20150131", None),
        ("2015-01-31T25:00:00Z", None),
    ],
)
def test_should_read_moments_as_utc(text: str, iso: str | None) -> None:
    assert date_parser("timestamp", None)(text) == iso
