"""A batch of Kinesis records to feature records and refused ones. Pure: no AWS, no clock, no environment."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

import msgspec
from ml_contract.features.online import FeatureRecord
from ml_contract.records.codec import RecordCodec, Rejected

from stream_consumer.errors import BadEventError, RefusedError

__all__ = ["Item", "Plan", "plan", "refusal"]

_EPOCH: Final = dt.datetime(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Item:
    """One record of the batch."""

    #: Place in the batch; a batch holds one shard's records in order.
    position: int
    sequence_number: str
    #: Key of its line in the quarantine, below the prefix. By its place in the stream, not by its content: a
    #: batch comes again in other pieces, and the same message sent twice is two records.
    key: str
    received_at: str
    record_id: str
    data_base64: str

    def line(self, reasons: Sequence[dict[str, str | None]]) -> dict[str, Any]:
        """The record as the quarantine keeps it; the record transform writes the same."""
        return {
            "received_at": self.received_at,
            "record_id": self.record_id,
            "reasons": list(reasons),
            "data_base64": self.data_base64,
        }


@dataclass(slots=True)
class Plan:
    """What is to be done with a batch."""

    items: list[Item] = field(default_factory=list)
    #: Records that the contract refuses, with the line to keep.
    refused: list[tuple[Item, dict[str, Any]]] = field(default_factory=list)
    #: The others by their identifier, in order: a later one must not be overtaken by an earlier one.
    groups: dict[str, list[tuple[Item, dict[str, str]]]] = field(default_factory=dict)


def plan(records: Sequence[Any], codec: RecordCodec, features: FeatureRecord) -> Plan:
    """Check every record of an event and compute its features.

    :raises BadEventError: the records are not Kinesis's
    """
    made = Plan()
    identifier = codec.contract.identifier
    for position, entry in enumerate(records):
        item, data = _item(position, entry)
        made.items.append(item)
        record = codec.decode(data)
        if isinstance(record, Rejected):
            made.refused.append((item, item.line([reason.to_json() for reason in record.reasons])))
            continue
        texts = features(record.values)
        made.groups.setdefault(texts[identifier], []).append((item, texts))
    return made


def refusal(error: RefusedError) -> dict[str, str | None]:
    """The reason of a record that fits the contract and that the feature store does not take."""
    return {
        "code": "feature_store_refused",
        "field": None,
        "value": None,
        "allowed": None,
        "message": f"{error.code}: {error}"[:500],
    }


def _item(position: int, entry: Any) -> tuple[Item, bytes]:
    try:
        kinesis = entry["kinesis"]
        number, encoded = str(int(kinesis["sequenceNumber"])), kinesis["data"]
        shard = str(entry["eventID"]).partition(":")[0]
        data: bytes = msgspec.convert(encoded, bytes)
        moment = _EPOCH + dt.timedelta(seconds=float(kinesis["approximateArrivalTimestamp"]))
    except (KeyError, TypeError, ValueError, OverflowError, msgspec.ValidationError) as error:
        raise BadEventError(f"record {position} is not Kinesis's: {error!r}") from error
    received_at = moment.isoformat(timespec="milliseconds") + "Z"
    return (
        Item(
            position=position,
            sequence_number=number,
            key=f"ingest_date={received_at[:10]}/{shard}-{number}.jsonl",
            received_at=received_at,
            record_id=blake2b(data, digest_size=16).hexdigest(),
            data_base64=encoded,
        ),
        data,
    )
