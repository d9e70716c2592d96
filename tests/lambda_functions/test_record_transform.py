"""The record transform: what Firehose gets back, what the quarantine holds, what is raised."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from ml_contract.load import load_workload
from ml_contract.made_up.dirt import DELIVERED, Dirt, soil
from ml_contract.records.codec import RecordCodec
from moto import mock_aws
from record_transform import handler as module
from record_transform.errors import BadEventError, MisconfiguredError, TransientError
from record_transform.logic import transform
from record_transform.settings import Settings
from record_transform.storage import Quarantine

from workloads.claims_fraud.generate import generate

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = load_workload(ROOT / "workloads" / "claims_fraud").compiled
CODEC = RecordCodec(CONTRACT)
ARRIVAL = 1_448_150_400_123  # 2015-11-22T00:00:00.123Z


def entry(data: bytes, n: int = 0, arrival: int = ARRIVAL) -> dict[str, Any]:
    encoded = base64.b64encode(data).decode()
    return {"recordId": f"id-{n}", "approximateArrivalTimestamp": arrival, "data": encoded}


def claim(seed: int = 1) -> bytes:
    return json.dumps(generate(1, seed)[0]).encode()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The function's surroundings: its environment, its contract, a bucket."""
    contract = tmp_path / "contract.json"
    contract.write_text(CONTRACT.to_json())
    monkeypatch.setenv("CONTRACT_PATH", str(contract))
    monkeypatch.setenv("QUARANTINE_URI", "s3://lake/claims-fraud/quarantine/")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="lake", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        _forget()
        yield client
    _forget()


def _forget() -> None:
    module._codec.cache_clear()
    module._quarantine.cache_clear()


def quarantined(client: Any) -> dict[str, list[dict[str, Any]]]:
    found = client.list_objects_v2(Bucket="lake").get("Contents", [])
    return {
        o["Key"]: [
            json.loads(line)
            for line in client.get_object(Bucket="lake", Key=o["Key"])["Body"].read().splitlines()
        ]
        for o in found
    }


def test_should_deliver_typed_columns_with_identity_and_arrival(bucket: Any) -> None:
    data = claim()
    answer = module.handler({"records": [entry(data)]}, None)
    (record,) = answer["records"]
    assert (record["recordId"], record["result"]) == ("id-0", "Ok")
    line = base64.b64decode(record["data"])
    assert line.endswith(b"}\n")
    row = json.loads(line)
    assert set(row) == {name for name, _ in CONTRACT.glue_columns()}
    assert row["record_id"] == hashlib.blake2b(data, digest_size=16).hexdigest()
    assert row["received_at"] == "2015-11-22T00:00:00.123Z"
    month, day, year = json.loads(data)["incident_date"].split("/")
    assert row["incident_date"] == f"{year}-{month:>02}-{day:>02}"
    assert quarantined(bucket) == {}


def test_should_lose_no_record_and_say_why_it_refuses(
    bucket: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    dirt = Dirt(
        wrong_type=2, missing_identifier=2, not_json=2, not_utf8=2, huge=1, unknown_field=2, unknown_label=2,
        duplicate=3, late=2,
    )  # fmt: skip
    messages = soil(generate(40, 3), CONTRACT, dirt, 3)
    answer = module.handler({"records": [entry(m.data, n) for n, m in enumerate(messages)]}, None)["records"]
    assert [r["recordId"] for r in answer] == [f"id-{n}" for n in range(len(messages))]
    assert [r["result"] for r in answer] == ["Ok" if m.kind in DELIVERED else "Dropped" for m in messages]
    ((key, lines),) = quarantined(bucket).items()
    assert key.startswith("claims-fraud/quarantine/ingest_date=2015-11-22/")
    assert key.endswith(".jsonl")
    refused = [m.data for m in messages if m.kind not in DELIVERED]
    assert [base64.b64decode(line["data_base64"]) for line in lines] == refused
    assert all(set(line) == {"received_at", "record_id", "reasons", "data_base64"} for line in lines)
    assert all(
        set(r) == {"code", "field", "value", "allowed", "message"} for line in lines for r in line["reasons"]
    )
    logged = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (logged["received"], logged["delivered"], logged["quarantined"]) == (58, 45, 13)
    assert logged["reasons"] == {
        "missing_required": 2, "not_json": 2, "not_utf8": 2, "too_large": 1, "unknown_field": 2,
        "unknown_label": 2, "wrong_type": 2,
    }  # fmt: skip
    # The log is no place for what records say.
    assert not any(claim["policy_number"] in json.dumps(logged) for claim in generate(40, 3))
    assert not any(claim["incident_location"] in json.dumps(logged) for claim in generate(40, 3))


def test_should_write_the_same_quarantine_file_when_the_batch_comes_again(bucket: Any) -> None:
    event = {"records": [entry(b"no json", 1), entry(claim(), 2), entry(b"[]", 3)]}
    first = module.handler(event, None)
    once = quarantined(bucket)
    assert module.handler(event, None) == first
    assert quarantined(bucket) == once
    assert len(once) == 1


def test_should_not_drop_records_when_the_quarantine_cannot_be_written(
    bucket: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUARANTINE_URI", "s3://another-bucket/q/")
    with pytest.raises(MisconfiguredError, match="NoSuchBucket"):
        module.handler({"records": [entry(b"no json")]}, None)
    assert json.loads(capsys.readouterr().out)["error"] == "MisconfiguredError"


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        {"records": "none"},
        {"records": [{"recordId": "1"}]},
        {"records": [{"recordId": "1", "data": "***", "approximateArrivalTimestamp": 1}]},
        {"records": [{"recordId": "1", "data": "YQ==", "approximateArrivalTimestamp": "soon"}]},
        {"records": [{"recordId": "1", "data": "YQ==", "approximateArrivalTimestamp": 10**20}]},
    ],
)
def test_should_refuse_an_event_that_is_not_firehoses(bucket: Any, event: Any) -> None:
    with pytest.raises(BadEventError):
        module.handler(event, None)


def test_should_leave_to_firehose_what_the_answer_cannot_hold() -> None:
    records = [entry(claim(seed), seed) for seed in range(6)]
    size = len(transform(records[:1], CODEC).records[0]["data"])
    batch = transform(records, CODEC, max_response_bytes=int(3.5 * (size + 150)))
    assert [r["result"] for r in batch.records] == ["Ok"] * 3 + ["ProcessingFailed"] * 3
    assert (batch.delivered, batch.too_long) == (3, 3)


def test_should_give_the_same_bytes_the_same_identity() -> None:
    data = claim()
    batch = transform([entry(data, 1), entry(data, 2, ARRIVAL + 5)], CODEC)
    one, two = (json.loads(base64.b64decode(r["data"])) for r in batch.records)
    assert one["record_id"] == two["record_id"]
    assert one["received_at"] != two["received_at"]


def refusal(code: str, status: int) -> ClientError:
    response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "PutObject")


class FailingS3:
    """A client whose puts fail as told."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def put_object(self, **_: Any) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (refusal("SlowDown", 503), TransientError),
        (refusal("InternalError", 500), TransientError),
        (refusal("AccessDenied", 403), MisconfiguredError),
        (EndpointConnectionError(endpoint_url="https://s3"), TransientError),
    ],
)  # fmt: skip
def test_should_tell_errors_worth_another_try_from_others(error: Exception, raised: type[Exception]) -> None:
    with pytest.raises(raised):
        Quarantine(FailingS3(error), "lake", "q/").write("key", b"")


def test_should_say_everything_that_is_wrong_with_the_environment(tmp_path: Path) -> None:
    with pytest.raises(MisconfiguredError) as caught:
        Settings.from_environment({"QUARANTINE_URI": "lake/q", "CONTRACT_PATH": str(tmp_path / "none.json")})
    assert "QUARANTINE_URI must be s3://bucket/prefix/, got 'lake/q'" in str(caught.value)
    assert "the compiled contract must stand at" in str(caught.value)


def test_should_say_that_a_file_is_no_contract(bucket: Any, tmp_path: Path) -> None:
    (tmp_path / "contract.json").write_text('{"version": 1}')
    with pytest.raises(MisconfiguredError, match="is no compiled contract"):
        module.handler({"records": []}, None)


def test_should_copy_what_the_context_holds_into_the_image() -> None:
    """The Dockerfile names exactly the parts that are staged for it."""
    lines = (ROOT / "lambda" / "record_transform" / "Dockerfile").read_text().splitlines()
    copied = [line.split()[1] for line in lines if line.startswith("COPY")]
    assert copied == ["requirements.txt", "ml_contract", "function_log", "record_transform", "contract.json"]
    assert lines[-1] == 'CMD ["record_transform.handler.handler"]'
    needed = {"boto3", "msgspec"}
    pinned = (ROOT / "lambda" / "record_transform" / "requirements.txt").read_text().split()
    assert {line.split("==")[0] for line in pinned} == needed
