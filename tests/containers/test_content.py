"""Bodies taken apart: whatever a caller sends is records or a clear refusal."""

from __future__ import annotations

import csv
import io
import json
import pathlib
from typing import Any

import pytest
from container_support import make_contract, make_records
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_contract.compiled import CompiledContract
from ml_contract.records.codec import Rejected
from ml_runtime.content import BadBodyError, BodyReader, UnsupportedTypeError

TYPES = ["application/json", "application/jsonlines", "text/csv", "text/csv; charset=utf-8", "Text/CSV"]
cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> BodyReader:
    return BodyReader(make_contract(tmp_path_factory.mktemp("content"), "binary"))


@pytest.fixture(scope="module")
def columns(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    contract = make_contract(tmp_path_factory.mktemp("columns"), "binary")
    return [c.source for c in contract.columns]


@given(body=st.binary(max_size=200), content_type=st.sampled_from(TYPES))
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_should_refuse_or_judge_any_bytes(reader: BodyReader, body: bytes, content_type: str) -> None:
    try:
        records = reader.records(body, content_type)
    except BadBodyError:
        return
    for record in records:
        reader.names(record)
        decoded = reader.decode(record)
        assert not isinstance(decoded, Rejected) or decoded.reasons


@given(
    body=st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
        max_leaves=12,
    )
)
@settings(deadline=None, max_examples=300)
def test_should_refuse_or_judge_any_json(reader: BodyReader, body: Any) -> None:
    text = json.dumps(body).encode()
    records = reader.records(text, "application/json")
    if isinstance(body, list):
        assert [json.loads(record) for record in records if isinstance(record, bytes)] == body
    else:
        assert records == [text]


@given(data=st.data(), header=st.booleans())
@settings(deadline=None, max_examples=200)
def test_should_read_back_any_cells(
    reader: BodyReader, columns: list[str], data: st.DataObject, header: bool
) -> None:
    names = columns[:-1]
    row = st.lists(cells, min_size=len(names), max_size=len(names))
    rows = data.draw(st.lists(row, min_size=1, max_size=4))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([names, *rows] if header else rows)
    found = reader.records(text.getvalue().encode(), "text/csv")
    expected = [dict(zip(names, cells_of, strict=True)) for cells_of in rows]
    # A first row of data is taken for a header only when half of its cells are names of columns.
    assert found == expected


def test_should_take_any_order_and_part_of_the_columns_under_a_header(reader: BodyReader) -> None:
    body = b"driver,distance-km,distance\nann,1.5,\n"
    assert reader.records(b"driver,distance-km\nann,1.5\n", "text/csv") == [
        {"driver": "ann", "distance-km": "1.5"}
    ]
    assert reader.records(b"driver,distance\nann,1.5\n", "text/csv") == [
        {"driver": "ann", "distance-km": "1.5"}
    ]
    with pytest.raises(BadBodyError, match="row 2 has 2 cells"):
        reader.records(body.replace(b"1.5,", b"1.5"), "text/csv")


def test_should_leave_an_unknown_column_of_a_header_to_the_contract(reader: BodyReader) -> None:
    (record,) = reader.records(b"driver,weather,colour\nann,dry,red\n", "text/csv")
    decoded = reader.decode(record)
    assert isinstance(decoded, Rejected)
    assert [(reason.code, reason.field) for reason in decoded.reasons] == [("unknown_field", "colour")]


def test_should_take_rows_with_and_without_a_label(reader: BodyReader, columns: list[str]) -> None:
    with_label = reader.records((",".join("1" * len(columns))).encode(), "text/csv")
    without = reader.records((",".join("1" * (len(columns) - 1))).encode(), "text/csv")
    assert isinstance(with_label[0], dict)
    assert isinstance(without[0], dict)
    assert set(with_label[0]) - set(without[0]) == {"outcome"}


def test_should_name_the_columns_that_stand_in_a_record(reader: BodyReader) -> None:
    assert reader.names(b'{"distance-km": null, "weather": "dry"}') == {"distance", "weather"}
    assert reader.names({"distance-km": ""}) == {"distance"}
    assert reader.names(b"[1]") == frozenset()


def test_should_have_no_envelope_where_a_field_has_its_name(tmp_path: pathlib.Path) -> None:
    contract: CompiledContract = make_contract(tmp_path, "binary", driver="instances")
    body = b'{"instances": "ann"}'
    assert BodyReader(contract).records(body, "application/json") == [body]


def test_should_refuse_another_content_type(reader: BodyReader) -> None:
    with pytest.raises(UnsupportedTypeError, match="image/png"):
        reader.records(b"", "image/png")


def test_should_judge_the_same_record_alike_in_every_type(reader: BodyReader, columns: list[str]) -> None:
    for record in make_records("binary", 50, seed=8):
        text = io.StringIO()
        row = [record.get(name, "") for name in columns]
        csv.writer(text).writerow([str(c).lower() if isinstance(c, bool) else c for c in row])
        (from_csv,) = reader.records(text.getvalue().encode(), "text/csv")
        (from_json,) = reader.records(json.dumps(record).encode(), "application/json")
        a, b = reader.decode(from_csv), reader.decode(from_json)
        assert not isinstance(a, Rejected)
        assert not isinstance(b, Rejected)
        assert a.values == b.values
