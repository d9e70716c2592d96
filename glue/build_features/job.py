"""Curated zone to features zone and Feature Store on Spark, by Glue (``main.py``) or EMR (``emr.py``).

Features of an earlier snapshot are built beside the features zone and go into no store: they are the training
set of that day again, not the news.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import boto3
import narwhals as nw
from botocore.config import Config
from lake_files import iceberg, notes
from lake_files.labels import read_labels, with_labels
from lake_files.objects import read_text, remove_other_partitions
from lake_files.parquet import inspect
from lake_files.report import digest
from ml_contract.compiled import CompiledContract
from ml_contract.features.frame import feature_frame
from ml_contract.windows.engines import with_windows
from pyspark.sql import functions as sf

from build_features import ingest

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row, SparkSession

#: What every service gives the job, and what it may give.
ARGUMENTS = (
    "contract",
    "curated_database",
    "curated_table",
    "features_uri",
    "snapshots_uri",
    "feature_group_name",
)
OPTIONAL = (
    "aws_region",
    "ingest",
    "ingest_from",
    "ingest_until",
    "curated_snapshot_id",
    "labels_table",
    "labels_snapshot_id",
)
MONTH = "event_month"
#: Failures shown in the error; the log holds all.
EXAMPLES = 5
ROWS_PER_FILE = 2_000_000


class NothingToBuildError(Exception):
    """The curated zone holds no row."""


class IngestionError(Exception):
    """The Feature Store refused rows; none of this run counts as ingested, so the next run repeats them."""


def run(spark: SparkSession, arguments: Mapping[str, str]) -> None:
    """Build the features once."""
    configure(spark)
    s3 = boto3.client("s3")
    contract = CompiledContract.from_json(read_text(s3, arguments["contract"]))

    region = arguments.get("aws_region") or boto3.session.Session().region_name
    asked = arguments.get("curated_snapshot_id")
    curated = read_curated(spark, region, arguments, contract)
    curated = labelled(spark, arguments, curated, contract)
    features = features_of(curated.rows, contract).persist()
    rows = features.count()
    if not rows:
        raise NothingToBuildError(f"no row in {curated.source}: nothing was written")
    if asked is not None:
        uri = f"{arguments['snapshots_uri']}{curated.snapshot_id}/"
        notes.begin(s3, uri)
        write(features, uri, contract)
        note_snapshot(s3, uri, curated, rows, contract)
        print(f"features: {json.dumps({'rows': rows, 'written_to': uri}, sort_keys=True)}")
        return

    changed = features
    if arguments.get("ingest", "changed") != "all":
        changed = changed_since(spark, s3, features, arguments["features_uri"])
    # ISO 8601 texts of one form: their order is that of the moments.
    for name, inside in (("ingest_from", "__ge__"), ("ingest_until", "__lt__")):
        if name in arguments:
            changed = changed.where(getattr(sf.col(contract.event_time), inside)(arguments[name]))
    # Workers are told the Region: nothing says that theirs is in their environment, as it is in the driver's.
    group = arguments["feature_group_name"]
    online = ingest.has_online_store(boto3.client("sagemaker", region_name=region), group)
    taken, failures = ingest_rows(
        changed.drop(MONTH), group, contract.identifier, region, contract.event_time if online else None
    )
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
    notes.begin(s3, arguments["features_uri"])
    write(features, arguments["features_uri"], contract)
    months = [row[0] for row in features.select(MONTH).distinct().collect()]
    removed = remove_other_partitions(s3, arguments["features_uri"], MONTH, months)
    note_snapshot(s3, arguments["features_uri"], curated, rows, contract)
    print(f"features: {json.dumps({**summary, 'months_removed': removed}, sort_keys=True)}")


def configure(spark: SparkSession) -> None:
    """Session settings that the job's meaning rests on."""
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    spark.conf.set("spark.sql.sources.partitionOverwriteMode", "dynamic")
    spark.conf.set("mapreduce.fileoutputcommitter.marksuccessfuljobs", "false")


@dataclass(frozen=True)
class Curated:
    """The rows of one snapshot of the curated table."""

    rows: DataFrame
    source: str
    snapshot_id: int
    #: The snapshot of people's labels, once they stand in the rows.
    labels_snapshot_id: int | None = None


def read_curated(
    spark: SparkSession, region: str | None, arguments: Mapping[str, str], contract: CompiledContract
) -> Curated:
    """The rows of the current snapshot, or of the one asked for; a column that it lacks is null."""
    place = iceberg.Place(arguments["curated_database"], arguments["curated_table"])
    asked = arguments.get("curated_snapshot_id")
    try:
        table = iceberg.open_table(iceberg.glue_catalog(boto3.client("glue", region_name=region)), place)
        snapshot = (
            iceberg.current_snapshot(table) if asked is None else iceberg.snapshot_of(table, int(asked))
        )
        files = iceberg.data_files(table, snapshot.snapshot_id)
    except (iceberg.NoTableError, iceberg.NoSnapshotError) as error:
        raise NothingToBuildError(f"{error}; run the curate job first") from error
    if not files:
        raise NothingToBuildError(f"no row in {place}: nothing was written")
    columns = ", ".join(f"`{name}` {kind}" for name, kind in contract.glue_columns())
    return Curated(spark.read.schema(columns).parquet(*files), str(place), snapshot.snapshot_id)


def labelled(
    spark: SparkSession, arguments: Mapping[str, str], curated: Curated, contract: CompiledContract
) -> Curated:
    """The same rows, with the labels that people gave later."""
    if "labels_table" not in arguments:
        return curated
    catalog = iceberg.glue_catalog(boto3.client("glue", region_name=arguments.get("aws_region")))
    asked = arguments.get("labels_snapshot_id")
    labels, snapshot_id = read_labels(catalog, arguments["labels_table"], asked)
    rows = curated.rows
    if labels.num_rows:
        given = spark.createDataFrame(
            [(row["identifier"], row["label"]) for row in labels.to_pylist()],
            "identifier string, label string",
        )
        found = with_labels(nw.from_native(rows), nw.from_native(sf.broadcast(given)), contract)
        rows = nw.to_native(found)
    return replace(curated, rows=rows, labels_snapshot_id=snapshot_id)


def note_snapshot(s3: Any, uri: str, curated: Curated, rows: int, contract: CompiledContract) -> None:
    """Say which curated rows and labels the features below ``uri`` were built from, and by which contract."""
    labels = curated.labels_snapshot_id
    note = {
        "curated_table": curated.source,
        "curated_snapshot_id": str(curated.snapshot_id),
        "labels_snapshot_id": None if labels is None else str(labels),
        "rows": rows,
        "contract": digest(contract),
    }
    notes.finish(s3, uri, note)


def features_of(curated: DataFrame, contract: CompiledContract) -> DataFrame:
    """The contract's feature columns of curated rows, plus the partition column."""
    frame: DataFrame = feature_frame(with_windows(curated, contract), contract)
    names = [name for name, _ in contract.feature_columns()]
    return frame.select(*names, sf.substring(sf.col(contract.event_time), 1, 7).alias(MONTH))


def changed_since(spark: SparkSession, s3: Any, features: DataFrame, features_uri: str) -> DataFrame:
    """The rows that the features zone does not hold yet, in these very columns.

    With other columns than before every row is: a feature that was added has to reach the records there are,
    and another group has none of them yet.
    """
    before = inspect(s3, features_uri)
    wanted = [name for name in features.columns if name != MONTH]
    if before.unreadable or not before.files:
        return features
    if any([name for name, _ in file.columns] != wanted for file in before.files):
        return features
    known = spark.read.parquet(features_uri).select(*features.columns)
    return features.subtract(known)


def ingest_rows(
    rows: DataFrame, feature_group: str, identifier: str, region: str | None, event_time: str | None = None
) -> tuple[int, list[ingest.Failure]]:
    """Put the rows from the workers; the driver only hears counts and failures."""

    def put_partition(partition: Iterable[Row]) -> Iterator[tuple[int, list[ingest.Failure]]]:
        settings = Config(
            max_pool_connections=ingest.CALLS, retries={"mode": "standard", "total_max_attempts": 1}
        )
        client = boto3.client("sagemaker-featurestore-runtime", region_name=region, config=settings)
        rows: Iterator[Mapping[str, Any]] = (row.asDict() for row in partition)
        yield ingest.put_all(client, feature_group, rows, identifier, event_time=event_time)

    results = rows.rdd.mapPartitions(put_partition).collect()
    return sum(taken for taken, _ in results), [failure for _, failed in results for failure in failed]


def write(frame: DataFrame, uri: str, contract: CompiledContract) -> None:
    """Replace the months that the frame holds."""
    (
        frame.repartition(MONTH)
        .sortWithinPartitions(contract.identifier)
        .write.mode("overwrite")
        .option("maxRecordsPerFile", ROWS_PER_FILE)
        .partitionBy(MONTH)
        .parquet(uri)
    )
