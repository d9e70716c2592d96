"""Streams: Kinesis, Firehose, Flink, Kafka."""

from __future__ import annotations

import math
from collections.abc import Iterator

from cost.assembly import Resource
from cost.load import HOURS
from cost.rules.base import Context, State, Usage, priced

#: GB of running storage that Managed Flink keeps for each KPU (its pricing page).
GB_PER_KPU = 50
#: What one shard takes (Kinesis, "Quotas and limits").
SHARD_BYTES_PER_SECOND, SHARD_RECORDS_PER_SECOND = 1_000_000, 1_000


@priced("AWS::Kinesis::Stream")
def stream(resource: Resource, context: Context) -> Iterator[Usage]:
    """Hours of the stream or its shards, GB in, GB out for Firehose and each consumer."""
    consumers = [
        c
        for c in context.stack.of_type("AWS::Kinesis::StreamConsumer")
        if f"${{{resource.id}." in (c.text("StreamARN") or "")
    ]
    retention = int(resource.properties.get("RetentionPeriodHours", 24))
    if resource.text("StreamModeDetails", "StreamMode") == "ON_DEMAND":
        yield Usage(price="kinesis.on-demand.stream", quantity=HOURS, why="the stream, whoever sends")
        yield Usage(price="kinesis.on-demand.in", quantity=context.gb, why="records in", state="load")
        yield Usage(
            price="kinesis.on-demand.out", quantity=context.gb, why="records to Firehose", state="load"
        )
        for _ in consumers:
            yield Usage(
                price="kinesis.on-demand.fan-out",
                quantity=context.gb,
                why="records to a consumer",
                state="load",
            )
        return
    shards = int(resource.properties.get("ShardCount", 1))
    yield Usage(price="kinesis.shard", quantity=HOURS * shards, why=f"{shards} shard(s), whoever sends")
    if retention > 24:
        yield Usage(
            price="kinesis.retention", quantity=HOURS * shards, why=f"records are kept for {retention} hours"
        )
    size = 0 if context.load is None else context.load.record_bytes
    units = context.records * max(1, math.ceil(size / 25_600)) / 1e6
    yield Usage(price="kinesis.put", quantity=units, why="records in", state="load")
    for _ in consumers:
        yield Usage(
            price="kinesis.fan-out.shard", quantity=HOURS * shards, why="a consumer of its own throughput"
        )
        yield Usage(
            price="kinesis.fan-out.out", quantity=context.gb, why="records to a consumer", state="load"
        )


@priced("AWS::KinesisFirehose::DeliveryStream")
def delivery(resource: Resource, context: Context) -> Iterator[Usage]:
    """GB in, each record rounded up to 5 KB, and their conversion to Parquet."""
    size = 0 if context.load is None else context.load.record_bytes
    # Of a stream as its source too: "rounded up to the nearest 5 KB" (Firehose pricing).
    gb = context.records * max(1, math.ceil(size / 5_120)) * 5_120 / 1024**3
    yield Usage(price="firehose.in", quantity=gb, why="records in, 5 KB at least each", state="load")
    if resource.text("ExtendedS3DestinationConfiguration", "DataFormatConversionConfiguration") is not None:
        yield Usage(price="firehose.convert", quantity=gb, why="conversion to Parquet", state="load")


@priced("AWS::KinesisAnalyticsV2::Application")
def flink(resource: Resource, context: Context) -> Iterator[Usage]:
    """KPUs while it runs, one more for its orchestration, and their storage."""
    settings = resource.properties["ApplicationConfiguration"]["FlinkApplicationConfiguration"]
    parallel = settings.get("ParallelismConfiguration", {})
    kpus = math.ceil(int(parallel.get("Parallelism", 1)) / int(parallel.get("ParallelismPerKPU", 1)))
    # CloudFormation makes an application and starts none: a resource beside it does.
    starters = [*context.stack.of_type("Custom::FlinkApplicationRunning")]
    stops = any(s.condition is not None and context.stack.waits(s.condition) for s in starters)
    state: State = "serving" if stops else "rest"
    running = f"{kpus} KPU(s) and one for orchestration; it runs whoever sends"
    yield Usage(price="flink.kpu", quantity=HOURS * (kpus + 1), why=running, state=state)
    yield Usage(price="flink.storage", quantity=GB_PER_KPU * kpus, why="running storage", state=state)


@priced("AWS::MSK::ServerlessCluster")
def kafka(resource: Resource, context: Context) -> Iterator[Usage]:
    """Hours of the cluster."""
    yield Usage(price="msk.serverless", quantity=HOURS, why="the cluster, whoever sends")


@priced("AWS::KinesisVideo::Stream")
def video(resource: Resource, context: Context) -> Iterator[Usage]:
    """GB of video: nobody states how much a camera sends."""
    yield Usage(price="kinesisvideo.in", quantity=1, why="GB of video; no load is stated", state="load")
