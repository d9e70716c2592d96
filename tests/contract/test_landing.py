"""Files to rows: every format, every kind of dirt, the same answer as the stream's."""

from __future__ import annotations

import base64
import datetime as dt
import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_contract.load import load_workload
from ml_contract.records.codec import RecordCodec
from ml_contract.records.landing import Landed, LandingSpec, UnreadableFileError, land, rows
from record_transform.logic import transform

from workloads.claims_fraud.generate import generate

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = load_workload(ROOT / "workloads" / "claims_fraud").compiled
CODEC = RecordCodec(CONTRACT)
SPEC = LandingSpec(name="source", kind="drop", owner="team", schema_version=1, format="ndjson")
AT = "2026-11-21T10:00:00.000Z"
AT_MS = round(dt.datetime(2026, 11, 21, 10, tzinfo=dt.UTC).timestamp() * 1000)


class Out:
    """What landing a file gave."""

    def __init__(self, folder: Path, body: bytes, **spec: Any) -> None:
        file = folder / "file"
        file.write_bytes(body)
        data, quarantine, deletions = (folder / name for name in ("data", "quarantine", "deletions"))
        for path in (data, quarantine, deletions):
            path.unlink(missing_ok=True)
        self.landed: Landed = land(
            file,
            replace(SPEC, **spec),
            CODEC,
            file="s3://drop/file",
            received_at=AT,
            data=data,
            quarantine=quarantine,
            deletions=deletions,
        )
        self.rows = pq.read_table(data).to_pylist() if data.exists() else []
        self.refused = _lines(quarantine)
        self.deleted = _lines(deletions)

    @property
    def codes(self) -> list[str]:
        """The first reason of each refused row."""
        return [line["reasons"][0]["code"] for line in self.refused]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def csv_of(records: list[dict[str, Any]], delimiter: str = ",") -> str:
    names = list(records[0])
    lines = [delimiter.join(names)]
    lines += [delimiter.join("" if r[n] is None else str(r[n]) for n in names) for r in records]
    return "\n".join(lines) + "\n"


def test_should_read_csv_with_a_mark_another_delimiter_and_columns_by_either_name(tmp_path: Path) -> None:
    body = csv_of(generate(3, 1), ";").replace("capital-gains", "capital_gains")
    out = Out(tmp_path, b"\xef\xbb\xbf" + body.encode(), format="csv", delimiter=";")
    assert (out.landed.delivered, out.refused) == (3, [])
    assert isinstance(out.rows[0]["age"], int)
    assert isinstance(out.rows[0]["incident_date"], dt.date)
    # INT96 as Firehose writes it: UTC, without saying so.
    assert out.rows[0]["received_at"].isoformat() == "2026-11-21T10:00:00"


def test_should_refuse_only_the_rows_of_a_csv_file_that_are_wrong(tmp_path: Path) -> None:
    good = csv_of(generate(2, 1)).encode()
    names = good.split(b"\n", 1)[0].count(b",")
    bad = b"too,few\n" + b"\xff" + b"," * names + b"\n"
    out = Out(tmp_path, good + bad, format="csv")
    assert (out.landed.read, out.landed.delivered, out.landed.quarantined) == (4, 2, 2)
    assert out.codes == ["malformed_row", "not_utf8"]
    assert base64.b64decode(out.refused[1]["data_base64"]).startswith(b"\xff")
    assert [line["row"] for line in out.refused] == [3, 4]


@pytest.mark.parametrize(
    ("body", "spec", "why"),
    [
        (b"", {"format": "csv"}, "empty; the first line must name the columns"),
        (b"a,a\n1,2\n", {"format": "csv"}, "names a column twice: 'a'"),
        (b"x;y\n1;2\n", {"format": "csv"}, "names no field of claims_fraud, but 'x;y'"),
        (b'age\n"1\n', {"format": "csv"}, "not CSV: unexpected end of data"),
        (
            b"age,capital-gains,capital_gains\n",
            {"format": "csv"},
            "two columns mean the field 'capital-gains'",
        ),
        (b"{}", {"format": "json"}, "not a JSON array of objects"),
        (b"[{]", {"format": "json"}, "not a JSON array of objects"),
        (b"PAR1PAR1", {"format": "parquet"}, "not Parquet"),
        (b"", {"format": "parquet"}, "not Parquet"),
    ],
)
def test_should_refuse_a_file_that_is_not_what_it_should_be(
    tmp_path: Path, body: bytes, spec: dict[str, Any], why: str
) -> None:
    with pytest.raises(UnreadableFileError, match=why.replace("[", r"\[")):
        Out(tmp_path, body, **spec)


def test_should_refuse_a_parquet_file_that_is_damaged_within(tmp_path: Path) -> None:
    file = tmp_path / "whole"
    pq.write_table(pa.Table.from_pylist(generate(500, 1)), file, compression="none")
    body = bytearray(file.read_bytes())
    body[40:4_000] = bytes(3_960)
    with pytest.raises(UnreadableFileError, match="not Parquet"):
        Out(tmp_path, bytes(body), format="parquet")


def test_should_read_a_json_array_as_the_bytes_of_its_objects(tmp_path: Path) -> None:
    records = [json.dumps(r).encode() for r in generate(2, 1)]
    array = Out(tmp_path, b"[ " + b" ,\n".join(records) + b" ]", format="json")
    lines = Out(tmp_path, b"\n".join(records), format="ndjson")
    assert array.rows == lines.rows


def test_should_read_typed_parquet_columns_as_json_records_have_them(tmp_path: Path) -> None:
    records = generate(3, 1)
    for record in records:
        record["incident_date"] = dt.datetime.strptime(record["incident_date"], "%m/%d/%Y").date()
        record["policy_annual_premium"] = Decimal("1406.91")
        record["total_claim_amount"] = float(record["total_claim_amount"])
    file = tmp_path / "typed"
    pq.write_table(pa.Table.from_pylist(records), file)
    out = Out(tmp_path, file.read_bytes(), format="parquet")
    assert (out.landed.delivered, out.refused) == (3, [])
    assert out.rows[0]["incident_date"] == records[0]["incident_date"]
    assert out.rows[0]["policy_annual_premium"] == 1406.91


def test_should_rename_and_leave_out_columns(tmp_path: Path) -> None:
    record = generate(1, 1)[0]
    record["ALTER_DES_HALTERS"] = record.pop("age")
    record["loaded_by"] = "somebody"
    spec: dict[str, Any] = {"rename": {"ALTER_DES_HALTERS": "age"}, "ignore": ("loaded_by",)}
    for form, body in (("ndjson", json.dumps(record)), ("csv", csv_of([record]))):
        out = Out(tmp_path, body.encode(), format=form, **spec)
        assert (out.landed.delivered, out.refused) == (1, []), form
    assert Out(tmp_path, json.dumps(record).encode()).codes == ["unknown_field"]


def test_should_keep_deletions_apart(tmp_path: Path) -> None:
    records = [{**r, "Op": op, "dms_timestamp": AT} for r, op in zip(generate(3, 1), "IUD", strict=True)]
    file = tmp_path / "changes"
    pq.write_table(pa.Table.from_pylist(records), file)
    out = Out(tmp_path, file.read_bytes(), format="parquet", changes=True)
    assert (out.landed.read, out.landed.delivered, out.landed.deleted) == (3, 2, 1)
    (gone,) = out.deleted
    assert gone["policy_number"] == records[2]["policy_number"]


def test_should_refuse_a_row_that_is_too_long_and_go_on(tmp_path: Path) -> None:
    good = json.dumps(generate(1, 1)[0]).encode()
    out = Out(tmp_path, b'{"age": "' + b"9" * 3_000_000 + b'"}\n' + good)
    assert (out.landed.read, out.landed.delivered, out.codes) == (2, 1, ["too_large"])


def test_should_land_more_rows_than_one_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml_contract.records.landing.CHUNK_ROWS", 7)
    records = generate(50, 1)
    out = Out(tmp_path, b"\n".join(json.dumps(r).encode() for r in records))
    assert [r["policy_number"] for r in out.rows] == [r["policy_number"] for r in records]


def test_should_read_a_spec_back_as_it_was_written() -> None:
    spec = replace(SPEC, rename={"a": "b"}, ignore=("c",), changes=True)
    assert LandingSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


RECORDS = [json.dumps(r).encode() for r in generate(20, 7)]
DIRT = st.one_of(
    st.sampled_from(RECORDS),
    st.sampled_from(RECORDS).map(lambda b: b[: len(b) // 2]),
    st.sampled_from(RECORDS).map(lambda b: b.replace(b'"age": ', b'"age": "x', 1)),
    st.sampled_from([b"null", b"[]", b"{}", b'"text"', b"\xff\xfe", b"{" * 50, b'{"age": 1e999}']),
    st.binary(min_size=1, max_size=40).filter(lambda b: not set(b) & set(b"\r\n") and not b.isspace()),
)


@settings(max_examples=1_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(DIRT, max_size=12), ending=st.sampled_from([b"\n", b"\r\n"]))
def test_should_answer_as_the_stream_does(tmp_path: Path, messages: list[bytes], ending: bytes) -> None:
    """The same bytes as a line of a file and as a record of the stream: same rows, same reasons."""
    out = Out(tmp_path, b"".join(m + ending for m in messages))
    streamed = transform(
        [
            {
                "recordId": str(i),
                "data": base64.b64encode(m).decode(),
                "approximateArrivalTimestamp": AT_MS,
            }
            for i, m in enumerate(messages)
        ],
        CODEC,
    )
    assert out.landed.read == out.landed.delivered + out.landed.quarantined == len(messages)
    assert [r["record_id"] for r in out.rows] == [
        json.loads(base64.b64decode(r["data"]))["record_id"] for r in streamed.records if r["result"] == "Ok"
    ]
    shared = ("record_id", "reasons", "data_base64", "received_at")
    assert [{k: line[k] for k in shared} for line in out.refused] == [
        {k: line[k] for k in shared} for line in streamed.quarantine
    ]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=400), form=st.sampled_from(["csv", "json", "ndjson", "parquet"]))
def test_should_account_for_whatever_is_dropped(tmp_path: Path, body: bytes, form: str) -> None:
    """Any bytes are landed, quarantined row by row, or refused as a file: nothing else happens."""
    header = b"age,policy_number\n" if form == "csv" else b""
    try:
        out = Out(tmp_path, header + body, format=form)
    except UnreadableFileError:
        return
    assert out.landed.read == out.landed.delivered + out.landed.quarantined
    assert (len(out.rows), len(out.refused)) == (out.landed.delivered, out.landed.quarantined)


def test_should_refuse_a_format_that_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format must be csv, json, ndjson or parquet, got 'xml'"):
        rows(tmp_path / "x", replace(SPEC, format="xml"), CONTRACT)
