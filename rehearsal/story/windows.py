"""Chapter: features over time, in batches and as records arrive."""

from __future__ import annotations

import json
import math
import random
from typing import TYPE_CHECKING, Any

from rehearsal.story.telling import Evidence, Step, require, wait_until
from rehearsal.story.traffic import windows_of

if TYPE_CHECKING:
    from ml_contract.model import Workload

    from rehearsal.story.tale import Tale

__all__ = ["STEPS"]

CHAPTER = "Windows"
SAMPLE = 60
#: Sums of many numbers in another order.
CLOSE = 1e-9


def _on_flink(workload: Workload) -> bool:
    return workload.windows is not None and workload.windows.engine == "flink"


def _stream(tale: Tale, evidence: Evidence) -> None:
    """Let Flink catch up; what it made of the stream is what the batch engines' words make of the records."""
    outputs = tale.outputs("Windows")
    name = outputs["WindowApplicationName"]
    described = tale.cloud.client("kinesisanalyticsv2").describe_application(ApplicationName=name)
    status = described["ApplicationDetail"]["ApplicationStatus"]
    evidence |= {"application": name, "status": status}
    require(status == "RUNNING", f"application {name} is {status}; its stack should have started it")
    counts = tale.cloud.server.control("POST", "/flink/run", {"application": name}, timeout_seconds=600)
    evidence |= {f"flink_{key}": value for key, value in counts.items()}
    tale.cloud.idle()
    rows = _rows(tale, outputs["WindowStreamName"])
    evidence["rows_in_the_stream"] = len(rows)
    _agree_with_the_batch(tale, rows, evidence)


def _rows(tale: Tale, stream: str) -> list[dict[str, Any]]:
    kinesis = tale.cloud.client("kinesis")
    found = []
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        iterator = kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator is not None:
            answer = kinesis.get_records(ShardIterator=iterator, Limit=10_000)
            found += [json.loads(record["Data"]) for record in answer["Records"]]
            if not answer["Records"]:
                break
            iterator = answer.get("NextShardIterator")
    return found


def _agree_with_the_batch(tale: Tale, rows: list[dict[str, Any]], evidence: Evidence) -> None:
    """Compare rows of Flink with the features that the batch run has written for the same key and moment."""
    from rehearsal.story.ingestion import read_parquet

    contract = tale.contract
    spec = contract.windows
    if spec is None:
        return
    names = [window.name for window in spec.windows]
    columns = [contract.identifier, contract.event_time, *names]
    batch = {
        row[contract.identifier]: row
        for row in read_parquet(tale, tale.outputs("Data")["FeaturesDataUri"], columns).to_pylist()
    }
    keys = _keys(tale)
    made = {(str(row[spec.key]), row[contract.event_time]): row for row in rows}
    pairs = [
        (key, row, made.get((keys[key], row[contract.event_time])))
        for key, row in sorted(batch.items())
        if key in keys
    ]
    require(pairs, "no row of the features zone was sent to the stream by this story")
    missing = [key for key, _, flink in pairs if flink is None]
    differ = [
        f"{key}: {name} is {flink[name]} on Flink, {row[name]} in the batch run"
        for key, row, flink in pairs
        if flink is not None
        for name in names
        if not _same(flink[name], row[name])
    ]
    evidence |= {
        "compared_with_the_batch_run": len(pairs),
        "windows_each": len(names),
        "differences": len(differ),
        "left_to_the_batch_run": len(missing),
    }
    require(not differ, f"{len(differ)} values differ; {'; '.join(differ[:3])}")
    require(
        len(missing) <= len(pairs) / 20,
        f"Flink made no row for {len(missing)} of {len(pairs)} records that the batch run has",
    )


def _keys(tale: Tale) -> dict[Any, str]:
    """Window key by identifier, of the records that this story has sent as they are."""
    contract = tale.contract
    spec = contract.windows
    if spec is None:
        return {}
    by_name = contract.by_name
    identifier, key = by_name[contract.identifier].source, by_name[spec.key].source
    return {r[identifier]: str(r[key]) for r in tale.inputs.initial if r.get(key) is not None}


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
    rows = _rows(tale, outputs["WindowStreamName"])
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
