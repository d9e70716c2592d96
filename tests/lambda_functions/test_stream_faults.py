"""``sent = put or delivered + quarantined + kept aside``, whatever the services and the machines do.

The functions' own code runs under made-up histories: duplicates, reordering, redelivery, poison, busy
services, a function that dies before or after any call. What calls them is the model of Lambda's event source
mapping that the rehearsal uses too, and a model of Firehose.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_contract.compiled import CompiledContract
from ml_contract.features.online import feature_record
from ml_contract.load import load_workload
from ml_contract.records.codec import RecordCodec
from record_transform import handler as transform_module
from record_transform.errors import TransformError
from record_transform.storage import Quarantine
from stream_consumer.consume import carry_out
from stream_consumer.logic import plan
from stream_consumer.store import OnlineStore

from rehearsal.stream_batches import GivenUp, Record, Result, Rules, batches, carry, event_of, size_in_event

EXAMPLES = 1_000
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
YAML = """
version: 1
name: parcel_delay
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
    minutes_late: {type: number}
label: {task: regression, field: minutes_late}
features:
  derive:
    weight_a_stop: {kind: ratio, numerator: weight_kg, denominator: stops}
acceptance: {metric: rmse, at_most: 30}
"""


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> CompiledContract:
    folder = tmp_path_factory.mktemp("workloads") / "parcel_delay"
    folder.mkdir()
    (folder / "workload.yaml").write_text(YAML)
    return load_workload(folder).compiled


@cache
def codec_of(text: str) -> tuple[RecordCodec, Any]:
    contract = CompiledContract.from_json(text)
    return RecordCodec(contract), feature_record(contract)


# --- made-up messages and faults ------------------------------------------------------------------------

POISON = (
    b"",
    b"no json",
    b"[]",
    b"\xff\xfe",
    b'{"parcel": null, "sent_at": "2026-01-01"}',
    b'{"stops": "x"}',
)


def parcel(name: int, day: int, stops: int) -> bytes:
    record = {
        "parcel": f"p{name}",
        "sent_at": f"2026-01-{day:02d}T10:00:00",
        "stops": stops,
        "weight_kg": 7.5,
    }
    return json.dumps(record).encode()


fits = st.builds(parcel, st.integers(0, 3), st.integers(1, 4), st.integers(0, 9))
#: What the store will never take, though it fits the contract.
unstorable = st.builds(parcel, st.just(666), st.integers(1, 4), st.integers(0, 9))
messages = st.lists(st.one_of(fits, fits, fits, unstorable, st.sampled_from(POISON)), max_size=14)
faults = st.lists(
    st.sampled_from(
        [None, None, None, "ThrottlingException", "InternalFailure", "kill-before", "kill-after"]
    ),
    max_size=40,
)


class KilledError(BaseException):
    """The machine is gone: no ``except Exception`` sees this."""


def refusal(code: str) -> ClientError:
    status = {"ThrottlingException": 400, "ValidationError": 400}.get(code, 500)
    response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "Call")


@dataclass
class Cloud:
    """The services that the functions call, with faults call by call until there are none left."""

    faults: list[str | None]
    #: Whether a record of the same event time replaces the one that is there.
    replaces: bool = True
    online: dict[str, dict[str, str]] = field(default_factory=dict)
    puts: list[dict[str, str]] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)

    def _fault(self) -> Iterator[None]:
        fault = self.faults.pop(0) if self.faults else None
        if fault == "kill-before":
            raise KilledError
        if fault not in (None, "kill-after"):
            raise refusal(str(fault))
        yield
        if fault == "kill-after":
            raise KilledError

    def put_record(self, *, Record: list[dict[str, str]], **_: Any) -> None:  # noqa: N803 - the API's own name
        texts = {item["FeatureName"]: item["ValueAsString"] for item in Record}
        if texts["parcel"] == "p666":
            raise refusal("ValidationError")
        for _ in self._fault():
            self.puts.append(texts)
            known = self.online.get(texts["parcel"])
            newer = known is None or known["sent_at"] < texts["sent_at"]
            if newer or (self.replaces and known["sent_at"] == texts["sent_at"]):  # type: ignore[index]
                self.online[texts["parcel"]] = texts

    def put_object(self, *, Key: str, Body: bytes, **_: Any) -> None:  # noqa: N803 - the API's own names
        for _ in self._fault():
            assert self.objects.get(Key, Body) == Body, (
                "a file of the quarantine is written with other content"
            )
            self.objects[Key] = Body

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for body in self.objects.values() for line in body.splitlines()]


class Inline(Executor):
    """Runs what is submitted at once: the same history, the same calls."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - a future carries whatever it is
            done.set_exception(error)
        return done


# --- the consumer ---------------------------------------------------------------------------------------


@dataclass
class Shard:
    """A shard, the mapping on it, and the function behind that."""

    contract: CompiledContract
    cloud: Cloud
    rules: Rules
    given_up: list[Record] = field(default_factory=list)
    invocations: int = 0

    def consume(self, sent: Sequence[bytes], first: int = 1) -> list[Record]:
        records = [Record(str(first + i), "k", data, NOON) for i, data in enumerate(sent)]
        for batch in batches(records, self.rules, size_in_event):
            carry(
                batch,
                self.rules,
                size_of=size_in_event,
                invoke=self.invoke,
                give_up=self.keep,
                now=lambda: NOON + timedelta(seconds=1),
            )
        return records

    def keep(self, given: GivenUp) -> None:
        self.given_up += given.records

    def invoke(self, records: Sequence[Record]) -> Result:
        self.invocations += 1
        assert self.invocations < 5_000, "the mapping never ends"
        codec, features = codec_of(self.contract.to_json())
        event = event_of(records, shard="shardId-0", stream_arn="arn", region="eu-central-1", role="role")
        store = OnlineStore(self.cloud, "group", sleep=lambda _seconds: None, spread=lambda: 1.0)
        quarantine = Quarantine(self.cloud, "lake", "q/")
        try:
            todo = plan(event["Records"], codec, features)
            outcome = carry_out(todo, store, quarantine, Inline(), out_of_time=lambda: False)
        except (KilledError, TransformError) as error:
            return Result(error=type(error).__name__)
        assert outcome.put + outcome.quarantined + len(outcome.open) == len(records)
        return Result(answer=outcome.answer)


def check(shard: Shard, records: Sequence[Record]) -> None:
    """Every record is online, in the quarantine or kept aside; nothing else is anywhere."""
    codec, features = codec_of(shard.contract.to_json())
    aside = {record.sequence_number for record in shard.given_up}
    assert len(aside) == len(shard.given_up), "a record is given up once"
    refused = {key: json.loads(body) for key, body in shard.cloud.objects.items()}
    newest: dict[str, dict[str, str]] = {}
    for record in records:
        texts: dict[str, str] | None = None
        decoded = codec.decode(record.data)
        if hasattr(decoded, "values"):
            texts = features(decoded.values)
        key = f"q/ingest_date=2026-11-21/shardId-0-{record.sequence_number}.jsonl"
        line = refused.pop(key, None)
        if line is not None:
            assert base64.b64decode(line["data_base64"]) == record.data
            assert line["reasons"]
            assert texts is None or texts["parcel"] == "p666", "a good record is in the quarantine"
            continue
        if record.sequence_number in aside:
            continue
        assert texts is not None, "a record that does not fit is nowhere"
        assert texts in shard.cloud.puts, "a record that fits was never put"
        known = newest.get(texts["parcel"])
        if known is None or known["sent_at"] <= texts["sent_at"]:
            newest[texts["parcel"]] = texts
    assert not refused, "the quarantine holds what was not sent"
    for identifier, texts in newest.items():
        online = shard.cloud.online[identifier]
        assert online["sent_at"] >= texts["sent_at"], "an older event is online"
        if not aside and shard.cloud.replaces:
            assert online == texts, "the last record of the newest event is not the one that is online"


@settings(max_examples=EXAMPLES)
@given(
    sent=messages,
    met=faults,
    batch_size=st.integers(1, 8),
    retries=st.one_of(st.none(), st.integers(0, 4)),
    bisect=st.booleans(),
    replaces=st.booleans(),
)
def test_should_account_for_every_record_of_a_stream_under_faults(
    contract: CompiledContract,
    sent: list[bytes],
    met: list[str | None],
    batch_size: int,
    retries: int | None,
    bisect: bool,
    replaces: bool,
) -> None:
    rules = Rules(batch_size=batch_size, retries=retries, bisect=bisect, partial=True)
    shard = Shard(contract, Cloud(list(met), replaces), rules)
    records = shard.consume(sent)
    check(shard, records)


@settings(max_examples=200)
@given(sent=messages, met=faults, batch_size=st.integers(1, 8), data=st.data())
def test_should_change_nothing_when_records_come_again_in_other_pieces(
    contract: CompiledContract, sent: list[bytes], met: list[str | None], batch_size: int, data: st.DataObject
) -> None:
    shard = Shard(contract, Cloud(list(met)), Rules(batch_size=batch_size, partial=True, bisect=True))
    records = shard.consume(sent)
    online, objects = dict(shard.cloud.online), dict(shard.cloud.objects)
    # A new mapping begins at the oldest record, wherever the old one was.
    start = data.draw(st.integers(0, len(records)))
    again = Shard(contract, shard.cloud, Rules(batch_size=data.draw(st.integers(1, 8)), partial=True))
    again.consume(sent[start:], first=start + 1)
    assert shard.cloud.objects == objects
    assert shard.cloud.online == online


@settings(max_examples=200)
@given(sent=st.lists(fits, max_size=12), data=st.data())
def test_should_end_in_the_newest_event_in_whatever_order_records_come(
    contract: CompiledContract, sent: list[bytes], data: st.DataObject
) -> None:
    orders = []
    for order in (sent, data.draw(st.permutations(sent))):
        shard = Shard(contract, Cloud([]), Rules(batch_size=5, partial=True))
        shard.consume(order)
        orders.append({name: texts["sent_at"] for name, texts in shard.cloud.online.items()})
    assert orders[0] == orders[1]


def test_should_go_back_to_the_lowest_record_whose_fate_is_open(contract: CompiledContract) -> None:
    codec, features = codec_of(contract.to_json())
    sent = [parcel(1, 1, 1), b"no json", parcel(2, 1, 1), parcel(1, 2, 1), parcel(3, 1, 1)]
    records = [Record(str(9 + i), "k", data, NOON) for i, data in enumerate(sent)]
    event = event_of(records, shard="shardId-0", stream_arn="a", region="r", role="r")
    # The first parcel is put, the poison kept; the second parcel is throttled through every try.
    cloud = Cloud([None, *[None] * 2, *["ThrottlingException"] * 4])
    store = OnlineStore(cloud, "group", sleep=lambda _seconds: None, spread=lambda: 1.0)
    outcome = carry_out(
        plan(event["Records"], codec, features),
        store,
        Quarantine(cloud, "lake", "q/"),
        Inline(),
        out_of_time=lambda: False,
    )
    assert outcome.answer == {"batchItemFailures": [{"itemIdentifier": "11"}]}
    assert {texts["parcel"] for texts in cloud.puts} == {"p1"}
    assert [item.sequence_number for item in sorted(outcome.open, key=lambda i: i.position)] == ["11", "13"]


def test_should_begin_nothing_when_the_time_is_almost_over(contract: CompiledContract) -> None:
    codec, features = codec_of(contract.to_json())
    records = [Record(str(i), "k", parcel(i, 1, 1), NOON) for i in range(1, 4)]
    event = event_of(records, shard="shardId-0", stream_arn="a", region="r", role="r")
    cloud = Cloud([])
    outcome = carry_out(
        plan(event["Records"], codec, features),
        OnlineStore(cloud, "group"),
        Quarantine(cloud, "lake", "q/"),
        Inline(),
        out_of_time=lambda: True,
    )
    assert outcome.answer == {"batchItemFailures": [{"itemIdentifier": "1"}]}
    assert not cloud.puts


# --- the transform --------------------------------------------------------------------------------------


@dataclass
class Firehose:
    """Firehose around the transform: batches, three more tries, the error output."""

    cloud: Cloud
    delivered: list[bytes] = field(default_factory=list)
    dropped: list[bytes] = field(default_factory=list)
    errors: list[bytes] = field(default_factory=list)

    def deliver(self, sent: Sequence[bytes], batch_size: int) -> None:
        for start in range(0, len(sent), batch_size):
            part = sent[start : start + batch_size]
            entries = [
                {
                    "recordId": str(start + i),
                    "approximateArrivalTimestamp": int(NOON.timestamp() * 1000),
                    "data": base64.b64encode(data).decode(),
                }
                for i, data in enumerate(part)
            ]
            answers = self.answers({"records": entries})
            if answers is None:
                self.errors += part
                continue
            for entry, data in zip(entries, part, strict=True):
                answer = answers[entry["recordId"]]
                where = {"Ok": self.delivered, "Dropped": self.dropped}.get(answer["result"], self.errors)
                where.append(data)
                if answer["result"] == "Ok":
                    row = json.loads(base64.b64decode(answer["data"]))
                    assert row["record_id"] == blake2b(data, digest_size=16).hexdigest()

    def answers(self, event: dict[str, Any]) -> dict[str, dict[str, str]] | None:
        for _ in range(4):
            try:
                records = transform_module.handler(event, None)["records"]
            except (KilledError, TransformError):
                continue
            return {record["recordId"]: record for record in records}
        return None


@pytest.fixture
def transform(contract: CompiledContract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "contract.json").write_text(contract.to_json())
    monkeypatch.setenv("CONTRACT_PATH", str(tmp_path / "contract.json"))
    monkeypatch.setenv("QUARANTINE_URI", "s3://lake/q/")
    transform_module._codec.cache_clear()
    yield
    transform_module._codec.cache_clear()


@pytest.mark.usefixtures("transform")
def test_should_account_for_every_record_of_a_delivery_under_faults(
    contract: CompiledContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, _ = codec_of(contract.to_json())
    monkeypatch.setattr(transform_module, "log", lambda *_, **__: None)

    @settings(max_examples=EXAMPLES)
    @given(sent=messages, met=faults, batch_size=st.integers(1, 8))
    def history(sent: list[bytes], met: list[str | None], batch_size: int) -> None:
        cloud = Cloud(list(met))
        monkeypatch.setattr(transform_module, "_quarantine", lambda: Quarantine(cloud, "lake", "q/"))
        firehose = Firehose(cloud)
        firehose.deliver(sent, batch_size)
        ends = (firehose.delivered, firehose.dropped, firehose.errors)
        assert sum(len(end) for end in ends) == len(sent), "every record has one end"
        kept = {base64.b64decode(line["data_base64"]) for line in cloud.lines}
        assert set(firehose.dropped) <= kept, "a record is dropped before it is in the quarantine"
        assert kept <= {*firehose.dropped, *firehose.errors}, "a delivered record is in the quarantine"
        assert all(not hasattr(codec.decode(data), "reasons") for data in firehose.delivered)
        assert all(hasattr(codec.decode(data), "reasons") for data in firehose.dropped)
        # Written again, a batch is the same file: as many lines as records that were dropped or kept.
        assert len(cloud.lines) <= len(firehose.dropped) + len(firehose.errors)

    history()
