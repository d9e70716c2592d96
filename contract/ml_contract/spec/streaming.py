"""The streaming source of a workload: how records travel, where they land, who reads them as they arrive."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ml_contract.spec.blocks import ColumnName, Strict

__all__ = ["MicroBatches", "Stream", "StreamConsumer"]


class StreamConsumer(Strict):
    """A function of its own on the stream: features go into the online store as records arrive.

    The numbers are those of Lambda's event source mapping (Lambda Developer Guide, "Lambda parameters for
    Amazon Kinesis Data Streams event source mappings").
    """

    fan_out: bool = Field(
        default=False,
        description="Enhanced fan-out: 2 MB/s a shard for this consumer alone, about 70 ms; costs per hour.",
    )
    batch_size: int = Field(default=100, ge=1, le=10_000, description="Most records of an invocation.")
    attempts: int = Field(
        default=3,
        ge=1,
        le=10_001,
        description="Tries of a batch before its records are kept aside; halving one is no try.",
    )
    maximum_age_minutes: int = Field(
        default=60, ge=1, le=10_080, description="Older records are kept aside instead of tried again."
    )
    parallelization: int = Field(
        default=1, ge=1, le=10, description="Batches of one shard at a time; a partition key keeps its order."
    )


class MicroBatches(Strict):
    """A Spark job of AWS Glue that never ends: checked records as a table of their own, each window."""

    window_seconds: int = Field(
        default=100, ge=10, le=900, description="A micro-batch each so many seconds; a file each at least."
    )
    worker_type: Literal["G.025X", "G.1X", "G.2X"] = Field(
        default="G.025X", description="G.025X (2 vCPU, 4 GB) is for streaming jobs alone."
    )
    workers: int = Field(default=2, ge=2, le=299, description="One of them drives the others.")


class Stream(Strict):
    """The streaming source."""

    mode: Literal["on_demand", "provisioned"] = "on_demand"
    shards: int = Field(default=1, ge=1, description="Provisioned mode only.")
    retention_hours: int = Field(default=24, ge=24, le=8760)
    max_record_kib: int = Field(
        default=1024,
        ge=1024,
        le=10_240,
        description="Longest record the stream takes; what is longer than a record may be is quarantined.",
    )
    buffer_seconds: int = Field(default=60, ge=0, le=900)
    buffer_mib: int = Field(
        default=64, ge=64, le=128, description="64 at least: Firehose's floor with format conversion."
    )
    format: Literal["parquet", "iceberg"] = Field(
        default="parquet", description="How the raw zone keeps what is delivered."
    )
    partition_by: tuple[ColumnName, ...] = Field(
        default=(), description="Iceberg only: fields whose values divide the table into partitions."
    )
    kafka_topic: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9._-]{1,249}$",
        description="Topic of an MSK Serverless cluster of the workload; its records go onto the stream too.",
    )
    consumer: StreamConsumer | None = Field(
        default=None, description="Features into the online store as records arrive; null for none."
    )
    micro_batches: MicroBatches | None = Field(
        default=None,
        description="Checked records land by Spark too, in the table <name>_live; null for none.",
    )
