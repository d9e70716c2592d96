"""Chapter: records go through the stream; every one of them is accounted for."""

from __future__ import annotations

import base64
import io
import json
import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from ml_contract.made_up.dirt import DELIVERED
from ml_contract.records.dates import date_parser

from rehearsal.story.lake import open_table, read_table
from rehearsal.story.shares import shares
from rehearsal.story.tale import Tale
from rehearsal.story.telling import Evidence, Step, StoryError, require, wait_until

if TYPE_CHECKING:
    import pyarrow as pa
    from ml_contract.compiled import CompiledContract

__all__ = [
    "BEYOND_AN_INVOCATION",
    "STEPS",
    "Account",
    "Batch",
    "Sent",
    "account_for",
    "deliver",
    "json_lines",
    "kept_by_delivery",
    "plain",
    "quarantined",
    "read_parquet",
    "read_raw",
    "record_id",
    "send",
    "spoil",
]

CHAPTER = "Ingest"
#: Limits of PutRecords: records a call, and bytes a call with room for the partition keys.
RECORDS_PER_CALL = 500
BYTES_PER_CALL = 4 * 1024 * 1024
#: Kinds of dirt that are good records: delivered, and dropped or counted by the curate job.
DELIVERED_KINDS = frozenset(DELIVERED)
#: A record that the stream takes and that no invocation of a function holds.
BEYOND_AN_INVOCATION = "beyond_an_invocation"


def record_id(data: bytes) -> str:
    """Identity that delivery gives a record: 32 hexadecimal digits made from its bytes."""
    return blake2b(data, digest_size=16).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One message: its bytes and what is wrong with it.

    ``clean``, one of ml_contract.made_up.dirt's kinds, or ``unfit``: a row of a data file that the contract
    refuses.
    """

    data: bytes
    kind: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What was sent at once."""

    messages: Sequence[Sent]

    @property
    def ids(self) -> Counter[str]:
        """How often each record was sent."""
        return Counter(record_id(m.data) for m in self.messages)


@dataclass(frozen=True, kw_only=True)
class Account:
    """Where the records of a batch are."""

    sent: int
    delivered: int
    quarantined: int
    lost: int
    twice: int
    #: ``(kind, where it is)`` of records that are not where their kind belongs.
    misplaced: tuple[tuple[str, str], ...]


def account_for(batch: Batch, delivered: Iterable[str], quarantined: Iterable[str]) -> Account:
    """Compare what was sent with what arrived, record by record.

    Args:
        delivered: record ids of the raw zone, one per row.
        quarantined: record ids of the quarantine, one per line.
    """
    sent = batch.ids
    raw = Counter(i for i in delivered if i in sent)
    bad = Counter(i for i in quarantined if i in sent)
    misplaced = []
    for message in batch.messages:
        identity = record_id(message.data)
        good = message.kind in DELIVERED_KINDS
        if good and identity in bad:
            misplaced.append((message.kind, "quarantine"))
        if not good and identity in raw:
            misplaced.append((message.kind, "raw zone"))
    return Account(
        sent=sum(sent.values()),
        delivered=sum(raw.values()),
        quarantined=sum(bad.values()),
        lost=sum(max(0, n - raw[i] - bad[i]) for i, n in sent.items()),
        twice=sum(max(0, raw[i] + bad[i] - n) for i, n in sent.items()),
        misplaced=tuple(misplaced),
    )


def spoil(tale: Tale, records: Sequence[dict[str, Any]], seed: int) -> list[Sent]:
    """The records as messages, with dirt of every kind that the workload can have among them."""
    from ml_contract.made_up.dirt import Dirt, soil

    contract = tale.contract
    each = max(2, len(records) // 100)
    keys = (contract.identifier, contract.label.field)
    typed = any(c.type in ("integer", "number", "boolean") and c.name not in keys for c in contract.columns)
    dirt = Dirt(
        wrong_type=each if typed else 0,
        missing_identifier=each,
        not_json=each,
        not_utf8=each,
        huge=2,
        duplicate=2 * each,
        late=0 if contract.late_after_days is None else each,
        unknown_field=each,
        unknown_label=0 if contract.label.values is None else each,
    )
    return [Sent(data=m.data, kind=m.kind) for m in soil(list(records), contract, dirt, seed)]


def plain(records: Sequence[dict[str, Any]], kind: str = "clean") -> list[Sent]:
    """The records as messages, as they are."""
    return [
        Sent(data=json.dumps(r, ensure_ascii=False, separators=(",", ":")).encode(), kind=kind)
        for r in records
    ]


def send(tale: Tale, messages: Sequence[Sent], evidence: Evidence) -> Batch:
    """Put messages on the stream, and return what was sent."""
    batch = Batch(messages=_as_they_happen(messages, tale.contract))
    stream = tale.outputs("Data")["StreamName"]
    started = time.monotonic()
    calls = 0
    for chunk in _chunks(batch.messages):
        calls += _put(tale, stream, chunk)
    evidence |= {
        "stream": stream,
        "sent": len(batch.messages),
        "kinds": dict(Counter(m.kind for m in batch.messages)),
        "put_records_calls": calls,
        "records_a_second": round(len(batch.messages) / max(time.monotonic() - started, 1e-9)),
    }
    tale.report.records["sent"] += len(batch.messages)
    return batch


def _as_they_happen(messages: Sequence[Sent], contract: CompiledContract) -> Sequence[Sent]:
    """Messages by event time where windows are computed from the stream; else as they are.

    A series arrives in its order, give or take an hour; what arrives much later, Flink leaves to the batch
    run. Messages without a readable event time come first.
    """
    if contract.windows is None:
        return messages
    source = contract.by_name[contract.event_time].source
    parse = date_parser(contract.types[contract.event_time], contract.by_name[contract.event_time].format)

    def moment(message: Sent) -> str:
        try:
            found = json.loads(message.data)[source]
            return (parse(found) if isinstance(found, str) else None) or ""
        except (ValueError, KeyError, TypeError):
            return ""

    return sorted(messages, key=moment)


def _chunks(messages: Sequence[Sent]) -> Iterable[list[Sent]]:
    chunk: list[Sent] = []
    size = 0
    for message in messages:
        if chunk and (len(chunk) == RECORDS_PER_CALL or size + len(message.data) > BYTES_PER_CALL):
            yield chunk
            chunk, size = [], 0
        chunk.append(message)
        size += len(message.data)
    if chunk:
        yield chunk


def _put(tale: Tale, stream: str, messages: list[Sent]) -> int:
    """Put until the stream took every record, as a producer must: PutRecords may take a part only."""
    left, calls = messages, 0
    while left:
        calls += 1
        require(calls <= 10, f"stream {stream} still refused {len(left)} records after {calls - 1} calls")
        entries = [{"Data": m.data, "PartitionKey": record_id(m.data)} for m in left]
        answer = tale.cloud.client("kinesis").put_records(StreamName=stream, Records=entries)
        left = [m for m, r in zip(left, answer["Records"], strict=True) if "ErrorCode" in r]
    return calls


def read_parquet(tale: Tale, uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """All Parquet objects below a URI as one table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [
        pq.read_table(io.BytesIO(tale.cloud.objects.read(found)), columns=columns)
        for found in tale.cloud.objects.list(uri, suffix=".parquet")
    ]
    require(tables, f"there is no Parquet below {uri}")
    return pa.concat_tables(tables, promote_options="permissive")


def read_raw(tale: Tale, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of the raw zone: of its folder, or of the current snapshot where it is an Iceberg table."""
    outputs = tale.outputs("Data")
    if tale.workload.stream.format == "iceberg":
        table = open_table(tale, outputs["RawDatabase"], outputs["RawTable"])
        return read_table(table, ("*",) if columns is None else columns)
    return read_parquet(tale, outputs["RawDataUri"], columns)


def quarantined(tale: Tale, output: str = "QuarantineUri") -> list[dict[str, Any]]:
    """The lines of a quarantine: the delivery path's, or another that an output of the stack names."""
    return json_lines(tale, tale.outputs("Data")[output])


def kept_by_delivery(tale: Tale) -> list[str]:
    """Ids of the records that Firehose itself kept, because no function or table could take them."""
    lines = json_lines(tale, tale.outputs("Data")["DeliveryErrorsUri"])
    return [record_id(base64.b64decode(line["rawData"])) for line in lines]


def json_lines(tale: Tale, uri: str) -> list[dict[str, Any]]:
    """Every line of the objects below a URI, parsed."""
    lines: list[dict[str, Any]] = []
    for found in tale.cloud.objects.list(uri):
        lines += [json.loads(line) for line in tale.cloud.objects.read(found).splitlines() if line.strip()]
    return lines


def deliver(tale: Tale, batch: Batch, evidence: Evidence) -> Account:
    """Wait until a batch has been delivered; check that every record is where it belongs, once."""
    outputs = tale.outputs("Data")

    def count() -> Account:
        raw: list[str] = []
        if tale.cloud.objects.list(outputs["RawDataUri"], suffix=".parquet"):
            raw = read_raw(tale, ["record_id"])["record_id"].to_pylist()
        refused = [line["record_id"] for line in quarantined(tale)]
        return account_for(batch, raw, [*refused, *kept_by_delivery(tale)])

    def complete() -> Account | None:
        # What Firehose has read by now is delivered when its buffer's time is over.
        tale.cloud.advance(seconds=tale.workload.stream.buffer_seconds + 5)
        found = count()
        return found if found.lost == 0 else None

    try:
        account: Account = wait_until("the delivery of every record", complete, seconds=120, every=1)
    except StoryError:
        account = count()
    files = tale.cloud.objects.list(outputs["RawDataUri"], suffix=".parquet")
    beyond = {record_id(m.data) for m in batch.messages if m.kind == BEYOND_AN_INVOCATION}
    told: set[str] = tale.known.setdefault("kept by delivery", set())
    told |= beyond
    errors = [identity for identity in kept_by_delivery(tale) if identity not in told]
    evidence |= {
        "sent": account.sent,
        "delivered": account.delivered,
        "quarantined": account.quarantined,
        "lost": account.lost,
        "twice": account.twice,
        "parquet_objects": len(files),
        "an_object": files[0] if files else None,
        "delivery_errors": len(errors),
    }
    records = tale.report.records
    records["delivered"] += account.delivered
    records["quarantined"] += account.quarantined
    records["lost"] += account.lost
    require(
        account.lost == 0, f"{account.lost} of {account.sent} records are neither delivered nor in quarantine"
    )
    require(account.twice == 0, f"{account.twice} records were delivered more often than they were sent")
    require(
        not account.misplaced,
        f"records are not where they belong: {Counter(account.misplaced).most_common(5)}",
    )
    require(not errors, f"Firehose wrote delivery errors: {errors[:3]}")
    return account


def _send(tale: Tale, evidence: Evidence) -> None:
    streamed, _ = shares(tale.inputs.initial, tale.workload)
    messages = [*spoil(tale, streamed, tale.seed), *plain(tale.inputs.unfit, "unfit")]
    random.Random(tale.seed).shuffle(messages)  # noqa: S311 - an order, not a secret
    tale.known["first batch"] = send(tale, messages, evidence)


def _deliver(tale: Tale, evidence: Evidence) -> None:
    deliver(tale, tale.known["first batch"], evidence)
    table = read_raw(tale)
    expected = {name for name, _ in tale.contract.glue_columns()}
    require(
        expected <= set(table.column_names),
        f"the raw zone lacks the columns {sorted(expected - set(table.column_names))}",
    )
    evidence["columns"] = len(table.column_names)


def _quarantined(tale: Tale, evidence: Evidence) -> None:
    batch: Batch = tale.known["first batch"]
    kinds = {record_id(m.data): m.kind for m in batch.messages}
    lines = [line for line in quarantined(tale) if line["record_id"] in kinds]
    without = [line["record_id"] for line in lines if not line["reasons"]]
    require(not without, f"{len(without)} quarantined records have no reason")
    codes = Counter(code for line in lines for code in {reason["code"] for reason in line["reasons"]})
    examples: dict[str, str] = {}
    for line in lines:
        for reason in line["reasons"]:
            examples.setdefault(reason["code"], str(reason["message"]))
    tale.report.records["reasons"] = [
        {"code": code, "records": count, "example": examples[code][:300]}
        for code, count in codes.most_common()
    ]
    evidence["reasons"] = tale.report.records["reasons"]
    pairs = Counter((kinds[line["record_id"]], line["reasons"][0]["code"]) for line in lines)
    evidence["what_was_wrong_and_what_was_found"] = [
        {"sent_as": kind, "first_reason": code, "records": count}
        for (kind, code), count in sorted(pairs.items())
    ]
    bad = Counter(m.kind for m in batch.messages if m.kind not in DELIVERED_KINDS)
    found = Counter(kinds[line["record_id"]] for line in lines)
    require(found == bad, f"the quarantine holds {dict(found)}, sent were {dict(bad)}")


STEPS = (
    Step(
        id="send",
        title="Send the records to the stream, some of them spoilt",
        chapter=CHAPTER,
        run=_send,
        capabilities=lambda _: ("stream.kinesis",),
    ),
    Step(
        id="deliver",
        title="Delivered as Parquet: none lost, none twice",
        chapter=CHAPTER,
        run=_deliver,
        capabilities=lambda _: ("stream.firehose", "data.validation"),
    ),
    Step(
        id="quarantine",
        title="The bad ones are in quarantine, each with its reasons",
        chapter=CHAPTER,
        run=_quarantined,
        capabilities=lambda _: ("data.validation",),
    ),
)
