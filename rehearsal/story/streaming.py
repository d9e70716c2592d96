"""Chapter: the stream's own consumer writes features as records arrive, under faults."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

from rehearsal.story.ingestion import (
    BEYOND_AN_INVOCATION,
    DELIVERED_KINDS,
    Batch,
    Sent,
    deliver,
    json_lines,
    quarantined,
    record_id,
    send,
)
from rehearsal.story.tale import Tale
from rehearsal.story.telling import Evidence, Step, require

if TYPE_CHECKING:
    from ml_contract.spec.workload import Workload

__all__ = ["STEPS", "online"]

CHAPTER = "Consume the stream"
SAMPLE = 40
#: Records of the batch that is sent under faults.
FAULTED = 30
#: Above what a synchronous invocation takes (6 MB), as it is sent and as base64.
LARGE_BYTES = 7 * 1024 * 1024
#: What the feature store and the quarantine meet, call by call: busy for longer than one invocation tries,
#: a function that dies after a call was carried out, and one that dies before.
PUT_FAULTS = (*["ThrottlingException"] * 70, None, "InternalFailure", None, "kill-after", None, "kill-before")
KEEP_FAULTS = ("SlowDown", "kill-after")


def _consumed(tale: Tale, evidence: Evidence) -> None:
    tale.cloud.idle()
    batch: Batch = tale.known["first batch"]
    counts = _counts(tale)
    refused = Counter(line["record_id"] for line in quarantined(tale, "ConsumerQuarantineUri"))
    bad = Counter(record_id(m.data) for m in batch.messages if m.kind not in DELIVERED_KINDS)
    evidence |= {
        "function": tale.outputs("Data")["StreamConsumerName"],
        "sent": len(batch.messages),
        "read": counts["polled"],
        "invocations": counts["invocations"],
        "quarantined_by_the_consumer": sum(refused.values()),
        "given_up": counts["kept_aside"],
        "lost": counts["dropped"],
    }
    require(
        counts["polled"] == len(batch.messages),
        f"the consumer read {counts['polled']} of {len(batch.messages)} records",
    )
    require(counts["kept_aside"] == counts["dropped"] == 0, f"records were given up: {counts['conditions']}")
    require(refused == bad, "the consumer refuses other records than the delivery path")
    online(tale, batch, evidence)


def online(tale: Tale, batch: Batch, evidence: Evidence) -> None:
    """Every record that fits is online, in the version of the latest event; a sample in every value."""
    wanted = _latest(tale, batch)
    sample = random.Random(tale.seed).sample(sorted(wanted), min(SAMPLE, len(wanted)))  # noqa: S311
    values = 0
    for identifier in sample:
        found = _record(tale, identifier)
        require(found in wanted[identifier], "an online row is no version of the latest event")
        values += len(found)
    absent = [identifier for identifier in wanted if not _record(tale, identifier)]
    evidence |= {"records_online": len(wanted) - len(absent), "records_compared": len(sample)}
    evidence["values_compared"] = values
    require(not absent, f"{len(absent)} records that fit are not in the online store")


def _latest(tale: Tale, batch: Batch) -> dict[str, list[dict[str, str]]]:
    """What the online store may hold, by identifier: of several versions one of the latest event."""
    from ml_contract.features.online import feature_record
    from ml_contract.records.codec import RecordCodec, Rejected

    codec, features = RecordCodec(tale.contract), feature_record(tale.contract)
    versions: dict[str, list[dict[str, str]]] = {}
    for message in batch.messages:
        if message.kind in DELIVERED_KINDS:
            record = codec.decode(message.data)
            if isinstance(record, Rejected):
                raise TypeError(f"a message of kind {message.kind} does not fit the contract")
            texts = features(record.values)
            versions.setdefault(texts[tale.contract.identifier], []).append(texts)
    time = tale.contract.event_time
    latest = {identifier: max(texts[time] for texts in found) for identifier, found in versions.items()}
    return {
        identifier: [texts for texts in found if texts[time] == latest[identifier]]
        for identifier, found in versions.items()
    }


def _record(tale: Tale, identifier: str) -> dict[str, str]:
    answer = tale.cloud.client("sagemaker-featurestore-runtime").get_record(
        FeatureGroupName=tale.outputs("Data")["FeatureGroupName"], RecordIdentifierValueAsString=identifier
    )
    return {f["FeatureName"]: f["ValueAsString"] for f in answer.get("Record", ())}


def _counts(tale: Tale) -> dict[str, Any]:
    """How the records of the consumer's mapping ended so far."""
    uri = tale.outputs("Data")["ConsumerFailuresUri"]
    server = tale.cloud.server
    found = server.control("GET", "/event-source-mappings")["mappings"]
    counts: dict[str, Any] = found[uri.rstrip("/").rpartition("/")[2]]
    return counts


def _redelivered(tale: Tale, evidence: Evidence) -> None:
    """Hand the function records that it has seen, in another order and other pieces."""
    batch: Batch = tale.known["first batch"]
    events = _events(tale)
    require(len(events) == len(batch.messages), "the stream does not hold what was sent")
    identifiers = sorted(_latest(tale, batch))[:SAMPLE]
    uri = tale.outputs("Data")["ConsumerQuarantineUri"]
    online = {identifier: _record(tale, identifier) for identifier in identifiers}
    refused = sorted(line["record_id"] for line in json_lines(tale, uri))
    again = random.Random(tale.seed).sample(events, min(100, len(events)))  # noqa: S311
    client = tale.cloud.client("lambda")
    answers = []
    for part in (again[:30], again[20:]):
        answer = client.invoke(
            FunctionName=tale.outputs("Data")["StreamConsumerName"],
            Payload=json.dumps({"Records": part}).encode(),
        )
        body = json.loads(answer["Payload"].read())
        require(not answer.get("FunctionError"), f"the function failed: {body}")
        answers.append(body)
    require(all(not body["batchItemFailures"] for body in answers), f"records were open: {answers}")
    # Of versions of one event time the store may take either: those of another must not have come back.
    latest = _latest(tale, batch)
    changed = [i for i in identifiers if _record(tale, i) not in latest[i]]
    moved = [i for i in identifiers if len(latest[i]) == 1 and _record(tale, i) != online[i]]
    evidence |= {
        "records_again": len(again),
        "invocations": 2,
        "online_rows_looked_at": len(identifiers),
        "online_rows_changed": len(changed) + len(moved),
    }
    require(not changed and not moved, f"{len(changed) + len(moved)} online rows changed")
    require(
        sorted(line["record_id"] for line in json_lines(tale, uri)) == refused,
        "the consumer's quarantine changed",
    )


def _events(tale: Tale) -> list[dict[str, Any]]:
    """Every record of the stream, as an event source mapping hands it over."""
    kinesis = tale.cloud.client("kinesis")
    name = tale.outputs("Data")["StreamName"]
    found = []
    for shard in kinesis.list_shards(StreamName=name)["Shards"]:
        iterator = kinesis.get_shard_iterator(
            StreamName=name, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        for record in kinesis.get_records(ShardIterator=iterator)["Records"]:
            found.append(
                {
                    "eventID": f"{shard['ShardId']}:{record['SequenceNumber']}",
                    "kinesis": {
                        "sequenceNumber": record["SequenceNumber"],
                        "partitionKey": record["PartitionKey"],
                        "data": base64.b64encode(record["Data"]).decode(),
                        "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"].timestamp(),
                    },
                }
            )
    return found


def _faulted(tale: Tale, evidence: Evidence) -> None:
    """Send records while services are busy and functions are killed; one is beyond any function."""
    first: Batch = tale.known["first batch"]
    before = _counts(tale)
    good = [m.data for m in first.messages if m.kind in DELIVERED_KINDS]
    chosen = random.Random(tale.seed + 1).sample(good, min(FAULTED, len(good)))  # noqa: S311
    # Other bytes, hence other records, of the same content: versions of the same event.
    messages = [Sent(data=b" " + data, kind="clean") for data in chosen]
    poison = [Sent(data=f"no record {i}".encode(), kind="not_json") for i in range(3)]
    messages += poison
    large = b"x" * LARGE_BYTES
    if tale.workload.stream.max_record_kib * 1024 >= LARGE_BYTES:
        messages.append(Sent(data=large, kind=BEYOND_AN_INVOCATION))
    server = tale.cloud.server
    for action, steps in (("sagemaker:PutRecord", PUT_FAULTS), ("s3:PutObject", KEEP_FAULTS)):
        server.control("POST", "/faults", {"action": action, "steps": list(steps)})
    batch = send(tale, messages, evidence)
    tale.cloud.idle()
    left = server.control("GET", "/faults")["left"]
    for action in left:
        server.control("POST", "/faults", {"action": action, "steps": []})
    deliver(tale, batch, evidence)
    after = _counts(tale)
    refused = {line["record_id"] for line in quarantined(tale, "ConsumerQuarantineUri")}
    aside = _given_up(tale)
    online = _latest(tale, first)
    open_ = []
    put = 0
    for message in messages:
        if message.kind in DELIVERED_KINDS:
            texts = _latest(tale, Batch(messages=[message]))
            (identifier,) = texts
            fine = _record(tale, identifier) in online[identifier]
            put += fine
        else:
            fine = record_id(message.data) in refused or record_id(message.data) in aside
        open_ += [] if fine else [message.kind]
    evidence |= {
        "faults_planned": len(PUT_FAULTS) + len(KEEP_FAULTS),
        "faults_not_met": sum(left.values()),
        "invocations": after["invocations"] - before["invocations"],
        "functions_killed": after["failed_invocations"] - before["failed_invocations"],
        # Versions of records that were online before: what is there is right, whichever delivery put it.
        "online_as_they_should_be": put,
        "quarantined_by_the_consumer": sum(record_id(m.data) in refused for m in messages),
        "given_up_and_kept": len(aside),
        "beyond_an_invocation_bytes": LARGE_BYTES if messages[-1].data is large else None,
    }
    require(not open_, f"{len(open_)} records are nowhere: {Counter(open_).most_common(3)}")
    require(after["dropped"] == 0, f"Lambda dropped {after['dropped']} records")
    require(not left, f"faults were planned and not met: {left}")


def _given_up(tale: Tale) -> set[str]:
    """Ids of the records that Lambda gave up and kept, as they are in what it wrote."""
    found = set()
    for uri in tale.cloud.objects.list(tale.outputs("Data")["ConsumerFailuresUri"]):
        payload = json.loads(tale.cloud.objects.read_json(uri)["payload"])
        found |= {record_id(base64.b64decode(r["kinesis"]["data"])) for r in payload["Records"]}
    return found


def _has_consumer(workload: Workload) -> bool:
    return workload.stream.consumer is not None


STEPS: tuple[Step, ...] = (
    Step(
        id="consume",
        title="Features are in the online store as records arrive",
        chapter=CHAPTER,
        run=_consumed,
        capabilities=lambda _: ("stream.consumer", "stream.kinesis", "feature.online"),
        applies=_has_consumer,
    ),
    Step(
        id="redeliver",
        title="The same records again, in other pieces: nothing changes",
        chapter=CHAPTER,
        run=_redelivered,
        capabilities=lambda _: ("stream.consumer",),
        applies=_has_consumer,
    ),
    Step(
        id="faults",
        title="Throttled, killed, a record beyond any function: all accounted for",
        chapter=CHAPTER,
        run=_faulted,
        capabilities=lambda _: ("stream.consumer", "stream.firehose"),
        applies=_has_consumer,
    ),
)
