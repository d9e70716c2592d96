"""A batch of Firehose records to an answer and a quarantine file. Pure: no AWS, no clock, no environment."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

import msgspec
from ml_contract.records.codec import RecordCodec, Rejected

from record_transform.errors import BadEventError

__all__ = ["Batch", "transform"]

#: A function's answer holds 6 MB (Lambda quotas, "Invocation payload (request and response)", synchronous);
#: kept below it for what stands around the records.
MAX_RESPONSE_BYTES: Final = 6_000_000
#: Room in the answer for a record's id, result and the JSON around them.
RECORD_OVERHEAD_BYTES: Final = 150

_EPOCH: Final = dt.datetime(1970, 1, 1)
_from_base64: Final = msgspec.convert
_to_base64: Final = msgspec.to_builtins


@dataclass(slots=True)
class Batch:
    """What became of a batch.

    ``records`` is Firehose's answer, one entry per record in order: ``Ok`` with the line to deliver,
    ``Dropped`` when the record is in the quarantine, ``ProcessingFailed`` when the answer would be too long
    (Firehose keeps the record as it came under its error prefix).
    """

    records: list[dict[str, str]] = field(default_factory=list)
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    delivered: int = 0
    too_long: int = 0

    @property
    def quarantine_lines(self) -> bytes:
        """The quarantine file: one JSON object per line."""
        return msgspec.json.Encoder().encode_lines(self.quarantine)

    @property
    def quarantine_key(self) -> str:
        """Key of the quarantine file, by content: the same batch again overwrites it."""
        digest = blake2b(self.quarantine_lines, digest_size=16).hexdigest()
        day = self.quarantine[0]["received_at"][:10]
        return f"ingest_date={day}/{digest}.jsonl"


def transform(
    records: Sequence[dict[str, Any]], codec: RecordCodec, *, max_response_bytes: int = MAX_RESPONSE_BYTES
) -> Batch:
    """Check every record and write it as Firehose's Parquet conversion reads it.

    ``records`` is the event's list. A record's id in the lake is the hash of its bytes, so the same bytes
    have the same id however often they are delivered.
    """
    batch = Batch()
    answer = batch.records.append
    decode, encode = codec.decode, codec.encode
    size = 0
    for entry in records:
        try:
            record_id = entry["recordId"]
            encoded = entry["data"]
            data: bytes = _from_base64(encoded, bytes)
            received_at = _moment(entry["approximateArrivalTimestamp"])
        except (KeyError, TypeError, msgspec.ValidationError, ValueError, OverflowError) as error:
            raise BadEventError(f"record {len(batch.records)} is not Firehose's: {error!r}") from error
        digest = blake2b(data, digest_size=16).hexdigest()
        record = decode(data)
        if type(record) is Rejected:
            batch.reasons.update({reason.code for reason in record.reasons})
            batch.quarantine.append(
                {
                    "received_at": received_at,
                    "record_id": digest,
                    "reasons": [reason.to_json() for reason in record.reasons],
                    "data_base64": encoded,
                }
            )
            answer({"recordId": record_id, "result": "Dropped", "data": ""})
            continue
        line: str = _to_base64(encode(record, record_id=digest, received_at=received_at))  # type: ignore[arg-type]
        size += len(line) + RECORD_OVERHEAD_BYTES
        if size > max_response_bytes:
            batch.too_long += 1
            answer({"recordId": record_id, "result": "ProcessingFailed", "data": ""})
            continue
        batch.delivered += 1
        answer({"recordId": record_id, "result": "Ok", "data": line})
    return batch


@lru_cache(maxsize=4096)
def _moment(milliseconds: int) -> str:
    """Arrival in UTC. Records of a batch arrive together, so few are ever formatted."""
    return (_EPOCH + dt.timedelta(milliseconds=milliseconds)).isoformat(timespec="milliseconds") + "Z"
