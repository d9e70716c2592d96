"""Lambda's event source mappings on Kinesis: batches, tries, halves, ages, what is given up and kept.

A mapping reads its stream as its function's role, through a registered consumer where it names one, and
writes what it gives up as that role too. ``rehearsal.stream_batches`` holds the rules.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from rehearsal import ministack_bridge as bridge
from rehearsal.control import control
from rehearsal.iam import AccessDeniedError
from rehearsal.ministack_bridge import Check
from rehearsal.services.engine import ApiError, instead
from rehearsal.stream_batches import (
    GivenUp,
    Record,
    Result,
    Rules,
    batches,
    carry,
    event_of,
    size_in_event,
)

if TYPE_CHECKING:
    from rehearsal.runtime import Runtime
    from rehearsal.services.engine import Call, Service

__all__ = ["install"]

#: What a mapping asks of the stream, and of its own consumer where it has one (Lambda Developer Guide,
#: "Process Amazon Kinesis Data Streams records with Lambda").
_STREAM_ACTIONS = ("kinesis:DescribeStream", "kinesis:DescribeStreamSummary", "kinesis:ListShards")
_POLL_ACTIONS = ("kinesis:GetShardIterator", "kinesis:GetRecords")
_FAN_OUT_ACTIONS = ("kinesis:SubscribeToShard", "kinesis:DescribeStreamConsumer")
#: Real seconds before a batch is tried again; the service waits longer.
_PAUSE_SECONDS = 0.05
#: A batch that is tried without a bound waits for the clock after so many tries at once.
_AT_ONCE = 5
#: A destination that is busy is asked as often as an AWS SDK asks by default.
_KEEP_ATTEMPTS = 3
_LATER = timedelta(seconds=30)


@dataclass
class _Counts:
    """How the records of a mapping ended."""

    polled: int = 0
    invocations: int = 0
    failed_invocations: int = 0
    kept_aside: int = 0
    dropped: int = 0
    conditions: dict[str, int] = field(default_factory=dict)


class _WaitError(Exception):
    """A batch is tried again when the clock has moved."""


class Mappings:
    """The event source mappings of a server."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._after: dict[tuple[str, str], str] = {}
        self._counts: dict[str, _Counts] = {}
        self._reading: set[str] = set()
        self._again: set[str] = set()
        self._lock = threading.Lock()

    # -- when ------------------------------------------------------------------------------------------

    def heard(self, region: str, stream_arn: str) -> None:
        """Read a stream that has new records for every mapping on it."""
        for _, where, mapping in bridge.stream_mappings():
            if where == region and stream_of(mapping) == stream_arn:
                self.start(region, str(mapping["UUID"]))

    def made(self, identifier: str, properties: Mapping[str, Any]) -> None:
        """Complete a mapping that CloudFormation made, and begin to read."""
        mapping = bridge.stream_mapping(identifier)
        if mapping is None or ":kinesis:" not in str(mapping.get("EventSourceArn", "")):
            return
        # ministack's CloudFormation leaves this one out.
        mapping["MetricsConfig"] = properties.get("MetricsConfig")
        self.start(bridge.current_region(), identifier)

    def start(self, region: str, identifier: str) -> None:
        """Read for a mapping; once for all that comes meanwhile."""
        with self._lock:
            if identifier in self._reading:
                self._again.add(identifier)
                return
            self._reading.add(identifier)
        self.runtime.background(f"event source mapping {identifier[:8]}", self._read, region, identifier)

    def _read(self, region: str, identifier: str) -> None:
        while True:
            try:
                self._read_once(region, identifier)
            except _WaitError:
                self._later(region, identifier)
            except (ClientError, BotoCoreError, AccessDeniedError) as error:
                # The service goes on trying; here the next record or the clock is what tries again.
                self.runtime.ledger.failed("event-source-mapping", identifier, str(error))
                self._later(region, identifier)
            except BaseException:
                with self._lock:
                    self._reading.discard(identifier)
                raise
            with self._lock:
                if identifier not in self._again or self.runtime.stopping.is_set():
                    self._reading.discard(identifier)
                    return
                self._again.discard(identifier)

    def _later(self, region: str, identifier: str) -> None:
        due = self.runtime.clock.now() + _LATER
        title = f"event source mapping {identifier[:8]} tries again"
        self.runtime.clock.at(due, title, lambda: self.start(region, identifier))

    # -- what ------------------------------------------------------------------------------------------

    def _mapping(self, region: str, identifier: str) -> dict[str, Any] | None:
        for _, where, mapping in bridge.stream_mappings():
            if where == region and mapping["UUID"] == identifier:
                return mapping
        return None

    def _read_once(self, region: str, identifier: str) -> None:
        mapping = self._mapping(region, identifier)
        if mapping is None or str(mapping.get("Enabled", True)).lower() == "false":
            return
        role = bridge.function_role(str(mapping["FunctionArn"]))
        if role is None:
            return
        stream = stream_of(mapping)
        client = self._reader(role, mapping, stream, region)
        shards = [shard["ShardId"] for shard in client.list_shards(StreamARN=stream)["Shards"]]
        for shard in shards:
            while not self.runtime.stopping.is_set():
                found = self._next(client, mapping, stream, shard)
                if not found:
                    break
                self._shard(mapping, role, region, shard, found)

    def _reader(self, role: str, mapping: Mapping[str, Any], stream: str, region: str) -> Any:
        """Return a client that reads the stream; its role was asked first for what it reads with."""
        runtime = self.runtime
        runtime.authorizer.note_service_use(role, _STREAM_ACTIONS, stream, region)
        source = str(mapping["EventSourceArn"])
        if source == stream:
            return runtime.client("kinesis", role=role, region=region)
        runtime.client("kinesis", region=region).describe_stream_consumer(ConsumerARN=source)
        principal = runtime.identities.principal(runtime.identities.for_role(role).access_key_id)
        if principal is None:
            raise ValueError(f"{role} is no role")
        checks = [Check(action=action, resource=source) for action in _FAN_OUT_ACTIONS]
        read = [Check(action="kinesis:GetRecords", resource=stream)]
        checks += bridge.kms_checks("kinesis", read, {}, account=runtime.account, region=region)
        runtime.authorizer.require(principal, "kinesis", checks, region)
        # What a subscription pushes is what GetRecords would answer; the role's own grants for polling are
        # part of what the service asks for all the same.
        runtime.authorizer.note_service_use(role, _POLL_ACTIONS, stream, region)
        return runtime.client("kinesis", region=region)

    def _next(self, client: Any, mapping: Mapping[str, Any], stream: str, shard: str) -> list[Record]:
        position = self._after.get((str(mapping["UUID"]), shard))
        if position is not None:
            start: dict[str, Any] = {
                "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
                "StartingSequenceNumber": position,
            }
        elif mapping.get("StartingPosition") == "TRIM_HORIZON":
            start = {"ShardIteratorType": "TRIM_HORIZON"}
        else:
            made = datetime.fromtimestamp(float(mapping["LastModified"]), UTC)
            start = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": made}
        iterator = client.get_shard_iterator(StreamARN=stream, ShardId=shard, **start)["ShardIterator"]
        most = int(mapping.get("BatchSize", 100)) * int(mapping.get("ParallelizationFactor", 1))
        answer = client.get_records(StreamARN=stream, ShardIterator=iterator, Limit=min(10_000, most))
        # Arrivals are on the machine's clock, which the stream lives on; ages count on the rehearsal's.
        ahead = self.runtime.clock.now() - datetime.now(UTC)
        return [
            Record(
                found["SequenceNumber"],
                found["PartitionKey"],
                found["Data"],
                found["ApproximateArrivalTimestamp"].astimezone(UTC) + ahead,
            )
            for found in answer["Records"]
        ]

    def _shard(
        self, mapping: Mapping[str, Any], role: str, region: str, shard: str, found: Sequence[Record]
    ) -> None:
        """Carry records of a shard to their end, then move the checkpoint past them."""
        identifier, rules = str(mapping["UUID"]), rules_of(mapping)
        self._count(identifier).polled += len(found)
        lanes: dict[int, list[Record]] = {}
        factor = int(mapping.get("ParallelizationFactor", 1))
        for record in found:
            # "Parallelization factor": a partition key stays in one lane, and in order.
            lanes.setdefault(zlib.crc32(record.partition_key.encode()) % factor, []).append(record)

        def lane(records: list[Record]) -> None:
            for batch in batches(records, rules, size_in_event):
                carry(
                    batch,
                    rules,
                    size_of=size_in_event,
                    invoke=lambda part: self._invoke(mapping, role, region, shard, part),
                    give_up=lambda given: self._give_up(mapping, role, region, shard, given),
                    now=self.runtime.clock.now,
                    pause=lambda tries: self._pause(rules, tries),
                )

        if len(lanes) == 1:
            lane(next(iter(lanes.values())))
        else:
            with ThreadPoolExecutor(len(lanes)) as pool:
                for one in [pool.submit(lane, records) for records in lanes.values()]:
                    one.result()
        self._after[identifier, shard] = found[-1].sequence_number

    def _pause(self, rules: Rules, tries: int) -> None:
        if self.runtime.stopping.is_set() or (rules.retries is None and tries >= _AT_ONCE):
            raise _WaitError
        time.sleep(_PAUSE_SECONDS)

    def _invoke(
        self,
        mapping: Mapping[str, Any],
        role: str,
        region: str,
        shard: str,
        records: Sequence[Record],
    ) -> Result:
        event = event_of(records, shard=shard, stream_arn=stream_of(mapping), region=region, role=role)
        counts = self._count(str(mapping["UUID"]))
        counts.invocations += 1
        client = self.runtime.client("lambda", region=region)
        answer = client.invoke(FunctionName=str(mapping["FunctionArn"]), Payload=json.dumps(event).encode())
        payload = answer["Payload"].read()
        self._metric(
            region,
            "IteratorAge",
            {"FunctionName": str(mapping["FunctionName"])},
            max(0.0, (self.runtime.clock.now() - records[-1].arrival).total_seconds() * 1000),
        )
        if answer.get("FunctionError"):
            counts.failed_invocations += 1
            return Result(error=payload.decode("utf-8", "replace")[:2000])
        return Result(answer=json.loads(payload) if payload else None)

    # -- what is given up ------------------------------------------------------------------------------

    def _give_up(
        self, mapping: Mapping[str, Any], role: str, region: str, shard: str, given: GivenUp
    ) -> None:
        identifier, number = str(mapping["UUID"]), len(given.records)
        destination = ((mapping.get("DestinationConfig") or {}).get("OnFailure") or {}).get("Destination")
        counts = self._count(identifier)
        counts.conditions[given.condition] = counts.conditions.get(given.condition, 0) + number
        kept = False
        if destination:
            try:
                where = self._keep(str(destination), mapping, role, region, shard, given)
                kept = True
                self.runtime.ledger.ran(
                    "event-source-mapping",
                    identifier,
                    condition=given.condition,
                    records=number,
                    kept=where,
                    error=given.error[:300],
                )
            except (ClientError, BotoCoreError) as error:
                self.runtime.ledger.failed(
                    "event-source-mapping", identifier, f"{number} records were not kept: {error}"
                )
        else:
            self.runtime.ledger.failed(
                "event-source-mapping", identifier, f"{number} records are dropped: {given.condition}"
            )
        if kept:
            counts.kept_aside += number
        else:
            counts.dropped += number
        if "EventCount" in ((mapping.get("MetricsConfig") or {}).get("Metrics") or ()):
            name = "OnFailureDestinationDeliveredEventCount" if kept else "DroppedEventCount"
            self._metric(region, name, {"EventSourceMappingUUID": identifier}, float(number))

    def _keep(  # noqa: PLR0917
        self,
        destination: str,
        mapping: Mapping[str, Any],
        role: str,
        region: str,
        shard: str,
        given: GivenUp,
    ) -> str:
        """Write the record of a failure where the mapping says, as the function's role."""
        runtime, now = self.runtime, self.runtime.clock.now()
        body = _failure(mapping, shard, given, now)
        service = destination.split(":")[2]
        if service == "s3":
            event = event_of(
                given.records, shard=shard, stream_arn=stream_of(mapping), region=region, role=role
            )
            bucket = destination.rpartition(":")[2]
            # "Configuring destinations for failed invocations": Amazon S3 alone gets the records too.
            key = (
                f"aws/lambda/{mapping['UUID']}/{shard}/{now:%Y/%m/%d}/{now:%Y-%m-%dT%H.%M.%S}-{uuid.uuid4()}"
            )
            runtime.authorizer.note_service_use(role, ("s3:ListBucket",), f"arn:aws:s3:::{bucket}", region)
            document = json.dumps({**body, "payload": json.dumps(event)}).encode()
            client = runtime.client("s3", role=role, region=region)
            for attempt in range(1, _KEEP_ATTEMPTS + 1):
                try:
                    client.put_object(Bucket=bucket, Key=key, Body=document)
                    break
                except ClientError as error:
                    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                    if status < 500 or attempt == _KEEP_ATTEMPTS:
                        raise
            return f"s3://{bucket}/{key}"
        text = json.dumps(body)
        if service == "sqs":
            name = destination.rpartition(":")[2]
            client = runtime.client("sqs", role=role, region=region)
            url = runtime.client("sqs", region=region).get_queue_url(QueueName=name)["QueueUrl"]
            client.send_message(QueueUrl=url, MessageBody=text)
        elif service == "sns":
            runtime.client("sns", role=role, region=region).publish(TopicArn=destination, Message=text)
        else:
            raise ClientError(
                {"Error": {"Code": "InvalidParameterValueException", "Message": destination}}, "Invoke"
            )
        return destination

    # -- telling ---------------------------------------------------------------------------------------

    def _count(self, identifier: str) -> _Counts:
        with self._lock:
            return self._counts.setdefault(identifier, _Counts())

    def counts(self) -> dict[str, dict[str, Any]]:
        """Return how the records of each mapping ended so far."""
        with self._lock:
            return {identifier: dict(vars(counts)) for identifier, counts in self._counts.items()}

    def _metric(self, region: str, name: str, dimensions: Mapping[str, str], value: float) -> None:
        bridge.put_metric(
            account=self.runtime.account,
            region=region,
            namespace="AWS/Lambda",
            name=name,
            dimensions=dimensions,
            timestamp=self.runtime.clock.now().timestamp(),
            unit="None",
            values=[value],
        )


def stream_of(mapping: Mapping[str, Any]) -> str:
    """Return the ARN of the stream that a mapping reads, be it through a consumer."""
    return str(mapping["EventSourceArn"]).partition("/consumer/")[0]


def rules_of(mapping: Mapping[str, Any]) -> Rules:
    """Return a mapping's settings. Templates may carry numbers and booleans as text."""

    def bound(name: str) -> int | None:
        value = int(mapping.get(name, -1))
        return None if value == -1 else value

    return Rules(
        batch_size=int(mapping.get("BatchSize", 100)),
        retries=bound("MaximumRetryAttempts"),
        maximum_age_seconds=bound("MaximumRecordAgeInSeconds"),
        bisect=str(mapping.get("BisectBatchOnFunctionError", False)).lower() == "true",
        partial="ReportBatchItemFailures" in (mapping.get("FunctionResponseTypes") or ()),
    )


def _failure(mapping: Mapping[str, Any], shard: str, given: GivenUp, now: datetime) -> dict[str, Any]:
    """Build the document that tells of a failed batch."""

    def shown(moment: datetime) -> str:
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"

    return {
        "requestContext": {
            "requestId": str(uuid.uuid4()),
            "functionArn": str(mapping["FunctionArn"]),
            "condition": given.condition,
            "approximateInvokeCount": given.tries,
        },
        "responseContext": {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": "Unhandled",
        },
        "version": "1.0",
        "timestamp": shown(now),
        "KinesisBatchInfo": {
            "shardId": shard,
            "startSequenceNumber": given.records[0].sequence_number,
            "endSequenceNumber": given.records[-1].sequence_number,
            "approximateArrivalOfFirstRecord": shown(given.records[0].arrival),
            "approximateArrivalOfLastRecord": shown(given.records[-1].arrival),
            "batchSize": len(given.records),
            "streamArn": stream_of(mapping),
        },
    }


_MAPPINGS: dict[int, Mappings] = {}


def install(runtime: Runtime) -> None:
    """Take the polling of streams over from ministack, which retries a failed batch for ever."""
    mappings = Mappings(runtime)
    _MAPPINGS[id(runtime)] = mappings
    bridge.use_own_stream_polling(mappings.heard)
    bridge.take_large_records()
    bridge.extend_type("AWS::Lambda::EventSourceMapping", after=mappings.made)

    def sized(name: str, properties: Mapping[str, Any]) -> None:
        if "MaxRecordSizeInKiB" in properties:
            bridge.set_largest_record(name, int(properties["MaxRecordSizeInKiB"]))
        # ministack leaves the property out; without it no caller would need the stream's key.
        encryption = properties.get("StreamEncryption")
        if encryption:
            client = runtime.client("kinesis", region=bridge.current_region())
            client.start_stream_encryption(StreamName=name, **encryption)

    bridge.extend_type("AWS::Kinesis::Stream", after=sized)


@instead("kinesis", "CreateStream")
def _create_stream(service: Service, call: Call) -> dict[str, Any]:
    answer = service.forward(call)
    if "MaxRecordSizeInKiB" in call.params:
        with bridge.account_scope(service.account, service.region):
            bridge.set_largest_record(call.params["StreamName"], int(call.params["MaxRecordSizeInKiB"]))
    return answer


@instead("kinesis", "UpdateMaxRecordSize")
def _update_max_record_size(service: Service, call: Call) -> dict[str, Any]:
    arn = str(call.params.get("StreamARN", ""))
    with bridge.account_scope(service.account, service.region):
        if bridge.largest_record(arn) is None:
            raise ApiError("ResourceNotFoundException", f"Stream {arn} not found.")
        bridge.set_largest_record(arn.rpartition("/")[2], int(call.params["MaxRecordSizeInKiB"]))
    return {}


@control("GET", "/event-source-mappings")
def _status(runtime: Runtime, body: dict[str, Any]) -> dict[str, Any]:
    """Return the counts of every event source mapping of a stream that read a record."""
    del body
    return {"mappings": _MAPPINGS[id(runtime)].counts()}
