"""Raw zone to curated zone on Spark, on whatever service: Glue (``main.py``) or EMR Serverless (``emr.py``).

The rows become data files at paths of this run alone, and then one snapshot of the curated Iceberg table. A
run that dies before the commit has changed nothing that a reader sees; the next run writes and commits anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from lake_files import iceberg, partitions, quarantine
from lake_files.drift import by_schema
from lake_files.objects import read_text
from lake_files.parquet import Inspection, inspect, inspect_files, undecodable
from lake_files.report import EXAMPLES, Report, RuleOutcome, digest
from ml_contract.compiled import CompiledContract
from ml_contract.quality.dqdl import Rule
from ml_contract.quality.on_spark import SparkEngine, broken
from ml_contract.quality.rules import parsed_rules, row_rule, severity_of
from ml_contract.quality.verdicts import evaluate
from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.sql import functions as sf

from curate import transforms

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyspark.sql import DataFrame, SparkSession

#: What every service gives the job, and what it may give.
ARGUMENTS = ("contract", "raw_uri", "curated_uri", "curated_database", "curated_table", "quality_uri")
OPTIONAL = ("aws_region", "quarantine_uri", "raw_table", "raw_catalog")
#: No curated file grows without bound; a month may span several.
ROWS_PER_FILE = 2_000_000
#: Names of broken rules, beside a quarantined row.
BROKEN = "_broken"

Judge = Callable[["DataFrame", CompiledContract], list[RuleOutcome]]


@dataclass(frozen=True)
class _Clients:
    s3: Any
    glue: Any


def run(spark: SparkSession, arguments: Mapping[str, str], run_id: str, judge: Judge) -> None:
    """Curate once. ``judge`` evaluates the data quality rules: Glue's evaluator, or ``judge_here``."""
    configure(spark)
    # S3 answers without a Region, Glue does not.
    clients = _Clients(boto3.client("s3"), boto3.client("glue", region_name=arguments.get("aws_region")))
    s3 = clients.s3
    contract = CompiledContract.from_json(read_text(s3, arguments["contract"]))
    report = Report(s3, f"{arguments['quality_uri']}{run_id}.json")
    report.update(workload=contract.name, raw_uri=arguments["raw_uri"], engine="spark")

    found = raw_files(clients, arguments)
    if "raw_catalog" in arguments:
        database, name = arguments["raw_catalog"].split(".", 1)
        new = partitions.register(clients.glue, database, name, (file.uri for file in found.files))
        report.update(partitions_registered=new)
    rows = read_rows(spark, s3, found, contract, report)
    good = rows.where(sf.size(transforms.REASONS) == 0).drop(transforms.REASONS)
    good = set_aside(s3, good, contract, report, uri=arguments.get("quarantine_uri"), run_id=run_id)
    keep = contract.batch.get("dedup", {}).get("keep", "latest_event")
    curated = transforms.with_month(transforms.newest(good, contract, keep), contract).persist()
    kept = curated.count()
    refused = report["rows_rejected"] + report["rows_quarantined"]
    report.update(duplicates_dropped=report["rows_read"] - refused - kept)
    report.look_for_personal_data(
        contract,
        lambda names, most: (row.asDict() for row in curated.select(*names).limit(most).collect()),
    )
    report.judged(judge(curated, contract))

    # A path of this run's own: what an earlier run left uncommitted can never get into this commit.
    uri = f"{arguments['curated_uri']}data/{run_id}/"
    table = curated_table(clients.glue, arguments, contract)
    months_before = iceberg.partitions(table)
    write(curated, uri, contract, iceberg.field_ids(table))
    snapshot = commit(s3, table, uri, kept, {"job-run-id": run_id, "contract": digest(contract)})
    months = iceberg.partitions(table)
    report.update(
        rows_written=kept,
        snapshot_id=str(snapshot),
        months=sorted(months),
        months_removed=sorted(months_before - months),
    )
    report.write()


def raw_files(clients: _Clients, arguments: Mapping[str, str]) -> Inspection:
    """The files of the raw zone: below its folder, or of the Iceberg table that ``raw_table`` names."""
    named = arguments.get("raw_table")
    if named is None:
        return inspect(clients.s3, arguments["raw_uri"])
    table = iceberg.open_table(iceberg.glue_catalog(clients.glue), iceberg.Place(*named.split(".", 1)))
    try:
        return inspect_files(clients.s3, iceberg.data_files(table))
    except iceberg.NoSnapshotError:
        return Inspection((), ())


def curated_table(glue: Any, arguments: Mapping[str, str], contract: CompiledContract) -> Table:
    """The curated Iceberg table, with every column of the contract."""
    place = iceberg.Place(arguments["curated_database"], arguments["curated_table"])
    table = iceberg.open_table(iceberg.glue_catalog(glue), place)
    return iceberg.evolve(table, contract.glue_columns())


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


def configure(spark: SparkSession) -> None:
    """Session settings that the job's meaning rests on."""
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    spark.conf.set("spark.sql.files.ignoreCorruptFiles", "false")
    # Iceberg knows no INT96, Spark's default, and reads its fields by id.
    spark.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
    spark.conf.set("spark.sql.parquet.fieldId.write.enabled", "true")
    spark.conf.set("mapreduce.fileoutputcommitter.marksuccessfuljobs", "false")


def read_rows(
    spark: SparkSession, s3: Any, found: Inspection, contract: CompiledContract, report: Report
) -> DataFrame:
    """Every row of every readable file, typed; what could not be read goes to the report.

    Counting decodes each file, so one that Spark cannot decode shows here: it is reported and left out.
    """
    files, unreadable = list(found.files), list(found.unreadable)
    while True:
        if not files:
            raise report.nothing(unreadable, report["raw_uri"])
        rows = transforms.union(
            [
                transforms.typed(spark.read.parquet(*(file.uri for file in group)), contract)
                for _, group in by_schema(files)
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
        report.update(counts)
        report.files(files, unreadable, contract)
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


def set_aside(
    s3: Any, rows: DataFrame, contract: CompiledContract, report: Report, *, uri: str | None, run_id: str
) -> DataFrame:
    """Rows that keep every rule whose severity is ``quarantine``; the others are written to ``uri``.

    Before one row per identifier is chosen: a bad version never takes the place of a good one.
    """
    rules = [
        rule
        for rule in parsed_rules(contract)
        if isinstance(rule, Rule) and row_rule(rule) and severity_of(rule, contract) == "quarantine"
    ]
    if not rules:
        return rows
    if uri is None:
        raise ValueError("a rule's severity is quarantine: quarantine_uri must be given")
    reasons = sf.array(*(sf.when(broken(rows, rule), sf.lit(rule.text)) for rule in rules))
    judged = rows.withColumn(BROKEN, sf.filter(reasons, lambda reason: reason.isNotNull()))
    bad = judged.where(sf.size(BROKEN) > 0).orderBy(sf.col("record_id").asc_nulls_last())
    count = quarantine.write(s3, uri, run_id, _lines(bad, contract))
    report.update(rows_quarantined=count, quarantine_uri=uri)
    return judged.where(sf.size(BROKEN) == 0).drop(BROKEN)


def _lines(frame: DataFrame, contract: CompiledContract) -> Iterator[str]:
    names = [column.name for column in contract.columns]
    # The arrival as text: a Python datetime of Spark's has no zone.
    arrival = sf.date_format(sf.col("received_at"), "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'")
    for row in frame.withColumn("received_at", arrival).toLocalIterator():
        yield quarantine.line(
            row["record_id"], row["received_at"], row[BROKEN], {name: row[name] for name in names}
        )


def judge_here(frame: DataFrame, contract: CompiledContract) -> list[RuleOutcome]:
    """Judge by our own evaluator, where the service has none."""
    rules = parsed_rules(contract)
    verdicts = evaluate(SparkEngine(frame.select(*_names(contract))), rules)
    return [
        RuleOutcome(
            rule.text,
            "Passed" if verdict.passed else "Failed",
            dict(verdict.metrics),
            verdict.reason,
            severity_of(rule, contract),
        )
        for rule, verdict in zip(rules, verdicts, strict=True)
    ]


def _names(contract: CompiledContract) -> Sequence[str]:
    return [name for name, _ in contract.glue_columns()]


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
