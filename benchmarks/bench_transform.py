"""The record transform beside orjson: what do all checks of the contract cost?

``codec`` compares ``RecordCodec`` (parse, check every field, write) with ``orjson.loads`` and ``dumps`` on
the same bytes. ``handler`` compares the whole Lambda handler with one that Firehose users write: base64 of
the standard library and orjson, which checks nothing, hashes nothing and renames nothing. Both pairs run in
turns, so that a busy machine slows both.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
from ml_contract.load import load_workload
from ml_contract.records.codec import RecordCodec, Rejected

from benchmarks.result import Result, Row

ROOT = Path(__file__).resolve().parents[1]
RECORDS = 500
ROUNDS = 60
GOAL = 1.3


def run() -> Result:
    """Measure both pairs on 500 made-up claims."""
    contract = load_workload(ROOT / "workloads" / "claims_fraud").compiled
    claims = _claims()
    payloads = [orjson.dumps(claim) for claim in claims]
    codec = RecordCodec(contract)
    decode, encode = codec.decode, codec.encode
    if any(isinstance(decode(p), Rejected) for p in payloads):
        raise RuntimeError("the benchmark's claims must fit the contract")

    def with_codec() -> None:
        for payload in payloads:
            record = decode(payload)
            if type(record) is not Rejected:
                encode(record, record_id="0" * 32, received_at="2015-01-01T00:00:00.000Z")  # type: ignore[arg-type]

    def with_orjson() -> None:
        for payload in payloads:
            orjson.dumps(orjson.loads(payload))

    event = {
        "records": [
            {
                "recordId": f"{i:056d}",
                "approximateArrivalTimestamp": 1_420_070_400_000 + i,
                "data": base64.b64encode(payload).decode(),
            }
            for i, payload in enumerate(payloads)
        ]
    }
    with _handler(contract.to_json()) as handler:
        if {r["result"] for r in handler(event, None)["records"]} != {"Ok"}:
            raise RuntimeError("the handler must deliver every claim of the benchmark")
        seconds = _in_turns(
            {
                "codec": with_codec,
                "orjson": with_orjson,
                "handler": lambda: handler(event, None),
                "orjson_handler": lambda: _orjson_handler(event),
            }
        )
    best = {name: min(values) for name, values in seconds.items()}
    return Result(
        name="transform",
        rows=(
            Row(
                what="parse, check and write 500 records / orjson loads+dumps",
                value=best["codec"] / best["orjson"],
                goal=GOAL,
            ),
            Row(
                what="handler on 500 records / handler with orjson and no checks",
                value=best["handler"] / best["orjson_handler"],
                goal=GOAL,
            ),
            Row(
                what="handler (base64, hash, checks) / bare orjson loads+dumps",
                value=best["handler"] / best["orjson"],
            ),
            Row(what="handler", value=best["handler"] / RECORDS * 1e6, unit="µs a record"),
        ),
        raw={
            "records": RECORDS,
            "mean_bytes": round(statistics.fmean(map(len, payloads))),
            "seconds": {name: sorted(values) for name, values in seconds.items()},
        },
    )


def _claims() -> list[dict[str, Any]]:
    namespace: dict[str, Any] = {"__name__": "generate"}
    path = ROOT / "workloads" / "claims_fraud" / "generate.py"
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    claims: list[dict[str, Any]] = namespace["generate"](RECORDS, 7)
    return claims


@contextlib.contextmanager
def _handler(contract: str) -> Iterator[Callable[[Any, object], dict[str, Any]]]:
    """The Lambda's handler as the image has it, its contract in a file; what it logs is dropped."""
    import sys

    sys.path.insert(0, str(ROOT / "lambda"))
    from record_transform import handler as module

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        file = Path(folder) / "contract.json"
        file.write_text(contract)
        os.environ.update(CONTRACT_PATH=str(file), QUARANTINE_URI="s3://not-used/quarantine/")
        module._codec.cache_clear()
        try:
            yield module.handler
        finally:
            module._codec.cache_clear()
            sys.path.remove(str(ROOT / "lambda"))
            del os.environ["CONTRACT_PATH"], os.environ["QUARANTINE_URI"]


def _orjson_handler(event: dict[str, Any]) -> dict[str, Any]:
    answer = []
    for entry in event["records"]:
        record = orjson.loads(base64.b64decode(entry["data"]))
        line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        answer.append(
            {"recordId": entry["recordId"], "result": "Ok", "data": base64.b64encode(line).decode()}
        )
    return {"records": answer}


def _in_turns(functions: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(ROUNDS):
        for name, function in functions.items():
            function()  # its code and data are in the processor's caches again
            started = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - started)
    return seconds
