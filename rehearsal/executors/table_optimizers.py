"""AWS Glue's table optimizers: what they do to an Iceberg table is done, once a day of the rehearsal's clock.

Snapshots expire, and the files that only they named go; files that no snapshot ever named go; small files of
a partition become one. All of it as the optimizer's role, so that a missing grant fails the run as it would
in an account.

Files and snapshots carry the wall clock's time, which the rehearsal's clock runs ahead of. So their age
counts from the first daily look that saw them: they may stay a day longer, and never go too soon.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from rehearsal.clock import Due
from rehearsal.executors.glue import assumed_role
from rehearsal.services.engine import ApiError, instead

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from rehearsal.runtime import Runtime
    from rehearsal.services.engine import Call, Record, Service

__all__ = ["TITLE", "install"]

#: Every run of an optimizer on the clock begins with these words.
TITLE = "table optimizer"
#: What Glue takes where nothing is said (Glue API: IcebergRetentionConfiguration and its siblings).
_SNAPSHOT_DAYS, _SNAPSHOTS_KEPT, _ORPHAN_DAYS, _COMPACT_FILES, _HOURS = 5, 1, 3, 100, 24
_KEPT_RUNS = 50
_DELETE_BATCH = 1_000


def _name(p: Mapping[str, Any]) -> str:
    return f"{p['DatabaseName']}/{p['TableName']}/{p['Type']}"


def _record(service: Service, p: Mapping[str, Any]) -> Record:
    found = service.peek("TableOptimizer", _name(p))
    if found is None:
        raise ApiError("EntityNotFoundException", f"there is no {p['Type']} optimizer of {_name(p)}")
    return found


@instead("glue", "CreateTableOptimizer")
def _create(service: Service, call: Call) -> dict[str, Any]:
    p = call.params
    table = service.runtime.client("glue", region=service.region)
    try:
        found = table.get_table(DatabaseName=p["DatabaseName"], Name=p["TableName"])["Table"]
    except ClientError as error:
        raise ApiError(error.response["Error"]["Code"], error.response["Error"]["Message"]) from error
    if found.get("Parameters", {}).get("table_type", "").upper() != "ICEBERG":
        raise ApiError("InvalidInputException", f"{_name(p)}: optimizers work on Iceberg tables only")
    if service.peek("TableOptimizer", _name(p)) is not None:
        raise ApiError("AlreadyExistsException", f"there is a {p['Type']} optimizer of {_name(p)} already")
    assumed_role(service, p["TableOptimizerConfiguration"]["roleArn"])
    service.put("TableOptimizer", _name(p), {**p, "Runs": []})
    return {}


@instead("glue", "UpdateTableOptimizer")
def _update(service: Service, call: Call) -> dict[str, Any]:
    configuration = call.params["TableOptimizerConfiguration"]
    assumed_role(service, configuration["roleArn"])
    service.update(_record(service, call.params), TableOptimizerConfiguration=configuration)
    return {}


@instead("glue", "DeleteTableOptimizer")
def _delete(service: Service, call: Call) -> dict[str, Any]:
    service.remove("TableOptimizer", _record(service, call.params).name)
    return {}


@instead("glue", "GetTableOptimizer")
def _get(service: Service, call: Call) -> dict[str, Any]:
    record = _record(service, call.params)
    shown = {"type": record.data["Type"], "configuration": record.data["TableOptimizerConfiguration"]}
    if record.data["Runs"]:
        shown["lastRun"] = record.data["Runs"][-1]
    place = {key: record.data[key] for key in ("CatalogId", "DatabaseName", "TableName")}
    return {**place, "TableOptimizer": shown}


@instead("glue", "ListTableOptimizerRuns")
def _list_runs(service: Service, call: Call) -> dict[str, Any]:
    record = _record(service, call.params)
    place = {key: record.data[key] for key in ("CatalogId", "DatabaseName", "TableName")}
    return {**place, "TableOptimizerRuns": record.data["Runs"][::-1]}


# -- when they run ------------------------------------------------------------------------------------------


class OptimizerClock:
    """Due work of the clock: each enabled optimizer, once a day from when it was made."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def next_due(self, after: datetime) -> Sequence[Due]:
        """The optimizers that run next."""
        found: list[Due] = []
        for service in self._runtime.services():
            if service.name != "glue":
                continue
            with service.lock:
                records = list(service.records.get("TableOptimizer", {}).values())
            for record in records:
                if record.data["TableOptimizerConfiguration"].get("enabled", True):
                    found.append(self._due(service, record, after))
        if not found:
            return ()
        earliest = min(due.when for due in found)
        return [due for due in found if due.when == earliest]

    def _due(self, service: Service, record: Record, after: datetime) -> Due:
        every = timedelta(hours=_settings(record).get("runRateInHours", _HOURS))
        passed = max(0, math.floor((after - record.created) / every))
        title = f"{TITLE} {record.name}"

        def run() -> None:
            self._runtime.background(title, optimize, service, record)

        return Due(when=record.created + (passed + 1) * every, title=title, run=run)


def install(runtime: Runtime) -> None:
    """Run optimizers on the rehearsal's clock."""
    runtime.clock.add_source(OptimizerClock(runtime))


def _settings(record: Record) -> dict[str, Any]:
    """What is said of Iceberg tables in the configuration of the optimizer's kind."""
    configuration = record.data["TableOptimizerConfiguration"]
    names = {
        "retention": "retentionConfiguration",
        "orphan_file_deletion": "orphanFileDeletionConfiguration",
        "compaction": "compactionConfiguration",
    }
    found: dict[str, Any] = configuration.get(names[record.data["Type"]], {}).get("icebergConfiguration", {})
    return found


# -- what they do -------------------------------------------------------------------------------------------


def optimize(service: Service, record: Record) -> None:
    """One run: what it did stands in the list of runs and in the ledger."""
    runtime, kind = service.runtime, record.data["Type"]
    role = record.data["TableOptimizerConfiguration"]["roleArn"]
    run: dict[str, Any] = {"eventType": "in_progress", "startTimestamp": runtime.clock.now()}
    from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, ValidationException

    try:
        table = _table(service, record, role)
        work = {"retention": _expire, "orphan_file_deletion": _remove_orphans, "compaction": _compact}[kind]
        metrics = work(service, record, role, table)
    except (
        ClientError,
        BotoCoreError,
        OSError,
        NoSuchTableError,
        CommitFailedException,
        ValidationException,
    ) as error:
        run |= {"eventType": "failed", "error": str(error)[:1_000]}
        runtime.ledger.failed("table-optimizer", record.name, str(error))
    else:
        name = {
            "retention": "retentionMetrics",
            "orphan_file_deletion": "orphanFileDeletionMetrics",
            "compaction": "compactionMetrics",
        }[kind]
        run |= {"eventType": "completed", name: {"IcebergMetrics": metrics}}
        runtime.ledger.ran("table-optimizer", record.name, **metrics)
    run["endTimestamp"] = runtime.clock.now()
    service.update(record, Runs=[*record.data["Runs"], run][-_KEPT_RUNS:])
    actions = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")
    group = f"/aws-glue/iceberg-{kind.replace('_', '-')}/logs"
    arn = f"arn:aws:logs:{service.region}:{service.account}:log-group:{group}:log-stream:{record.name}"
    runtime.authorizer.note_service_use(role, actions, arn, service.region)


def _table(service: Service, record: Record, role: str) -> Table:
    from pyiceberg.catalog.glue import GlueCatalog

    given = service.runtime.role_environment(role, service.region)
    catalog = GlueCatalog(
        "glue",
        client=service.runtime.client("glue", role=role, region=service.region),
        **{
            "s3.region": service.region,
            "s3.endpoint": service.runtime.endpoint,
            "s3.access-key-id": given["AWS_ACCESS_KEY_ID"],
            "s3.secret-access-key": given["AWS_SECRET_ACCESS_KEY"],
            "s3.session-token": given["AWS_SESSION_TOKEN"],
        },
    )
    return catalog.load_table((record.data["DatabaseName"], record.data["TableName"]))


def _named(table: Table, snapshots: Iterable[Any]) -> dict[str, str]:
    """Every file that the snapshots name, and what it is: ``data``, ``manifest`` or ``list``."""
    found: dict[str, str] = {}
    for snapshot in snapshots:
        found[snapshot.manifest_list] = "list"
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path in found:
                continue
            found[manifest.manifest_path] = "manifest"
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
                found[entry.data_file.file_path] = "data"
    return found


def _older(service: Service, record: Record, names: Iterable[str], days: int) -> set[str]:
    """Those of the names that were seen ``days`` ago or earlier."""
    now = service.runtime.clock.now()
    before: Mapping[str, datetime] = record.data.get("Seen", {})
    seen = {name: before.get(name, now) for name in names}
    service.update(record, Seen=seen)
    # Looks are a day apart, give or take what a look takes.
    age = timedelta(days=days) - timedelta(hours=1)
    return {name for name, first in seen.items() if now - first >= age}


def _expire(service: Service, record: Record, role: str, table: Table) -> dict[str, Any]:
    """Expire snapshots by age, save the newest ones; remove the files that only they named."""
    settings = _settings(record)
    days = settings.get("snapshotRetentionPeriodInDays", _SNAPSHOT_DAYS)
    kept_least = settings.get("numberOfSnapshotsToRetain", _SNAPSHOTS_KEPT)
    snapshots = sorted(table.snapshots(), key=lambda one: one.timestamp_ms)
    newest = {one.snapshot_id for one in snapshots[-kept_least:]}
    heads = {reference.snapshot_id for reference in table.refs().values()}
    old = _older(service, record, (str(one.snapshot_id) for one in snapshots), days)
    doomed = [
        one for one in snapshots if str(one.snapshot_id) in old and one.snapshot_id not in newest | heads
    ]
    gone: dict[str, str] = {}
    if doomed:
        named = _named(table, doomed)
        table.maintenance.expire_snapshots().by_ids([one.snapshot_id for one in doomed]).commit()
        table.refresh()
        if settings.get("cleanExpiredFiles", False):
            still = _named(table, table.snapshots())
            gone = {uri: kind for uri, kind in named.items() if uri not in still}
            _remove(service, role, gone)
    counts = {kind: sum(1 for one in gone.values() if one == kind) for kind in ("data", "manifest", "list")}
    return {
        "NumberOfDataFilesDeleted": counts["data"],
        "NumberOfManifestFilesDeleted": counts["manifest"],
        "NumberOfManifestListsDeleted": counts["list"],
    }


def _remove_orphans(service: Service, record: Record, role: str, table: Table) -> dict[str, Any]:
    """Remove old files below the table that no snapshot and no metadata file names."""
    settings = _settings(record)
    days = settings.get("orphanFileRetentionPeriodInDays", _ORPHAN_DAYS)
    known = set(_named(table, table.snapshots()))
    known |= {table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)}
    location = str(settings.get("location", table.location())).rstrip("/")
    bucket, _, prefix = location.split("://", 1)[1].partition("/")
    unnamed = [uri for uri in _objects(service, role, bucket, f"{prefix}/") if uri not in known]
    orphans = sorted(_older(service, record, unnamed, days))
    _remove(service, role, orphans)
    return {"NumberOfOrphanFilesDeleted": len(orphans)}


def _compact(service: Service, record: Record, role: str, table: Table) -> dict[str, Any]:
    """Rewrite the files of a table that has a partition of many files, or files with deleted rows."""
    del service, role
    from collections import Counter

    from pyiceberg.expressions import AlwaysTrue

    least = _settings(record).get("minInputFiles", _COMPACT_FILES)
    tasks = [] if table.current_snapshot() is None else list(table.scan().plan_files())
    partitions = Counter((task.file.spec_id, repr(task.file.partition)) for task in tasks)
    crowded = any(count >= least for count in partitions.values())
    if not crowded and not any(task.delete_files for task in tasks):
        return {"NumberOfFilesCompacted": 0, "NumberOfBytesCompacted": 0}
    rows = table.scan().to_arrow()
    table.overwrite(rows, overwrite_filter=AlwaysTrue(), snapshot_properties={"rehearsal": "compaction"})
    return {
        "NumberOfFilesCompacted": len(tasks),
        "NumberOfBytesCompacted": sum(task.file.file_size_in_bytes for task in tasks),
    }


def _objects(service: Service, role: str, bucket: str, prefix: str) -> Iterator[str]:
    s3 = service.runtime.client("s3", role=role, region=service.region)
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", ()):
            yield f"s3://{bucket}/{item['Key']}"


def _remove(service: Service, role: str, uris: Iterable[str]) -> None:
    s3 = service.runtime.client("s3", role=role, region=service.region)
    by_bucket: dict[str, list[str]] = {}
    for uri in uris:
        bucket, _, key = uri.split("://", 1)[1].partition("/")
        by_bucket.setdefault(bucket, []).append(key)
    for bucket, keys in by_bucket.items():
        for start in range(0, len(keys), _DELETE_BATCH):
            batch = [{"Key": key} for key in keys[start : start + _DELETE_BATCH]]
            errors = s3.delete_objects(Bucket=bucket, Delete={"Objects": batch}).get("Errors")
            if errors:
                raise OSError(f"{bucket}: {errors[0].get('Key')}: {errors[0].get('Message')}")
