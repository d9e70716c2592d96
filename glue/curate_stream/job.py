"""Micro-batches of a stream to Parquet rows and to a quarantine, on Spark's structured streaming.

Each record meets the very checks that Firehose's transform makes, as the same bytes: it has the record id,
the values and the moment of arrival that it has in the raw table.

Exactly once in effect: Spark repeats a micro-batch whose end it did not see, from the places in the stream
that its checkpoint holds. Records are dealt to a fixed number of files by a hash of their bytes and sorted in
each; a file is named after its micro-batch and what it was made of. So a repeated micro-batch writes the same
bytes under the same names.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ml_contract.compiled import CompiledContract
from ml_contract.records.codec import RecordCodec, Rejected
from ml_contract.records.landing import parquet_bytes
from pyspark.sql import functions as sf

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming import StreamingQuery

__all__ = ["ARGUMENTS", "OPTIONAL", "Counts", "Landing", "files_of", "land", "read_stream", "start"]

ARGUMENTS = (
    "contract",
    "stream_name",
    "data_uri",
    "quarantine_uri",
    "checkpoint_uri",
    "window_seconds",
    "files",
)
OPTIONAL = ("aws_region", "kinesis_endpoint")
#: Columns of a stream that are read: the record's bytes, and when the stream took it.
DATA, ARRIVAL = "data", "approximateArrivalTimestamp"

#: Writes one object; called on the workers.
Put = Callable[[str, bytes], None]


@dataclass(frozen=True)
class Counts:
    """What became of records."""

    delivered: int = 0
    quarantined: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Both together."""
        return Counts(self.delivered + other.delivered, self.quarantined + other.quarantined)


@dataclass(frozen=True)
class Landing:
    """Where rows go and what they must be; travels to the workers."""

    contract: str
    data_uri: str
    quarantine_uri: str
    #: Files that a micro-batch is dealt to. Another number deals a repeated micro-batch to other files.
    files: int


def read_stream(spark: SparkSession, arguments: Mapping[str, str]) -> DataFrame:
    """The stream from its oldest record on, or from where the checkpoint says.

    Glue's Kinesis source for structured streaming: bytes as they came. ``create_data_frame`` would parse
    them, and a record that is no JSON would be lost before it could be quarantined.
    """
    region = arguments["aws_region"]
    endpoint = arguments.get("kinesis_endpoint", f"https://kinesis.{region}.amazonaws.com")
    return (
        spark.readStream.format("kinesis")
        .option("streamName", arguments["stream_name"])
        .option("endpointUrl", endpoint)
        .option("startingPosition", "TRIM_HORIZON")
        .load()
        .select(DATA, ARRIVAL)
    )


def start(frame: DataFrame, arguments: Mapping[str, str], contract: str, put: Put) -> StreamingQuery:
    """Start landing ``frame``, a micro-batch each window; it goes on until it fails or is stopped."""
    frame.sparkSession.conf.set("spark.sql.session.timeZone", "UTC")
    landing = Landing(contract, arguments["data_uri"], arguments["quarantine_uri"], int(arguments["files"]))

    def one(rows: DataFrame, batch_id: int) -> None:
        counts = land(rows, batch_id, landing, put)
        note = {"batch": batch_id, "delivered": counts.delivered, "quarantined": counts.quarantined}
        print(f"landed: {json.dumps(note, sort_keys=True)}", flush=True)

    return (
        frame.writeStream.foreachBatch(one)
        .trigger(processingTime=f"{int(arguments['window_seconds'])} seconds")
        .option("checkpointLocation", arguments["checkpoint_uri"])
        .start()
    )


def land(rows: DataFrame, batch_id: int, landing: Landing, put: Put) -> Counts:
    """Check and write one micro-batch, on the workers."""

    def part(found: Iterable[Any]) -> Iterator[Counts]:
        codec = RecordCodec(CompiledContract.from_json(landing.contract))
        records = [(row.received_at, bytes(row.data)) for row in found]
        counts = Counts()
        for file in files_of(records, batch_id, codec):
            if file.rows is not None:
                put(f"{landing.data_uri}{file.name}.parquet", file.rows)
            if file.refused:
                put(f"{landing.quarantine_uri}{file.name}.jsonl", file.refused)
            counts += file.counts
        yield counts

    moment = sf.date_format(ARRIVAL, "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'").alias("received_at")
    dealt = rows.select(DATA, moment).repartition(landing.files, sf.xxhash64(DATA))
    return sum(dealt.rdd.mapPartitions(part).collect(), Counts())


@dataclass(frozen=True)
class File:
    """What one file's share of a micro-batch became."""

    name: str
    rows: bytes | None
    refused: bytes
    counts: Counts


def files_of(records: Iterable[tuple[str, bytes]], batch_id: int, codec: RecordCodec) -> Iterator[File]:
    """Files of records (arrival, bytes), one for each day of arrival; whatever order they come in."""
    for day, arrived in groupby(sorted(records), key=lambda record: record[0][:10]):
        content, rows, refused = blake2b(digest_size=8), [], []
        for received_at, data in arrived:
            record_id = blake2b(data, digest_size=16).hexdigest()
            content.update(f"{received_at} {record_id}\n".encode())
            record = codec.decode(data)
            if type(record) is Rejected:
                line = {
                    "received_at": received_at,
                    "record_id": record_id,
                    "reasons": [reason.to_json() for reason in record.reasons],
                    "data_base64": base64.b64encode(data).decode(),
                }
                refused.append(json.dumps(line) + "\n")
            else:
                rows.append([*record.values.values(), record_id, received_at])  # type: ignore[union-attr]
        yield File(
            name=f"ingest_date={day}/batch-{batch_id:012}-{content.hexdigest()}",
            rows=parquet_bytes(rows, codec.contract) if rows else None,
            refused="".join(refused).encode(),
            counts=Counts(len(rows), len(refused)),
        )
