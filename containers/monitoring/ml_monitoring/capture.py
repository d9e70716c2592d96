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
from typing import Any, TypeVar

import msgspec
import polars as pl
from ml_contract.compiled import CompiledContract
from ml_contract.features.row import row_function
from ml_contract.records.codec import Rejected
from ml_runtime.content import BadBodyError, BodyReader, RawRecord, UnsupportedTypeError
from ml_statistics.baseline import segments_of
from ml_statistics.checks import Observed
from ml_statistics.describe import Kind

#: Records that are judged at most; of more, this many are drawn evenly. More would not make a verdict surer.
RECORDS_LIMIT = 200_000
SEED = 7
Item = TypeVar("Item")
POLARS_TYPES: dict[Kind, type[pl.DataType]] = {"number": pl.Float64, "category": pl.String}


class _Payload(msgspec.Struct, rename="camel"):
    data: str = ""
    encoding: str = "JSON"
    observed_content_type: str = ""


class _Data(msgspec.Struct, rename="camel"):
    endpoint_input: _Payload
    endpoint_output: _Payload | None = None


class _Metadata(msgspec.Struct, rename="camel", frozen=True):
    event_id: str = ""
    inference_id: str | None = None


class GroundTruthData(msgspec.Struct, rename="camel"):
    """What was true, as SageMaker's ground-truth files and merged lines have it."""

    data: str | None = None
    encoding: str = "CSV"


class Line(msgspec.Struct, rename="camel"):
    """One captured invocation; merged ones bring what was true."""

    capture_data: _Data
    event_metadata: _Metadata = _Metadata()
    ground_truth_data: GroundTruthData | None = None

    @property
    def id(self) -> str:
        """What the caller named the inference, else what SageMaker did."""
        return self.event_metadata.inference_id or self.event_metadata.event_id


_DECODER = msgspec.json.Decoder(Line)
#: What a body is when its content type was not recorded.
_TYPE_OF_ENCODING = {"JSON": "application/json", "CSV": "text/csv", "BASE64": "application/json"}


class DamagedLineError(ValueError):
    """A line of a capture file that is none."""


def decoded(line: bytes) -> Line:
    """Return a line of a capture file. Raises DamagedLineError when it is none."""
    try:
        return _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedLineError(f"no captured invocation: {error}") from error


def body_of(side: _Payload) -> tuple[bytes, str]:
    """Return a captured body and its content type. Raises DamagedLineError when it cannot be read."""
    kind = side.observed_content_type or _TYPE_OF_ENCODING.get(side.encoding, "")
    if side.encoding == "BASE64":
        try:
            return base64.b64decode(side.data, validate=True), kind
        except (binascii.Error, ValueError) as error:
            raise DamagedLineError(f"no base64: {error}") from error
    if side.encoding not in ("JSON", "CSV"):
        raise DamagedLineError(f"encoding {side.encoding!r} is not known")
    return side.data.encode("utf-8", "surrogatepass"), kind


def payload(line: bytes) -> tuple[bytes, str]:
    """Return the request body and its content type of one captured invocation."""
    return body_of(decoded(line).capture_data.endpoint_input)


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


def drawn(items: Iterable[Item], limit: int) -> tuple[list[Item], int]:
    """Return at most so many items, drawn evenly in one pass, and how many there were."""
    kept: list[Item] = []
    count = 0
    rng = random.Random(SEED)  # noqa: S311 - a sample, no secret
    for count, item in enumerate(items, 1):
        if len(kept) < limit:
            kept.append(item)
        elif (place := rng.randrange(count)) < limit:
            kept[place] = item
    return kept, count


def with_audit(contract: CompiledContract) -> CompiledContract:
    """Return the contract whose features are also the fields that models are judged by and never see."""
    return dataclasses.replace(contract, features=(*contract.features, *contract.audit))


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

    kept, total = drawn(records(), RECORDS_LIMIT)
    everything = with_audit(contract)
    features = row_function(everything)
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
    schema = {f.name: POLARS_TYPES[f.type] for f in everything.features}
    wide = pl.DataFrame(rows, schema=schema, orient="row")
    frame = wide.select(f.name for f in contract.features)
    unreadable = seen["unreadable_bodies"]
    if unreadable:
        # Somebody sent it: it counts as a record that the contract refuses.
        reasons["unreadable_body", None] = unreadable
    observed = Observed(len(kept) + unreadable, frame, named, reasons, segments_of(wide, contract))
    return Capture(observed, seen["files"], seen["invocations"], total + unreadable, dict(damaged))
