"""Data capture: files of JSON lines, one invocation each, in folders of hours."""

from __future__ import annotations

import base64
import binascii
import collections
import dataclasses
import datetime as dt
import pathlib
import random
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import polars as pl
from ml_contract.compiled import CompiledContract
from ml_contract.features.row import row_function
from ml_contract.records.codec import Rejected
from ml_runtime.content import BadBodyError, BodyReader, RawRecord, UnsupportedTypeError
from ml_statistics.checks import Observed
from ml_statistics.describe import Kind

#: Records that are judged at most; of more, this many are drawn evenly. More would not make a verdict surer.
RECORDS_LIMIT = 200_000
SEED = 7
POLARS_TYPES: dict[Kind, type[pl.DataType]] = {"number": pl.Float64, "category": pl.String}


class _Payload(msgspec.Struct, rename="camel"):
    data: str = ""
    encoding: str = "JSON"
    observed_content_type: str = ""


class _Data(msgspec.Struct, rename="camel"):
    endpoint_input: _Payload


class _Line(msgspec.Struct, rename="camel"):
    capture_data: _Data


_DECODER = msgspec.json.Decoder(_Line)
#: What a body is when its content type was not recorded.
_TYPE_OF_ENCODING = {"JSON": "application/json", "CSV": "text/csv", "BASE64": "application/json"}


class DamagedLineError(ValueError):
    """A line of a capture file that is none."""


def payload(line: bytes) -> tuple[bytes, str]:
    """Return the request body and its content type of one captured invocation."""
    try:
        captured = _DECODER.decode(line).capture_data.endpoint_input
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedLineError(f"no captured invocation: {error}") from error
    kind = captured.observed_content_type or _TYPE_OF_ENCODING.get(captured.encoding, "")
    if captured.encoding == "BASE64":
        try:
            return base64.b64decode(captured.data, validate=True), kind
        except (binascii.Error, ValueError) as error:
            raise DamagedLineError(f"no base64: {error}") from error
    if captured.encoding not in ("JSON", "CSV"):
        raise DamagedLineError(f"encoding {captured.encoding!r} is not known")
    return captured.data.encode("utf-8", "surrogatepass"), kind


@dataclasses.dataclass(frozen=True)
class Capture:
    """What was captured in a window, and what of it could not be read."""

    observed: Observed
    files: int
    invocations: int
    records: int
    damaged: dict[str, int]


def hour_prefixes(client: Any, bucket: str, prefix: str, hours: Iterable[dt.datetime]) -> Iterator[str]:
    """Yield the folders of the hours, of every variant of an endpoint."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
    variants = sorted(item["Prefix"] for page in pages for item in page.get("CommonPrefixes", []))
    for variant in variants:
        for hour in hours:
            yield f"{variant}{hour:%Y/%m/%d/%H}/"


def read_bucket(client: Any, bucket: str, prefixes: Iterable[str]) -> Iterator[bytes]:
    """Yield the content of every capture file in the folders."""
    paginator = client.get_paginator("list_objects_v2")
    for prefix in prefixes:
        for page in paginator.paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                if item["Key"].endswith(".jsonl"):
                    yield client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()


def read_folder(folder: pathlib.Path) -> Iterator[bytes]:
    """Yield the content of every capture file below a folder that Model Monitor mounted."""
    for path in sorted(folder.rglob("*.jsonl")):
        yield path.read_bytes()


def _drawn(records: Iterable[RawRecord]) -> tuple[list[RawRecord], int]:
    """Return at most the limit of records, drawn evenly in one pass, and how many there were."""
    kept: list[RawRecord] = []
    count = 0
    rng = random.Random(SEED)  # noqa: S311 - a sample, no secret
    for count, record in enumerate(records, 1):
        if len(kept) < RECORDS_LIMIT:
            kept.append(record)
        elif (place := rng.randrange(count)) < RECORDS_LIMIT:
            kept[place] = record
    return kept, count


def read_capture(files: Iterable[bytes], contract: CompiledContract) -> Capture:
    """Decode captured invocations into what the contract makes of their records."""
    reader = BodyReader(contract)
    seen = collections.Counter[str]()
    damaged = collections.Counter[str]()

    def records() -> Iterator[RawRecord]:
        for content in files:
            seen["files"] += 1
            for line in content.splitlines():
                if not line.strip():
                    continue
                seen["invocations"] += 1
                try:
                    yield from reader.records(*payload(line))
                except DamagedLineError as error:
                    damaged[f"line: {str(error)[:100]}"] += 1
                except (BadBodyError, UnsupportedTypeError) as error:
                    damaged[f"body: {str(error)[:100]}"] += 1
                    seen["unreadable_bodies"] += 1

    kept, total = _drawn(records())
    features = row_function(contract)
    named = dict.fromkeys(
        (c.name for c in contract.for_requests.columns if c.name != contract.label.field), 0
    )
    reasons = collections.Counter[tuple[str, str | None]]()
    rows = []
    for raw in kept:
        for name in reader.names(raw) & named.keys():
            named[name] += 1
        record = reader.decode(raw)
        if isinstance(record, Rejected):
            # A record counts once per reason and field, however often the field is wrong in it.
            reasons.update({(reason.code, reason.field) for reason in record.reasons})
        else:
            rows.append(features(record.values))
    frame = pl.DataFrame(rows, schema={f.name: POLARS_TYPES[f.type] for f in contract.features}, orient="row")
    unreadable = seen["unreadable_bodies"]
    if unreadable:
        # Somebody sent it: it counts as a record that the contract refuses.
        reasons["unreadable_body", None] = unreadable
    observed = Observed(len(kept) + unreadable, frame, named, reasons)
    return Capture(observed, seen["files"], seen["invocations"], total + unreadable, dict(damaged))
