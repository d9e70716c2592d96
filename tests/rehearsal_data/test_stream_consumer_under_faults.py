"""The consumer's own program on a stream of the embedded AWS, throttled and killed on purpose."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from ml_contract.features.online import feature_record
from ml_contract.load import load_workload
from ml_contract.records.codec import RecordCodec
from ml_lifecycle.code import lambda_context

from rehearsal.server import ServerProcess
from workloads.claims_fraud.generate import generate

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = load_workload(ROOT / "workloads" / "claims_fraud").compiled
CODEC = RecordCodec(CONTRACT)
FEATURES = feature_record(CONTRACT)
PUT, KEEP = "sagemaker:PutRecord", "s3:PutObject"


def message(claim: dict[str, Any]) -> bytes:
    return json.dumps(claim).encode()


def expected(data: bytes) -> dict[str, str]:
    """What the online store must hold of a message that fits."""
    record = CODEC.decode(data)
    return FEATURES(record.values)  # type: ignore[union-attr]


@dataclass
class Stage:
    """A stream, the consumer on it, a feature group and a bucket."""

    server: ServerProcess
    client: Callable[[str], Any]
    name: str
    mapping: str

    def send(self, messages: Sequence[bytes]) -> None:
        entries = [{"Data": data, "PartitionKey": "one"} for data in messages]
        answer = self.client("kinesis").put_records(StreamName=self.name, Records=entries)
        assert answer["FailedRecordCount"] == 0

    def plan(self, action: str, *steps: str | None) -> None:
        self.server.control("POST", "/faults", {"action": action, "steps": list(steps)})

    def settle(self) -> None:
        answer = self.server.control("GET", "/idle?timeout_seconds=120", timeout_seconds=150)
        assert answer["idle"], answer

    def counts(self) -> dict[str, Any]:
        found = self.server.control("GET", "/event-source-mappings")["mappings"]
        counts: dict[str, Any] = found[self.mapping]
        return counts

    def online(self, identifier: str) -> dict[str, str]:
        answer = self.client("sagemaker-featurestore-runtime").get_record(
            FeatureGroupName=self.name, RecordIdentifierValueAsString=identifier
        )
        return {f["FeatureName"]: f["ValueAsString"] for f in answer.get("Record", ())}

    def objects(self, prefix: str) -> dict[str, bytes]:
        s3 = self.client("s3")
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return {key: s3.get_object(Bucket=self.name, Key=key)["Body"].read() for key in keys}

    def quarantined(self) -> list[dict[str, Any]]:
        return [json.loads(line) for body in self.objects("q/").values() for line in body.splitlines()]

    def given_up(self) -> list[bytes]:
        """The records of every batch that Lambda kept aside."""
        found = []
        for body in self.objects("aws/lambda/").values():
            payload = json.loads(json.loads(body)["payload"])
            found += [base64.b64decode(record["kinesis"]["data"]) for record in payload["Records"]]
        return found

    def account(self, messages: Sequence[bytes]) -> Counter[str]:
        """Where each message is; a message that fits must be online with exactly its features."""
        refused = Counter(line["record_id"] for line in self.quarantined())
        aside = Counter(self.given_up())
        ends: Counter[str] = Counter()
        for data in dict.fromkeys(messages):
            identity = blake2b(data, digest_size=16).hexdigest()
            sent = messages.count(data)
            if refused[identity]:
                assert refused[identity] == sent, "once for each time it was sent"
                ends["quarantined"] += sent
            elif aside[data]:
                ends["given up"] += sent
            else:
                texts = expected(data)
                assert self.online(texts[CONTRACT.identifier]) == texts
                ends["put"] += sent
        return ends


def packed() -> bytes:
    folder = lambda_context("stream_consumer", CONTRACT)
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
    return sink.getvalue()


@pytest.fixture
def stage(
    request: pytest.FixtureRequest, server: ServerProcess, client: Callable[[str], Any], role: Any
) -> Stage:
    name = "c-" + request.node.originalname.removeprefix("test_should_").replace("_", "-")[:40].strip("-")
    client("s3").create_bucket(Bucket=name)
    client("kinesis").create_stream(StreamName=name, ShardCount=1)
    stream = client("kinesis").describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    client("sagemaker").create_feature_group(
        FeatureGroupName=name,
        RecordIdentifierFeatureName=CONTRACT.identifier,
        EventTimeFeatureName=CONTRACT.event_time,
        FeatureDefinitions=[
            {"FeatureName": n, "FeatureType": kind} for n, kind in CONTRACT.feature_definitions()
        ],
        OnlineStoreConfig={"EnableOnlineStore": True},
    )
    consumer = client("kinesis").register_stream_consumer(
        StreamARN=stream["StreamARN"], ConsumerName="online"
    )["Consumer"]
    arn = role(
        name,
        "lambda.amazonaws.com",
        [
            {"Action": ["kinesis:DescribeStream", "kinesis:DescribeStreamSummary", "kinesis:ListShards"]},
            {"Action": ["kinesis:GetShardIterator", "kinesis:GetRecords", "kinesis:SubscribeToShard"]},
            {"Action": ["kinesis:DescribeStreamConsumer", "sagemaker:PutRecord"]},
            {
                "Action": "s3:PutObject",
                "Resource": [f"arn:aws:s3:::{name}/q/*", f"arn:aws:s3:::{name}/aws/lambda/*"],
            },
        ],
    )
    function = client("lambda").create_function(
        FunctionName=name,
        Runtime="python3.13",
        Handler="stream_consumer.handler.handler",
        Role=arn,
        Timeout=60,
        Code={"ZipFile": packed()},
        Environment={"Variables": {"FEATURE_GROUP_NAME": name, "QUARANTINE_URI": f"s3://{name}/q/"}},
    )
    made = client("lambda").create_event_source_mapping(
        EventSourceArn=consumer["ConsumerARN"],
        FunctionName=function["FunctionArn"],
        StartingPosition="TRIM_HORIZON",
        BatchSize=50,
        MaximumRetryAttempts=4,
        MaximumRecordAgeInSeconds=3600,
        BisectBatchOnFunctionError=True,
        FunctionResponseTypes=["ReportBatchItemFailures"],
        DestinationConfig={"OnFailure": {"Destination": f"arn:aws:s3:::{name}"}},
    )
    return Stage(server, client, name, made["UUID"])


def batch(seed: int, fit: int = 30) -> list[bytes]:
    """Messages: some that fit, a duplicate, an older version of another, and some that do not fit."""
    claims = generate(fit, seed)
    messages = [message(claim) for claim in claims]
    poison = [b"no json", b"[]", message({**claims[0], "policy_number": None}), b"no json"]
    return [*messages[:10], *poison, *messages[10:], messages[3], messages[3]]


def test_should_put_what_fits_and_quarantine_the_rest(stage: Stage) -> None:
    messages = batch(1)
    stage.send(messages)
    stage.settle()
    ends = stage.account(messages)
    assert ends == {"put": 32, "quarantined": 4}
    assert stage.counts()["failed_invocations"] == 0
    lines = stage.quarantined()
    assert all(set(line) == {"received_at", "record_id", "reasons", "data_base64"} for line in lines)
    assert all(line["reasons"] for line in lines)


@pytest.mark.parametrize("seed", [2])
def test_should_account_for_every_record_under_throttling_and_kills(stage: Stage, seed: int) -> None:
    messages = batch(seed)
    stage.plan(
        PUT,
        *["ThrottlingException"] * 70,
        *[None, "InternalFailure"] * 3,
        "kill-after",
        None,
        "kill-before",
    )
    stage.plan(KEEP, "SlowDown", "kill-after")
    stage.send(messages)
    stage.settle()
    ends = stage.account(messages)
    assert sum(ends.values()) == len(messages)
    assert ends["quarantined"] == 4
    assert stage.server.control("GET", "/faults")["left"] == {}, "every fault was met"
    counts = stage.counts()
    assert counts["failed_invocations"] >= 2, "functions were killed"
    assert counts["dropped"] == 0
    # A second delivery of the same records changes nothing.
    before = {name: stage.objects("q/")[name] for name in stage.objects("q/")}
    stage.send(messages[:5])
    stage.settle()
    assert {name: body for name, body in stage.objects("q/").items() if name in before} == before
    assert stage.account(messages)["quarantined"] == 4


def test_should_keep_what_cannot_be_put_through_every_try(stage: Stage) -> None:
    messages = batch(3, fit=5)[:5]
    stage.plan(PUT, *["ServiceUnavailable"] * 2000)
    stage.send(messages)
    stage.settle()
    stage.plan(PUT)
    assert sorted(stage.given_up()) == sorted(messages)
    counts = stage.counts()
    assert counts["kept_aside"] == 5
    assert counts["conditions"] == {"RetryAttemptsExhausted": 5}
    # The stream goes on behind them.
    later = [message(claim) for claim in generate(3, 99)]
    stage.send(later)
    stage.settle()
    for data in later:
        texts = expected(data)
        assert stage.online(texts[CONTRACT.identifier]) == texts


def test_should_keep_a_record_that_no_invocation_takes_and_go_on(
    stage: Stage, client: Callable[[str], Any]
) -> None:
    large = b'{"policy_number": "' + b"9" * (6 * 1024 * 1024) + b'"}'
    kinesis = client("kinesis")
    with pytest.raises(kinesis.exceptions.ClientError, match="1048576"):
        kinesis.put_record(StreamName=stage.name, Data=large, PartitionKey="one")
    stream = kinesis.describe_stream_summary(StreamName=stage.name)["StreamDescriptionSummary"]
    kinesis.update_max_record_size(StreamARN=stream["StreamARN"], MaxRecordSizeInKiB=10_240)
    kinesis.put_record(StreamName=stage.name, Data=large, PartitionKey="one")
    # Long, yet within an invocation: the function quarantines it, as every record above 64 KiB.
    longish = b'{"policy_number": "' + b"8" * (2 * 1024 * 1024) + b'"}'
    kinesis.put_record(StreamName=stage.name, Data=longish, PartitionKey="one")
    after = [message(claim) for claim in generate(3, 98)]
    stage.send(after)
    stage.settle()
    assert stage.given_up() == [large]
    assert stage.counts()["conditions"] == {"PayloadSizeLimitExceeded": 1}
    (line,) = stage.quarantined()
    assert line["reasons"][0]["code"] == "too_large"
    assert stage.account([*after, large, longish]) == {"put": 3, "given up": 1, "quarantined": 1}


def test_should_never_let_an_older_claim_replace_a_newer_one(stage: Stage) -> None:
    newest = {**generate(1, 7)[0], "incident_date": "02/20/2015", "witnesses": 3}
    older = {**newest, "incident_date": "01/05/2015", "witnesses": 1}
    stage.send([message(newest), message(older)])
    stage.settle()
    stage.send([message(older)])
    stage.settle()
    texts = expected(message(newest))
    assert stage.online(texts[CONTRACT.identifier]) == texts
