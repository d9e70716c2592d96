"""Bodies of requests, as they arrive at the endpoint and as data capture keeps them.

Taken apart into records.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

import msgspec
from ml_contract.compiled import CompiledContract
from ml_contract.records.codec import Record, RecordCodec, Rejected

#: What InvokeEndpoint takes at most.
BODY_LIMIT = 6 * 1024 * 1024
#: Problems of one body that an answer lists.
PROBLEMS_LISTED = 20

JSON = "application/json"
JSON_LINES = frozenset({"application/jsonlines", "application/x-jsonlines", "application/x-ndjson"})
CSV = "text/csv"


class BadBodyError(ValueError):
    """A body that holds no records: not of the type it says, or cut off."""


class UnsupportedTypeError(ValueError):
    """A content type that nothing here reads."""


class _Instances(msgspec.Struct, forbid_unknown_fields=True):
    instances: list[msgspec.Raw]


_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_INSTANCES = msgspec.json.Decoder(_Instances)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])

#: A record as it stands in its body: its JSON text, or the cells of its row under source names.
RawRecord = bytes | dict[str, str]


def media_type(content_type: str) -> str:
    """Return the type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


class BodyReader:
    """Takes bodies apart into records and judges each by the contract. Nothing is required of a request.

    ``application/json`` is a record, a list of records or ``{"instances": [records]}``;
    ``application/jsonlines`` one record a line; ``text/csv`` one record a row, under a header or, without
    one, in the order of the contract's columns with the label left out. An empty cell is a missing value.
    """

    def __init__(self, contract: CompiledContract) -> None:
        self._codec = RecordCodec(contract, inference=True)
        contract = contract.for_requests
        self._sources = [c.source for c in contract.columns]
        self._without_label = [c.source for c in contract.columns if c.name != contract.label.field]
        self._columns = {c.source: c.name for c in contract.columns}
        self._source_of = {c.name: c.source for c in contract.columns} | {s: s for s in self._sources}
        # A record may have a field of that name; then the envelope does not exist.
        self._has_envelope = "instances" not in self._source_of

    def decode(self, record: RawRecord) -> Record | Rejected:
        """Return the typed values of a record, or every reason why the contract refuses it."""
        if isinstance(record, bytes):
            return self._codec.decode(record)
        return self._codec.check(record)

    def names(self, record: RawRecord) -> frozenset[str]:
        """Return the columns that stand in a record, with or without a value.

        None when it is no JSON object.
        """
        if isinstance(record, dict):
            return frozenset(self._columns.get(name, name) for name in record)
        try:
            found = _OBJECT.decode(record)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return frozenset()
        return frozenset(self._columns.get(name, name) for name in found)

    def records(self, body: bytes, content_type: str) -> Sequence[RawRecord]:
        """Return the records of a body.

        Raises BadBodyError with every problem, UnsupportedTypeError for another type.
        """
        kind = content_type if content_type == JSON else media_type(content_type)
        if kind == JSON:
            return self._json(body)
        if kind in JSON_LINES:
            return [line for line in body.splitlines() if line.strip()]
        if kind == CSV:
            return self._csv(body)
        raise UnsupportedTypeError(
            f"content type {content_type!r} is not supported;"
            " send application/json, application/jsonlines or text/csv"
        )

    def _json(self, body: bytes) -> Sequence[bytes]:
        start = body[:1] if body[:1] in (b"{", b"[") else body.lstrip()[:1]
        try:
            if start == b"[":
                return [bytes(raw) for raw in _LIST.decode(body)]
            if start == b"{" and self._has_envelope and b'"instances"' in body:
                return [bytes(raw) for raw in _INSTANCES.decode(body).instances]
        except msgspec.ValidationError as error:
            raise BadBodyError(
                f'the body is no list of records and no {{"instances": [...]}}: {error}'
            ) from error
        except msgspec.DecodeError as error:
            raise BadBodyError(f"the body is not JSON: {error}") from error
        except RecursionError as error:
            raise BadBodyError("the body nests too deep") from error
        return [body]

    def _csv(self, body: bytes) -> list[RawRecord]:
        try:
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadBodyError(f"the body is not UTF-8: {error.reason} at byte {error.start}") from error
        try:
            rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
        except csv.Error as error:
            raise BadBodyError(f"the body is not CSV: {error}") from error
        if not rows:
            return []
        names, data = self._columns_of(rows)
        records: list[RawRecord] = []
        problems = []
        for number, row in data:
            if len(row) == len(names):
                records.append(dict(zip(names, row, strict=True)))
            else:
                problems.append(f"row {number} has {len(row)} cells")
        if problems:
            more = f" and {len(problems) - PROBLEMS_LISTED} more" if len(problems) > PROBLEMS_LISTED else ""
            raise BadBodyError(
                f"a row must have {len(names)} cells: {'; '.join(problems[:PROBLEMS_LISTED])}{more}"
            )
        return records

    def _columns_of(self, rows: list[list[str]]) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
        first = [cell.strip() for cell in rows[0]]
        known = sum(cell in self._source_of for cell in first)
        # A header may have a column nobody knows: the codec says so. A row of data hardly consists of
        # column names.
        if known * 2 >= len(first):
            if len(set(first)) != len(first):
                twice = sorted({cell for cell in first if first.count(cell) > 1})
                raise BadBodyError(f"the header has columns twice: {', '.join(twice)}")
            return [self._source_of.get(cell, cell) for cell in first], iter(enumerate(rows[1:], 2))
        for names in (self._without_label, self._sources):
            if len(first) == len(names):
                return names, iter(enumerate(rows, 1))
        raise BadBodyError(
            f"row 1 has {len(first)} cells; without a header a row has {len(self._without_label)} cells"
            f" (the columns in order, the label left out) or {len(self._sources)} (with it)"
        )
