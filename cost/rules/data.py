"""What is kept and what moves it: buckets, keys, tables, Glue, optimizers, file systems, warehouses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from cost.assembly import Resource
from cost.load import DAYS, HOURS
from cost.rules.base import Context, Usage, priced

#: DPUs of one worker (AWS Glue, "Worker types").
DPU_PER_WORKER: Final[Mapping[str, float]] = {
    "G.025X": 0.25,
    "G.1X": 1,
    "G.2X": 2,
    "G.4X": 4,
    "G.8X": 8,
    "Standard": 1,
}
#: DPUs of a crawler and of an optimizer run (AWS Glue pricing).
CRAWLER_DPU, OPTIMIZER_DPU = 2, 1
#: Zones that hold a copy of the records: raw as Parquet, curated, features.
COPIES_IN = re.compile(r"(Raw|Curated|Features)Bucket")


@priced("AWS::KMS::Key", "AWS::KMS::ReplicaKey")
def key(resource: Resource, context: Context) -> Iterator[Usage]:
    """A month of the key; its first two rotations add one dollar each."""
    yield Usage(price="kms.key", quantity=1, why="the key; each of its first two rotations adds as much")


@priced("AWS::S3::Bucket")
def bucket(resource: Resource, context: Context) -> Iterator[Usage]:
    """A third of the records' size (Parquet) in each of three zones, for the months that are assumed."""
    if COPIES_IN.search(resource.id) is None:
        return
    for name, load in context.loads.items():
        gb = load.records * load.record_bytes / 3 / 1024**3 * context.assumptions.months_kept
        yield Usage(
            price="s3.kept",
            quantity=gb,
            why=f"{name}: Parquet of {context.assumptions.months_kept} months",
            state="load",
        )


@priced("AWS::SecretsManager::Secret")
def secret(resource: Resource, context: Context) -> Iterator[Usage]:
    """A month of the secret."""
    yield Usage(price="secrets.secret", quantity=1, why="the secret")


@priced("AWS::DynamoDB::Table", "AWS::DynamoDB::GlobalTable")
def table(resource: Resource, context: Context) -> Iterator[Usage]:
    """On demand: nothing while nobody reads or writes, and little is kept."""
    if resource.text("BillingMode") != "PAY_PER_REQUEST":
        yield Usage(price="dynamodb.provisioned", quantity=1, why="provisioned capacity")


@priced("AWS::Glue::TableOptimizer")
def optimizer(resource: Resource, context: Context) -> Iterator[Usage]:
    """A minute of a DPU a day while the table changes."""
    hours = context.assumptions.optimizer_minutes / 60 * DAYS * OPTIMIZER_DPU
    yield Usage(price="glue.dpu", quantity=hours, why="a daily look while the table changes", state="load")


def job_dpu_hours(job: Resource, context: Context) -> float:
    """DPU-hours of one run of a Glue job."""
    workers = int(job.properties.get("NumberOfWorkers", 2))
    per_worker = DPU_PER_WORKER.get(job.text("WorkerType") or "G.1X", 1)
    return workers * per_worker * context.assumptions.glue_minutes / 60


def crawler_dpu_hours(context: Context) -> float:
    """DPU-hours of one run of a crawler."""
    return CRAWLER_DPU * context.assumptions.crawler_minutes / 60


@priced("AWS::Glue::Job", "AWS::Glue::Crawler")
def on_schedule(resource: Resource, context: Context) -> Iterator[Usage]:
    """Billed where a schedule starts it."""
    yield from ()


@priced("AWS::EFS::FileSystem")
def shared_files(resource: Resource, context: Context) -> Iterator[Usage]:
    """Empty at first."""
    yield Usage(price="efs.kept", quantity=0, why="what is kept; empty at first", state="load")


@priced("AWS::FSx::FileSystem")
def lustre(resource: Resource, context: Context) -> Iterator[Usage]:
    """GB of capacity, used or not."""
    settings = resource.properties.get("LustreConfiguration", {})
    kind = settings.get("PerUnitStorageThroughput", 125)
    yield Usage(
        price=f"fsx.lustre:{kind}",
        quantity=float(resource.properties["StorageCapacity"]),
        why="capacity, used or not",
    )


@priced("AWS::RedshiftServerless::Workgroup")
def warehouse(resource: Resource, context: Context) -> Iterator[Usage]:
    """RPUs while a query runs: an hour a working day."""
    rpu = float(resource.properties.get("BaseCapacity", 128))
    yield Usage(price="redshift.rpu", quantity=rpu * 21, why="an hour a working day", state="load")


@priced("AWS::OpenSearchServerless::Collection")
def collection(resource: Resource, context: Context) -> Iterator[Usage]:
    """OCUs that are always there: half for indexing and half for search, twice with standby replicas."""
    ocus = 1 if resource.text("StandbyReplicas") == "DISABLED" else 2
    yield Usage(price="opensearch.ocu", quantity=HOURS * ocus, why=f"{ocus} OCU at least")


@priced("AWS::DMS::ReplicationConfig")
def replication(resource: Resource, context: Context) -> Iterator[Usage]:
    """Capacity units while it replicates."""
    yield Usage(price="dms.serverless", quantity=HOURS, why="capacity units while it replicates")


@priced("AWS::QuickSight::Dashboard", "AWS::QuickSight::DataSet", "AWS::QuickSight::DataSource")
def dashboards(resource: Resource, context: Context) -> Iterator[Usage]:
    """Readers and authors are billed, in the account that subscribed."""
    if resource.type == "AWS::QuickSight::Dashboard":
        yield Usage(price="quicksight.reader", quantity=1, why="readers who open it", state="load")
