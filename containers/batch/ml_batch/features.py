"""Curated table to features zone and Feature Store: the same rows and order as ``glue/build_features``."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import boto3
import narwhals as nw
import polars as pl
import pyarrow.parquet as pq
from botocore.config import Config
from build_features import ingest
from lake_files import iceberg, notes
from lake_files.labels import read_labels, with_labels
from lake_files.objects import S3Uri, delete_objects, list_objects, read_text
from lake_files.parquet import inspect
from lake_files.report import digest
from ml_contract.compiled import CompiledContract
from ml_contract.features.stream import write_features
from ml_contract.windows.engines import with_windows
from ml_runtime.job import BadInputError

from ml_batch.store import fetch, glue_client, s3_client, scratch, store
from ml_batch.transforms import MONTH, TYPES

#: Failures shown in the error; the log holds all.
EXAMPLES = 5
#: Rows taken into memory at once on their way to the Feature Store.
BATCH_ROWS = 10_000


class IngestionError(Exception):
    """The Feature Store refused rows; none of this run counts as ingested, so the next run repeats them."""


def build_features(arguments: dict[str, str]) -> None:
    """Run the job."""
    s3 = s3_client()
    contract = CompiledContract.from_json(read_text(s3, arguments["contract"]))
    asked = arguments.get("curated_snapshot_id")
    curated, snapshot_id = read_curated(s3, arguments, contract)
    curated, labels_snapshot_id = labelled(curated, arguments, contract)
    folder = scratch("features")
    rows = write_features(with_windows(curated, contract), folder, contract, partition=MONTH)
    place = f"{arguments['curated_database']}.{arguments['curated_table']}"
    if not rows:
        raise BadInputError(f"no row in {place}: nothing was written")
    note = {
        "curated_table": place,
        "curated_snapshot_id": str(snapshot_id),
        "labels_snapshot_id": None if labels_snapshot_id is None else str(labels_snapshot_id),
        "rows": rows,
        "contract": digest(contract),
    }
    if asked is not None:
        uri = f"{arguments['snapshots_uri']}{snapshot_id}/"
        notes.begin(s3, uri, arguments["run_id"])
        replace(s3, folder, uri, arguments["run_id"])
        notes.finish(s3, uri, note)
        print(f"features: {json.dumps({'rows': rows, 'written_to': uri}, sort_keys=True)}")
        return

    changed = pl.scan_parquet(sorted(folder.rglob("*.parquet")), hive_partitioning=False)
    if arguments.get("ingest", "changed") != "all":
        changed = changed_since(s3, changed, arguments["features_uri"], contract)
    # ISO 8601 texts of one form: their order is that of the moments.
    moment = pl.col(contract.event_time)
    if "ingest_from" in arguments:
        changed = changed.filter(moment >= arguments["ingest_from"])
    if "ingest_until" in arguments:
        changed = changed.filter(moment < arguments["ingest_until"])
    taken, failures = put(changed, arguments, contract)
    summary = {"rows": rows, "ingested": taken, "unchanged": rows - taken - len(failures)}
    if failures:
        for failure in failures:
            print(f"not ingested: {json.dumps(asdict(failure), sort_keys=True)}")
        shown = "; ".join(f"{one.identifier}: {one.code} {one.message}" for one in failures[:EXAMPLES])
        raise IngestionError(
            f"{len(failures)} of {taken + len(failures)} rows were not taken by feature group "
            f"{arguments['feature_group_name']}, the features zone is unchanged: {shown}"
        )

    # Written last: a row in the features zone is a row that the Feature Store has.
    notes.begin(s3, arguments["features_uri"], arguments["run_id"])
    removed = replace(s3, folder, arguments["features_uri"], arguments["run_id"])
    notes.finish(s3, arguments["features_uri"], note)
    print(f"features: {json.dumps({**summary, 'files_removed': removed}, sort_keys=True)}")


def read_curated(
    s3: Any, arguments: Mapping[str, str], contract: CompiledContract
) -> tuple[pl.LazyFrame, int]:
    """The rows of the current snapshot, or of the one asked for; a column that it lacks is null."""
    place = iceberg.Place(arguments["curated_database"], arguments["curated_table"])
    asked = arguments.get("curated_snapshot_id")
    catalog = iceberg.glue_catalog(glue_client(arguments.get("aws_region")))
    try:
        table = iceberg.open_table(catalog, place)
        snapshot = (
            iceberg.current_snapshot(table) if asked is None else iceberg.snapshot_of(table, int(asked))
        )
        uris = iceberg.data_files(table, snapshot.snapshot_id)
    except (iceberg.NoTableError, iceberg.NoSnapshotError) as error:
        raise BadInputError(f"{error}; run the curate job first") from error
    if not uris:
        raise BadInputError(f"no row in {place}: nothing was written")
    files = fetch(s3, uris, scratch("curated"))
    schema = {name: TYPES[kind] for name, kind in contract.glue_columns()}
    rows = pl.scan_parquet(
        files, schema=schema, missing_columns="insert", extra_columns="ignore", hive_partitioning=False
    )
    # The expressions know no zones: every moment is UTC.
    moments = [
        pl.col(name).dt.replace_time_zone(None) for name, kind in schema.items() if kind == TYPES["timestamp"]
    ]
    return rows.with_columns(moments), snapshot.snapshot_id


def labelled(
    rows: pl.LazyFrame, arguments: Mapping[str, str], contract: CompiledContract
) -> tuple[pl.LazyFrame, int | None]:
    """The rows with the labels that people gave later, and the snapshot that these are of."""
    if "labels_table" not in arguments:
        return rows, None
    catalog = iceberg.glue_catalog(glue_client(arguments.get("aws_region")))
    try:
        labels, snapshot_id = read_labels(
            catalog, arguments["labels_table"], arguments.get("labels_snapshot_id")
        )
    except (iceberg.NoTableError, iceberg.NoSnapshotError) as error:
        raise BadInputError(str(error)) from error
    if not labels.num_rows:
        return rows, snapshot_id
    given = pl.LazyFrame(pl.from_arrow(labels))
    return nw.to_native(with_labels(nw.from_native(rows), nw.from_native(given), contract)), snapshot_id


def changed_since(s3: Any, rows: pl.LazyFrame, features_uri: str, contract: CompiledContract) -> pl.LazyFrame:
    """The rows that the features zone does not hold yet, in these very columns.

    With other columns than before every row is: a feature that was added has to reach the records there are,
    and another group has none of them yet.
    """
    before = inspect(s3, features_uri)
    wanted = [name for name, _ in contract.feature_columns()]
    if before.unreadable or not before.files:
        return rows
    if any([name for name, _ in file.columns] != wanted for file in before.files):
        return rows
    known = pl.scan_parquet(
        fetch(s3, [file.uri for file in before.files], scratch("known")), hive_partitioning=False
    )
    return rows.join(known, on=wanted, how="anti", nulls_equal=True)


def put(
    rows: pl.LazyFrame, arguments: Mapping[str, str], contract: CompiledContract
) -> tuple[int, list[ingest.Failure]]:
    """Put every row into the Feature Store."""
    region, group = arguments.get("aws_region"), arguments["feature_group_name"]
    online = ingest.has_online_store(boto3.client("sagemaker", region_name=region), group)
    settings = Config(
        max_pool_connections=ingest.CALLS, retries={"mode": "standard", "total_max_attempts": 1}
    )
    client = boto3.client("sagemaker-featurestore-runtime", region_name=region, config=settings)
    path = scratch("changed") / "rows.parquet"
    rows.sink_parquet(path, compression="lz4")
    return ingest.put_all(
        client,
        group,
        _rows(path),
        contract.identifier,
        event_time=contract.event_time if online else None,
    )


def _rows(path: pathlib.Path) -> Iterator[Mapping[str, Any]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH_ROWS):
            yield from batch.to_pylist()


def replace(s3: Any, folder: pathlib.Path, uri: str, run_id: str) -> int:
    """Put the files below ``folder`` in the place of what lies at ``uri``; returns how many files went.

    New names first, then the old ones go: a reader in between sees rows twice, never none. The bucket is
    versioned.
    """
    before = {item.key for item in list_objects(s3, uri) if item.key.endswith(".parquet")}
    for path in sorted(folder.rglob("*.parquet")):
        path.rename(path.with_name(f"{path.stem}-{run_id}.parquet"))
    written = {S3Uri.parse(one).key for one in store(s3, folder, uri)}
    return delete_objects(s3, S3Uri.parse(uri).bucket, sorted(before - written))
