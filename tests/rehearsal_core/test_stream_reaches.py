"""Each reach into ministack's streams and event source mappings."""

from __future__ import annotations

import base64
import importlib
import json
from typing import Any

import pytest

from rehearsal import ministack_bridge as bridge
from rehearsal.ministack_bridge import streams

ACCOUNT, REGION = "123456789012", "us-east-1"


@pytest.fixture(autouse=True)
def _clean(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_REGION", "TMPDIR"):
        monkeypatch.setenv(name, "")
    bridge.configure(port=1, account=ACCOUNT, region=REGION, state=str(tmp_path_factory.mktemp("tmp")))
    modules = [
        importlib.import_module(f"ministack.services.{n}") for n in ("kinesis", "lambda_svc", "firehose")
    ]
    kept = [dict(vars(module)) for module in modules]
    listeners = list(streams._STREAM_LISTENERS)
    with bridge.account_scope(ACCOUNT, REGION):
        modules[0].reset()
        yield
        modules[0].reset()
    streams._STREAM_LISTENERS[:] = listeners
    for module, known in zip(modules, kept, strict=True):
        vars(module).update(known)
    modules[2]._HANDLERS["CreateDeliveryStream"] = kept[2]["_create_delivery_stream"]


def stream(name: str) -> Any:
    kinesis = importlib.import_module("ministack.services.kinesis")
    kinesis._create_stream({"StreamName": name, "ShardCount": 1})
    found = kinesis._streams[name]
    found["StreamStatus"] = "ACTIVE"
    return found


def put(name: str, *sizes: int) -> tuple[int, dict[str, Any]]:
    kinesis = importlib.import_module("ministack.services.kinesis")
    records = [
        {"Data": base64.b64encode(b"x" * size).decode(), "PartitionKey": f"k{i}"}
        for i, size in enumerate(sizes)
    ]
    if len(records) == 1:
        status, _, body = kinesis._put_record({"StreamName": name, **records[0]})
    else:
        status, _, body = kinesis._put_records({"StreamName": name, "Records": records})
    return status, json.loads(body)


def test_should_take_records_as_long_as_their_stream_takes() -> None:
    bridge.take_large_records()
    found = stream("long")
    status, answer = put("long", 2 * 1024 * 1024)
    assert (status, answer["__type"]) == (400, "InvalidArgumentException")
    bridge.set_largest_record("long", 10_240)
    assert bridge.largest_record(found["StreamARN"]) == 10_240
    assert put("long", 2 * 1024 * 1024)[0] == 200
    assert put("long", 4 * 1024 * 1024, 4 * 1024 * 1024)[0] == 200
    assert put("long", 6 * 1024 * 1024, 6 * 1024 * 1024)[0] == 400, "a request holds 10 MiB"
    kept = [len(base64.b64decode(r["Data"])) for s in found["shards"].values() for r in s["records"]]
    assert sorted(kept) == [2 * 1024 * 1024, 4 * 1024 * 1024, 4 * 1024 * 1024]


def test_should_leave_small_records_to_ministack() -> None:
    bridge.take_large_records()
    stream("short")
    status, answer = put("short", 10, 20)
    assert (status, answer["FailedRecordCount"], len(answer["Records"])) == (200, 0, 2)
    assert bridge.largest_record("arn:aws:kinesis:us-east-1:123456789012:stream/none") is None


def test_should_hear_of_records_and_leave_polling_to_the_rehearsal() -> None:
    heard: list[tuple[str, str]] = []
    bridge.use_own_delivery(lambda _region, _arn: None, lambda _region, _name, _records: None)
    bridge.use_own_stream_polling(lambda region, arn: heard.append((region, arn)))
    found = stream("told")
    put("told", 5)
    assert heard == [(REGION, found["StreamARN"])]
    functions = importlib.import_module("ministack.services.lambda_svc")
    assert functions._poll_kinesis() is False
    consumer = f"{found['StreamARN']}/consumer/online:1"
    assert functions._validate_event_source_arn(consumer)[1] is None


def test_should_show_the_live_mappings_of_streams_only() -> None:
    functions = importlib.import_module("ministack.services.lambda_svc")
    arn = "arn:aws:kinesis:us-east-1:123456789012:stream/s"
    queue = "arn:aws:sqs:us-east-1:123456789012:q"
    functions._esms["one"] = {"UUID": "one", "EventSourceArn": arn}
    functions._esms["two"] = {"UUID": "two", "EventSourceArn": queue}
    try:
        assert [(a, r, m["UUID"]) for a, r, m in bridge.stream_mappings()] == [(ACCOUNT, REGION, "one")]
        live = bridge.stream_mapping("one")
        assert live is functions._esms["one"]
        assert bridge.stream_mapping("none") is None
    finally:
        functions._esms.pop("one")
        functions._esms.pop("two")
