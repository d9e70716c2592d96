"""Records through the consumer and the transform, with and without faults, beside what they stand on.

``consume`` compares the consumer's own work on a batch (base64, checks, features, texts, a plan carried out
against a store that answers at once) with ``orjson.loads`` of the same bytes. ``faults`` compares it with
itself when every tenth call of the store is throttled and the function is killed once a batch; waits are left
out, so that the figure is work, not patience. ``transform`` has the record transform on the same records, a
tenth of them poison. All run in turns. ``INGEST_RECORDS`` and ``INGEST_ROUNDS`` make it smaller.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from botocore.exceptions import ClientError
from ml_contract.features.online import feature_record
from ml_contract.load import load_workload
from ml_contract.records.codec import RecordCodec

from benchmarks.result import Result, Row
from rehearsal.stream_batches import Record, Rules, batches, carry, event_of, size_in_event
from rehearsal.stream_batches import Result as Answer

ROOT = Path(__file__).resolve().parents[1]
RECORDS = int(os.environ.get("INGEST_RECORDS", "5000"))
ROUNDS = int(os.environ.get("INGEST_ROUNDS", "10"))
BATCH = 100
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class _KilledError(BaseException):
    """The function's machine is gone."""


class _Store:
    """A feature store and a bucket that answer at once, or fail as told."""

    def __init__(self, *, every: int = 0, killed: bool = False) -> None:
        self.every = every
        self.killed = killed
        self.calls = 0
        self.puts = 0

    def put_record(self, **_: Any) -> None:
        self.calls += 1
        if self.every and self.calls % self.every == 0:
            response: Any = {
                "Error": {"Code": "ThrottlingException"},
                "ResponseMetadata": {"HTTPStatusCode": 400},
            }
            raise ClientError(response, "PutRecord")
        if self.killed and self.calls % BATCH == BATCH // 2 + 1:
            raise _KilledError
        self.puts += 1

    def put_object(self, **_: Any) -> None:
        self.calls += 1


def run() -> Result:
    """Measure the paths on made-up claims, a tenth of them poison."""
    contract = load_workload(ROOT / "workloads" / "claims_fraud").compiled
    payloads = _payloads()
    records = [Record(str(i + 1), f"k{i}", data, NOON) for i, data in enumerate(payloads)]
    codec, features = RecordCodec(contract), feature_record(contract)
    with _functions() as (plan, carry_out, store_of, quarantine_of, transform):
        pool = ThreadPoolExecutor(16)

        def consume(cloud: _Store) -> None:
            store, quarantine = store_of(cloud), quarantine_of(cloud)
            rules = Rules(batch_size=BATCH, retries=10, partial=True, bisect=True)

            def invoke(part: Sequence[Record]) -> Answer:
                event = event_of(part, shard="shardId-0", stream_arn="arn", region="r", role="r")
                try:
                    todo = plan(event["Records"], codec, features)
                    outcome = carry_out(todo, store, quarantine, pool, out_of_time=lambda: False)
                except _KilledError:
                    return Answer(error="killed")
                return Answer(answer=outcome.answer)

            def kept(_: object) -> None:
                raise RuntimeError("a record of the benchmark was given up")

            for batch in batches(records, rules, size_in_event):
                carry(batch, rules, size_of=size_in_event, invoke=invoke, give_up=kept, now=lambda: NOON)
            if cloud.puts < len(records) * 0.85:
                raise RuntimeError(f"{cloud.puts} of {len(records)} records were put")

        def parse() -> None:
            for payload in payloads:
                with contextlib.suppress(orjson.JSONDecodeError):
                    orjson.loads(payload)

        entries = [
            {"recordId": str(i), "approximateArrivalTimestamp": 1_420_070_400_000, "data": encoded}
            for i, encoded in enumerate(_encoded(payloads))
        ]

        def transformed() -> None:
            for start in range(0, len(entries), BATCH):
                transform(entries[start : start + BATCH], codec)

        seconds = _in_turns(
            {
                "parse": parse,
                "consume": lambda: consume(_Store()),
                "faults": lambda: consume(_Store(every=10, killed=True)),
                "transform": transformed,
            }
        )
        pool.shutdown()
    best = {name: min(values) for name, values in seconds.items()}
    return Result(
        name="ingest",
        rows=(
            Row(what="consumer / orjson loads of the same records", value=best["consume"] / best["parse"]),
            Row(
                what="consumer, every 10th call throttled, a kill a batch / without faults",
                value=best["faults"] / best["consume"],
            ),
            Row(what="consumer / transform of the same records", value=best["consume"] / best["transform"]),
            Row(what="consumer", value=RECORDS / best["consume"], unit="records a second", at_most=False),
            Row(
                what="consumer under faults",
                value=RECORDS / best["faults"],
                unit="records a second",
                at_most=False,
            ),
            Row(what="transform", value=RECORDS / best["transform"], unit="records a second", at_most=False),
        ),
        raw={
            "records": RECORDS,
            "batch": BATCH,
            "seconds": {name: sorted(values) for name, values in seconds.items()},
        },
    )


def _payloads() -> list[bytes]:
    namespace: dict[str, Any] = {"__name__": "generate"}
    path = ROOT / "workloads" / "claims_fraud" / "generate.py"
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    claims: list[dict[str, Any]] = namespace["generate"](RECORDS, 7)
    return [b"no json" if i % 10 == 9 else orjson.dumps(claim) for i, claim in enumerate(claims)]


def _encoded(payloads: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(payload).decode() for payload in payloads]


@contextlib.contextmanager
def _functions() -> Iterator[tuple[Any, Any, Any, Any, Any]]:
    """The functions' own code, as their images have it."""
    sys.path.insert(0, str(ROOT / "lambda"))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            from record_transform.logic import transform
            from record_transform.storage import Quarantine
            from stream_consumer.consume import carry_out
            from stream_consumer.logic import plan
            from stream_consumer.store import OnlineStore
        yield (
            plan,
            carry_out,
            lambda cloud: OnlineStore(cloud, "group", sleep=lambda _seconds: None),
            lambda cloud: Quarantine(cloud, "lake", "q/"),
            transform,
        )
    finally:
        sys.path.remove(str(ROOT / "lambda"))


def _in_turns(functions: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(ROUNDS):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - started)
    return seconds
