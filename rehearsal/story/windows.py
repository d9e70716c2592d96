"""Chapter: features over time, in batches and as records arrive."""

from __future__ import annotations

import datetime as dt
import json
import math
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import polars as pl
from ml_contract.records.dates import date_parser
from ml_contract.windows.engines import with_windows

from rehearsal.story.telling import Evidence, Step, require, wait_until
from rehearsal.story.traffic import windows_of

if TYPE_CHECKING:
    from ml_contract.compiled import Column, CompiledContract
    from ml_contract.spec.workload import Workload

    from rehearsal.story.tale import Tale

__all__ = ["STEPS"]

CHAPTER = "Windows"
SAMPLE = 60
#: Sums of many numbers in another order.
CLOSE = 1e-9


def _on_flink(workload: Workload) -> bool:
    return workload.windows is not None and workload.windows.engine == "flink"


def _stream(tale: Tale, evidence: Evidence) -> None:
    """Let Flink catch up; what it made of the stream is what the other engines make of the same records."""
    outputs = tale.outputs("Windows")
    name = outputs["WindowApplicationName"]
    described = tale.cloud.client("kinesisanalyticsv2").describe_application(ApplicationName=name)
    status = described["ApplicationDetail"]["ApplicationStatus"]
    evidence |= {"application": name, "status": status}
    require(status == "RUNNING", f"application {name} is {status}; its stack should have started it")
    counts = tale.cloud.server.control("POST", "/flink/run", {"application": name}, timeout_seconds=600)
    evidence |= {f"flink_{key}": value for key, value in counts.items()}
    tale.cloud.idle()
    rows = [json.loads(data) for data in _read(tale, outputs["WindowStreamName"])]
    evidence["rows_in_the_stream"] = len(rows)
    _agree_with_the_words(tale, rows, evidence)
    _agree_with_the_batch(tale, rows, evidence)


def _read(tale: Tale, stream: str) -> list[bytes]:
    """The records of a stream by arrival."""
    kinesis = tale.cloud.client("kinesis")
    found = []
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        iterator = kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator is not None:
            answer = kinesis.get_records(ShardIterator=iterator, Limit=10_000)
            found += [
                (r["ApproximateArrivalTimestamp"], int(r["SequenceNumber"]), r["Data"])
                for r in answer["Records"]
            ]
            if not answer["Records"]:
                break
            iterator = answer.get("NextShardIterator")
    return [data for _, _, data in sorted(found)]


def _agree_with_the_words(tale: Tale, rows: list[dict[str, Any]], evidence: Evidence) -> None:
    """Every row of Flink is what another engine makes of the records that the job is to use."""
    contract = tale.contract
    spec = contract.windows
    if spec is None:
        return
    used = _usable(_read(tale, tale.outputs("Data")["StreamName"]), contract)
    columns: dict[str, Any] = {contract.event_time: pl.Datetime("us"), spec.key: pl.String}
    columns |= dict.fromkeys(spec.fields, pl.Float64)
    made = with_windows(pl.DataFrame(used, schema=columns), contract).to_dicts()
    names = [window.name for window in spec.windows]
    expected = Counter(
        (str(row[spec.key]), f"{row[contract.event_time]:%Y-%m-%dT%H:%M:%SZ}", *_rounded(row, names))
        for row in made
    )
    found = Counter((str(row[spec.key]), row[contract.event_time], *_rounded(row, names)) for row in rows)
    evidence |= {"records_that_the_job_uses": len(used), "windows_each": len(names)}
    unlike = found - expected
    require(not unlike, f"{unlike.total()} rows of Flink are no other engine's; {next(iter(unlike), None)}")
    evidence["left_to_the_batch_run"] = (expected - found).total()
    require(
        evidence["left_to_the_batch_run"] <= len(used) / 20,
        f"Flink made {len(rows)} rows of {len(used)} records",
    )


def _usable(records: list[bytes], contract: CompiledContract) -> list[dict[str, Any]]:
    """What the job uses of the records: readable, with key and event time, in range, each identifier once.

    A number that is none is missing, as Flink reads JSON.
    """
    spec = contract.windows
    if spec is None:
        return []
    event_time = contract.by_name[contract.event_time]
    parse = date_parser(event_time.type, event_time.format)
    used: dict[str, dict[str, Any]] = {}
    for data in records:
        try:
            record = json.loads(data.decode())
        except ValueError:
            continue
        if not isinstance(record, dict):
            continue
        moment = record.get(event_time.source)
        text = parse(moment) if isinstance(moment, str) else None
        identifier = record.get(contract.by_name[contract.identifier].source)
        key = record.get(contract.by_name[spec.key].source)
        if text is None or identifier is None or key is None or not _allowed(key, contract.by_name[spec.key]):
            continue
        row = {contract.event_time: dt.datetime.fromisoformat(text).replace(tzinfo=None), spec.key: str(key)}
        numbers = {name: _number(record.get(contract.by_name[name].source)) for name in spec.fields}
        if all(_in_range(numbers[name], contract.by_name[name]) for name in spec.fields):
            used.setdefault(str(identifier), row | numbers)
    return list(used.values())


def _allowed(value: object, column: Column) -> bool:
    return (column.allowed is None or value in column.allowed) and value not in column.missing


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _in_range(value: float | None, column: Column) -> bool:
    if value is None:
        return True
    low = column.minimum is None or value >= column.minimum
    return low and (column.maximum is None or value <= column.maximum)


def _rounded(row: dict[str, Any], names: list[str]) -> list[float | None]:
    """Windows to nine digits: sums of many numbers in another order differ in the last ones."""
    return [None if row[name] is None else float(f"{row[name]:.9g}") for name in names]


def _agree_with_the_batch(tale: Tale, rows: list[dict[str, Any]], evidence: Evidence) -> None:
    """How many rows of the batch run are Flink's: all but those near a record that the contract refused."""
    contract = tale.contract
    spec = contract.windows
    if spec is None:
        return
    names = [window.name for window in spec.windows]
    keys = {r[contract.by_name[contract.identifier].source]: r for r in tale.inputs.initial}
    features: dict[Any, dict[str, Any]] = tale.known["features"]
    made = {(str(row[spec.key]), row[contract.event_time]): row for row in rows}
    same = compared = 0
    for identifier, row in features.items():
        sent = keys.get(identifier)
        flink = (
            made.get((str(sent[contract.by_name[spec.key].source]), row[contract.event_time]))
            if sent
            else None
        )
        if flink is None:
            continue
        compared += 1
        same += all(_same(flink[name], row[name]) for name in names)
    evidence["compared_with_the_batch_run"] = compared
    evidence["the_same"] = same
    evidence["why_not_all"] = "the stream has records that the contract refuses for a field no window uses"
    require(same, "no row of the batch run is the same on Flink")


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is None and other is None
    return math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE)


def _online(tale: Tale, evidence: Evidence) -> None:
    """The online store holds the newest row of each key, and a request carries it."""
    outputs = tale.outputs("Windows")
    contract = tale.contract
    spec = contract.windows
    if spec is None:
        return
    rows = [json.loads(data) for data in _read(tale, outputs["WindowStreamName"])]
    newest: dict[str, dict[str, Any]] = {}
    for row in rows:
        key = str(row[spec.key])
        if key not in newest or newest[key][contract.event_time] <= row[contract.event_time]:
            newest[key] = row
    chosen = random.Random(tale.seed).sample(sorted(newest), min(SAMPLE, len(newest)))  # noqa: S311 - a sample
    store = tale.cloud.client("sagemaker-featurestore-runtime")
    group = outputs["WindowFeatureGroupName"]

    def stored(key: str) -> dict[str, str]:
        record = store.get_record(FeatureGroupName=group, RecordIdentifierValueAsString=key).get("Record", [])
        return {value["FeatureName"]: value["ValueAsString"] for value in record}

    def settled() -> bool:
        return all(stored(k).get(contract.event_time) == newest[k][contract.event_time] for k in chosen)

    wait_until("the newest windows in the online store", settled, seconds=60, every=0.5)
    for key in chosen:
        have = stored(key)
        for window in spec.windows:
            wanted = newest[key][window.name]
            got = float(have[window.name]) if window.name in have else None
            require(_same(got, wanted), f"{window.name} of {key} is {got} in the store, Flink says {wanted}")
    evidence |= {"keys": len(newest), "looked_up": len(chosen), "feature_group": group}
    example = chosen[0]
    evidence["for_example"] = {
        spec.key: example,
        **{k: v for k, v in stored(example).items() if k != spec.key},
    }
    # Requests of this story bring the values of their own moment; they are the same words.
    sent = windows_of(contract, tale.inputs.live[:1], tale.inputs.initial)
    evidence["a_request_brings"] = sent[0]


STEPS: tuple[Step, ...] = (
    Step(
        id="windows-flink",
        title="Flink computes windows from the stream; the batch run computes the same",
        chapter=CHAPTER,
        run=_stream,
        capabilities=lambda _: ("stream.flink", "feature.parity"),
        applies=_on_flink,
    ),
    Step(
        id="windows-online",
        title="The newest windows of each key stand in the online store",
        chapter=CHAPTER,
        run=_online,
        capabilities=lambda _: ("feature.online",),
        applies=_on_flink,
    ),
)
