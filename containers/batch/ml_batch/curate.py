"""Raw zone to curated table: the same steps, report and commit as ``glue/curate``."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
from lake_files import iceberg, partitions, quarantine
from lake_files.drift import by_schema
from lake_files.objects import read_text
from lake_files.parquet import Inspection, inspect, inspect_files, undecodable
from lake_files.report import EXAMPLES, Report, RuleOutcome, digest
from ml_contract.compiled import CompiledContract
from ml_contract.quality.dqdl import Rule
from ml_contract.quality.on_polars import PolarsEngine, broken
from ml_contract.quality.rules import parsed_rules, row_rule, severity_of
from ml_contract.quality.verdicts import evaluate

from ml_batch import transforms
from ml_batch.store import fetch, glue_client, s3_client, scratch, store
from ml_batch.transforms import MONTH, REASONS, ROW

#: No curated file grows without bound; a month may span several.
ROWS_PER_FILE = 2_000_000
#: Names of broken rules, beside a quarantined row.
BROKEN = "_broken"


def curate(arguments: dict[str, str]) -> None:
    """Run the job."""
    s3 = s3_client()
    contract = CompiledContract.from_json(read_text(s3, arguments["contract"]))
    run_id = arguments["run_id"]
    report = Report(s3, f"{arguments['quality_uri']}{run_id}.json")
    report.update(workload=contract.name, raw_uri=arguments["raw_uri"], engine="polars")

    found = raw_files(s3, arguments)
    if "raw_catalog" in arguments:
        database, name = arguments["raw_catalog"].split(".", 1)
        glue = glue_client(arguments.get("aws_region"))
        new = partitions.register(glue, database, name, (file.uri for file in found.files))
        report.update(partitions_registered=new)
    rows = read_rows(s3, found, contract, report)
    good = rows.filter(pl.col(REASONS).list.len() == 0).drop(REASONS)
    good = set_aside(s3, good, contract, report, uri=arguments.get("quarantine_uri"), run_id=run_id)
    folder = scratch("curated")
    kept = write(good, folder, contract)
    refused = report["rows_rejected"] + report["rows_quarantined"]
    report.update(duplicates_dropped=report["rows_read"] - refused - kept)
    report.look_for_personal_data(
        contract,
        lambda names, most: sample(folder, names, most),
    )
    report.judged(judge(folder, contract))

    # A path of this run's own: what an earlier run left uncommitted can never get into this commit.
    uri = f"{arguments['curated_uri']}data/{run_id}/"
    catalog = iceberg.glue_catalog(glue_client(arguments.get("aws_region")))
    place = iceberg.Place(arguments["curated_database"], arguments["curated_table"])
    table = iceberg.evolve(iceberg.open_table(catalog, place), contract.glue_columns())
    before = iceberg.partitions(table)
    snapshot = iceberg.replace_rows(
        table, store(s3, folder, uri), properties={"job-run-id": run_id, "contract": digest(contract)}
    )
    months = iceberg.partitions(table)
    report.update(
        rows_written=kept,
        snapshot_id=str(snapshot.snapshot_id),
        months=sorted(months),
        months_removed=sorted(before - months),
    )
    report.write()


def raw_files(s3: Any, arguments: Mapping[str, str]) -> Inspection:
    """The files of the raw zone: below its folder, or of the Iceberg table that ``raw_table`` names."""
    named = arguments.get("raw_table")
    if named is None:
        return inspect(s3, arguments["raw_uri"])
    catalog = iceberg.glue_catalog(glue_client(arguments.get("aws_region")))
    table = iceberg.open_table(catalog, iceberg.Place(*named.split(".", 1)))
    try:
        return inspect_files(s3, iceberg.data_files(table))
    except iceberg.NoSnapshotError:
        return Inspection((), ())


def read_rows(s3: Any, found: Inspection, contract: CompiledContract, report: Report) -> pl.LazyFrame:
    """Every row of every readable file, typed and numbered; what could not be read goes to the report.

    Typing decodes each file, so one that cannot be decoded shows here: it is reported and left out.
    """
    files, unreadable = list(found.files), list(found.unreadable)
    while True:
        if not files:
            raise report.nothing(unreadable, report["raw_uri"])
        folder = scratch("raw")
        local = dict(zip(files, fetch(s3, [file.uri for file in files], folder), strict=True))
        parts = [
            transforms.typed(
                pl.scan_parquet([local[file] for file in group], hive_partitioning=False), contract
            )
            for _, group in by_schema(files)
        ]
        typed = folder / "typed.parquet"
        try:
            pl.concat(parts).with_row_index(ROW).sink_parquet(typed, compression="lz4")
        except (pl.exceptions.PolarsError, OSError) as error:
            culprits = undecodable(s3, files)
            if not culprits:
                raise
            print(f"read again without {len(culprits)} files: {error}")
            bad = {culprit.uri for culprit in culprits}
            files = [file for file in files if file.uri not in bad]
            unreadable.extend(culprits)
            continue
        for path in local.values():
            path.unlink()
        rows = pl.scan_parquet(typed)
        report.update(_count(rows, contract))
        report.files(files, unreadable, contract)
        return rows


def _count(rows: pl.LazyFrame, contract: CompiledContract) -> dict[str, Any]:
    rejected = pl.col(REASONS).list.len() > 0
    counts: dict[str, Any] = _collect(
        rows.select(
            rows_read=pl.len(),
            rows_rejected=rejected.sum(),
            late=(~rejected & transforms.late(contract)).sum(),
        )
    ).row(0, named=True)
    if counts["rows_rejected"]:
        examples = rows.filter(rejected).select("record_id", REASONS)
        examples = examples.sort("record_id", pl.col(REASONS).list.join("\n")).head(EXAMPLES)
        counts["rejected"] = [
            {"record_id": example["record_id"], "reasons": example[REASONS]}
            for example in _collect(examples).iter_rows(named=True)
        ]
    return counts


def set_aside(
    s3: Any,
    rows: pl.LazyFrame,
    contract: CompiledContract,
    report: Report,
    *,
    uri: str | None,
    run_id: str,
) -> pl.LazyFrame:
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
    schema = rows.collect_schema()
    reasons = [pl.when(broken(schema, rule)).then(pl.lit(rule.text)) for rule in rules]
    judged = rows.with_columns(pl.concat_list(reasons).list.drop_nulls().alias(BROKEN))
    bad = judged.filter(pl.col(BROKEN).list.len() > 0).drop(ROW).sort("record_id", nulls_last=True)
    count = quarantine.write(s3, uri, run_id, _lines(_collect(bad), contract))
    report.update(rows_quarantined=count, quarantine_uri=uri)
    return judged.filter(pl.col(BROKEN).list.len() == 0).drop(BROKEN)


def _lines(frame: pl.DataFrame, contract: CompiledContract) -> Iterator[str]:
    names = [column.name for column in contract.columns]
    for row in frame.iter_rows(named=True):
        received = row["received_at"]
        yield quarantine.line(
            row["record_id"],
            None if received is None else quarantine.moment(received),
            row[BROKEN],
            {name: row[name] for name in names},
        )


def write(rows: pl.LazyFrame, folder: pathlib.Path, contract: CompiledContract) -> int:
    """Write one row per identifier below ``folder``, a month in each file; returns their number."""
    winners = transforms.newest_rows(
        rows, contract, contract.batch.get("dedup", {}).get("keep", "latest_event")
    )
    chosen = _collect(winners)
    kept = rows.join(chosen.lazy(), on=ROW, how="semi").drop(ROW)
    unsorted = scratch("months")
    transforms.with_month(kept, contract).sink_parquet(
        pl.PartitionBy(unsorted, key=MONTH, include_key=False), compression="lz4", mkdir=True
    )
    for month in sorted(path for path in unsorted.iterdir() if path.is_dir()):
        target = folder / month.name
        target.mkdir()
        pl.scan_parquet(month / "*.parquet", hive_partitioning=False).sort(contract.identifier).sink_parquet(
            pl.PartitionBy(target, max_rows_per_file=ROWS_PER_FILE), compression="zstd", mkdir=True
        )
    return chosen.height


def sample(folder: pathlib.Path, names: list[str], most: int) -> list[dict[str, object]]:
    """Some rows below ``folder``, none when there are none."""
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        return []
    rows = pl.scan_parquet(files, hive_partitioning=False).select(names).head(most).collect()
    return rows.to_dicts()


def judge(folder: pathlib.Path, contract: CompiledContract) -> list[RuleOutcome]:
    """Judge the rows below ``folder`` by every rule of the contract."""
    rules = parsed_rules(contract)
    files = sorted(folder.rglob("*.parquet"))
    rows = (
        pl.scan_parquet(files, hive_partitioning=False)
        if files
        else pl.LazyFrame(schema={name: transforms.TYPES[kind] for name, kind in contract.glue_columns()})
    )
    verdicts = evaluate(PolarsEngine(rows), rules)
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


def _collect(frame: pl.LazyFrame) -> pl.DataFrame:
    found = frame.collect(engine="streaming")
    if not isinstance(found, pl.DataFrame):
        raise TypeError(f"expected a table, got {type(found).__name__}")
    return found
