"""Chapter: what landed is cleaned, judged and turned into features, by the engine of the workload's scale."""

from __future__ import annotations

import math
import random
from typing import Any

from rehearsal.story.ingestion import read_parquet, read_raw
from rehearsal.story.lake import curated_table, read_curated, read_table
from rehearsal.story.tale import Tale
from rehearsal.story.telling import Evidence, Step, StoryError, require, wait_until

__all__ = ["STEPS", "curate"]

CHAPTER = "Process"
#: The start trigger of the workflow waits this long for more events (EventBatchingCondition.BatchWindow).
BATCH_WINDOW_MINUTES = 5
#: A Spark job of a rehearsal takes about ten seconds; a busy machine may need far more.
WORKFLOW_SECONDS = 900
SAMPLE = 40


def curate(tale: Tale, evidence: Evidence) -> dict[str, Any]:
    """Run the batch engine over everything that landed; return its data quality report."""
    outputs = tale.outputs("Data")
    # Landing may have started it already, while the rest of the delivery was waited for.
    reports: set[str] = tale.known.setdefault("quality reports told", set())
    evidence["engine"] = tale.workload.batch.scale
    if "WorkflowName" in outputs:
        _glue_runs(tale, evidence, outputs["WorkflowName"])
    else:
        _state_machine_runs(tale, evidence, outputs["BatchStateMachineArn"])
    fresh = [
        uri for uri in tale.cloud.objects.list(outputs["QualityUri"], suffix=".json") if uri not in reports
    ]
    require(fresh, f"the curate job wrote no report to {outputs['QualityUri']}")
    reports |= set(fresh)
    found = [tale.cloud.objects.read_json(uri) for uri in fresh]
    # Several runs may have read the same rows: the one that readers see was the last to commit.
    snapshot = curated_table(tale).current_snapshot()
    seen = None if snapshot is None else str(snapshot.snapshot_id)
    report: dict[str, Any] = max(found, key=lambda one: (one["rows_read"], one.get("snapshot_id") == seen))
    return report


def _started(tale: Tale, evidence: Evidence) -> bool:
    """Let what landed start the engine; False when nothing does."""
    if not tale.workload.batch.on_landing:
        evidence["started_by"] = "the operator"
        return False
    tale.cloud.advance(minutes=BATCH_WINDOW_MINUTES, seconds=5)
    evidence["started_by"] = "EventBridge: objects were created in the raw zone"
    return True


def _glue_runs(tale: Tale, evidence: Evidence, name: str) -> None:
    glue = tale.cloud.client("glue")
    before: set[str] = tale.known.setdefault("workflow runs told", set())
    if not _started(tale, evidence):
        glue.start_workflow_run(Name=name)

    def ended() -> list[dict[str, Any]] | None:
        new = [run for run in _runs(glue, name) if run["WorkflowRunId"] not in before]
        return new if new and all(run["Status"] != "RUNNING" for run in new) else None

    new = wait_until(f"the end of a run of workflow {name}", ended, seconds=WORKFLOW_SECONDS, every=0.5)
    evidence["runs"] = [
        {"run": run["WorkflowRunId"], "status": run["Status"], **_statistics(run)} for run in new
    ]
    for run in new:
        statistics = run.get("Statistics", {})
        bad = sum(statistics.get(key, 0) for key in ("FailedActions", "ErroredActions", "TimeoutActions"))
        require(
            run["Status"] == "COMPLETED" and not bad,
            f"run {run['WorkflowRunId']} of {name}: {_why(glue, name, run)}",
        )
    before |= {run["WorkflowRunId"] for run in new}


def _state_machine_runs(tale: Tale, evidence: Evidence, arn: str) -> None:
    machines = tale.cloud.client("stepfunctions")
    before: set[str] = tale.known.setdefault("executions told", set())
    if not _started(tale, evidence):
        machines.start_execution(stateMachineArn=arn, input="{}")

    def ended() -> list[dict[str, Any]] | None:
        found = machines.list_executions(stateMachineArn=arn)["executions"]
        new = [run for run in found if run["executionArn"] not in before]
        waiting = [run for run in new if run["status"] == "RUNNING"]
        if len(waiting) == 1:
            # The last one may be the one that waited for the others: it looks again every minute.
            tale.cloud.advance(minutes=1, seconds=5)
        return new if new and not waiting else None

    new = wait_until(f"the end of a run of {arn}", ended, seconds=WORKFLOW_SECONDS, every=1)
    evidence["runs"] = [{"run": run["name"], "status": run["status"]} for run in new]
    for run in new:
        if run["status"] != "SUCCEEDED":
            shown = machines.describe_execution(executionArn=run["executionArn"])
            raise StoryError(
                f"run {run['name']}: {run['status']}: {shown.get('cause') or shown.get('error')}"
            )
    before |= {run["executionArn"] for run in new}


def _runs(glue: Any, name: str) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = glue.get_workflow_runs(Name=name).get("Runs", [])
    return runs


def _statistics(run: dict[str, Any]) -> dict[str, Any]:
    statistics = run.get("Statistics", {})
    return {
        "actions": statistics.get("TotalActions"),
        "succeeded": statistics.get("SucceededActions"),
        "failed": statistics.get("FailedActions"),
    }


def _why(glue: Any, name: str, run: dict[str, Any]) -> str:
    """What the failed jobs and crawls of a run say."""
    graph = glue.get_workflow_run(Name=name, RunId=run["WorkflowRunId"], IncludeGraph=True)["Run"].get(
        "Graph", {}
    )
    said = []
    for node in graph.get("Nodes", ()):
        for job in node.get("JobDetails", {}).get("JobRuns", ()):
            if job.get("ErrorMessage"):
                said.append(f"{node['Name']}: {job['ErrorMessage']}")
        for crawl in node.get("CrawlerDetails", {}).get("Crawls", ()):
            if crawl.get("ErrorMessage"):
                said.append(f"{node['Name']}: {crawl['ErrorMessage']}")
    return "; ".join(said) or f"{run['Status']}, {run.get('Statistics')}"


def _curate(tale: Tale, evidence: Evidence) -> None:
    report = curate(tale, evidence)
    tale.known["quality"] = report
    evidence |= {k: report[k] for k in ("rows_read", "rows_written", "late")}
    check_curated(tale, evidence, report)


def check_curated(tale: Tale, evidence: Evidence, report: dict[str, Any]) -> None:
    """Every delivered record is in the curated zone, once, in its latest version."""
    identifier = tale.contract.identifier
    raw = read_raw(tale, [identifier, "record_id"])
    delivered = set(raw[identifier].to_pylist())
    versions = set(raw["record_id"].to_pylist())
    table = curated_table(tale)
    curated = read_table(table, [identifier])[identifier].to_pylist()
    records = tale.report.records
    # The very bytes of another record are a duplicate; other bytes under its identifier are a later version.
    records["duplicates_dropped"] = raw.num_rows - len(versions)
    records["replaced"] = len(versions) - len(delivered)
    snapshot = table.current_snapshot()
    require(
        snapshot is not None and str(snapshot.snapshot_id) == report["snapshot_id"],
        f"the job reports snapshot {report['snapshot_id']}, readers see {snapshot and snapshot.snapshot_id}",
    )
    evidence |= {
        "curated_rows": len(curated),
        "snapshot": report["snapshot_id"],
        "snapshots_kept": len(table.snapshots()),
        "duplicates_dropped": records["duplicates_dropped"],
        "replaced_by_a_later_version": records["replaced"],
    }
    require(
        len(curated) == len(set(curated)), f"{len(curated) - len(set(curated))} records are curated twice"
    )
    require(
        set(curated) == delivered,
        f"{len(delivered - set(curated))} delivered records are not in the curated zone",
    )
    require(
        report["rows_written"] == len(curated),
        f"the job reports {report['rows_written']} rows, there are {len(curated)}",
    )
    require(
        report["duplicates_dropped"] == raw.num_rows - len(delivered),
        f"the job reports {report['duplicates_dropped']} dropped rows, "
        f"{raw.num_rows} delivered rows hold {len(delivered)} records",
    )


def _crawl(tale: Tale, evidence: Evidence) -> None:
    outputs = tale.outputs("Data")
    glue = tale.cloud.client("glue")
    if "CrawlerName" in outputs:
        crawler = glue.get_crawler(Name=outputs["CrawlerName"])["Crawler"]
        last = crawler.get("LastCrawl", {})
        evidence |= {"crawler": crawler["Name"], "last_crawl": last.get("Status")}
        require(
            last.get("Status") == "SUCCEEDED", f"crawler {crawler['Name']}: {last.get('ErrorMessage', last)}"
        )
    else:
        evidence["entered_by"] = "the curate job itself"
    environment = tale.stage.lower()
    database = f"{environment}_raw"
    partitions = glue.get_partitions(DatabaseName=database, TableName=tale.workload.name)["Partitions"]
    evidence |= {"table": f"{database}.{tale.workload.name}", "partitions": [p["Values"] for p in partitions]}
    require(partitions, f"nothing added a partition to {database}.{tale.workload.name}")


def _quality(tale: Tale, evidence: Evidence) -> None:
    report = tale.known["quality"]
    outcomes = [rule["outcome"] for rule in report["rules"]]
    evidence |= {
        "judged_by": "AWS Glue" if tale.workload.batch.scale == "medium" else "the engine's own evaluator",
        "warnings": report.get("warnings", []),
        "rules": len(outcomes),
        "passed": sum(1 for o in outcomes if o.lower().startswith("pass")),
        "some_rules": report["rules"][:8],
    }
    require(outcomes, "no data quality rule was evaluated")
    failed = [
        rule
        for rule in report["rules"]
        if not rule["outcome"].lower().startswith("pass") and rule["severity"] != "warn"
    ]
    require(report["passed"], f"data quality failed: {failed[:3]}")


def _features(tale: Tale, evidence: Evidence) -> None:
    import polars as pl
    from ml_contract.features.row import row_function
    from ml_contract.windows.engines import with_windows

    outputs = tale.outputs("Data")
    contract = tale.contract
    table = read_curated(tale)
    if contract.windows is not None:
        # What a caller would bring along, by another engine than the one that is compared.
        table = with_windows(pl.DataFrame(pl.from_arrow(table)), contract).to_arrow()
    curated = {r[contract.identifier]: r for r in table.to_pylist()}
    features = read_parquet(tale, outputs["FeaturesDataUri"]).to_pylist()
    tale.known["features"] = {row[contract.identifier]: row for row in features}
    names = [feature.name for feature in contract.features]
    evidence |= {"rows": len(features), "features": len(names)}
    require(len(features) == len(curated), f"{len(curated)} curated rows made {len(features)} feature rows")
    compute = row_function(contract)
    sample = random.Random(tale.seed).sample(features, min(SAMPLE, len(features)))  # noqa: S311
    different = []
    for row in sample:
        online = compute(curated[row[contract.identifier]])
        different += [n for n in names if not _equal(row[n], online[n])]
    evidence["rows_compared_with_the_serving_path"] = len(sample)
    evidence["values_compared"] = len(sample) * len(names)
    require(not different, f"the batch engine and the serving path differ in {sorted(set(different))}")


def _equal(left: object, right: object) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return (
            left == right or (math.isnan(left) and math.isnan(right)) or abs(left - right) <= 1e-9 * abs(left)
        )
    return left == right


def _feature_store(tale: Tale, evidence: Evidence) -> None:
    group = tale.outputs("Data")["FeatureGroupName"]
    described = tale.cloud.client("sagemaker").describe_feature_group(FeatureGroupName=group)
    runtime = tale.cloud.client("sagemaker-featurestore-runtime")
    rows: dict[str, dict[str, Any]] = tale.known["features"]
    sample = random.Random(tale.seed).sample(sorted(rows, key=str), min(SAMPLE, len(rows)))  # noqa: S311
    for identifier in sample:
        answer = runtime.get_record(FeatureGroupName=group, RecordIdentifierValueAsString=str(identifier))
        found = {f["FeatureName"]: f["ValueAsString"] for f in answer.get("Record", ())}
        require(found, f"the online store of {group} has no record of a curated identifier")
        for name, value in rows[identifier].items():
            if value is None:
                continue
            got = found.get(name)
            same = got == str(value) or (isinstance(value, float) and got is not None and float(got) == value)
            require(same, f"online store: {name} is {got!r}, the features zone says {value!r}")
    offline = described["OfflineStoreConfig"]["S3StorageConfig"]
    where = offline.get("ResolvedOutputS3Uri", offline["S3Uri"])
    objects = tale.cloud.objects.list(where)
    evidence |= {
        "feature_group": group,
        "definitions": len(described["FeatureDefinitions"]),
        "records_read_online": len(sample),
        "offline_store": where,
        "offline_objects": len(objects),
    }
    if not objects:
        raise StoryError(f"the offline store is empty below {where}")


STEPS = (
    Step(
        id="curate",
        title="Landing starts the batch engine: type, clean, drop duplicates",
        chapter=CHAPTER,
        run=_curate,
        capabilities=lambda w: {
            "small": ("batch.workflow",),
            "medium": ("process.spark", "process.workflow"),
            "large": ("process.spark", "process.emr", "batch.workflow"),
        }[w.batch.scale],
    ),
    Step(
        id="crawl",
        title="The catalog knows the new partitions",
        chapter=CHAPTER,
        run=_crawl,
        capabilities=lambda w: ("process.crawler",) if w.batch.scale == "medium" else (),
        # An Iceberg table has its partitions in its own metadata.
        applies=lambda w: w.stream.format == "parquet",
    ),
    Step(
        id="quality",
        title="Data quality rules from the contract hold",
        chapter=CHAPTER,
        run=_quality,
        capabilities=lambda _: ("process.quality",),
    ),
    Step(
        id="features",
        title="Features are built, equal to what serving computes",
        chapter=CHAPTER,
        run=_features,
        capabilities=lambda _: ("feature.parity",),
    ),
    Step(
        id="feature-store",
        title="Features are in the Feature Store, online and offline",
        chapter=CHAPTER,
        run=_feature_store,
        capabilities=lambda _: ("feature.online", "feature.offline"),
    ),
)
