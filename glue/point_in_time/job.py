"""A training set of labels and of features as they were known, on Spark.

The labels are Parquet files with the record's identifier, the moment at which a model would have been asked
(``label_time``) and the label. The features are the offline store of a feature group: every record that was
ever put, with the time it was written. ``ml_contract.features.as_of`` says what is joined to what.

The result has the columns of the features table, so that training takes it as it takes the features zone
(pipeline parameter ``FeaturesUri``): its event time is the label's moment. ``_snapshot.json`` beside it says
what it was made of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import boto3
from lake_files import iceberg
from lake_files.objects import list_objects, read_text, write_text
from ml_contract.compiled import CompiledContract
from ml_contract.features.as_of import AsOf, as_of
from pyspark.sql import functions as sf
from pyspark.sql import types

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["ARGUMENTS", "OPTIONAL", "NothingToJoinError", "run"]

ARGUMENTS = ("contract", "labels_uri", "feature_group_name", "target_uri")
OPTIONAL = ("aws_region", "label_time", "cutoff", "keep_unknown")
#: Column of the labels that says when a model would have been asked.
LABEL_TIME = "label_time"
SNAPSHOT_FILE = "_snapshot.json"
#: What the offline store adds to a group's columns.
WRITE_TIME, INVOCATION_TIME, DELETED = "write_time", "api_invocation_time", "is_deleted"
_SPARK = {"bigint": types.LongType(), "double": types.DoubleType(), "string": types.StringType()}


class NothingToJoinError(Exception):
    """There are no labels, or nothing was ever put into the feature group."""


def run(spark: SparkSession, arguments: Mapping[str, str]) -> None:
    """Make one training set.

    ``cutoff`` (ISO 8601 with a zone) leaves out what was written after it. Labels without known features are
    left out unless ``keep_unknown`` is ``true``.
    """
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    spark.conf.set("mapreduce.fileoutputcommitter.marksuccessfuljobs", "false")
    s3 = boto3.client("s3")
    region = arguments.get("aws_region") or boto3.session.Session().region_name
    contract = CompiledContract.from_json(read_text(s3, arguments["contract"]))
    cutoff = datetime.fromisoformat(arguments["cutoff"]) if "cutoff" in arguments else None
    labels = read_labels(
        spark, s3, arguments["labels_uri"], contract, arguments.get("label_time", LABEL_TIME)
    )
    history, source = read_history(spark, s3, arguments["feature_group_name"], contract, region)
    names = tuple(feature.name for feature in (*contract.features, *contract.audit))
    spec = AsOf(
        identifier=contract.identifier,
        label_time=LABEL_TIME,
        event_time=contract.event_time,
        features=names,
        write_time=WRITE_TIME,
        invocation_time=INVOCATION_TIME,
        deleted=DELETED,
        cutoff=cutoff,
        found_at="_known_since",
    )
    joined = as_of(labels, history, spec).persist()
    asked = joined.count()
    known = joined if arguments.get("keep_unknown") == "true" else joined.where("_known_since is not null")
    written = known.select(
        *(
            sf.date_format(LABEL_TIME, "yyyy-MM-dd'T'HH:mm:ss'Z'").alias(name)
            if name == contract.event_time
            else sf.col(name)
            for name, _ in contract.feature_columns()
        )
    ).persist()
    rows = written.count()
    written.sortWithinPartitions(contract.identifier).write.mode("overwrite").parquet(arguments["target_uri"])
    note = {
        **source,
        "labels_uri": arguments["labels_uri"],
        "cutoff": None if cutoff is None else cutoff.isoformat(),
        "labels": asked,
        "labels_without_features": joined.where("_known_since is null").count(),
        "rows": rows,
    }
    write_text(s3, f"{arguments['target_uri']}{SNAPSHOT_FILE}", json.dumps(note, sort_keys=True))
    print(f"point in time: {json.dumps(note, sort_keys=True)}")


def read_labels(
    spark: SparkSession, s3: Any, uri: str, contract: CompiledContract, label_time: str
) -> DataFrame:
    """Identifier, moment and label of every label row; further columns stay behind."""
    if next(list_objects(s3, uri), None) is None:
        raise NothingToJoinError(f"no file under {uri}: put labels there first")
    rows = spark.read.parquet(uri)
    wanted = [contract.identifier, label_time, contract.label.field]
    missing = [name for name in wanted if name not in rows.columns]
    if missing:
        raise NothingToJoinError(
            f"the labels under {uri} lack {', '.join(missing)}; they have {rows.columns}"
        )
    kind = _SPARK[dict(contract.feature_columns())[contract.label.field]]
    return rows.select(
        contract.identifier,
        sf.col(label_time).cast("timestamp").alias(LABEL_TIME),
        sf.col(contract.label.field).cast(kind),
    )


def read_history(
    spark: SparkSession, s3: Any, feature_group: str, contract: CompiledContract, region: str | None
) -> tuple[DataFrame, dict[str, Any]]:
    """Every record of the offline store, and what it was read from.

    A column that files lack, of a feature that came later, is null in them.
    """
    group = boto3.client("sagemaker", region_name=region).describe_feature_group(
        FeatureGroupName=feature_group
    )
    store = group["OfflineStoreConfig"]
    place = store["S3StorageConfig"]["ResolvedOutputS3Uri"]
    source: dict[str, Any] = {"feature_group": feature_group, "offline_store": place}
    if store.get("TableFormat") == "Iceberg":
        catalog = store["DataCatalogConfig"]
        glue = boto3.client("glue", region_name=region)
        table = iceberg.open_table(
            iceberg.glue_catalog(glue), iceberg.Place(catalog["Database"], catalog["TableName"])
        )
        try:
            snapshot = iceberg.current_snapshot(table)
        except iceberg.NoSnapshotError as error:
            raise NothingToJoinError(f"nothing was put into {feature_group} yet") from error
        files = iceberg.data_files(table, snapshot.snapshot_id)
        source["offline_snapshot_id"] = str(snapshot.snapshot_id)
    else:
        files = [item.uri for item in list_objects(s3, place) if item.key.endswith(".parquet")]
    if not files:
        raise NothingToJoinError(f"nothing was put into {feature_group} yet")
    wanted = [(contract.identifier, _SPARK[dict(contract.feature_columns())[contract.identifier]])]
    wanted += [(contract.event_time, types.StringType())]
    wanted += [
        (f.name, types.DoubleType() if f.type == "number" else types.StringType())
        for f in (*contract.features, *contract.audit)
    ]
    wanted += [
        (WRITE_TIME, types.TimestampType()),
        (INVOCATION_TIME, types.TimestampType()),
        (DELETED, types.BooleanType()),
    ]
    schema = types.StructType([types.StructField(name, kind) for name, kind in wanted])
    return spark.read.schema(schema).parquet(*files), source
