"""Chapter: from a prediction back to the records that its model learned from."""

from __future__ import annotations

import io
import json
import random
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ml_contract.records.lineage import record_key

from rehearsal.lineage import Trace, Tracer, tree
from rehearsal.story.tale import Tale
from rehearsal.story.telling import Evidence, Step, require
from rehearsal.story.traffic import questions

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["STEPS"]

CHAPTER = "Lineage"
INFERENCE_ID = "asked-for-lineage"


def _tracer(tale: Tale) -> Tracer:
    return Tracer(tale.cloud.client, tale.outputs("Serving")["EndpointName"])


def _trace(tale: Tale, evidence: Evidence) -> None:
    endpoint = tale.outputs("Serving")["EndpointName"]
    body = questions(tale, tale.inputs.live[:1])[0]
    tale.cloud.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=endpoint, ContentType="application/json", Body=body, InferenceId=INFERENCE_ID
    )
    tale.cloud.server.control("POST", "/endpoints/flush", {})
    tracer = _tracer(tale)
    trace = tracer.trace(INFERENCE_ID)
    evidence["trace"] = tree(trace).splitlines()
    package = trace.model["package"]
    require(package == tale.known["serving"], f"{package} is named, {tale.known['serving']} serves")
    configs = trace.endpoint["configs"]
    described = tale.cloud.client("sagemaker").describe_endpoint(EndpointName=endpoint)
    require(
        described["EndpointConfigName"] in configs, f"{described['EndpointConfigName']} is not in {configs}"
    )
    require(
        {"Prepare", "Train"} <= set(trace.training.get("jobs", {})),
        f"the execution names the jobs {sorted(trace.training.get('jobs', {}))}",
    )
    other = _of_the_traffic(tale)
    again = tracer.trace(other)
    evidence["a prediction of the traffic"] = other
    require(again.records == trace.records, "two predictions of one model lead to two training sets")
    tale.known["trace"] = trace


def _of_the_traffic(tale: Tale) -> str:
    """The event id of another prediction: one of those that the traffic left."""
    found = []
    for uri in tale.cloud.objects.list(tale.outputs("Serving")["CaptureUri"], suffix=".jsonl"):
        for line in tale.cloud.objects.read(uri).splitlines():
            metadata = json.loads(line)["eventMetadata"]
            if metadata.get("inferenceId") != INFERENCE_ID:
                found.append(str(metadata["eventId"]))
    require(found, "no prediction of the traffic was captured")
    return random.Random(tale.seed).choice(sorted(found))  # noqa: S311 - a sample, no secret


def _records(tale: Tale, evidence: Evidence) -> None:
    trace: Trace = tale.known["trace"]
    named = _parquet(tale, trace.records).to_pylist()
    by_part: dict[str, set[tuple[str, str]]] = {}
    for row in named:
        by_part.setdefault(row["part"], set()).add((row["record"], row["event_time"]))
    evidence["records"] = {part: len(rows) for part, rows in sorted(by_part.items())}
    evidence["named_by"] = trace.data["named_by"]

    # What the training job was given, byte for byte, holds these very records.
    job = tale.cloud.client("sagemaker").describe_training_job(
        TrainingJobName=trace.training["jobs"]["Train"].rsplit("/", 1)[-1]
    )
    channels = {
        channel["ChannelName"]: channel["DataSource"]["S3DataSource"]["S3Uri"]
        for channel in job["InputDataConfig"]
    }
    for part in ("train", "validation"):
        given = set()
        for uri in tale.cloud.objects.list(channels[part], suffix=".parquet"):
            given |= _keys(tale, _parquet(tale, uri), trace)
        require(
            given == by_part[part],
            f"the {part} channel holds {len(given)} records, lineage names {len(by_part[part])} others",
        )
    evidence["channels_compared"] = ["train", "validation"]

    # The feature files are found again by their content, in the very version that was read.
    versions = _tracer(tale).versions(trace)
    lost = [place["uri"] for place in versions if place["version"] is None]
    require(not lost, f"no version of {lost[:3]} has the content that was trained on")
    behind: set[tuple[str, str]] = set()
    for place in versions:
        behind |= _keys(tale, _parquet(tale, place["uri"], place["version"]), trace, labelled=True)
    everything = set().union(*by_part.values())
    require(
        everything == behind,
        f"the feature files hold {len(behind)} labelled records, lineage names {len(everything)}",
    )
    evidence["feature_files"] = [f"{p['uri'].rsplit('/', 1)[-1]} @ {p['version']}" for p in versions[:5]]
    snapshot = trace.data["features"]["snapshot"]
    require(snapshot, "the training set names no snapshot of the curated rows")
    evidence["curated"] = {
        "table": snapshot["curated_table"],
        "snapshot": snapshot["curated_snapshot_id"],
        "still_there": _has_snapshot(tale, snapshot),
    }


def _keys(tale: Tale, table: pa.Table, trace: Trace, *, labelled: bool = False) -> set[tuple[str, str]]:
    """Names and event times of a table's records, as lineage has them."""
    contract = tale.contract
    hashed = trace.data["named_by"] == "record_key"
    columns = [contract.identifier, contract.event_time, contract.label.field]
    found = set()
    for row in table.select(columns).to_pylist():
        value = row[contract.label.field]
        values = contract.label.values
        known = value is not None if values is None else value in values
        # A row without an identifier was made up to balance the classes; it is nobody's record.
        if (labelled and not known) or row[contract.identifier] is None:
            continue
        identifier = str(row[contract.identifier])
        name = record_key(contract.name, identifier) if hashed else identifier
        found.add((name, row[contract.event_time]))
    return found


def _parquet(tale: Tale, uri: str, version: str | None = None) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = urlsplit(uri)
    more: dict[str, Any] = {} if version is None else {"VersionId": version}
    answer = tale.cloud.client("s3").get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"), **more)
    # A file by itself: a folder's name in its path is no column of it.
    return pq.ParquetFile(pa.BufferReader(io.BytesIO(answer["Body"].read()).read())).read()


def _has_snapshot(tale: Tale, snapshot: dict[str, Any]) -> bool:
    database, _, name = snapshot["curated_table"].partition(".")
    table = tale.cloud.client("glue").get_table(DatabaseName=database, Name=name)["Table"]
    metadata = tale.cloud.objects.read_json(table["Parameters"]["metadata_location"])
    ids = {str(one["snapshot-id"]) for one in metadata.get("snapshots", ())}
    there = snapshot["curated_snapshot_id"] in ids
    require(there, f"{snapshot['curated_table']} has the snapshots {sorted(ids)}")
    return there


STEPS: tuple[Step, ...] = (
    Step(
        id="lineage",
        title="From a prediction to its model, its training and the snapshot behind it",
        chapter=CHAPTER,
        run=_trace,
        capabilities=lambda _: ("data.lineage",),
    ),
    Step(
        id="lineage-records",
        title="The records that lineage names are those that the model was trained on",
        chapter=CHAPTER,
        run=_records,
        capabilities=lambda _: ("data.lineage",),
    ),
)
