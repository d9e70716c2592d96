"""The consumer function: its answer, its errors, its environment, its image."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from ml_contract.load import load_workload
from ml_lifecycle.code import lambda_context
from record_transform.storage import Quarantine
from stream_consumer import handler as module
from stream_consumer.errors import BadEventError, MisconfiguredError, RefusedError, TransientError
from stream_consumer.settings import Settings
from stream_consumer.store import ATTEMPTS, OnlineStore

from workloads.claims_fraud.generate import generate

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = load_workload(ROOT / "workloads" / "claims_fraud").compiled


def refusal(code: str, status: int = 400) -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": "why"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(response, "PutRecord")


class Client:
    """A client whose calls fail as told, then work."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls: list[dict[str, Any]] = []

    def put_record(self, **call: Any) -> None:
        self.calls.append(call)
        if self.errors:
            raise self.errors.pop(0)

    put_object = put_record


def entry(number: int, data: bytes) -> dict[str, Any]:
    return {
        "eventID": f"shardId-000000000003:{number}",
        "kinesis": {
            "sequenceNumber": str(number),
            "data": base64.b64encode(data).decode(),
            "approximateArrivalTimestamp": 1_448_150_400.123,
        },
    }


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Client, Client]]:
    """The function's surroundings: a contract, and services that remember."""
    (tmp_path / "contract.json").write_text(CONTRACT.to_json())
    monkeypatch.setenv("CONTRACT_PATH", str(tmp_path / "contract.json"))
    monkeypatch.setenv("QUARANTINE_URI", "s3://lake/claims-fraud/consumer-quarantine")
    monkeypatch.setenv("FEATURE_GROUP_NAME", "claims")
    store, bucket = Client(), Client()
    online = OnlineStore(store, "claims", sleep=lambda _seconds: None)
    quarantine = Quarantine(bucket, "lake", "claims-fraud/consumer-quarantine/")
    monkeypatch.setattr(module, "_services", lambda: (online, quarantine))
    for cached in (module._settings, module._reader):
        cached.cache_clear()
    yield store, bucket
    for cached in (module._settings, module._reader):
        cached.cache_clear()


def test_should_put_features_online_only_and_keep_what_does_not_fit(
    services: tuple[Client, Client], capsys: pytest.CaptureFixture[str]
) -> None:
    store, bucket = services
    claim = generate(1, 3)[0]
    event = {"Records": [entry(7, json.dumps(claim).encode()), entry(8, b"no json")]}
    assert module.handler(event, None) == {"batchItemFailures": []}
    (put,) = store.calls
    assert (put["FeatureGroupName"], put["TargetStores"]) == ("claims", ["OnlineStore"])
    values = {f["FeatureName"]: f["ValueAsString"] for f in put["Record"]}
    assert values["policy_number"] == str(claim["policy_number"])
    (kept,) = bucket.calls
    assert kept["Key"] == (
        "claims-fraud/consumer-quarantine/ingest_date=2015-11-22/shardId-000000000003-8.jsonl"
    )
    line = json.loads(kept["Body"])
    assert set(line) == {"received_at", "record_id", "reasons", "data_base64"}
    assert line["reasons"][0]["code"] == "not_json"
    logged = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (logged["received"], logged["put"], logged["quarantined"]) == (2, 1, 1)
    assert str(claim["policy_number"]) not in json.dumps(logged)


def test_should_keep_a_record_that_the_store_refuses_with_its_reason(services: tuple[Client, Client]) -> None:
    store, bucket = services
    store.errors = [refusal("ValidationError")]
    event = {"Records": [entry(7, json.dumps(generate(1, 3)[0]).encode())]}
    assert module.handler(event, None) == {"batchItemFailures": []}
    (reason,) = json.loads(bucket.calls[0]["Body"])["reasons"]
    assert (reason["code"], reason["message"]) == (
        "feature_store_refused",
        "ValidationError: " + str(refusal("ValidationError").response["Error"]["Message"]),
    )


def test_should_fail_when_nothing_can_be_put_until_a_person_acts(services: tuple[Client, Client]) -> None:
    store, bucket = services
    store.errors = [refusal("AccessForbidden", 403)] * 9
    with pytest.raises(MisconfiguredError, match="AccessForbidden"):
        module.handler({"Records": [entry(7, json.dumps(generate(1, 3)[0]).encode())]}, None)
    assert not bucket.calls, "a missing permission is no fault of a record"


def test_should_begin_nothing_in_the_last_seconds(services: tuple[Client, Client]) -> None:
    store, _ = services
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: 7_999, aws_request_id="r")
    event = {"Records": [entry(7, json.dumps(generate(1, 3)[0]).encode())]}
    assert module.handler(event, context) == {"batchItemFailures": [{"itemIdentifier": "7"}]}
    assert not store.calls


@pytest.mark.usefixtures("services")
@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        {"Records": "none"},
        {"Records": [{"kinesis": {}}]},
        {"Records": [{**entry(1, b"x"), "eventID": None, "kinesis": {"data": "YQ=="}}]},
        {"Records": [{"eventID": "s:1", "kinesis": {**entry(1, b"x")["kinesis"], "data": "***"}}]},
        {"Records": [{"eventID": "s:1", "kinesis": {**entry(1, b"x")["kinesis"], "sequenceNumber": "one"}}]},
    ],
)
def test_should_refuse_an_event_that_is_not_a_streams(event: Any) -> None:
    with pytest.raises(BadEventError):
        module.handler(event, None)


@pytest.mark.parametrize(
    ("error", "raised", "calls"),
    [
        (refusal("ThrottlingException"), TransientError, ATTEMPTS),
        (refusal("Odd", 503), TransientError, ATTEMPTS),
        (refusal("Odd", 429), TransientError, ATTEMPTS),
        (EndpointConnectionError(endpoint_url="https://f"), TransientError, ATTEMPTS),
        (refusal("ValidationError"), RefusedError, 1),
        (refusal("ResourceNotFound", 404), MisconfiguredError, 1),
    ],
)  # fmt: skip
def test_should_try_again_only_what_may_pass(error: Exception, raised: type[Exception], calls: int) -> None:
    client = Client(*[error] * 9)
    waits: list[float] = []
    store = OnlineStore(client, "claims", sleep=waits.append, spread=lambda: 1.0)
    with pytest.raises(raised):
        store.put({"policy_number": "1"})
    assert len(client.calls) == calls
    assert waits == [0.05, 0.1, 0.2][: calls - 1]


def test_should_say_everything_that_is_wrong_with_the_environment(tmp_path: Path) -> None:
    with pytest.raises(MisconfiguredError) as caught:
        Settings.from_environment({"QUARANTINE_URI": "lake/q", "CONTRACT_PATH": str(tmp_path / "none.json")})
    for part in ("QUARANTINE_URI must be", "FEATURE_GROUP_NAME must", "the compiled contract must stand at"):
        assert part in str(caught.value)


def test_should_copy_what_the_context_holds_into_the_image() -> None:
    lines = (ROOT / "lambda" / "stream_consumer" / "Dockerfile").read_text().splitlines()
    copied = {line.split()[1] for line in lines if line.startswith("COPY")}
    staged = lambda_context("stream_consumer", CONTRACT)
    assert {path.name for path in staged.iterdir()} == {*copied, "Dockerfile"}
    assert not (staged / "record_transform" / "Dockerfile").exists()
    assert (staged / "record_transform" / "storage.py").is_file()
    assert lines[-1] == 'CMD ["stream_consumer.handler.handler"]'
    pinned = (ROOT / "lambda" / "stream_consumer" / "requirements.txt").read_text()
    assert pinned == (ROOT / "lambda" / "record_transform" / "requirements.txt").read_text()
