"""Streams of Kinesis, their event source mappings and the delivery streams of Firehose."""

from __future__ import annotations

import importlib
import time as _real_time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rehearsal.ministack_bridge._inside import substitute

_STREAM_LISTENERS: list[Callable[[str, str], None]] = []
#: What a record may hold unless its stream was told otherwise.
_RECORD_KIB = 1024


def use_own_stream_polling(heard: Callable[[str, str], None]) -> None:
    """Read streams for event source mappings ourselves; ``heard(region, stream ARN)`` when records came.

    ministack's poller knows neither partial failures nor tries, halves, ages or destinations of Kinesis.
    ``use_own_delivery`` is what hears of records.
    """
    functions = importlib.import_module("ministack.services.lambda_svc")
    _STREAM_LISTENERS[:] = [heard]
    substitute(functions, "_poll_kinesis", lambda: False)
    original = functions._validate_event_source_arn

    def validate(arn: str) -> Any:
        # The ARN of a stream's consumer is as good as the stream's.
        return original(arn.partition("/consumer/")[0] if ":kinesis:" in arn else arn)

    substitute(functions, "_validate_event_source_arn", validate)


def stream_mappings() -> list[tuple[str, str, dict[str, Any]]]:
    """Return every event source mapping of a stream with its account and region; the live dictionaries."""
    functions = importlib.import_module("ministack.services.lambda_svc")
    return [
        (account, region, mapping)
        for account, region, mapping in functions._iter_all_esms()
        if ":kinesis:" in str(mapping.get("EventSourceArn", ""))
    ]


def stream_mapping(identifier: str) -> dict[str, Any] | None:
    """Return the live event source mapping of that id in the current account and region."""
    functions = importlib.import_module("ministack.services.lambda_svc")
    found = functions._esms.get(identifier)
    return None if found is None else dict_of(found)


def dict_of(value: Any) -> dict[str, Any]:
    """Return ministack's own dictionary, typed."""
    if not isinstance(value, dict):
        raise TypeError(f"ministack keeps a {type(value).__name__} where the rehearsal knows a dictionary")
    return value


def set_largest_record(stream: str, kib: int) -> None:
    """Let a stream of the current account and region take records of ``kib`` KiB."""
    kinesis = importlib.import_module("ministack.services.kinesis")
    kinesis._streams[stream]["MaxRecordSizeInKiB"] = kib


def largest_record(stream_arn: str) -> int | None:
    """Return how many KiB a record of a stream may hold; None when there is no such stream."""
    kinesis = importlib.import_module("ministack.services.kinesis")
    stream = kinesis._resolve_stream_by_arn(stream_arn)
    return None if stream is None else int(stream.get("MaxRecordSizeInKiB", _RECORD_KIB))


def take_large_records() -> None:
    """Let PutRecord and PutRecords take what the stream takes.

    ministack refuses everything above a MiB. The new bounds are those of the Kinesis API reference: a
    stream's ``MaxRecordSizeInKiB`` a record, 10 MiB a request.
    """
    kinesis = importlib.import_module("ministack.services.kinesis")
    put_one, put_many = kinesis._put_record, kinesis._put_records
    refuse = kinesis.error_response_json

    def size(record: Mapping[str, Any]) -> int:
        data = record.get("Data") or ""
        return len(data) * 3 // 4 - data[-2:].count("=") if isinstance(data, str) else len(data)

    def store(stream: dict[str, Any], record: Mapping[str, Any]) -> dict[str, str]:
        given = record.get("ExplicitHashKey")
        number = int(given) if given else kinesis._partition_key_to_hash(record["PartitionKey"])
        shard = kinesis._route_to_shard(number, stream)
        sequence = kinesis._next_sequence_number()
        stream["shards"][shard]["records"].append(
            {
                "SequenceNumber": sequence,
                "ApproximateArrivalTimestamp": round(_real_time.time(), 3),
                "Data": record.get("Data", ""),
                "PartitionKey": record["PartitionKey"],
            }
        )
        return {"ShardId": shard, "SequenceNumber": sequence}

    def put(
        data: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
    ) -> tuple[Any, list[dict[str, str]]]:
        """Store the records; returns a refusal or what stands for each."""
        name, stream = kinesis._resolve_stream(data)
        most = int(stream.get("MaxRecordSizeInKiB", _RECORD_KIB)) * 1024
        for record in records:
            held = size(record) + len(str(record.get("PartitionKey", "")).encode())
            if held > most:
                text = f"a record of {held} bytes is above the largest that stream {name} takes, {most}"
                return refuse("InvalidArgumentException", text, 400), []
        if sum(size(record) for record in records) > 10 * 1024 * 1024 + 256 * len(records):
            return refuse("InvalidArgumentException", "Records total payload size exceeds 10 MiB", 400), []
        stored = [store(stream, record) for record in records]
        firehose = importlib.import_module("ministack.services.firehose")
        firehose.ingest_from_kinesis_source(stream["StreamARN"], stored)
        encryption = {"EncryptionType": stream.get("EncryptionType", "NONE")}
        return None, [{**one, **encryption} for one in stored]

    def ours(data: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> bool:
        """Say whether ministack would refuse records of a stream that is there for their size."""
        _, stream = kinesis._resolve_stream(data)
        sizes = [size(record) for record in records]
        large = any(one > _RECORD_KIB * 1024 for one in sizes) or sum(sizes) > 5 * 1024 * 1024
        return large and len(records) <= 500 and bool(stream) and stream["StreamStatus"] == "ACTIVE"

    def put_record(data: Mapping[str, Any]) -> Any:
        if not ours(data, [data]):
            return put_one(data)
        refusal, stored = put(data, [data])
        return refusal or kinesis.json_response(stored[0])

    def put_records(data: Mapping[str, Any]) -> Any:
        records = data.get("Records", [])
        if not ours(data, records):
            return put_many(data)
        refusal, stored = put(data, records)
        return refusal or kinesis.json_response({"FailedRecordCount": 0, "Records": stored})

    substitute(kinesis, "_put_record", put_record)
    substitute(kinesis, "_put_records", put_records)


def use_own_delivery(
    kinesis: Callable[[str, str], None],
    direct: Callable[[str, str, list[tuple[str, bytes]]], None],
) -> None:
    """Hand the records of delivery streams over instead of writing each one as an object of its own.

    ``kinesis(region, stream ARN)`` hears that a stream has new records; ``direct(region, delivery stream,
    [(record id, data)])`` gets those of PutRecord and PutRecordBatch.
    """
    firehose = importlib.import_module("ministack.services.firehose")
    responses = importlib.import_module("ministack.core.responses")

    def from_kinesis(stream_arn: str, records: Sequence[object]) -> None:
        if stream_arn and records:
            kinesis(responses.get_region(), stream_arn)
            for listener in _STREAM_LISTENERS:
                listener(responses.get_region(), stream_arn)

    def to_s3(stream: Mapping[str, Any], dest: dict[str, Any], records: list[tuple[str, bytes]]) -> None:
        # ministack keeps a copy of every record for its tests.
        dest["records"].clear()
        direct(responses.get_region(), str(stream["name"]), list(records))

    create = firehose._create_delivery_stream

    def create_delivery_stream(data: Mapping[str, Any]) -> Any:
        iceberg = data.get("IcebergDestinationConfiguration")
        if iceberg is not None and "S3Configuration" in iceberg:
            # ministack describes a destination by the names it was made with; this one has another then.
            described = {**iceberg, "S3DestinationDescription": iceberg["S3Configuration"]}
            data = {**data, "IcebergDestinationConfiguration": described}
        return create(data)

    substitute(firehose, "_create_delivery_stream", create_delivery_stream)
    firehose._HANDLERS["CreateDeliveryStream"] = create_delivery_stream
    substitute(firehose, "ingest_from_kinesis_source", from_kinesis)
    substitute(firehose, "_deliver_records_to_s3", to_s3)
