"""The curate job: raw zone to curated zone.

Arguments: ``--contract --raw_uri --curated_uri --curated_database --curated_table --quality_uri
--ruleset_name`` (Glue adds ``--JOB_NAME`` and ``--JOB_RUN_ID``), optional ``--aws_region``. See
``docs/batch.md``.

The rows become data files at paths of this run alone, and then one snapshot of the curated Iceberg table. A
run that dies before the commit has changed nothing that a reader sees; the next run writes and commits anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import boto3
from awsglue.context import GlueContext
from awsglue.dynamicframe import DynamicFrame
from awsglue.job import Job
from awsglue.utils import getResolvedOptions
from awsgluedq.transforms import EvaluateDataQuality
from lake_files import iceberg
from lake_files.objects import read_text, write_text
from lake_files.parquet import Inspection, ParquetFile, UnreadableFile, inspect, undecodable
from ml_contract.compiled import CompiledContract
from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark import SparkContext
from pyspark.sql import functions as sf

from curate import transforms

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyspark.sql import DataFrame, SparkSession

ARGUMENTS = [
    "JOB_NAME",
    "contract",
    "raw_uri",
    "curated_uri",
    "curated_database",
    "curated_table",
    "quality_uri",
    "ruleset_name",
]
#: Refused rows named in the report, so that it stays readable; the raw zone holds them all.
EXAMPLES = 20
#: No curated file grows without bound; a month may span several.
ROWS_PER_FILE = 2_000_000


class NothingToCurateError(Exception):
    """There is no readable raw file: nothing was written."""


class QualityError(Exception):
    """The rows break a rule of the ruleset: the curated zone keeps its former state."""


def main(argv: Sequence[str]) -> None:
    """Run the job."""
    optional = [name for name in ("aws_region",) if f"--{name}" in argv]
    arguments = getResolvedOptions(argv, [*ARGUMENTS, *optional])
    glue_context = GlueContext(SparkContext.getOrCreate())
    spark = glue_context.spark_session
    job = Job(glue_context)
    job.init(arguments["JOB_NAME"], arguments)
    configure(spark)
    s3 = boto3.client("s3")
    contract = CompiledContract.from_json(read_text(s3, arguments["contract"]))
    report = Report(s3, f"{arguments['quality_uri']}{arguments['JOB_RUN_ID']}.json")
    report.update(workload=contract.name, raw_uri=arguments["raw_uri"], ruleset=arguments["ruleset_name"])

    found = inspect(s3, arguments["raw_uri"])
    rows = read_rows(spark, s3, found, contract, report)
    curated = rows.where(sf.size(transforms.REASONS) == 0).drop(transforms.REASONS)
    curated = transforms.with_month(transforms.newest(curated, contract), contract).persist()
    kept = curated.count()
    report.update(duplicates_dropped=report["rows_read"] - report["rows_rejected"] - kept)

    # S3 answers without a Region, Glue does not.
    glue = boto3.client("glue", region_name=arguments.get("aws_region"))
    ruleset = glue.get_data_quality_ruleset(Name=arguments["ruleset_name"])["Ruleset"]
    outcomes = judge(glue_context, curated, ruleset)
    failed = [outcome for outcome in outcomes if not outcome.passed]
    report.update(rules=[dataclasses.asdict(outcome) for outcome in outcomes], passed=not failed)
    if failed:
        report.update(rows_written=0)
        report.write()
        listed = "; ".join(f"{outcome.rule}: {outcome.reason}" for outcome in failed)
        raise QualityError(f"{len(failed)} of {len(outcomes)} rules failed, nothing was written: {listed}")

    # A path of this run's own: what an earlier run left uncommitted can never get into this commit.
    uri = f"{arguments['curated_uri']}data/{arguments['JOB_RUN_ID']}/"
    table = curated_table(glue, arguments, contract)
    months_before = iceberg.partitions(table)
    write(curated, uri, contract, iceberg.field_ids(table))
    snapshot = commit(
        s3, table, uri, kept, {"job-run-id": arguments["JOB_RUN_ID"], "contract": digest(contract)}
    )
    months = iceberg.partitions(table)
    report.update(
        rows_written=kept,
        snapshot_id=str(snapshot),
        months=sorted(months),
        months_removed=sorted(months_before - months),
    )
    report.write()
    job.commit()


def curated_table(glue: Any, arguments: dict[str, str], contract: CompiledContract) -> Table:
    """The curated Iceberg table, with every column of the contract."""
    return iceberg.ensure_table(
        iceberg.glue_catalog(glue),
        iceberg.Place(arguments["curated_database"], arguments["curated_table"]),
        location=arguments["curated_uri"],
        columns=contract.glue_columns(),
        partition_by=[("month", contract.event_time)],
    )


def commit(s3: Any, table: Table, uri: str, rows: int, properties: dict[str, str]) -> int:
    """Make the files below ``uri`` the table's content; returns the snapshot's id."""
    written = inspect(s3, uri)
    found = sum(file.rows for file in written.files)
    if written.unreadable or found != rows:
        raise RuntimeError(
            f"{rows} rows were to be written below {uri}; {found} are there and "
            f"{len(written.unreadable)} files cannot be read: nothing was committed"
        )
    return iceberg.replace_rows(
        table, [file.uri for file in written.files], properties=properties
    ).snapshot_id


def digest(contract: CompiledContract) -> str:
    """What tells two versions of a contract apart."""
    return hashlib.sha256(contract.to_json().encode()).hexdigest()


def configure(spark: SparkSession) -> None:
    """Session settings that the job's meaning rests on."""
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    spark.conf.set("spark.sql.files.ignoreCorruptFiles", "false")
    # Iceberg knows no INT96, Spark's default, and reads its fields by id.
    spark.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
    spark.conf.set("spark.sql.parquet.fieldId.write.enabled", "true")
    spark.conf.set("mapreduce.fileoutputcommitter.marksuccessfuljobs", "false")


class Report(dict[str, Any]):
    """What the run found and did; one JSON object under the quality prefix."""

    def __init__(self, s3: Any, uri: str) -> None:
        super().__init__(rows_read=0, rows_rejected=0, duplicates_dropped=0, rows_written=0, late=0)
        self.update(rules=[], passed=False)
        self._s3 = s3
        self.uri = uri

    def write(self) -> None:
        """Store it and show it in the job's log."""
        text = json.dumps(self, sort_keys=True, default=str)
        write_text(self._s3, self.uri, text)
        print(f"quality report {self.uri}: {text}")


def read_rows(
    spark: SparkSession, s3: Any, found: Inspection, contract: CompiledContract, report: Report
) -> DataFrame:
    """Every row of every readable file, typed; what could not be read goes to the report.

    Counting decodes each file, so one that Spark cannot decode shows here: it is reported and left out.
    """
    files, unreadable = list(found.files), list(found.unreadable)
    while True:
        if not files:
            report.update(files_read=0, files_unreadable=_listed(unreadable))
            report.write()
            reason = f"{len(unreadable)} files and none is readable" if unreadable else "no file"
            raise NothingToCurateError(f"{reason} under {report['raw_uri']}: nothing was written")
        rows = transforms.union(
            [
                transforms.typed(spark.read.parquet(*(file.uri for file in group)), contract)
                for _, group in transforms.by_schema(files)
            ]
        ).persist()
        try:
            counts = _count(rows, contract)
        except Py4JJavaError:
            rows.unpersist()
            culprits = undecodable(s3, files)
            if not culprits:
                raise
            bad = {culprit.uri for culprit in culprits}
            files = [file for file in files if file.uri not in bad]
            unreadable.extend(culprits)
            continue
        report.update(counts, **_files(files, unreadable, contract))
        return rows


def _count(rows: DataFrame, contract: CompiledContract) -> dict[str, Any]:
    rejected = sf.size(transforms.REASONS) > 0
    row = rows.agg(
        sf.count(sf.lit(1)).alias("rows_read"),
        sf.count(sf.when(rejected, 1)).alias("rows_rejected"),
        sf.count(sf.when(~rejected & transforms.late(contract), 1)).alias("late"),
    ).first()
    if row is None:
        raise RuntimeError("an aggregate without groups gave no row")
    counts: dict[str, Any] = row.asDict()
    if counts["rows_rejected"]:
        examples = rows.where(rejected).select("record_id", transforms.REASONS)
        examples = examples.orderBy("record_id", transforms.REASONS).limit(EXAMPLES)
        counts["rejected"] = [
            {"record_id": example["record_id"], "reasons": list(example[transforms.REASONS])}
            for example in examples.collect()
        ]
    return counts


def _files(
    files: Sequence[ParquetFile], unreadable: Sequence[UnreadableFile], contract: CompiledContract
) -> dict[str, Any]:
    drift = transforms.schema_drift(files, contract.glue_columns())
    return {
        "files_read": len(files),
        "files_unreadable": _listed(unreadable),
        "schema_drift": [dataclasses.asdict(one) for one in drift],
    }


def _listed(unreadable: Sequence[UnreadableFile]) -> list[dict[str, str]]:
    return [dataclasses.asdict(one) for one in unreadable]


def judge(glue_context: GlueContext, frame: DataFrame, ruleset: str) -> list[transforms.RuleOutcome]:
    """Evaluate the data quality ruleset."""
    outcomes = EvaluateDataQuality.apply(
        frame=DynamicFrame.fromDF(frame, glue_context, "curated"),
        ruleset=ruleset,
        publishing_options={
            "dataQualityEvaluationContext": "curated",
            "enableDataQualityCloudWatchMetrics": False,
            "enableDataQualityResultsPublishing": False,
        },
    )
    return transforms.rule_outcomes(row.asDict() for row in outcomes.toDF().collect())


def write(frame: DataFrame, uri: str, contract: CompiledContract, field_ids: dict[str, int]) -> None:
    """Write data files, a month in each: a file belongs to one partition of the table."""
    columns = [
        sf.col(name).alias(name, metadata={"parquet.field.id": field_ids[name]})
        for name, _ in contract.glue_columns()
    ]
    (
        frame.select(*columns, transforms.MONTH)
        .repartition(transforms.MONTH)
        .sortWithinPartitions(contract.identifier)
        .write.mode("overwrite")
        .option("maxRecordsPerFile", ROWS_PER_FILE)
        .partitionBy(transforms.MONTH)
        .parquet(uri)
    )


if __name__ == "__main__":
    main(sys.argv)
